"""Where ranks compute: chosen from what the machine has, and said in a sentence."""

import math
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch

from pipelab.arguments import shown
from pipelab.errors import LaunchError
from pipelab.units import plural

LinkKind = Literal["shared memory", "host memory", "nccl", "gloo"]

# Where Linux tells a container its share of the processor, in the second and in the first version of control groups.
_SHARE = Path("/sys/fs/cgroup/cpu.max")
_OLD_SHARE = Path("/sys/fs/cgroup/cpu")

LINKS: Mapping[LinkKind, str] = MappingProxyType(
    {
        "shared memory": "shared memory",
        "host memory": "host memory",
        "nccl": "NCCL",
        "gloo": "gloo over loopback",
    }
)
PROCESS_GROUPS: frozenset[LinkKind] = frozenset({"nccl", "gloo"})  # these have a state that outlives a step


def link_kind(sender: str, receiver: str) -> LinkKind:
    """What carries values between two neighbours of one host.

    NCCL refuses two ranks on one GPU. Memory of the host reaches every device, so gloo is left for what shares none:
    it is chosen by hand only, in `Devices.links`.

    Args:
        sender: Its device, as in `Devices.names`.
        receiver: Its device.
    """
    if sender == receiver == "cpu":
        return "shared memory"
    on_gpus = sender.startswith("cuda:") and receiver.startswith("cuda:")
    return "nccl" if on_gpus and sender != receiver else "host memory"


@dataclass(frozen=True)
class Devices:
    """One device per rank, and what lies between them.

    Attributes:
        names: By rank: "cpu", "cuda:0", ...
        num_threads: CPU threads of each rank.
        text: What was chosen, for people.
        links: By boundary; found from the names where it is not given.
    """

    names: tuple[str, ...]
    num_threads: int
    text: str
    links: tuple[LinkKind, ...] = ()

    def __post_init__(self) -> None:
        if not self.links:
            object.__setattr__(self, "links", tuple(link_kind(*pair) for pair in pairwise(self.names)))

    @property
    def kind(self) -> str:
        """The kind: "cpu" or "cuda"."""
        return self.names[0].partition(":")[0]


def num_cores() -> int:
    """Cores this process may use: no more than a container's share of the processor, rounded up."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(_cores_share() or cores)))


def _cores_share() -> float | None:
    """How many cores' worth of time a container may use; None where nothing limits it.

    A hub that gives 2 of its 64 cores shows all of them: threads for 64 would stand still most of the time.
    """
    with suppress(OSError, ValueError):  # no such limits here, or "max"
        quota, period = _SHARE.read_text().split()
        return int(quota) / int(period)
    with suppress(OSError):
        quota_us, period_us = (int((_OLD_SHARE / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota_us / period_us if quota_us > 0 else None
    return None


def check_device(device: str) -> None:
    """Refuse a device that ranks cannot compute on.

    Raises:
        LaunchError: It is unknown, or the machine has none.
    """
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda|cuda:[0-9]{1,6}", device):
        raise LaunchError(
            f"device={shown(device)} is not known. It is one of: 'auto', 'cpu', 'cuda', 'cuda:0', 'cuda:1', ..."
        )
    kind, _, index = device.partition(":")
    found = torch.cuda.device_count() if kind == "cuda" else 0
    if kind == "cuda" and int(index or 0) >= found:
        raise LaunchError(f"device={device!r} was asked for; torch finds {plural(found, 'GPU')}. Use device='auto'.")


def choose(device: str, num_ranks: int) -> Devices:
    """The device of each rank.

    Args:
        device: "auto" takes one GPU per rank where there are enough, the first one for all where there is
            any, else the CPU; "cuda" is the same on a machine that must have a GPU; "cuda:1" is that one for all.
        num_ranks: Number of ranks.
    """
    ranks = plural(num_ranks, "rank")
    num_threads = max(1, num_cores() // num_ranks)
    num_gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if device == "cpu" or (device == "auto" and not num_gpus):
        text = f"{ranks} on the CPU, {plural(num_threads, 'thread')} each, links in shared memory"
        return Devices(("cpu",) * num_ranks, num_threads, text)
    if num_gpus >= num_ranks:
        text = f"{ranks} on {plural(num_ranks, 'GPU')}, links through NCCL"
        return Devices(tuple(f"cuda:{rank}" for rank in range(num_ranks)), num_threads, text)
    shared = device if ":" in device else "cuda:0"
    text = f"{ranks} sharing {shared}, where stages do not truly overlap, links through host memory"
    return Devices((shared,) * num_ranks, num_threads, text)
