"""Claim: with caches that stay in the ranks, tokens come faster: than without caches, and than from one process.

Peers of the same run: the same pipeline without a cache; transformers' own `generate` in one process with as many
threads as one rank has, over the whole batch at once and over the same groups one after another.

    python benchmarks/generate.py
"""

import time
import warnings
from collections.abc import Callable
from statistics import median

RUNS = 3
ROWS, PROMPT, NEW, MANY = 16, 32, 24, 256


def seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    """How long it takes: the median of some runs."""
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def main() -> None:
    """Print the table."""
    import torch
    from machine import machine
    from transformers import LlamaConfig, LlamaForCausalLM

    import pipelab

    print(machine())
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8, vocab_size=4000,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(0, config.vocab_size, (ROWS, PROMPT))
    settings = {"do_sample": False, "pad_token_id": 0}
    traced = pipelab.trace(model, ids)
    plan = pipelab.optimal(traced, num_stages=2, objective="flops")
    torch.set_num_threads(1)
    print(f"LLaMA of {traced.graph.num_params / 1e6:.0f} M parameters, {ROWS} × {PROMPT} tokens, 2 ranks of 1 thread")
    with pipelab.start(traced, plan, device="cpu") as pipe:
        pipe.generate(ids[:2], max_new_tokens=2, **settings)  # traces the step
        whole_s = seconds(lambda: model.generate(ids, max_new_tokens=NEW, **settings))
        print(f"{'one process, the whole batch':44} {ROWS * NEW / whole_s:7.0f} tokens/s")
        for groups in (2, 4):
            parts = ids.tensor_split(groups)
            one_s = seconds(lambda parts=parts: [model.generate(p, max_new_tokens=NEW, **settings) for p in parts])
            ours_s = seconds(
                lambda groups=groups: pipe.generate(ids, max_new_tokens=NEW, num_microbatches=groups, **settings)
            )
            print(f"{f'one process, {groups} groups in turn':44} {ROWS * NEW / one_s:7.0f} tokens/s")
            print(
                f"{f'pipeline, {groups} groups in flight':44} {ROWS * NEW / ours_s:7.0f} tokens/s  "
                f"{one_s / ours_s:5.2f} × the groups in turn, {whole_s / ours_s:5.2f} × the whole batch"
            )
        for use in (True, False):  # the step without a cache is traced before the clock runs
            pipe.generate(ids[:1], max_new_tokens=2, use_cache=use, **settings)
        cached_s, plain_s = (
            seconds(lambda use=use: pipe.generate(ids[:1], max_new_tokens=MANY, use_cache=use, **settings), runs=1)
            for use in (True, False)
        )
        print(f"{f'pipeline, {MANY} new tokens of one row':44} {MANY / cached_s:7.0f} tokens/s")
        print(f"{'the same without a cache':44} {MANY / plain_s:7.0f} tokens/s  {plain_s / cached_s:5.1f} × slower")


if __name__ == "__main__":
    main()
