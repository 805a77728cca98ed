"""Question: would a stage compute faster if torch.compile had made it? If it does, an option for it is worth having.

The second of two stages of a GPT-2, in one process with one thread: as pipelab runs it, as one flat function of
operators, and the same function compiled by inductor. They take turns; the fastest of many is shown, the largest
difference of the results, and what compiling took.

    python benchmarks/compiled_stage.py [--layers 8] [--width 384] [--tokens 64] [--rows 1 4]
"""

import argparse
import time
from collections.abc import Callable

import torch
from machine import machine
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import pipelab
from pipelab.stage_module import StageModule
from pipelab.stages import stage_tables

SECONDS = 4.0  # of measuring, for each number of rows

Run = Callable[..., tuple[Tensor, ...]]


def fastest(runs: dict[str, Run], values: tuple[Tensor, ...]) -> dict[str, float]:
    """Seconds of the fastest call of each, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    end_s = time.perf_counter() + SECONDS
    while time.perf_counter() < end_s:
        for name, run in runs.items():
            start_s = time.perf_counter()
            run(*values)
            taken[name].append(time.perf_counter() - start_s)
    return {name: min(seconds) for name, seconds in taken.items()}


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4])
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=args.layers, n_embd=args.width, n_head=args.width // 64, vocab_size=8192, use_cache=False
    )
    tokens = torch.randint(8192, (max(args.rows) + 1, args.tokens))
    traced = pipelab.trace(GPT2LMHeadModel(config).eval(), input_ids=tokens)
    plan = pipelab.uniform(traced, num_stages=2)
    print(machine())
    print("| rows | ops | flat, ms | compiled, ms | gain | largest difference | compiling, s |\n" + "|---" * 7 + "|")
    for rows in args.rows:
        before, stage = (StageModule(table.table, traced.weights()) for table in stage_tables(traced, plan, rows))
        values = before(tokens[:rows])
        compiled = torch.compile(stage)
        start_s = time.perf_counter()
        found = compiled(*values)
        compiling_s = time.perf_counter() - start_s
        off = max(float((a - b).abs().max()) for a, b in zip(found, stage(*values), strict=True))
        taken = fastest({"flat": stage, "compiled": compiled}, values)
        print(
            f"| {rows} | {len(stage.table.rows)} | {1e3 * taken['flat']:.2f} | {1e3 * taken['compiled']:.2f} | "
            f"{taken['flat'] / taken['compiled'] - 1:+.0%} | {off:.1e} | {compiling_s:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
