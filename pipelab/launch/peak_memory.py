"""How much memory a rank holds, and the most it held since the last look."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"


def reset_peak(device: torch.device) -> None:
    """Begin a new measurement."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        # Some containers forbid it; the peak is then that of the process's life.
        with suppress(OSError):
            _CLEAR.write_text(_FORGET_PEAK)


def peak_bytes(device: torch.device, idle_bytes: int) -> int:
    """The most memory held since `reset_peak`: of the GPU, or of this process beyond what it held when idle."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    code_bytes = _status("RssFile") if _STATUS.exists() else 0
    return max(0, _highest_bytes() - code_bytes - idle_bytes)


def held_bytes() -> int:
    """Memory this process holds now, without the files of its program, which are loaded as it goes."""
    return _status("VmRSS") - _status("RssFile") if _STATUS.exists() else _highest_bytes()


def give_back() -> None:
    """Return to the system what was freed and is kept for the next request of the same size."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def _highest_bytes() -> int:
    if _STATUS.exists():
        return _status("VmHWM")
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def _status(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0
