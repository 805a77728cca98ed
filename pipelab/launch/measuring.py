"""Repeats steps until their median means something, and watches what else the machine does meanwhile."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import median, median_low

from pipelab.launch.devices import Devices, num_cores
from pipelab.launch.group import Patience
from pipelab.launch.load_meter import LoadMeter
from pipelab.launch.runner import Paces, Runner
from pipelab.launch.step_record import StepRecord
from pipelab.load import OtherLoad

NUM_STEPS = 20
MOST_S = 1.0
# Short steps go on for so long: the median of 20 of them would be that of one moment, and nobody could tell what
# else the machine did.
LEAST_S = 0.25

Progress = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True)
class Measured:
    """Steps of one job.

    Attributes:
        warmup_s: Seconds of the step before those that count.
        records: The steps that count.
        load: What else the machine did meanwhile; None where nobody can tell.
    """

    warmup_s: float
    records: tuple[StepRecord, ...]
    load: OtherLoad | None

    @cached_property
    def steps_s(self) -> tuple[float, ...]:
        """Seconds of the steps that count."""
        return tuple(record.timeline.makespan_s for record in self.records)

    @property
    def median_s(self) -> float:
        """The median of those."""
        return median(self.steps_s)

    @property
    def middle(self) -> StepRecord:
        """The step of median duration, the shorter of two in the middle."""
        return self.records[self.steps_s.index(median_low(self.steps_s))]

    @property
    def peak_memory_bytes(self) -> tuple[int, ...]:
        """Per rank, the most memory it held in any of them."""
        return tuple(map(max, zip(*(record.peak_memory_bytes for record in self.records), strict=True)))


def measure_steps(
    runner: Runner,
    devices: Devices,
    patience: Patience,
    repeats: int | None,
    progress: Progress,
    paces_s: Paces | None = None,
) -> Measured:
    """Run a step to warm up, then those that count.

    Args:
        runner: Loaded, with its inputs in place.
        devices: Where its ranks compute.
        patience: How long to wait.
        repeats: How many steps count; None for 20, for fewer where they take more than a second, and for more
            where they take less than a quarter of one.
        progress: Told after every step, the warm-up included.
        paces_s: Per rank and micro-batch, how long to wait instead of computing; None to compute.
    """
    progress(0, (repeats or NUM_STEPS) + 1)
    warmup_s = runner.step(patience, paces_s=paces_s).timeline.makespan_s
    meter = LoadMeter(runner.pids, spare_cores(devices, paced=paces_s is not None))
    records: list[StepRecord] = []
    start_s = time.perf_counter()
    while True:
        done, elapsed_s = len(records), time.perf_counter() - start_s
        total = repeats or _expected(done, elapsed_s)
        progress(1 + done, 1 + max(total, done))
        if done >= total:
            return Measured(warmup_s, tuple(records), meter.read())
        records.append(runner.step(patience, paces_s=paces_s))


def spare_cores(devices: Devices, *, paced: bool = False) -> int:
    """Cores that ranks leave to other programs; ranks that only wait leave them all."""
    used = 0 if paced else len(devices.names) * (devices.num_threads if devices.kind == "cpu" else 1)
    return max(0, num_cores() - used)


def _expected(done: int, elapsed_s: float) -> int:
    """How many steps there will be, judged by those done; no more than are done once there are enough."""
    if not done:
        return NUM_STEPS
    fewest, most = (max(1, math.ceil(limit_s * done / elapsed_s)) for limit_s in (LEAST_S, MOST_S))
    return done if elapsed_s >= MOST_S else min(max(NUM_STEPS, fewest), most)
