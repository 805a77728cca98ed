"""Repeats steps until their median means something, and says on what they were measured."""

import math
import platform
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median, median_low
from typing import Any

import torch

import pipelab
from pipelab.launch.devices import LINKS, Devices, num_cores
from pipelab.launch.group import Patience
from pipelab.launch.runner import Paces, Runner, StepRecord

MEASURE_S = 1.0
MAX_STEPS = 20

Progress = Callable[[int, int], None]  # steps done, steps in all


def measure_steps(
    runner: Runner, patience: Patience, repeats: int | None, progress: Progress, paces_s: Paces | None = None
) -> list[StepRecord]:
    """Run a step to warm up, then those that count.

    Args:
        runner: Loaded, with its inputs in place.
        patience: How long to wait.
        repeats: How many steps count; None for as many as fit in a second, at most 20.
        progress: Told after every step, the warm-up included.
        paces_s: Per rank and micro-batch, how long to wait instead of computing; None to compute.
    """
    limit = repeats or MAX_STEPS
    progress(0, limit + 1)
    runner.step(patience, paces_s=paces_s)
    records: list[StepRecord] = []
    start_s = time.perf_counter()
    while True:
        total = limit + 1 if repeats else 1 + _expected(len(records), time.perf_counter() - start_s)
        progress(1 + len(records), max(total, 1 + len(records)))
        if len(records) >= limit or (records and not repeats and time.perf_counter() - start_s >= MEASURE_S):
            return records
        records.append(runner.step(patience, paces_s=paces_s))


def _expected(done: int, elapsed_s: float) -> int:
    """How many steps will fit in the time, judged by those done."""
    return min(MAX_STEPS, max(done, math.ceil(done * MEASURE_S / elapsed_s))) if done else MAX_STEPS


def middle(records: Sequence[StepRecord]) -> StepRecord:
    """The step of median duration, the shorter of two in the middle."""
    durations_s = [record.timeline.makespan_s for record in records]
    return records[durations_s.index(median_low(durations_s))]


def median_s(records: Sequence[StepRecord]) -> float:
    """The median duration."""
    return median(record.timeline.makespan_s for record in records)


def environment(devices: Devices) -> dict[str, Any]:
    """What a measurement depends on, JSON-ready."""
    return {
        "device": devices.kind,
        "device_text": devices.text,
        "cores": num_cores(),
        "threads_per_rank": devices.num_threads,
        "links": [LINKS[kind] for kind in devices.links],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pipelab": pipelab.__version__,
        "platform": sys.platform,
        "machine": platform.machine(),
    }
