"""Claim: with caches that stay in the ranks, tokens come faster: than without caches, and than from one process.

Peers of the same run, each process with one thread: the same pipeline without a cache; transformers' own `generate` in
one process, over the whole batch at once and over the same groups one after another; transformers' own stages
(`pp_size`, over gloo) and accelerate's device map, of whose devices one works at a time. On a CPU both of its devices
are the CPU, so that only its hooks are added. All make the same tokens, which is checked (but for one row in fifty:
of random weights two tokens can be as likely as each other but for rounding).

    python benchmarks/generate.py [--rows 16 64 192] [--many 256]
"""

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import machine
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

import pipelab

RUNS, RANKS = 3, 2
PROMPT, SHORT, NEW = 32, 24, 64  # tokens; after few new ones the pipeline has hardly filled
GROUPS = (2, 4)
PAGE = 256  # tokens of the prompts where a cache is looked at
SETTINGS: dict[str, Any] = {"do_sample": False, "pad_token_id": 0}
SIZES = {
    "this one": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 8},
    "a small one": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4},
    "a tiny one": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4},
}


def build(name: str) -> LlamaForCausalLM:
    """A model with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES[name], vocab_size=4000, bos_token_id=None, eos_token_id=None)
    return LlamaForCausalLM(config).eval()


def prompts(rows: int, length: int = PROMPT) -> Tensor:
    """Token ids, the same in each process."""
    return torch.randint(0, 4000, (rows, length), generator=torch.Generator().manual_seed(0))


def start(model: LlamaForCausalLM) -> pipelab.Pipeline:
    """Two ranks that compute about as much as each other."""
    traced = pipelab.trace(model, prompts(2))
    pipe = pipelab.start(traced, pipelab.optimal(traced, num_stages=RANKS, objective="flops"), device="cpu")
    for use in (True, False):  # the steps are traced before any clock runs
        pipe.generate(prompts(1), max_new_tokens=2, use_cache=use, **SETTINGS)
    return pipe


def show(what: str, num_tokens: float, seconds: float, *ratios: str) -> None:
    """A line of the table."""
    print(f"  {what:56} {num_tokens / seconds:7.0f} tokens/s  {', '.join(ratios)}", flush=True)


def millions(model: LlamaForCausalLM) -> str:
    """How large it is."""
    return f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} M parameters"


def in_turns(*works: Callable[[], object]) -> list[float]:
    """How long each takes: medians of some rounds in which they take turns."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(RUNS):
        for work, seconds in zip(works, taken, strict=True):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
    return list(map(median, taken))


def with_and_without_a_cache(pipe: pipelab.Pipeline, many: int) -> None:
    """Without a cache one run, because it is long."""
    for rows in (1, 4):
        (cached_s,) = in_turns(lambda rows=rows: pipe.generate(prompts(rows, PAGE), max_new_tokens=many, **SETTINGS))
        began = time.perf_counter()
        pipe.generate(prompts(rows, PAGE), max_new_tokens=many, use_cache=False, **SETTINGS)
        seconds = time.perf_counter() - began
        name = f"{rows} row{'s' if rows > 1 else ''}, {many} new tokens"
        show(f"{name}, with a cache", rows * many, cached_s)
        show(f"{name}, without", rows * many, seconds, f"{seconds / cached_s:.1f} × slower")


def groups_in_flight(model: LlamaForCausalLM, pipe: pipelab.Pipeline, rows: int, new: int) -> float:
    """Against one process; returns the seconds of two groups."""
    ids = prompts(rows)
    in_turn = [
        lambda groups=groups: [one_process(model, part, new) for part in ids.tensor_split(groups)] for groups in GROUPS
    ]
    in_flight = [
        lambda groups=groups: pipe.generate(ids, max_new_tokens=new, num_microbatches=groups, **SETTINGS)
        for groups in GROUPS
    ]
    whole_s, *taken = in_turns(lambda: one_process(model, ids, new), *in_turn, *in_flight)
    name = f"{rows} rows, {new} new tokens"
    show(f"{name}, one process, the whole batch", rows * new, whole_s)
    turns_s, ours_s = taken[: len(GROUPS)], taken[len(GROUPS) :]
    for groups, turn_s, seconds in zip(GROUPS, turns_s, ours_s, strict=True):
        show(f"{name}, one process, {groups} groups in turn", rows * new, turn_s)
        ratios = f"{turn_s / seconds:.2f} × the groups in turn", f"{whole_s / seconds:.2f} × the whole batch"
        show(f"{name}, {RANKS} ranks, {groups} groups in flight", rows * new, seconds, *ratios)
    return ours_s[0]


def one_process(model: LlamaForCausalLM, ids: Tensor, new: int = NEW) -> Tensor:
    """What transformers itself makes."""
    made: Tensor = model.generate(ids, max_new_tokens=new, **SETTINGS)  # type: ignore[operator]  # a mix-in's
    return made


