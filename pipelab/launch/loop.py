"""One step of one rank: receive, compute, send, for each micro-batch; and when it did what."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from pipelab.events import Kind
from pipelab.launch.counters import Counters
from pipelab.launch.gpu_clock import GpuClock
from pipelab.launch.gpu_memory import synchronize
from pipelab.launch.links import Sink, Source
from pipelab.launch.messages import RankEvent, Step
from pipelab.launch.op_clock import OpClock
from pipelab.launch.pacing import Pace
from pipelab.program import StageTable
from pipelab.stage_module import StageModule

Compute = Callable[[int, tuple[Tensor, ...]], tuple[Tensor, ...]]  # for a micro-batch, from values to results

_KINDS: tuple[Kind, ...] = ("wait", "recv", "F", "wait", "send")  # what a micro-batch is to a rank, in order


@dataclass(frozen=True)
class Stage:
    """What a rank holds.

    Attributes:
        rank: Which rank this is.
        sizes: Rows of each micro-batch.
        tables: The stage for each size.
        modules: The same, ready to run.
        device: Where it computes.
        source: Where its values come from.
        sink: Where its results go.
        counters: What it publishes.
    """

    rank: int
    sizes: tuple[int, ...]
    tables: Mapping[int, StageTable]
    modules: Mapping[int, StageModule]
    device: torch.device
    source: Source
    sink: Sink
    counters: Counters


@torch.inference_mode()
def run_step(stage: Stage, step: Step) -> tuple[tuple[RankEvent, ...], tuple[tuple[float, ...], ...]]:
    """Run every micro-batch once, in order.

    Returns:
        The events, and per micro-batch the seconds of each op if the step asks for them.

    Raises:
        Stopped: The step was given up, or a neighbour is gone.
    """
    clock = OpClock(stage.device) if step.times_ops else None
    compute = _timed(stage, clock) if clock else _paced(stage, step.pace_s) if step.pace_s else computed(stage)
    times_ns: list[int] = []
    gpu = GpuClock() if stage.device.type == "cuda" else None
    run_microbatches(stage, step.number, compute, gpu.mark if gpu else marker(stage.device, times_ns))
    return _events(stage, gpu.times_ns() if gpu else times_ns), clock.durations_s() if clock else ()


def run_microbatches(stage: Stage, number: int, compute: Compute, mark: Callable[[], None]) -> None:
    """Run every micro-batch once.

    Args:
        stage: What to run.
        number: Of the step.
        compute: The stage's ops, or what stands in their place.
        mark: Called at the start, and where in a micro-batch one of `_KINDS` ends.
    """
    source, sink, counters, rank = stage.source, stage.sink, stage.counters, stage.rank
    mark()
    for microbatch in range(len(stage.sizes)):
        source.wait(number, microbatch)
        mark()
        values = source.take(microbatch)
        mark()
        counters.enter(rank)
        results = compute(microbatch, values)
        counters.leave(rank)
        mark()
        sink.wait(number, microbatch)
        mark()
        sink.put(number, microbatch, results)
        # Only now: a result may lie in the memory its input came in.
        del values, results
        source.release(number, microbatch)
        mark()


def marker(device: torch.device, times_ns: list[int]) -> Callable[[], None]:
    """What notes the time. A few dozen nanoseconds: what the times mean is worked out after the step."""
    append, now = times_ns.append, time.perf_counter_ns

    def mark() -> None:
        append(now())

    def mark_done() -> None:
        synchronize(device)
        append(now())

    return mark if device.type == "cpu" else mark_done


def _events(stage: Stage, times_ns: list[int]) -> tuple[RankEvent, ...]:
    """The events that lie between the times."""
    moved = {
        size: {"recv": sum(spec.num_bytes for spec in table.inputs), "send": sum(s.num_bytes for s in table.outputs)}
        for size, table in stage.tables.items()
    }
    kinds = [(microbatch, kind) for microbatch in range(len(stage.sizes)) for kind in _KINDS]
    return tuple(
        RankEvent(kind, microbatch, start_ns, end_ns, moved[stage.sizes[microbatch]].get(kind, 0))
        for (microbatch, kind), (start_ns, end_ns) in zip(kinds, pairwise(times_ns), strict=True)
    )


def computed(stage: Stage) -> Compute:
    """Run the stage's ops."""
    run = [stage.modules[size].forward for size in stage.sizes]
    return lambda microbatch, values: run[microbatch](*values)


def _timed(stage: Stage, clock: OpClock) -> Compute:
    """Run the stage's ops, and time each."""

    def compute(microbatch: int, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        module = stage.modules[stage.sizes[microbatch]]
        counted = module.on_op
        module.on_op = clock.before(counted)
        try:
            clock.begin()
            results: tuple[Tensor, ...] = module(*values)
        finally:
            module.on_op = counted
        return results

    return compute


def _paced(stage: Stage, pace_s: tuple[float, ...]) -> Compute:
    """Wait as long as the stage was predicted to take; the results have the right shapes and no meaning."""
    pace = Pace(stage.tables, stage.device, partial(stage.counters.go_on, stage.rank))
    return lambda microbatch, _values: pace(stage.sizes[microbatch], pace_s[microbatch])
