"""Claim: how far other tools' splits are from the best one is known before anything runs, and proven.

The slowest stage of each policy's split over that of the best split, for seven models at 2 to 16 stages, in full and
in brief; then LLaMA-3-70B split for reading a prompt, for generating, and for both, on either workload.
Models are traced on the meta device from the configs below and costed by a device's data sheet; nothing is downloaded
or measured.

    python benchmarks/splits.py
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import pipelab
from pipelab import peers
from pipelab.candidates import Granularity
from pipelab.plan import Plan

HARDWARE = "h100-80gb"
NUM_STAGES = (2, 4, 8, 16)
GRANULARITIES: tuple[Granularity, ...] = ("block", "module")
BATCH, LENGTH, NUM_MICROBATCHES = 8, 512, 8
SETTING: dict[str, Any] = {"objective": "time", "hardware": HARDWARE, "num_microbatches": NUM_MICROBATCHES}
NO_LIMIT: dict[str, Any] = {"memory_limit_bytes": math.inf}  # a split that would not fit is judged as well

# The second table: the same batch as prompts, and one new token for each of these rows over a cache that long.
ROWS, CONTEXT = 128, 8192
MIX = (1, 4)  # four decode steps for each prefill

LLAMA_3_70B = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2 124M": ("GPT2Config", {"bos_token_id": 0, "eos_token_id": 0}),
    "GPT-2 XL": ("GPT2Config", {"n_layer": 48, "n_embd": 1600, "n_head": 25, "bos_token_id": 0, "eos_token_id": 0}),
    "BERT-large": (
        "BertConfig",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "architectures": ["BertForMaskedLM"],
        },
    ),
    "T5-3B": ("T5Config", {"d_model": 1024, "d_ff": 16384, "d_kv": 128, "num_heads": 32, "num_layers": 24}),
    "OPT-30B": (
        "OPTConfig",
        {
            "hidden_size": 7168,
            "word_embed_proj_dim": 7168,
            "ffn_dim": 28672,
            "num_hidden_layers": 48,
            "num_attention_heads": 56,
        },
    ),
    "BLOOM-176B": ("BloomConfig", {"hidden_size": 14336, "n_layer": 70, "n_head": 112, "vocab_size": 250880}),
    "LLaMA-3-70B": ("LlamaConfig", LLAMA_3_70B),
}
POLICIES: dict[str, Callable[..., Plan]] = {
    "equal size": pipelab.equal_size,
    "threshold": pipelab.threshold,
    "uniform": pipelab.uniform,
    "vLLM": peers.vllm,
    "torchtitan": peers.torchtitan,
    "bytes": peers.balanced_bytes,
    "accelerate": peers.accelerate_auto,
    "DeepSpeed": peers.deepspeed,
    "torchgpipe": peers.torchgpipe,
}
IN_BRIEF = ("equal size", "threshold", "uniform", "accelerate")


@cache
def trace(model: str, batch_size: int = BATCH, seq_len: int = LENGTH, cache_len: int | None = None) -> pipelab.Trace:
    """A model by its name above, in bfloat16, without weights."""
    import transformers

    class_name, settings = MODELS[model]
    config = getattr(transformers, class_name)(**settings)
    return pipelab.trace_pretrained(
        config, batch_size=batch_size, seq_len=seq_len, cache_len=cache_len, dtype="bfloat16"
    )


# --- policies against the best split ------------------------------------------------------------------


def bottleneck_s(plan: Plan) -> float:
    """Seconds of the slowest stage per micro-batch, its transfers included."""
    return pipelab.regret(plan, **SETTING, **NO_LIMIT).cost


def best_s(traced: pipelab.Trace, num_stages: int, granularity: Granularity = "block") -> float:
    """The least of any split, which the planner proves; none where there are fewer places to cut."""
    asked: dict[str, Any] = {**SETTING, **NO_LIMIT, "granularity": granularity}
    try:
        return pipelab.regret(pipelab.optimal(traced, num_stages=num_stages, **asked), **asked).optimum
    except pipelab.PipelabError:
        return math.nan


def over_best(policy: Callable[..., Plan], traced: pipelab.Trace, num_stages: int, best: float) -> str:
    """How many times the best a policy's slowest stage takes, and how many stages it has if it has fewer."""
    try:
        plan = policy(traced, num_stages=num_stages).without_empty_stage()
    except pipelab.PipelabError:
        return "–"
    fewer = f" ({plan.num_stages})" if plan.num_stages < num_stages else ""
    return f"{bottleneck_s(plan) / best:.2f}{fewer}"


