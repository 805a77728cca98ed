"""Waiting until a GPU has written what it was asked to, and letting it reach memory of the host by itself."""

from typing import Any

import torch
from torch import Tensor

_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every context of this process


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what this process asked of it so far.

    On CUDA that is the current stream alone. A message that NCCL sends waits on a stream of its own for the
    neighbour, who may never come.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def is_lost(device: torch.device) -> bool:
    """Whether an op has left the device unusable for this process, as CUDA does after an error inside a kernel."""
    try:
        synchronize(device)
    except RuntimeError:
        return True
    return False


class Pinned:
    """Memory of the host that the GPU copies from and to by itself, as long as this is open.

    Args:
        memory: Flat bytes. They stay mapped until `close`: CUDA would take what is mapped there next for pinned.
    """

    def __init__(self, memory: Tensor) -> None:
        self._memory: Tensor | None = memory
        _check(_cuda().cudaHostRegister(memory.data_ptr(), memory.nbytes, _PORTABLE), "pin")

    def close(self) -> None:
        """Make it ordinary memory again."""
        if self._memory is not None:
            synchronize(torch.device("cuda", torch.cuda.current_device()))  # a step given up may still be copying
            _check(_cuda().cudaHostUnregister(self._memory.data_ptr()), "unpin")
            self._memory = None


def _cuda() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _check(status: Any, what: str) -> None:
    code = int(status)
    if code != 0:
        raise RuntimeError(f"CUDA refused to {what} the memory of a link (error {code}).")
