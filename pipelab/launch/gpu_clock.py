"""When a GPU did what, on the clock that all processes of the host share.

Nothing waits for the GPU between two moments: it notes them itself, in order, as it gets there. Before and after a
step its clock is compared with the host's, and what lies between is interpolated, so that neither clock's drift shows.
"""

import time
from typing import Any

import torch

_TRIES = 4


class GpuClock:
    """Moments in the work of the current stream of the current device."""

    def __init__(self) -> None:
        self._start = _compared()
        self._moments: list[Any] = []

    def mark(self) -> None:
        """Note when the GPU has done what it was asked to so far, or now if it has."""
        event = _event()
        event.record()
        self._moments.append(event)

    def times_ns(self) -> list[int]:
        """The moments marked, by `time.perf_counter_ns`. Waits until the last is over."""
        start_event, start_ns = self._start
        end_event, end_ns = _compared()
        total_ms = start_event.elapsed_time(end_event)
        return [on_host_clock(start_event.elapsed_time(event), total_ms, start_ns, end_ns) for event in self._moments]


def on_host_clock(elapsed_ms: float, total_ms: float, start_ns: int, end_ns: int) -> int:
    """The host's time of a moment.

    Args:
        elapsed_ms: By the GPU's clock, since the first comparison.
        total_ms: By the GPU's clock, between the two comparisons.
        start_ns: The host's time of the first comparison.
        end_ns: The host's time of the second.
    """
    return start_ns + round((end_ns - start_ns) * (elapsed_ms / total_ms))


def _compared() -> tuple[Any, int]:
    """An event, and the host's time of it: in the middle of the shortest of some round trips."""
    trips = []
    for _ in range(_TRIES):
        event = _event()
        before_ns = time.perf_counter_ns()
        event.record()
        event.synchronize()
        after_ns = time.perf_counter_ns()
        trips.append((after_ns - before_ns, (event, (before_ns + after_ns) // 2)))
    return min(trips, key=lambda trip: trip[0])[1]


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
