"""One step of one rank: receive, compute, send, for each micro-batch; and when it did what."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from pipelab.events import Kind
from pipelab.launch.counters import Counters
from pipelab.launch.links import Sink, Source
from pipelab.launch.messages import RankEvent, Step
from pipelab.launch.op_clock import OpClock
from pipelab.launch.pacing import Pace
from pipelab.program import StageModule, StageTable

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
    """

    rank: int
    sizes: tuple[int, ...]
    tables: Mapping[int, StageTable]
    modules: Mapping[int, StageModule]
    device: torch.device
    source: Source
    sink: Sink
    counters: Counters


@dataclass
class Recorder:
    """Collects events.

    Args:
        synchronize: Waits until the device has done what it was asked to; called before an event ends.
    """

    synchronize: Callable[[], None]
    events: list[RankEvent] = field(default_factory=list)

    @contextmanager
    def __call__(self, kind: Kind, microbatch: int, num_bytes: int = 0) -> Iterator[None]:
        """Record the block as one event."""
        start_ns = time.perf_counter_ns()
        yield
        self.synchronize()
        self.events.append(RankEvent(kind, microbatch, start_ns, time.perf_counter_ns(), num_bytes))


@torch.inference_mode()
def run_step(stage: Stage, step: Step) -> tuple[tuple[RankEvent, ...], tuple[tuple[float, ...], ...]]:
    """Run every micro-batch once, in order.

    Returns:
        The events, and per micro-batch the seconds of each op if the step asks for them.

    Raises:
        Stopped: The step was given up, or a neighbour is gone.
    """
    is_gpu = stage.device.type == "cuda"
    record = Recorder(partial(torch.cuda.synchronize, stage.device) if is_gpu else _nothing)
    clock = OpClock(stage.device) if step.times_ops else None
    compute = _timed(stage, clock) if clock else _paced(stage, step.pace_s) if step.pace_s else _computed(stage)
    for microbatch, size in enumerate(stage.sizes):
        table = stage.tables[size]
        with record("wait", microbatch):
            stage.source.wait(step.number, microbatch)
        with record("recv", microbatch, sum(spec.num_bytes for spec in table.inputs)):
            values = tuple(value.to(stage.device) for value in stage.source.take(microbatch))
        with record("F", microbatch):
            stage.counters.enter(stage.rank)
            results = compute(microbatch, values)
            stage.counters.leave(stage.rank)
        with record("wait", microbatch):
            stage.sink.wait(step.number, microbatch)
        with record("send", microbatch, sum(spec.num_bytes for spec in table.outputs)):
            stage.sink.put(step.number, microbatch, results)
        # Only now: a result may lie in the memory its input came in.
        del values, results
        stage.source.release(step.number, microbatch)
    return tuple(record.events), clock.durations_s() if clock else ()


def _computed(stage: Stage) -> Compute:
    """Run the stage's ops."""
    return lambda microbatch, values: stage.modules[stage.sizes[microbatch]](*values)


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
    pace = Pace(stage.tables, stage.device, stage.counters.on_op(stage.rank))
    return lambda microbatch, _values: pace(stage.sizes[microbatch], pace_s[microbatch])


def _nothing() -> None:
    """The CPU has done everything when a call returns."""
