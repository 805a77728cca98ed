"""Claim: nothing grows, however long a pipeline is used: no memory, no descriptors, no processes.

As somebody does who plays with the explorer: a new split into 2, 3 or 4 stages, some calls, a run with its report, of
batches and micro-batches of changing sizes; on two pipelines of two models at once. A round is ten such splits. After
each the kernel, its server and its ranks are counted in the same state; growth is the slope of a straight line through
the second half of the rounds. No peer: the claim is zero.

    python benchmarks/soak.py [--rounds 20] [--steps 100]
"""

import argparse
import gc
import time

import numpy as np
import psutil
import torch
from machine import machine
from torch_pipeline import kilobytes_mb
from transformers import GPT2Config, GPT2LMHeadModel, ResNetConfig, ResNetForImageClassification

import pipelab

STAGES = (4, 3, 2, 4, 2, 3, 4, 3, 2, 4)
BATCHES = ((8, 4), (4, 1), (12, 5), (3, 3), (16, 16))  # rows, micro-batches
RUN_STEPS = 20

Traced = tuple[pipelab.Trace, dict[str, torch.Tensor]]


def models() -> list[Traced]:
    """Each traced, with more rows than any batch has."""
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=4, n_embd=32, n_head=2, vocab_size=128, bos_token_id=0, eos_token_id=0))
    resnet = ResNetForImageClassification(
        ResNetConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 32], embedding_size=8)
    )
    calls = (
        (gpt2, {"input_ids": torch.randint(128, (16, 8))}),
        (resnet, {"pixel_values": torch.randn(16, 3, 32, 32)}),
    )
    return [
        (pipelab.trace(model.eval(), **{name: tensor[:8] for name, tensor in inputs.items()}), inputs)
        for model, inputs in calls
    ]


def one_round(pipes: list[pipelab.Pipeline], models: list[Traced], num_steps: int) -> None:
    """Ten splits, of each pipeline in turn, with `num_steps` steps each."""
    for use, num_stages in enumerate(STAGES):
        pipe, (traced, inputs) = pipes[use % len(pipes)], models[use % len(pipes)]
        rows, count = BATCHES[use % len(BATCHES)]
        batch = {name: tensor[:rows] for name, tensor in inputs.items()}
        pipe.replan(pipelab.uniform(traced, num_stages=num_stages))
        pipe.run(num_microbatches=count, repeats=RUN_STEPS, **batch)
        for _ in range(num_steps - RUN_STEPS):
            pipe(**batch)


def held_mb(pid: int) -> float:
    """Resident memory of a process, without the files of its program."""
    status = kilobytes_mb(f"/proc/{pid}/status")
    return status["RssAnon"] + status["RssShmem"]


def census() -> dict[str, float]:
    """Of this process, the server and the ranks."""
    gc.collect()
    this = psutil.Process()
    server, *ranks = this.children(recursive=True)
    return {
        "kernel MB": held_mb(this.pid),
        "server MB": held_mb(server.pid),
        "ranks MB": sum(held_mb(rank.pid) for rank in ranks),
        "descriptors": sum(process.num_fds() for process in (this, server, *ranks)),
        "processes": 2 + len(ranks),
    }


def slope(values: list[float]) -> float:
    """Growth per round, of a straight line."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    print(machine())
    traced = models()
    pipes = [pipelab.start(of_model, pipelab.uniform(of_model, num_stages=4), device="cpu") for of_model, _ in traced]
    found = []
    start_s = time.monotonic()
    columns = ("kernel MB", "server MB", "ranks MB", "descriptors", "processes")
    print(f"{'steps':>8} {'replans':>8}" + "".join(f"{what:>12}" for what in columns))
    for done in range(1, args.rounds + 1):
        one_round(pipes, traced, args.steps)
        found.append(census())
        counts = "".join(f"{value:12.1f}" for value in found[-1].values())
        print(f"{done * len(STAGES) * args.steps:8,} {done * len(STAGES):8}" + counts, flush=True)
    print(
        f"{time.monotonic() - start_s:.0f} s. Growth per 1,000 steps and 10 replans, by a line through the second half:"
    )
    for what in found[0]:
        half = [each[what] for each in found[len(found) // 2 :]]
        print(f"    {what:12} {slope(half):+8.3f}")
    for pipe in pipes:
        pipe.close()


if __name__ == "__main__":
    main()
