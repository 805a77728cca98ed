"""One step of one rank: receive, compute, send, for each micro-batch; and when it did what."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipelab.launch.counters import Counters
from pipelab.launch.gpu_clock import GpuClock
from pipelab.launch.gpu_memory import synchronize
from pipelab.launch.links import Sink, Source
from pipelab.launch.messages import Step
from pipelab.launch.op_clock import OpClock
from pipelab.launch.pacing import Pace
from pipelab.program import StageTable
from pipelab.stage_module import StageModule

Compute = Callable[[int, tuple[Tensor, ...]], tuple[Tensor, ...]]  # for a micro-batch, from values to results


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
        originals: Weights that its ops write to, each with what it was at first.
    """

    rank: int
    sizes: tuple[int, ...]
    tables: Mapping[int, StageTable]
    modules: Mapping[int, StageModule]
    device: torch.device
    source: Source
    sink: Sink
    counters: Counters
    originals: Sequence[tuple[Tensor, Tensor]] = ()

    def restore(self) -> None:
        """Put back what ops have written to weights, so that each micro-batch finds the model as it was started."""
        for weight, original in self.originals:
            weight.copy_(original)


@torch.inference_mode()
def run_step(stage: Stage, step: Step) -> tuple[tuple[int, ...], tuple[tuple[float, ...], ...]]:
    """Run every micro-batch once, in order.

    Returns:
        When it began, and when each part of each micro-batch was done; and per micro-batch the seconds of each op, if
        the step asks for them.

    Raises:
        Stopped: The step was given up, or a neighbour is gone.
    """
    clock = OpClock(stage.device) if step.times_ops else None
    compute = _timed(stage, clock) if clock else _paced(stage, step.pace_s) if step.pace_s else computed(stage)
    times_ns: list[int] = []
    gpu = GpuClock() if stage.device.type == "cuda" else None
    run_microbatches(stage, step.number, compute, gpu.mark if gpu else marker(stage.device, times_ns))
    return tuple(gpu.times_ns() if gpu else times_ns), clock.durations_s() if clock else ()


def run_microbatches(stage: Stage, number: int, compute: Compute, mark: Callable[[], None]) -> None:
    """Run every micro-batch once.

    Args:
        stage: What to run.
        number: Of the step.
        compute: The stage's ops, or what stands in their place.
        mark: Called at the start, and of each micro-batch after waiting, receiving, computing, waiting and sending.
    """
    source, sink, counters, rank = stage.source, stage.sink, stage.counters, stage.rank
    mark()
    for microbatch in range(len(stage.sizes)):
        source.wait(number, microbatch)
        mark()
        values = source.take(microbatch)
        mark()
        counters.enter(rank)
        stage.restore()
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