def assert_same(made: Tensor, expected: Tensor) -> None:
    """Of all rows but one in fifty, the tokens must be equal."""
    differing = int((made != expected).any(dim=1).sum())
    assert differing <= len(made) // 50, f"{differing} of {len(made)} rows differ"


def overhead(name: str, model: LlamaForCausalLM, pipe: pipelab.Pipeline) -> None:
    """Of one row: what a token takes beyond computing and transformers' loop."""
    reports = []
    for _ in range(RUNS + 2):
        pipe.generate(prompts(1), max_new_tokens=4 * SHORT, **SETTINGS)
        reports.append(pipe.last_generation)
    report = min(reports, key=lambda report: report.overhead_s)
    computing = sum(report.decode.step_busy_s)
    (alone_s,) = in_turns(lambda: model.generate(prompts(1), max_new_tokens=4 * SHORT, **SETTINGS))
    print(
        f"  {name:10} {1e3 * report.token_s:6.2f} ms per token: stages {1e3 * computing:.2f}, transformers' loop "
        f"{1e3 * report.loop_s:.2f}, overhead {1e6 * report.overhead_s:.0f} µs per rank; one process "
        f"{1e3 * alone_s / (4 * SHORT):.2f} ms per token",
        flush=True,
    )


def own_stages(name: str, model: LlamaForCausalLM, rows: int, ours_s: float, expected: Tensor) -> None:
    """transformers' `pp_size`, in processes of its own."""
    script = Path(__file__).with_name("transformers_pipeline.py")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
        asked = [folder, *map(str, (rows, PROMPT, NEW, RUNS))]
        done = subprocess.run([*run, str(script), *asked], capture_output=True, text=True, timeout=250)
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not found:
        errors = [line for line in done.stderr.splitlines() if "Error" in line]
        print(f"  transformers' pp_size does not run: {errors[0] if errors else done.stderr[-300:]}", flush=True)
        return
    told = json.loads(found[0])
    assert_same(torch.tensor(told["ids"]), expected)
    seconds = median(told["seconds"])
    what = f"{rows} row{'s' if rows > 1 else ''}, {name}, transformers' pp_size={RANKS}"
    show(what, rows * NEW, seconds, f"pipelab {seconds / ours_s:.2f} × as fast")


def device_map(model: LlamaForCausalLM, rows: int, ours_s: float, expected: Tensor) -> None:
    """accelerate's hooks between two halves."""
    if not find_spec("accelerate"):
        print("  accelerate is not installed: pip install accelerate")
        return
    from accelerate import dispatch_model  # type: ignore[import-not-found]  # an optional peer

    halves: dict[str, str] = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu"}
    halves |= {f"model.layers.{layer}": "cpu" for layer in range(model.config.num_hidden_layers)} | {"lm_head": "cpu"}
    hooked = dispatch_model(copy.deepcopy(model), device_map=halves, main_device="cpu", force_hooks=True)
    (seconds,) = in_turns(lambda: one_process(hooked, prompts(rows)))
    assert_same(one_process(hooked, prompts(rows)), expected)
    show(f"{rows} rows, accelerate's device map", rows * NEW, seconds, f"pipelab {seconds / ours_s:.2f} × as fast")


def main(rows: Sequence[int], many: int) -> None:
    """Print the table."""
    print(machine())
    warnings.simplefilter("ignore")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    models = {name: build(name) for name in SIZES}
    pipes = {name: start(model) for name, model in models.items()}
    model, pipe = models["this one"], pipes["this one"]
    small = models["a small one"]
    print(f"A cache in {RANKS} ranks of 1 thread: LLaMA of {millions(small)}, prompts of {PAGE} tokens")
    with_and_without_a_cache(pipes["a small one"], many)
    print(f"Groups in flight: LLaMA of {millions(model)}, prompts of {PROMPT} tokens")
    for count in rows:
        groups_in_flight(model, pipe, count, SHORT)
    ours_s = {count: groups_in_flight(model, pipe, count, NEW) for count in rows}
    print(f"One row, {4 * SHORT} new tokens")
    for name in SIZES:
        overhead(name, models[name], pipes[name])
    tiny = pipes["a tiny one"]
    (tiny_s,) = in_turns(lambda: tiny.generate(prompts(1), max_new_tokens=NEW, **SETTINGS))
    made = {count: pipe.generate(prompts(count), max_new_tokens=NEW, **SETTINGS) for count in rows}
    tiny_made = tiny.generate(prompts(1), max_new_tokens=NEW, **SETTINGS)
    for other in pipes.values():
        other.close()
    print(f"Peers with stages, {NEW} new tokens")
    for count in rows:
        own_stages("this model", model, count, ours_s[count], made[count])
        device_map(model, count, ours_s[count], made[count])
    own_stages("the tiny model", models["a tiny one"], 1, tiny_s, tiny_made)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="With caches in the ranks, and rows in groups, tokens come faster.")
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64, 192])
    parser.add_argument("--many", type=int, default=256)
    asked = parser.parse_args()
    main(asked.rows, asked.many)
