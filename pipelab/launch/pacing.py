"""Waiting in the place of computing: a lecture on two cores shows eight stages."""

import time
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pipelab.errors import InputError
from pipelab.events import Timeline
from pipelab.program import StageTable
from pipelab.units import format_seconds, plural

# How often a wait looks whether the step was stopped, and how long before its end it sleeps no more: a sleep
# ends late by some tens of microseconds.
_LOOK_AROUND_S = 0.02
_SPIN_S = 2e-4
# Below this, what messages take shows more than what stages do.
_SHORTEST_S = 2e-3


def paces_of(timeline: Timeline, num_stages: int) -> list[tuple[float, ...]]:
    """Per stage and micro-batch the seconds its forward takes in a timeline.

    Raises:
        InputError: It is not the timeline of an inference with one stage per rank, and so many of them.
    """
    if not isinstance(timeline, Timeline):
        raise InputError(
            f"pace takes a timeline, as pipelab.simulate(pipe.plan) makes one; it is a {type(timeline).__name__}."
        )
    if timeline.num_stages != num_stages or timeline.num_ranks != num_stages:
        raise InputError(
            f"The timeline to keep pace with has {timeline.num_stages} stages on {timeline.num_ranks} ranks; this "
            f"pipeline has {num_stages} of each. Simulate its own plan: pipelab.simulate(pipe.plan)."
        )
    if any(event.kind in ("B", "I", "W") for event in timeline.events):
        raise InputError("A paced run is an inference; simulate without train=True.")
    seconds = {(e.stage, e.microbatch): e.end_s - e.start_s for e in timeline.events if e.kind == "F"}
    if len(seconds) < num_stages * timeline.num_microbatches:
        raise InputError(
            "The timeline to keep pace with lacks forwards. Simulate its own plan: pipelab.simulate(pipe.plan)."
        )
    return [
        tuple(seconds[stage, microbatch] for microbatch in range(timeline.num_microbatches))
        for stage in range(num_stages)
    ]


def check_pace(timeline: Timeline, num_microbatches: int) -> None:
    """Check a timeline against the run that is to keep pace with it; warn if its stages are too short to be seen.

    Raises:
        InputError: It has another number of micro-batches.
    """
    if timeline.num_microbatches != num_microbatches:
        raise InputError(
            f"The timeline to keep pace with has {plural(timeline.num_microbatches, 'micro-batch')}; "
            f"num_microbatches={num_microbatches} was asked for. Leave num_microbatches out."
        )
    longest_s = max(event.end_s - event.start_s for event in timeline.events if event.kind == "F")
    if longest_s < _SHORTEST_S:
        warnings.warn(
            f"The longest stage of this timeline takes {format_seconds(longest_s)}: passing messages takes as long. "
            "Slow it down to see more than those: timeline.slowed(1000).",
            stacklevel=3,
        )


class Pace:
    """Takes as long as it is told, and gives values of a stage's shapes.

    Args:
        tables: The stage for each size of micro-batch.
        device: Where its results lie.
        on_progress: Called again and again while waiting; raises to give up.
    """

    def __init__(self, tables: Mapping[int, StageTable], device: torch.device, on_progress: Callable[[], None]) -> None:
        self._results = {
            size: tuple(
                torch.zeros(spec.wire_shape, dtype=spec.torch_dtype, device=device).expand(spec.shape)
                for spec in table.outputs
            )
            for size, table in tables.items()
        }
        self._on_progress = on_progress

    def __call__(self, size: int, duration_s: float) -> tuple[Tensor, ...]:
        """Wait."""
        end_s = time.perf_counter() + duration_s
        while (left_s := end_s - time.perf_counter()) > 0:
            self._on_progress()
            if left_s > _SPIN_S:
                time.sleep(min(left_s - _SPIN_S, _LOOK_AROUND_S))
        return self._results[size]
