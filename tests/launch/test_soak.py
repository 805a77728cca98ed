"""Nothing grows while a pipeline is used: benchmarks/soak.py in short."""

import gc
import sys
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

import pipelab

STAGES = (4, 3, 2, 4, 2)
BATCHES = ((8, 4), (8, 8), (12, 5), (3, 1), (32, 32))  # rows, micro-batches


def use(pipe: pipelab.Pipeline, traced: pipelab.Trace) -> None:
    """Five splits, with a run and some calls of each: about 75 steps."""
    for num_stages, (rows, count) in zip(STAGES, BATCHES, strict=True):
        batch = torch.zeros(rows, 64)
        pipe.replan(pipelab.uniform(traced, num_stages=num_stages))
        pipe.run(batch, num_microbatches=count, repeats=4)
        for _ in range(10):
            pipe(batch)


def census(pipe: pipelab.Pipeline) -> tuple[int, int, int]:
    """Processes, descriptors, and bytes that they hold: of this process, its server and the ranks."""
    gc.collect()
    this = psutil.Process()
    family = [this, *this.children(recursive=True)]
    held = [
        int(line.split()[1]) * 1024
        for process in family
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith(("RssAnon", "RssShmem"))
    ]
    return len(family), sum(process.num_fds() for process in family), sum(held)


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
def test_nothing_grows() -> None:
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(8))).eval()
    traced = pipelab.trace(model, torch.zeros(8, 64))
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=4), device="cpu") as pipe:
        for _ in range(2):  # what is kept for good is there after these
            use(pipe, traced)
        processes, descriptors, held = census(pipe)
        for _ in range(2):
            use(pipe, traced)
        assert census(pipe)[:2] == (processes, descriptors)
        assert census(pipe)[2] < held + 8_000_000
