"""Where ranks compute, on a machine without a GPU."""

import pytest
import torch

from pipelab.errors import LaunchError
from pipelab.launch.devices import check_device, choose, num_cores

no_gpu = pytest.mark.skipif(torch.cuda.device_count() > 0, reason="there is a GPU")


@no_gpu
def test_cores_are_shared_out() -> None:
    devices = choose("auto", 2 * num_cores())
    assert (devices.kind, devices.num_threads) == ("cpu", 1)
    assert devices.text == f"{2 * num_cores()} ranks on the CPU, 1 thread each, links in shared memory"
    assert choose("auto", 1).num_threads == num_cores()


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", ""])
def test_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(LaunchError, match="It is one of: 'auto', 'cpu', 'cuda'"):
        check_device(device)


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_absent_gpu_is_refused(device: str) -> None:
    with pytest.raises(LaunchError, match="torch finds 0 GPUs"):
        check_device(device)
