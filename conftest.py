"""What all tests share: the marks of notebooks and of what needs the machine for itself, and names for doctests."""

import pytest
from browser import CHROMIUM

# They compare times, or count what the whole of their processes holds; all others run three at a time.
ALONE = {"test_campaign.py", "test_measuring.py", "test_probing.py", "test_soak.py"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if CHROMIUM and any(item.path.name == "test_first_notebook.py" for item in items):
        # Where there is a browser the first notebook is run in it, as a newcomer does: half a minute saved.
        again = [item for item in items if item.path.name == "01_first_pipeline.ipynb"]
        config.hook.pytest_deselected(items=again)
        items[:] = [item for item in items if item not in again]
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker("notebook")
        if item.path.name in ALONE:
            item.add_marker("alone")
    # What takes longest begins first, so that the workers end at about the same time.
    items.sort(key=lambda item: not ({mark.name for mark in item.iter_markers()} & {"notebook", "jupyterlab", "slow"}))


@pytest.fixture(autouse=True)
def _doctest_names(request: pytest.FixtureRequest) -> None:
    """Examples may use `pipelab` and `torch` without importing them."""
    if isinstance(request.node, pytest.DoctestItem):
        import torch

        import pipelab

        request.getfixturevalue("doctest_namespace").update(pipelab=pipelab, torch=torch)
