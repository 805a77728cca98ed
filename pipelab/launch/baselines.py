"""The unsplit model beside a pipeline: what a run is compared with, where the comparison would be fair."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from pipelab.errors import LaunchError, StageError
from pipelab.launch.devices import choose
from pipelab.launch.group import Patience
from pipelab.launch.job import Job
from pipelab.launch.measuring import Measured, measure_steps
from pipelab.launch.memory import Weights, free_memory_bytes
from pipelab.launch.runner import Runner
from pipelab.tracing import Trace

# A machine changes its speed with its temperature and its neighbours: an older figure is measured anew.
_FRESH_S = 120.0
_NO_ROOM = "the unsplit model does not fit here"
_COMFORT = 2
_NOT_QUIET = "not compared with the unsplit model: the machine was busy"


@dataclass(frozen=True, slots=True)
class Baseline:
    """Seconds of the unsplit model; None with a reason."""

    seconds: float | None
    reason: str = ""


class Baselines:
    """Measures the unsplit model in one process with all cores, or on one GPU.

    Args:
        traced: The model.
        weights: Its weights, shared.
        device: As for `start`.
    """

    def __init__(self, traced: Trace, weights: Weights, device: str) -> None:
        self._traced = traced
        self._weights = weights
        self._device = device
        self._known: dict[int, tuple[float, Baseline]] = {}  # by rows: when it was measured, and what

    def beside(
        self, measured: Measured, inputs: Sequence[Tensor], patience: Patience, check: Callable[[], None]
    ) -> Baseline:
        """What to compare a run with. Only times of a quiet machine are compared: not those of two loads."""
        if measured.load is not None and measured.load.disturbed:
            return Baseline(None, _NOT_QUIET)
        rows = self._traced.batch_size_of(inputs)
        when_s, known = self._known.get(rows, (0.0, None))
        now_s = time.monotonic()
        # Busy a moment ago, the machine is asked again only where it is known to be quiet now.
        is_quiet_again = known is not None and known.reason == _NOT_QUIET and measured.load is not None
        if known is None or is_quiet_again or now_s - when_s > _FRESH_S:
            known = self._measure(rows, inputs, patience, check)
            self._known[rows] = now_s, known
        return known

    def _has_room(self) -> bool:
        """Whether one more process may read a whole checkpoint: what is in memory already, all share."""
        needed_bytes = sum(piece.num_bytes for piece in self._weights.pieces.values())
        free_bytes = free_memory_bytes()
        return free_bytes is None or _COMFORT * needed_bytes <= free_bytes

    def _measure(self, rows: int, inputs: Sequence[Tensor], patience: Patience, check: Callable[[], None]) -> Baseline:
        if not self._has_room():
            return Baseline(None, _NO_ROOM)
        runner, devices = Runner(self._weights), choose(self._device, 1)
        try:
            runner.load(Job.unsplit(self._traced, rows), devices, patience, check)
            runner.fill(inputs)
            measured = measure_steps(runner, devices, patience, None, lambda done, total: None)
        except (LaunchError, StageError) as error:
            warnings.warn(f"The unsplit model cannot be run here to compare with: {error}", stacklevel=5)
            return Baseline(None, _NO_ROOM)
        finally:
            runner.close()
        if measured.load is not None and measured.load.disturbed:
            return Baseline(None, _NOT_QUIET)
        return Baseline(measured.median_s)
