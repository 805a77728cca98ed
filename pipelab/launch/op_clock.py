"""When each op of a stage ended: on the CPU by the clock, on a GPU by its own events."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

_MS = 1e-3


class OpClock:
    """Marks a moment before the first op and after every op.

    Args:
        device: Where the ops run. A GPU is asked by events between its ops, so that measuring does not stop it.
    """

    def __init__(self, device: torch.device) -> None:
        self._mark: Callable[[], Any] = _event if device.type == "cuda" else time.perf_counter
        self._between: Callable[[Any, Any], float] = _events_s if device.type == "cuda" else _clock_s
        self._marks: list[Any] = []
        self._runs: list[list[Any]] = []

    def begin(self) -> None:
        """The first op is about to run."""
        self._marks = [self._mark()]
        self._runs.append(self._marks)

    def before(self, other: Callable[[int], None] | None) -> Callable[[int], None]:
        """What a stage calls after every op: marks the moment, then calls the other."""

        def mark(index: int) -> None:
            self._marks.append(self._mark())
            if other is not None:
                other(index)

        return mark

    def durations_s(self) -> tuple[tuple[float, ...], ...]:
        """Per run of the stage the seconds of each op. The device must have finished."""
        return tuple(tuple(self._between(start, end) for start, end in pairwise(marks)) for marks in self._runs)


def _event() -> Any:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    event.record()
    return event


def _events_s(start: Any, end: Any) -> float:
    return float(start.elapsed_time(end)) * _MS


def _clock_s(start: float, end: float) -> float:
    return end - start
