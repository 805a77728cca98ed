"""What all tests share: names for doctests, and which tests need a program this machine may lack."""

import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker("notebook")
        needs_browser = item.get_closest_marker("browser") or item.get_closest_marker("jupyterlab")
        if needs_browser and CHROMIUM is None:
            item.add_marker(pytest.mark.skip(reason="Chromium is not installed"))


@pytest.fixture(autouse=True)
def _doctest_names(request: pytest.FixtureRequest) -> None:
    """Examples may use `pipelab` and `torch` without importing them."""
    if isinstance(request.node, pytest.DoctestItem):
        import torch

        import pipelab

        request.getfixturevalue("doctest_namespace").update(pipelab=pipelab, torch=torch)
