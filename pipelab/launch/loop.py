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
from pipelab.launch.messages import RankEvent
from pipelab.program import StageModule, StageTable


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
def run_step(stage: Stage, step: int) -> tuple[RankEvent, ...]:
    """Run every micro-batch once, in order.

    Raises:
        Stopped: The step was given up, or a neighbour is gone.
    """
    is_gpu = stage.device.type == "cuda"
    record = Recorder(partial(torch.cuda.synchronize, stage.device) if is_gpu else _nothing)
    for microbatch, size in enumerate(stage.sizes):
        table = stage.tables[size]
        with record("wait", microbatch):
            stage.source.wait(step, microbatch)
        with record("recv", microbatch, sum(spec.num_bytes for spec in table.inputs)):
            values = tuple(value.to(stage.device) for value in stage.source.take(microbatch))
        with record("F", microbatch):
            results = _compute(stage, size, values)
        with record("wait", microbatch):
            stage.sink.wait(step, microbatch)
        with record("send", microbatch, sum(spec.num_bytes for spec in table.outputs)):
            stage.sink.put(step, microbatch, results)
        # Only now: a result may lie in the memory its input came in.
        del values, results
        stage.source.release(step, microbatch)
    return tuple(record.events)


def _compute(stage: Stage, size: int, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    stage.counters.enter(stage.rank)
    results: tuple[Tensor, ...] = stage.modules[size](*values)
    stage.counters.leave(stage.rank)
    return results


def _nothing() -> None:
    """The CPU has done everything when a call returns."""
