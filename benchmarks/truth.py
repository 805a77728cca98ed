"""Claim: a report notices a busy machine and does not suspect a quiet one; and recording costs next to nothing.

The same pipelines run on the machine as it is, and beside one process that computes without end: what the report says
others used, how often it says that they disturbed, and how much longer the step is. Then what noting the time costs a
rank, five times per micro-batch, against a micro-batch of 1 ms.

    python benchmarks/truth.py
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import torch
from machine import machine

import pipelab

RUNS = 5
SIZES = (64, 512, 1024)
MARKS = 5


@contextmanager
def one_busy_process() -> Iterator[None]:
    """It computes until the block ends."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def row(name: str, reports: list[pipelab.Report], quiet_s: float | None) -> float:
    """Print what was said of some runs; returns their median step."""
    others = sorted(load.others_cores for report in reports if (load := report.other_load))
    said = sum(load.disturbed for report in reports if (load := report.other_load))
    step_s = median(report.step_s for report in reports)
    ratio = f"{step_s / quiet_s:.2f}" if quiet_s else "1"
    print(f"| {name} | {others[0]:.2f} to {others[-1]:.2f} | {said} of {len(reports)} | {1e3 * step_s:.2f} | {ratio} |")
    return step_s


def recording_s() -> float:
    """Seconds of noting the time once, as a rank does."""
    times_ns: list[int] = []
    append, now = times_ns.append, time.perf_counter_ns

    def mark() -> None:
        append(now())

    start_s = time.perf_counter()
    for _ in range(100_000):
        mark()
    return (time.perf_counter() - start_s) / 100_000


def main() -> None:
    """Print the tables."""
    print(machine())
    print("| run | others used, cores | told | step, ms | ratio |")
    print("|---|---|---|---|---|")
    for size in SIZES:
        layers = (torch.nn.Sequential(torch.nn.Linear(size, size), torch.nn.ReLU()) for _ in range(8))
        batch = torch.randn(64, size)
        traced = pipelab.trace(torch.nn.Sequential(*layers).eval(), batch)
        for ranks in (2, 4):
            with pipelab.start(traced, pipelab.uniform(traced, num_stages=ranks), device="cpu") as pipe:
                name = f"width {size}, {ranks} ranks"
                quiet_s = row(name, [pipe.run(batch) for _ in range(RUNS)], None)
                with one_busy_process():
                    row(f"{name}, beside one process", [pipe.run(batch) for _ in range(RUNS)], quiet_s)
    each_s = recording_s()
    print(f"recording: {MARKS} times {1e9 * each_s:.0f} ns per micro-batch, {MARKS * each_s / 1e-3:.3%} of 1 ms")


if __name__ == "__main__":
    main()
