"""What all tests share: the mark of notebooks, and names for doctests."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker("notebook")


@pytest.fixture(autouse=True)
def _doctest_names(request: pytest.FixtureRequest) -> None:
    """Examples may use `pipelab` and `torch` without importing them."""
    if isinstance(request.node, pytest.DoctestItem):
        import torch

        import pipelab

        request.getfixturevalue("doctest_namespace").update(pipelab=pipelab, torch=torch)
