"""Claim: ranks are ready soon, and stay warm.

Peers, measured in the same run: `import torch` in a fresh process, and for a new split of GPT-2 small a fresh
`torchrun` of four stages by hand on torch's `ScheduleGPipe` over gloo (torch_pipeline.py), until the first output of
1 x 16 tokens. Each figure is the median of five (torchrun: three); "cold" starts a process of its own for each.

    python benchmarks/starting.py
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

RUNS = 5
PEER_RUNS = 3
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4")
STEP = "one step of GPT-2 small, 1 × 16 tokens"
REPLAN = "replan of GPT-2 small and its first output"
PEER = "torchrun of GPT-2 small, until its first output"
COLD = """
import time, torch, pipelab
from pipelab.launch.controller import start
model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(8))).eval()
traced = pipelab.trace(model, torch.zeros(8, 64))
plan = pipelab.uniform(traced, num_stages=4)
begin = time.perf_counter()
with start(traced, plan, device="cpu") as pipe:
    pipe(torch.zeros(8, 64))
    print(time.perf_counter() - begin)
"""
IMPORT = "import time; begin = time.perf_counter(); import torch; print(time.perf_counter() - begin)"


def fresh(code: str) -> float:
    """What a fresh process prints last."""
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return float(output.split()[-1])


def fresh_torchrun() -> float:
    """Seconds until torchrun's four processes have the first output of 1 x 16 tokens."""
    script = Path(__file__).with_name("torch_pipeline.py")
    begin = time.perf_counter()
    command = [*TORCHRUN, str(script), "1", "16", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("output") for line in process.stdout)
        return time.perf_counter() - begin


def warm() -> dict[str, float]:
    """GPT-2 small: a new split, and new ranks after one was killed; each with its first output."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    import pipelab

    ids = torch.zeros(1, 16, dtype=torch.int64)
    traced = pipelab.trace(GPT2LMHeadModel(GPT2Config()).eval(), input_ids=ids)
    plans = [pipelab.uniform(traced, num_stages=count) for count in (4, 3)]
    steps, replans, heals = [], [], []
    with pipelab.start(traced, plans[0], device="cpu") as pipe:
        pipe(input_ids=ids)
        for turn in range(RUNS):
            begin = time.perf_counter()
            pipe(input_ids=ids)
            steps.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            pipe.replan(plans[(turn + 1) % 2])
            pipe(input_ids=ids)
            replans.append(time.perf_counter() - begin)
            os.kill(pipe.pids[0], signal.SIGKILL)
            with suppress(pipelab.PipelabError):
                pipe(input_ids=ids)
            begin = time.perf_counter()
            pipe.replan(plans[(turn + 1) % 2])  # brings the ranks back
            heals.append(time.perf_counter() - begin)
            pipe(input_ids=ids)
    return {
        STEP: median(steps),
        REPLAN: median(replans),
        "ranks back after one was killed": median(heals),
    }


def main() -> None:
    """Print the table."""
    from machine import machine

    print(machine())
    torch_s = median(fresh(IMPORT) for _ in range(RUNS))
    rows = {
        "import torch in a fresh process": torch_s,
        "4 ranks ready from cold, and the first output": median(fresh(COLD) for _ in range(RUNS)),
        **warm(),
        PEER: median(fresh_torchrun() for _ in range(PEER_RUNS)),
    }
    for what, seconds in rows.items():
        print(f"{what:50} {seconds:6.2f} s  {seconds / torch_s:5.2f} × import torch")
    beyond_s, times = rows[REPLAN] - rows[STEP], rows[PEER] / rows[REPLAN]
    print(f"replan and first output: {beyond_s:.2f} s beyond the step, {times:.0f} × as fast as the torchrun")


if __name__ == "__main__":
    main()
