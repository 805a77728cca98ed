"""`measure`: what the ops of a model and the links between ranks take on this machine.

The ops run where ranks run them: in processes, with the threads a rank has, first alone and then while as many
ranks compute as the machine has room for. Cores share caches, memory and power, so the second is slower.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median

import numpy as np
import torch

from pipelab.arguments import whole
from pipelab.errors import InputError, SplitError
from pipelab.events import Timeline
from pipelab.hardware import FloatArray, Measurement, remember
from pipelab.launch.devices import Devices, check_device, choose, num_cores
from pipelab.launch.group import Patience
from pipelab.launch.interrupts import HeldInterrupts
from pipelab.launch.job import Job
from pipelab.launch.links import NUM_SLOTS
from pipelab.launch.memory import Weights
from pipelab.launch.runner import Runner
from pipelab.problem import MOST_STAGES
from pipelab.program import StageTable, Table, ValueSpec
from pipelab.progress import announce
from pipelab.stages import whole_table
from pipelab.tracing import Trace
from pipelab.units import plural

_SAMPLE_S = 0.4  # how long each number of rows is measured
_STEP_S = 0.05  # a step of several micro-batches lasts about so long, so that ranks truly run at the same time
_MAX_MICROBATCHES = 32
_LONG_STEP_S = 0.5  # one step of this length, after one to warm up, says enough
_MIN_STEPS = 3
_STALL_S = 60.0
_LINK_BYTES = (1 << 12, 1 << 20, 1 << 23)
_LINK_MICROBATCHES = 24
_LINK_PACE_S = 1e-3
_RANK_BYTES = {"cpu": 60e6, "cuda": 600e6}  # of a rank that holds nothing


def measure(
    traced: Trace, *, device: str = "auto", microbatch_sizes: Sequence[int] | None = None, num_stages: int = 4
) -> Measurement:
    """Measure the ops of a model and the links between ranks on this machine.

    The plans of this trace then tell seconds, `optimal` and `simulate` use them, and runs are laid over what was
    predicted. Nothing is changed in the model.

    Args:
        traced: The model.
        device: As for `start`.
        microbatch_sizes: For how many rows; between them times are interpolated. The traced batch is measured
            in any case. None for 1, the traced batch and their geometric mean.
        num_stages: Of how many stages the pipelines will be: ranks share the cores, and so each one's threads.

    Raises:
        LaunchError: There are no weights, or ranks cannot be started.
        InputError: The batch cannot be split so.
        SplitError: `num_stages` is no number of stages.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4))).eval()
        >>> traced = pipelab.trace(model, torch.zeros(8, 64))
        >>> pipelab.measure(traced, device="cpu", microbatch_sizes=(2, 4)).rows
        (2, 4, 8)
    """
    with HeldInterrupts() as held, announce("measuring this machine"):
        return probe(
            traced,
            device=device,
            microbatch_sizes=microbatch_sizes,
            num_stages=num_stages,
            cancelled=lambda: held.pending,
            check=held.check,
        )


def probe(
    traced: Trace,
    *,
    device: str = "auto",
    microbatch_sizes: Sequence[int] | None = None,
    num_stages: int = 4,
    cancelled: Callable[[], bool],
    check: Callable[[], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measurement:
    """`measure` for who can be told to stop.

    Args:
        traced: The model.
        device: As for `start`.
        microbatch_sizes: As for `measure`.
        num_stages: As for `measure`.
        cancelled: Whether to stop.
        check: Called between two parts; raises in order to stop.
        progress: Takes how many parts are done, of how many.
    """
    if not isinstance(traced, Trace):
        raise InputError(f"measure takes what pipelab.trace(model, ...) returned; it is a {type(traced).__name__}.")
    check_device(device)
    num_stages = whole(num_stages, "num_stages", most=MOST_STAGES, error=SplitError)
    sizes = _sizes(traced, microbatch_sizes)
    devices = choose(device, num_stages)
    parallel = _parallel(devices, num_stages)
    together = parallel or 1
    tables = {rows: whole_table(traced, rows) for rows in sizes}
    asked = [(rows, count) for count in dict.fromkeys((1, together)) for rows in sizes]
    op_s: dict[tuple[int, int], FloatArray] = {}
    with ExitStack() as stack:
        weights = Weights(traced.weights())
        stack.callback(weights.close)
        bench = _Bench(traced, weights, devices, Patience(cancelled, _STALL_S), check)
        stack.callback(bench.close)
        for done, (rows, count) in enumerate(asked):
            check()
            progress(done, len(asked) + 1)
            op_s[rows, count] = bench.op_times_s(tables[rows], count)
        check()
        progress(len(asked), len(asked) + 1)
        latency_s, bytes_per_s, microbatch_s = bench.link()
    alone = np.array([op_s[rows, 1] for rows in sizes])
    loaded = np.array([op_s[rows, together] for rows in sizes]) if together > 1 else alone
    measurement = Measurement(
        name=_name(devices),
        num_ops=len(traced.graph.ops),
        rows=sizes,
        alone_s=alone,
        loaded_s=loaded,
        parallel=parallel,
        microbatch_s=microbatch_s,
        memory_bytes=_memory_bytes(devices),
        link_bytes_per_s=bytes_per_s,
        link_latency_s=latency_s,
        num_slots=NUM_SLOTS,
        overlap=False,
        reserve_bytes=_RANK_BYTES[devices.kind],
        device=devices.names[0],
        num_threads=devices.num_threads,
    )
    remember(traced.graph, measurement)
    return measurement


class _Bench:
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

    def close(self) -> None:
        """End the ranks."""
        for runner in self._runners:
            runner.close()

    def op_times_s(self, table: StageTable, num_ranks: int) -> FloatArray:
        """Seconds of each op of the whole model, while this many ranks run it at the same time."""
        while len(self._runners) < num_ranks:
            self._runners.append(Runner(self._weights))
        runners = self._runners[:num_ranks]
        once_s = self._load(runners[:1], table, 1)
        count = min(_MAX_MICROBATCHES, max(1, math.ceil(_STEP_S / max(once_s, 1e-6))))
        self._load(runners, table, count)
        ops: list[tuple[float, ...]] = []
        stages: list[float] = []
        num_steps, start_s = 0, time.perf_counter()
        with ThreadPoolExecutor(num_ranks) as pool:
            while num_steps < _MIN_STEPS or time.perf_counter() - start_s < _SAMPLE_S:
                num_steps += 1
                for record in pool.map(lambda runner: runner.step(self._patience, times_ops=True), runners):
                    ops += record.op_s[0]
                    stages += [event.end_s - event.start_s for event in record.timeline.events if event.kind == "F"]
                if once_s > _LONG_STEP_S:
                    break
        each = np.median(np.array(ops), axis=0)
        # What lies between ops belongs to them, and the medians of parts do not add up to that of the whole.
        whole: FloatArray = each * (median(stages) / max(each.sum(), 1e-12))
        return whole

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

    def _transfers(self, runner: Runner, num_bytes: int) -> Timeline:
        """A step in which one rank sends to another that waits for it."""
        spec = ValueSpec("value", "uint8", (1, num_bytes), (num_bytes, 1))
        tables = tuple({1: StageTable(rank, 1, Table(("value",), (), ("value",)), (spec,), (spec,))} for rank in (0, 1))
        job = Job(tables, (1,) * _LINK_MICROBATCHES, (True,), (True,))
        names = self._devices.names
        self._start(runner, job, (names[0], names[min(1, len(names) - 1)]))
        runner.fill((torch.zeros(_LINK_MICROBATCHES, num_bytes, dtype=torch.uint8),))
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
    """Of each transfer the seconds from its start until the receiver goes on."""
    starts = {event.microbatch: event.start_s for event in timeline.events if event.rank == 0 and event.kind == "send"}
    arrived = {event.microbatch: event.start_s for event in timeline.events if event.rank == 1 and event.kind == "recv"}
    return [arrived[index] - start_s for index, start_s in starts.items() if index > 1]


def _between_events_s(timeline: Timeline) -> float:
    """Seconds per micro-batch that a rank neither computes, sends nor waits."""
    of_rank = [event for event in timeline.events if event.rank == 0]
    span_s = max(event.end_s for event in of_rank) - min(event.start_s for event in of_rank)
    told_s = sum(event.end_s - event.start_s for event in of_rank if event.kind != "recv")
    return max(0.0, span_s - told_s) / timeline.num_microbatches


def _sizes(traced: Trace, asked: Sequence[int] | None) -> tuple[int, ...]:
    """The numbers of rows to measure, ascending, the traced batch among them."""
    batch_size = traced.graph.batch_size
    for rows in asked or ():
        if not isinstance(rows, int) or rows < 1:
            raise InputError(f"microbatch_sizes are numbers of rows, 1 or more; one of them is {rows!r}.")
        if rows != batch_size and not any(traced.batched):
            raise InputError(f"{traced.graph.model} fixes its batch to {batch_size} rows; measure it with those.")
    if asked is None:
        divides = any(traced.batched) and all(traced.output_batched)
        asked = [1, round(batch_size**0.5)] if divides else []
    return tuple(sorted({*asked, batch_size}))


def _parallel(devices: Devices, num_stages: int) -> int | None:
    """How many ranks can compute at once; None where each has a device of its own."""
    if devices.kind == "cpu":
        return max(1, min(num_stages, num_cores() // devices.num_threads))
    return None if len(set(devices.names)) == len(devices.names) else 1


def _name(devices: Devices) -> str:
    if devices.kind == "cpu":
        return f"this machine ({plural(num_cores(), 'core')})"
    return f"this machine ({torch.cuda.get_device_name(devices.names[0])})"


def _memory_bytes(devices: Devices) -> float:
    """Memory of the machine, or of a GPU; ranks may share it."""
    if devices.kind == "cpu":
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return float(torch.cuda.get_device_properties(devices.names[0]).total_memory)
