"""Claim: a pipeline takes little more memory than its weights, activations and link slots, however many micro-batches.

GPT-2 small on 4 ranks, one row of 4 tokens per micro-batch. "Added" is the proportional set size of the kernel, the
server and the ranks together (/proc/*/smaps_rollup), less that of the same processes with four idle ranks of a model
that has hardly any weights; and less what a larger batch must take: its own inputs and outputs, in shared memory and
as the tensors that are returned. "Peak" adds how much more the same processes held at any time (RssAnon of each, and
RssShmem of the kernel, which maps all that is shared), as a thread saw that looked every 20 ms. The budget is 1.1
times the weights (each once), the activations of one micro-batch in every stage, and two slots per link.

A first run also measures the unsplit model in a process of its own, on the whole batch in one piece: it is told by
itself. A rank's own report (`peak_memory_bytes`) is compared with what the thread saw of that process.

Peer: the same stages by hand on torch's `ScheduleGPipe` over gloo, under torchrun (torch_pipeline.py): every process
builds the model and keeps its part. "Added" is there beyond the same processes with a process group and no model.

    python benchmarks/memory.py
"""

import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from machine import machine
from torch_pipeline import kilobytes_mb
from transformers import GPT2Config, GPT2LMHeadModel

import pipelab

RANKS = 4
TOKENS = 4
TRACED_ROWS = 4
MICROBATCHES = (4, 256)
LOOK_S = 0.02
MB = 1e6


class Watch:
    """Looks at this process and its children until the block ends.

    Args:
        pids: Of this process, the server and the ranks; None for whatever is there.

    Attributes:
        above: How much more than at the end these took at most, together.
        beside: How much the others took at most, together.
        held: The most that each process held.
    """

    def __init__(self, pids: tuple[int, ...] = ()) -> None:
        self.above = self.beside = 0.0
        self.held: dict[int, float] = defaultdict(float)
        self._pids = pids
        self._most = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self.above = max(0.0, self._most - self._look())

    def _watch(self) -> None:
        while not self._end.wait(LOOK_S):
            self._most = max(self._most, self._look())

    def _look(self) -> float:
        """What all take now: anonymous pages of each, and the shared ones, all of which this process maps."""
        ours = others = 0.0
        for pid in family():
            with suppress(OSError, KeyError):  # it has just ended
                status = kilobytes_mb(f"/proc/{pid}/status")
                self.held[pid] = max(self.held[pid], status["RssAnon"] + status["RssShmem"])
                if self._pids and pid not in self._pids:
                    others += status["RssAnon"]
                else:
                    ours += status["RssAnon"] + (status["RssShmem"] if pid == os.getpid() else 0.0)
        self.beside = max(self.beside, others)
        return ours


def family() -> tuple[int, ...]:
    """This process and its children."""
    this = psutil.Process()
    return (this.pid, *(child.pid for child in this.children(recursive=True)))


def pss_mb() -> float:
    """What they take together."""
    return sum(kilobytes_mb(f"/proc/{pid}/smaps_rollup")["Pss"] for pid in family())


def idle() -> tuple[float, float]:
    """With four ranks that hold nothing: what all processes take, and what a rank holds, with what it shares."""
    traced = pipelab.trace(
        torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(RANKS))).eval(), torch.zeros(4, 2)
    )
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=RANKS), device="cpu") as pipe:
        rollups = [kilobytes_mb(f"/proc/{pid}/smaps_rollup") for pid in pipe.pids]
        each = [f"{r['Pss']:.1f} ({r['Private_Clean'] + r['Private_Dirty']:.1f})" for r in rollups]
        print(f"idle ranks, MB (of which its own alone): {', '.join(each)}")
        status = kilobytes_mb(f"/proc/{pipe.pids[0]}/status")
        return pss_mb(), status["RssAnon"] + status["RssShmem"]


def own_mb(plan: pipelab.Plan) -> list[float]:
    """Per stage the weights and activations of a row, and the slots it reads and writes, in MB."""
    slots = [0.0, *(2 * boundary.num_bytes for boundary in plan.boundaries), 0.0]
    return [
        (
            stage.param_bytes
            + stage.buffer_bytes
            + (stage.activation_bytes + slots[stage.index] + slots[stage.index + 1]) / TRACED_ROWS
        )
        / MB
        for stage in plan.stages
    ]


def budget_mb(traced: pipelab.Trace, plan: pipelab.Plan) -> float:
    """Weights once, activations and slots, in MB."""
    weights = sum(tensor.nbytes for tensor in traced.weights().values())
    activations = sum(stage.activation_bytes for stage in plan.stages) / TRACED_ROWS
    slots = sum(2 * boundary.num_bytes for boundary in plan.boundaries) / TRACED_ROWS
    print(f"weights {weights / MB:.1f} MB, activations {activations / MB:.1f} MB, slots {slots / MB:.1f} MB")
    return (weights + activations + slots) / MB


def peer_mb(num_microbatches: int) -> dict[str, float]:
    """What the peer takes."""
    script = Path(__file__).with_name("torch_pipeline.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(RANKS), str(script)]
    arguments = [str(num_microbatches), str(TOKENS), str(num_microbatches)]
    output = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def main() -> None:
    """Print the tables."""
    print(machine())
    model = GPT2LMHeadModel(GPT2Config()).eval()
    tokens = torch.randint(50257, (max(MICROBATCHES), TOKENS))
    traced = pipelab.trace(model, input_ids=tokens[:TRACED_ROWS], use_cache=False)
    plan = pipelab.uniform(traced, num_stages=RANKS)
    budget = budget_mb(traced, plan)
    base, idle_held = idle()
    print(f"{'GPT-2 small on 4 ranks':36} {'MB':>8} {'ratio':>8} {'peak MB':>8} {'ratio':>8}")

    def row(what: str, steady: float, peak: float) -> None:
        print(f"{what:36} {steady:8.1f} {steady / budget:8.3f} {peak:8.1f} {peak / budget:8.3f}", flush=True)

    with Watch() as watch:
        pipe = pipelab.start(traced, plan, device="cpu")
    row("started", pss_mb() - base, pss_mb() - base + watch.above)
    reports, beside = [], []
    with pipe:
        for count in MICROBATCHES:
            batch = tokens[:count]
            with Watch(family()) as watch:
                report = pipe.run(input_ids=batch, num_microbatches=count, repeats=1)
            own = (batch.nbytes + 2 * report.output.logits.nbytes) / MB
            added = pss_mb() - base - own
            row(f"m = {count}, less {own:.1f} of its batch", added, added + watch.above)
            if watch.beside:  # on a busy machine it is not measured
                beside.append(f"{watch.beside - idle_held:.1f} for m = {count}")
            seen = [watch.held[pid] - idle_held for pid in pipe.pids]
            reports.append((count, [peak / MB for peak in report.peak_memory_bytes], seen))
            del report
    peer = peer_mb(MICROBATCHES[0])
    row(f"torchrun, ScheduleGPipe, m = {MICROBATCHES[0]}", peer["steady"], peer["peak"])
    print(f"\nthe unsplit model in its own process, MB beyond an idle rank: {', '.join(beside) or 'not run'}")
    print("per rank, MB: weights, activations, slots | reported, seen")
    for count, reported, seen in reports:
        pairs = zip(own_mb(plan), reported, seen, strict=True)
        print(f"m = {count:3}  " + "   ".join(f"{own:5.1f} | {told:5.1f}, {saw:5.1f}" for own, told, saw in pairs))


if __name__ == "__main__":
    main()
