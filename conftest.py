"""What all tests share: the marks of notebooks and of what needs the machine for itself, and names for doctests."""

import pytest
from browser import CHROMIUM

# They look at times, at memory, or at what servers and ranks leave behind; all others run two at a time.
ALONE = {
    "test_client.py", "test_faults.py", "test_generation_faults.py", "test_interrupts.py", "test_measuring.py",
    "test_peak_memory.py", "test_probing.py", "test_safety.py", "test_soak.py",
    "test_first_notebook.py", "test_hosts.py", "test_jupyterlab.py", "test_kernel.py", "test_lab.py", "test_readme.py",
    "test_saved_notebook.py",
}  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if CHROMIUM and any(item.path.name == "test_first_notebook.py" for item in items):
        # Where there is a browser the first notebook is run in it, as a newcomer does: half a minute saved.
        again = [item for item in items if item.path.name == "01_first_pipeline.ipynb"]
        config.hook.pytest_deselected(items=again)
        items[:] = [item for item in items if item not in again]
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker("notebook")
        if item.path.suffix == ".ipynb" or item.path.name in ALONE:
            item.add_marker("alone")


@pytest.fixture(autouse=True)
def _doctest_names(request: pytest.FixtureRequest) -> None:
    """Examples may use `pipelab` and `torch` without importing them."""
    if isinstance(request.node, pytest.DoctestItem):
        import torch

        import pipelab

        request.getfixturevalue("doctest_namespace").update(pipelab=pipelab, torch=torch)
