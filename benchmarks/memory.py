"""Claim: a pipeline takes little more memory than its weights, activations and link slots, however many micro-batches.

GPT-2 small on 4 ranks, one row of 4 tokens per micro-batch. "Added" is the proportional set size of the kernel, the
server and the ranks together (/proc/*/smaps_rollup), less that of the same processes with four idle ranks of a model
that has hardly any weights; and less what a larger batch must take: its own inputs and outputs, in shared memory and
as the tensors that are returned. "Peak" is the most that a thread saw meanwhile, looking every 20 ms. The budget is 1.1
times the weights (each once), the activations of one micro-batch in every stage, and two slots per link.

A first run also measures the unsplit model in a process of its own, on the whole batch in one piece; that has a line
of its own. A rank's own report (`peak_memory_bytes`) is compared with what the thread saw of that process.

Peer: the same stages by hand on torch's `ScheduleGPipe` over gloo, under torchrun (torch_pipeline.py): every process
builds the model and keeps its part. "Added" is there beyond the same processes with a process group and no model.

    python benchmarks/memory.py
"""

import json
import subprocess
import sys
import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from machine import machine
from torch_pipeline import memory_mb
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
        peak: The most that these took together, while there were no others.
        beside: The most that all took together, while there were others.
        held: The most that each held, without the files of its program.
    """

    def __init__(self, pids: set[int] | None = None) -> None:
        self.peak = self.beside = 0.0
        self._pids = pids
        self.held: dict[int, float] = defaultdict(float)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(LOOK_S):
            now = look()
            if self._pids and now.keys() - self._pids:
                self.beside = max(self.beside, total(now))
                continue
            self.peak = max(self.peak, total(now))
            for pid, memory in now.items():
                self.held[pid] = max(self.held[pid], memory["held"])


def look() -> dict[int, dict[str, float]]:
    """The memory of this process and its children, in MB."""
    this = psutil.Process()
    found = {}
    for pid in (this.pid, *(child.pid for child in this.children(recursive=True))):
        with suppress(ProcessLookupError, FileNotFoundError, KeyError):  # it has just ended
            found[pid] = memory_mb(pid)
    return found


def total(memory: dict[int, dict[str, float]]) -> float:
    """What they take together."""
    return sum(of_process["pss"] for of_process in memory.values())


def idle() -> tuple[float, dict[int, dict[str, float]]]:
    """With four ranks that hold nothing: what all processes take, and each rank by its pid."""
    traced = pipelab.trace(
        torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(RANKS))).eval(), torch.zeros(4, 2)
    )
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=RANKS), device="cpu") as pipe:
        memory = look()
        return total(memory), {pid: memory[pid] for pid in pipe.pids}


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
    base, ranks = idle()
    print(
        "an idle rank: " + ", ".join(f"{each['pss']:.0f} MB ({each['private']:.1f} its own)" for each in ranks.values())
    )
    idle_held = min(each["held"] for each in ranks.values())
    print(f"\n{'GPT-2 small on 4 ranks':44} {'MB':>8} {'of weights, activations, slots':>31}")

    def row(what: str, megabytes: float) -> None:
        print(f"{what:44} {megabytes:8.1f} {megabytes / budget:31.3f}", flush=True)

    reports = []
    with Watch() as watch:
        pipe = pipelab.start(traced, plan, device="cpu")
    row("started, peak", watch.peak - base)
    row("started", total(look()) - base)
    with pipe:
        for count in MICROBATCHES:
            batch = tokens[:count]
            with Watch(set(look())) as watch:
                report = pipe.run(input_ids=batch, num_microbatches=count, repeats=1)
            own = (batch.nbytes + 2 * report.output.logits.nbytes) / MB
            row(f"m = {count}", total(look()) - own - base)
            row(f"m = {count}, peak", watch.peak - own - base)
            row(f"m = {count}, with the unsplit model beside", watch.beside - own - base)
            print(f"{'   inputs and outputs, left out':44} {own:8.1f}")
            seen = [watch.held[pid] - idle_held for pid in pipe.pids]
            reports.append((count, [peak / MB for peak in report.peak_memory_bytes], seen))
    for count in MICROBATCHES[:1]:
        peer = peer_mb(count)
        row(f"torchrun, ScheduleGPipe, m = {count}", peer["steady"])
        row(f"torchrun, ScheduleGPipe, m = {count}, peak", peer["peak"])

    print("\nper rank, MB: weights, activations, slots | reported, seen")
    for count, reported, seen in reports:
        pairs = zip(own_mb(plan), reported, seen, strict=True)
        print(f"m = {count:3}  " + "   ".join(f"{own:5.1f} | {told:5.1f}, {saw:5.1f}" for own, told, saw in pairs))


if __name__ == "__main__":
    main()
