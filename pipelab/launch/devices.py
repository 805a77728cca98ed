"""Where ranks compute: chosen from what the machine has, and said in a sentence."""

import os
import re
import sys
from dataclasses import dataclass

import torch

from pipelab.errors import LaunchError
from pipelab.units import plural


@dataclass(frozen=True)
class Devices:
    """One device per rank.

    Attributes:
        names: By rank: "cpu", "cuda:0", ...
        num_threads: CPU threads of each rank.
        text: What was chosen, for people.
    """

    names: tuple[str, ...]
    num_threads: int
    text: str

    @property
    def kind(self) -> str:
        """The kind: "cpu" or "cuda"."""
        return self.names[0].partition(":")[0]


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def check_device(device: str) -> None:
    """Refuse a device that ranks cannot compute on.

    Raises:
        LaunchError: It is unknown, or the machine has none.
    """
    if not re.fullmatch(r"auto|cpu|cuda|cuda:\d+", device):
        raise LaunchError(
            f"device={device!r} is not known. It is one of: 'auto', 'cpu', 'cuda', 'cuda:0', 'cuda:1', ..."
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
        text = f"{ranks} on {plural(num_ranks, 'GPU')}, links through host memory"
        return Devices(tuple(f"cuda:{rank}" for rank in range(num_ranks)), num_threads, text)
    shared = device if ":" in device else "cuda:0"
    text = f"{ranks} sharing {shared}, where stages do not truly overlap, links through host memory"
    return Devices((shared,) * num_ranks, num_threads, text)
