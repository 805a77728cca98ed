"""The peak is that of one step, and does not count the program itself."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import pipelab

# In a process of its own: what a test run has touched before would blur it.
MEASURE = """
import torch
from pipelab.launch.peak_memory import held_bytes, peak_bytes, reset_peak
cpu = torch.device("cpu")
idle = held_bytes()
def peak(num_bytes):
    reset_peak(cpu)
    torch.ones(num_bytes, dtype=torch.uint8)
    return peak_bytes(cpu, idle)
print(peak(1000), peak(200_000_000), peak(1000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot forget a peak")
def test_peak_of_each_step() -> None:
    result = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    first, large, again = map(int, result.stdout.split())
    assert first < 20_000_000
    assert 190_000_000 < large < 250_000_000  # the system counts in batches of pages
    assert again < 50_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot forget a peak")
def test_a_small_batch_does_not_count_what_a_large_one_left() -> None:
    """A rank kept up to 60 MB of what a large batch had freed, and reported it as the peak of every later run."""
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4))).eval()
    traced = pipelab.trace(model, torch.zeros(4, 64))
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cpu") as pipe:
        runs = [pipe.run(torch.zeros(rows, 64), num_microbatches=1, repeats=1) for rows in (4, 80_000, 4)]
    before, large, after = (max(report.peak_memory_bytes) for report in runs)
    assert large > before + 40_000_000
    assert after < before + 15_000_000