def policies_row(model: str, num_stages: int, policies: Mapping[str, Callable[..., Plan]] = POLICIES) -> list[str]:
    """One line: the best split between blocks in ms, and over it each policy and the best split between any ops."""
    traced = trace(model)
    best = best_s(traced, num_stages)
    if math.isnan(best):
        return [model, str(num_stages), *("–" for _ in ("best", *policies, "any op"))]
    ratios = [over_best(policy, traced, num_stages, best) for policy in policies.values()]
    return [
        model,
        str(num_stages),
        f"{1e3 * best:#.3g}".rstrip("."),
        *ratios,
        f"{best_s(traced, num_stages, 'op') / best:.2f}",
    ]


def in_brief(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The README's table: one line per model, in a cell a policy's figures for all numbers of stages."""
    header = ["model", "stages", "best", *POLICIES]
    return [
        [model, *(" · ".join(row[header.index(policy)] for row in rows if row[0] == model) for policy in IN_BRIEF)]
        for model in MODELS
    ]


# --- plans against workloads --------------------------------------------------------------------------


def workloads() -> dict[str, pipelab.Trace]:
    """LLaMA-3-70B reading prompts, and generating."""
    return {
        "prefill": trace("LLaMA-3-70B"),
        "decode": trace("LLaMA-3-70B", ROWS, cache_len=CONTEXT),
    }


def plans_for_workloads(granularity: Granularity) -> dict[str, Plan]:
    """The best split of 8 stages for each workload, and for both."""
    asked: dict[str, Any] = {"hardware": HARDWARE, "num_microbatches": NUM_MICROBATCHES, "num_stages": 8}
    traces = workloads()
    found = {
        f"{name}-optimal": pipelab.optimal(traced, objective="time", granularity=granularity, **asked)
        for name, traced in traces.items()
    }
    mix = list(zip(traces.values(), MIX, strict=True))
    return {**found, "mix-optimal": pipelab.optimal_mix(mix, granularity=granularity, **asked)}


def workloads_row(name: str, plan: Plan, granularity: Granularity) -> list[str]:
    """One line: per workload the time of a step, and how far the slowest stage is above that workload's best."""
    cells = [name, f"between {granularity}s"]
    for traced in workloads().values():
        moved = pipelab.split_at(traced, plan.split_points)
        step = pipelab.simulate(moved, num_microbatches=NUM_MICROBATCHES, hardware=HARDWARE).makespan_s
        above = pipelab.regret(moved, **SETTING, granularity=granularity).fraction
        cells += [f"{1e3 * step:.1f}", f"{100 * abs(above):.1f} %"]
    return cells


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, all but the first column to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def main() -> None:
    """Print the tables."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    batch = f"{BATCH} × {LENGTH} tokens in {NUM_MICROBATCHES} micro-batches"
    print(f"Batch of {batch}, bfloat16, {HARDWARE} by its data sheet.\n")
    rows = [policies_row(model, num_stages) for model in MODELS for num_stages in NUM_STAGES]
    print(markdown(["model", "stages", "best, ms", *POLICIES, "best, any op"], rows))
    print(
        "\nSlowest stage per micro-batch over that of the best split between blocks (1.00); memory is not limited. "
        "Equal size and threshold, PiPPy's policies, cut inside blocks as well, so they can be below 1. (n): the "
        "policy uses n stages only. –: it refuses, or there are fewer blocks than stages.\n"
    )
    print(markdown([f"at {' · '.join(map(str, NUM_STAGES))} stages", *IN_BRIEF], in_brief(rows)) + "\n")
    rows = [
        workloads_row(name, plan, granularity)
        for granularity in GRANULARITIES
        for name, plan in plans_for_workloads(granularity).items()
    ]
    header = ["LLaMA-3-70B, 8 stages", "cuts"]
    print(markdown([*header, "prefill, ms", "above best", "decode, ms", "above best"], rows))
    print(
        f"\nPrefill: the batch above. Decode: one token for each of {ROWS} rows, over a cache of "
        f"{CONTEXT} tokens. Step time in {NUM_MICROBATCHES} micro-batches, and the slowest stage against the best for "
        f"that workload; memory of {HARDWARE}. The mix is {MIX[0]} prefill to {MIX[1]} decode steps."
    )


if __name__ == "__main__":
    main()
