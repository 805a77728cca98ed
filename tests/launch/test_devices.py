"""Where ranks compute, on a machine without a GPU."""

from pathlib import Path

import pytest
import torch

from pipelab.errors import LaunchError
from pipelab.launch import devices
from pipelab.launch.devices import LINKS, Devices, LinkKind, check_device, choose, link_kind, num_cores

no_gpu = pytest.mark.skipif(torch.cuda.device_count() > 0, reason="there is a GPU")


@no_gpu
def test_cores_are_shared_out() -> None:
    chosen = choose("auto", 2 * num_cores())
    assert (chosen.kind, chosen.num_threads) == ("cpu", 1)
    assert chosen.text == f"{2 * num_cores()} ranks on the CPU, 1 thread each, links in shared memory"
    assert choose("auto", 1).num_threads == num_cores()


@pytest.mark.parametrize(
    ("file", "text", "cores"),
    [
        ("cpu.max", "150000 100000", 2),
        ("cpu.max", "10000 100000", 1),
        ("cpu.max", "max 100000", 8),
        ("cpu.max", "9900000 100000", 8),
        ("cpu/cpu.cfs_quota_us", "200000", 2),
        ("cpu/cpu.cfs_quota_us", "-1", 8),
        ("nothing", "", 8),
    ],
)
def test_a_containers_share_counts_as_its_cores(
    file: str, text: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a hub that gave 2 of its 64 cores, four ranks of 16 threads each stood still most of the time."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / file).write_text(f"{text}\n")
    monkeypatch.setattr(devices, "_SHARE", tmp_path / "cpu.max")
    monkeypatch.setattr(devices, "_OLD_SHARE", tmp_path / "cpu")
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda pid: set(range(8)))
    assert num_cores() == cores


@pytest.mark.parametrize(
    ("sender", "receiver", "kind"),
    [
        ("cpu", "cpu", "shared memory"),
        ("cpu", "cuda:0", "host memory"),
        ("cuda:0", "cpu", "host memory"),
        ("cuda:0", "cuda:0", "host memory"),
        ("cuda:1", "cuda:1", "host memory"),
        ("cuda:0", "cuda:1", "nccl"),
        ("cuda:1", "cuda:0", "nccl"),
        ("cuda:1", "cuda:10", "nccl"),
        ("mps", "mps", "host memory"),
        ("cpu", "mps", "host memory"),
        ("mps", "cpu", "host memory"),
    ],
)
def test_link_fits_its_two_devices(sender: str, receiver: str, kind: LinkKind) -> None:
    assert link_kind(sender, receiver) == kind
    assert kind in LINKS


def test_each_boundary_has_a_link_of_its_own() -> None:
    mixed = Devices(("cpu", "cpu", "cuda:0", "cuda:0", "cuda:1"), 1, "")
    assert mixed.links == ("shared memory", "host memory", "host memory", "nccl")
    assert Devices(("cpu",), 1, "").links == ()
    assert Devices(("cpu", "cpu"), 1, "", ("gloo",)).links == ("gloo",)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", ""])
def test_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(LaunchError, match="It is one of: 'auto', 'cpu', 'cuda'"):
        check_device(device)


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_absent_gpu_is_refused(device: str) -> None:
    with pytest.raises(LaunchError, match="torch finds 0 GPUs"):
        check_device(device)
