"""Claim: what was predicted comes true, within 5 % in the median, where as many ranks run as there are cores.

Three models, three splits of each (one deliberately uneven), 1, 4 and 16 micro-batches, on 2 ranks and on 4. Each
model is measured once per number of ranks; each run is predicted before it, and compared with the median of its steps.
The naive prediction of the same run is the peer: no sharing of cores, no transfers, a micro-batch of a quarter of the
rows in a quarter of the time (`sum c + (m - 1) max c` with c the stage's time for the whole batch over m).

    python benchmarks/prediction.py [--ranks 2 4]
"""

import argparse
from statistics import median

import torch
from machine import machine
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, ResNetConfig
from transformers import ResNetForImageClassification as ResNet

import pipelab

BATCH = 16
MICROBATCHES = (1, 4, 16)


def models() -> dict[str, tuple[nn.Module, dict[str, torch.Tensor]]]:
    """Each model with its call; random weights."""
    gpt2 = GPT2Config(n_layer=8, n_embd=384, n_head=6, vocab_size=8192, use_cache=False)
    llama = LlamaConfig(
        hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
        vocab_size=4096, use_cache=False,
    )  # fmt: skip
    resnet = ResNetConfig(depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic")
    torch.manual_seed(0)
    tokens = {"input_ids": torch.randint(4096, (BATCH, 64))}
    return {
        "GPT-2, 8 layers of 384": (GPT2LMHeadModel(gpt2), tokens),
        "LLaMA, 8 layers of 512": (LlamaForCausalLM(llama), tokens),
        "ResNet-18": (ResNet(resnet), {"pixel_values": torch.randn(BATCH, 3, 112, 112)}),
    }


def splits(traced: pipelab.Trace, num_stages: int) -> dict[str, pipelab.Plan]:
    """Three plans; the uneven one leaves to the last stage all that the others' single blocks do not hold."""
    starts = [point.position for point in traced.graph.cut_points if point.level == "block"]
    return {
        "uniform": pipelab.uniform(traced, num_stages=num_stages),
        "optimal": pipelab.optimal(traced, num_stages=num_stages, objective="time"),
        "uneven": pipelab.split_at(traced, starts[1:num_stages]),
    }


def naive_s(plan: pipelab.Plan, num_microbatches: int) -> float:
    """What a textbook would say of the same stage times."""
    times = [(stage.time_s or 0.0) / num_microbatches for stage in plan.stages]
    return sum(times) + (num_microbatches - 1) * max(times)


def disturbed(report: pipelab.Report) -> str:
    """A mark where something else kept the machine busy."""
    return " (busy)" if report.other_load and report.other_load.disturbed else ""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    args = parser.parse_args()
    print(machine())
    errors: dict[int, list[float]] = {}
    naive: dict[int, list[float]] = {}
    print("| ranks | model | split | m | predicted ms | measured ms | error | textbook's error |")
    print("|---|---|---|---|---|---|---|---|")
    for ranks in args.ranks:
        for name, (model, inputs) in models().items():
            traced = pipelab.trace(model.eval(), **inputs)
            sizes = [BATCH // m for m in MICROBATCHES]
            pipelab.measure(traced, device="cpu", microbatch_sizes=sizes, num_stages=ranks)
            plans = splits(traced, ranks)
            with pipelab.start(traced, plans["uniform"], device="cpu") as pipe:
                for split, plan in plans.items():
                    pipe.replan(plan)
                    for m in MICROBATCHES:
                        report = pipe.run(num_microbatches=m, **inputs)
                        assert report.predicted is not None
                        error = report.predicted.makespan_s / report.step_s - 1
                        textbook = naive_s(plan, m) / report.step_s - 1
                        errors.setdefault(ranks, []).append(abs(error))
                        naive.setdefault(ranks, []).append(abs(textbook))
                        print(
                            f"| {ranks} | {name} | {split} | {m} | {1e3 * report.predicted.makespan_s:.1f} | "
                            f"{1e3 * report.step_s:.1f}{disturbed(report)} | {error:+.1%} | {textbook:+.1%} |",
                            flush=True,
                        )
    for ranks, of_ranks in errors.items():
        print(
            f"{ranks} ranks: error median {median(of_ranks):.1%}, largest {max(of_ranks):.1%}; "
            f"textbook median {median(naive[ranks]):.1%}, largest {max(naive[ranks]):.1%}"
        )


if __name__ == "__main__":
    main()
