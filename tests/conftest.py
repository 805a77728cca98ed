"""Settings of the test tools, and the JupyterLab that several modules share."""

import os
from collections.abc import Iterator

import hypothesis
import pytest
from lab_server import Lab, jupyterlab

# A slow machine is not a failure. The suite tries the same examples each time; by hand, others and more of them:
# HYPOTHESIS_PROFILE=long python -m pytest tests/test_arguments.py tests/test_files.py tests/launch/test_inputs.py
hypothesis.settings.register_profile("pipelab", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.register_profile("long", deadline=None, print_blob=True, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "pipelab"))


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
