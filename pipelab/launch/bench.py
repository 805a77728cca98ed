"""Ranks to measure on: the ops of a model alone and side by side, and the links between two ranks."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np
import torch

from pipelab.events import Timeline
from pipelab.hardware import FloatArray
from pipelab.launch.devices import Devices
from pipelab.launch.group import Patience
from pipelab.launch.job import Job
from pipelab.launch.load_meter import LoadMeter
from pipelab.launch.measuring import spare_cores
from pipelab.launch.memory import Weights
from pipelab.launch.runner import Runner
from pipelab.launch.step_record import StepRecord
from pipelab.load import OtherLoad
from pipelab.program import StageTable, Table, ValueSpec
from pipelab.tracing import Trace

_SAMPLE_S = 0.3  # how long each number of rows is measured, each time
_STEP_S = 0.05  # a step of several micro-batches lasts about so long, so that ranks truly run at the same time
_MAX_MICROBATCHES = 32
_LONG_STEP_S = 0.5  # one step of this length, after one to warm up, says enough
_MIN_STEPS = 3
_LINK_BYTES = (1 << 12, 1 << 20, 1 << 23)
_LINK_MICROBATCHES = 24
_LINK_PACE_S = 1e-3


class Bench:
    """Ranks to measure on.

    Args:
        traced: The model.
        weights: Its weights, shared.
        devices: Where the ranks of a pipeline compute.
        patience: How long to wait.
        check: Called while ranks are started; may raise.
    """

    def __init__(
        self, traced: Trace, weights: Weights, devices: Devices, patience: Patience, check: Callable[[], None]
    ) -> None:
        self._traced = traced
        self._inputs = traced.bind(traced.args, traced.kwargs)
        self._weights = weights
        self._devices = devices
        self._patience = patience
        self._check = check
        self._runners: list[Runner] = []
        self._once_s: dict[int, float] = {}  # by number of rows, about
        self._loads: list[OtherLoad] = []

    def close(self) -> None:
        """End the ranks."""
        for runner in self._runners:
            runner.close()

    def op_times_s(self, table: StageTable, num_ranks: int) -> FloatArray:
        """Seconds of each op of the whole model, while this many ranks run it at the same time."""
        while len(self._runners) < num_ranks:
            self._runners.append(Runner(self._weights))
        runners = self._runners[:num_ranks]
        rows = table.microbatch_size
        if rows not in self._once_s:
            self._once_s[rows] = self._load(runners[:1], table, 1)
        once_s = self._once_s[rows]
        count = min(_MAX_MICROBATCHES, max(1, math.ceil(_STEP_S / max(once_s, 1e-6))))
        self._load(runners, table, count)
        records = self._sampled(runners, 1 if once_s > _LONG_STEP_S else _MIN_STEPS)
        each = np.median(np.array([op_s for record in records for op_s in record.op_s[0]]), axis=0)
        events = [event for record in records for event in record.timeline.events if event.kind == "F"]
        stage_s = median(event.end_s - event.start_s for event in events)
        # What lies between ops belongs to them, and the medians of parts do not add up to that of the whole.
        whole: FloatArray = each * (stage_s / max(each.sum(), 1e-12))
        return whole

    @property
    def other_load(self) -> OtherLoad | None:
        """What else the machine did meanwhile: the first time that it disturbed, if it did."""
        return next((load for load in self._loads if load.disturbed), self._loads[0] if self._loads else None)

    def link(self) -> tuple[float, float, float]:
        """Latency, bytes per second, and what a micro-batch costs a rank besides its ops."""
        runner = Runner(self._weights)
        try:
            records = [self._transfers(runner, num_bytes) for num_bytes in _LINK_BYTES]
        finally:
            runner.close()
        seconds = [median(_sent_s(timeline)) for timeline in records]
        rate = (seconds[-1] - seconds[0]) / (_LINK_BYTES[-1] - _LINK_BYTES[0])
        return seconds[0], 1 / max(rate, 1e-15), _between_events_s(records[0])

    def _sampled(self, runners: Sequence[Runner], fewest: int) -> list[StepRecord]:
        """Steps of all these ranks at the same time, for a while; at least so many, and one that is long is enough."""
        devices = Devices(self._devices.names[:1] * len(runners), self._devices.num_threads, "")
        meter = LoadMeter([pid for runner in runners for pid in runner.pids], spare_cores(devices))
        records: list[StepRecord] = []
        start_s, enough_s = time.perf_counter(), 0.0 if fewest == 1 else _SAMPLE_S
        with ThreadPoolExecutor(len(runners)) as pool:
            while len(records) < fewest * len(runners) or time.perf_counter() - start_s < enough_s:
                records += pool.map(lambda runner: runner.step(self._patience, times_ops=True), runners)
        load = meter.read()
        self._loads += [load] if load else []
        return records

    def _transfers(self, runner: Runner, num_bytes: int) -> Timeline:
        """A step in which one rank sends to another that waits for it."""
        spec = ValueSpec("value", "uint8", (1, num_bytes), (num_bytes, 1))
        tables = tuple({1: StageTable(rank, 1, Table(("value",), (), ("value",)), (spec,), (spec,))} for rank in (0, 1))
        job = Job(tables, (1,) * _LINK_MICROBATCHES, (True,), (True,))
        names = self._devices.names
        self._start(runner, job, (names[0], names[min(1, len(names) - 1)]))
        paces_s = [(_LINK_PACE_S,) * _LINK_MICROBATCHES, (0.0,) * _LINK_MICROBATCHES]
        runner.step(self._patience, paces_s=paces_s)
        return runner.step(self._patience, paces_s=paces_s).timeline

    def _load(self, runners: Sequence[Runner], table: StageTable, count: int) -> float:
        """Have ranks hold the whole model for so many micro-batches, warmed up; the seconds of one of those."""
        rows = table.microbatch_size
        job = Job(({rows: table},), (rows,) * count, self._traced.batched, self._traced.output_batched)
        for runner in runners:
            self._start(runner, job, self._devices.names[:1])
            runner.fill(self._batch(rows * count))
            record = runner.step(self._patience)
        return record.timeline.rank_busy_s[0] / count

    def _start(self, runner: Runner, job: Job, names: tuple[str, ...]) -> None:
        devices = Devices(names, self._devices.num_threads, "")
        runner.load(job, devices, self._patience, self._check)

    def _batch(self, rows: int) -> tuple[torch.Tensor, ...]:
        """The traced inputs, again and again until there are so many rows."""
        return tuple(
            tensor[torch.arange(rows, device=tensor.device) % tensor.shape[0]] if batched else tensor
            for tensor, batched in zip(self._inputs, self._traced.batched, strict=True)
        )


def _sent_s(timeline: Timeline) -> list[float]:
    """Of each transfer the seconds from its start until the receiver goes on.

    What took less than a tick of the clock is no event: such a transfer is left out.
    """
    starts = {event.microbatch: event.start_s for event in timeline.events if event.rank == 0 and event.kind == "send"}
    arrived = {event.microbatch: event.start_s for event in timeline.events if event.rank == 1 and event.kind == "recv"}
    return [arrived[index] - start_s for index, start_s in starts.items() if index > 1 and index in arrived]


def _between_events_s(timeline: Timeline) -> float:
    """Seconds per micro-batch that a rank neither computes, sends nor waits."""
    of_rank = [event for event in timeline.events if event.rank == 0]
    span_s = max(event.end_s for event in of_rank) - min(event.start_s for event in of_rank)
    told_s = sum(event.end_s - event.start_s for event in of_rank if event.kind != "recv")
    return max(0.0, span_s - told_s) / timeline.num_microbatches
