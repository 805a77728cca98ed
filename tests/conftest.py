"""Settings of the test tools, and the JupyterLab that several modules share."""

from collections.abc import Iterator

import hypothesis
import pytest
from lab_server import Lab, jupyterlab

# A slow machine is not a failure.
hypothesis.settings.register_profile("pipelab", deadline=None, print_blob=True)
hypothesis.settings.load_profile("pipelab")


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab: to start and to end one takes five seconds."""
    with jupyterlab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def lab(lab_server: Lab) -> Iterator[Lab]:
    """The same, without the kernels of other modules."""
    yield lab_server
    lab_server.end_kernels()
