"""Writes `support.md`: what pipelab does with every family of models, from what ran.

    python docs/support.py [family ...]

Each family is a tiny model with random weights, traced twice (without weights from its checkpoint, and with them),
run between blocks and at random ops on two and on three processes, compared with the unsplit model, and generated
with. Some need diffusers. With names, only their rows are made anew.
"""

import inspect
import random
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import pipelab
from pipelab.example_inputs import example_inputs

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))
from families import BATCH, PRETRAINED, SEQ, Family  # noqa: E402  the tests' own models
from other_families import OTHERS  # noqa: E402  the same

NEW_TOKENS = 8
RANKS = (2, 3)
HEAD = """# What pipelab does with which models

Written by `python docs/support.py` from what ran, on two cores. Each model is a tiny one with random weights; a row
holds for its class. *Without weights*: traced by `trace_pretrained` from a checkpoint, and run from it between
blocks, on 2 and 3 processes. *With*: traced by `trace`, and run on 2 and 3 processes, cut at ops drawn at random
(models without a checkpoint between blocks as well). All outputs equal the unsplit model's
(`torch.testing.assert_close`), in two micro-batches unless the model's outputs cannot be put together from two.
*Generates*: greedily, on 2 processes, the tokens of transformers' own `generate`; without a cache, every token is
computed from all before it.

| family | model | without weights | with | blocks | cuts between blocks / at ops | generates |
|---|---|---|---|---|---|---|
"""


@dataclass
class Row:
    """What came of one family; each entry is a word or two, or why it failed.

    Attributes:
        model: Class of the model.
        meta: Traced without weights, and run from a checkpoint between blocks.
        real: Traced with weights, and run at random ops.
        blocks: The blocks that were found.
        cuts: How many places there are to cut.
        generates: How it generates.
    """

    model: str = ""
    meta: str = "-"
    real: str = "-"
    blocks: str = "-"
    cuts: str = "-"
    generates: str = "-"


def first_sentence(error: Exception) -> str:
    """What to change is said there."""
    text = re.sub(r"[^\s(]*/site-packages/", "", " ".join(str(error).split()).replace("|", "\\|"))
    return (
        f"**fails**: {text.partition('. ')[0].rstrip('.')}"
        if isinstance(error, pipelab.PipelabError)
        else (f"**fails**: {type(error).__name__}: {text[:160]}")
    )


def tensors(output: Any) -> list[Tensor]:
    """The tensors of an output."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def expected(model: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """What the unsplit model computes."""
    extra = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    with torch.no_grad():
        return tensors(model(**inputs, **extra))


def positions(traced: pipelab.Trace, where: str, num_stages: int) -> list[int]:
    """Places to cut: even ones between blocks, or any."""
    if where == "op":
        return sorted(random.Random(traced.graph.model).sample(traced.graph.legal, num_stages - 1))
    found = [point.position for point in traced.graph.cut_points if point.level == where]
    return [found[k * len(found) // num_stages] for k in range(1, num_stages)]


def run(traced: pipelab.Trace, where: str, want: list[Tensor]) -> str:
    """Run it on two and on three processes, and compare."""
    plans = [pipelab.split_at(traced, positions(traced, where, count)) for count in RANKS]
    num_microbatches = min(2, len(traced.microbatch_sizes(BATCH, None, 2)))
    with pipelab.start(traced, plans[0], device="cpu") as pipe:
        for plan in plans:
            pipe.replan(plan)
            report = pipe.run(**traced.kwargs, num_microbatches=num_microbatches, repeats=1)
            for got, wanted in zip(tensors(report.output), want, strict=True):
                torch.testing.assert_close(got, wanted)
    return "yes" if num_microbatches == 2 else "yes, one micro-batch"


def generate(traced: pipelab.Trace, model: Any) -> str:
    """Generate on two processes, and compare token for token."""
    ids = next(iter(traced.kwargs.values()))
    settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    want = model.generate(ids, **settings)
    plan = pipelab.split_at(traced, positions(traced, "block", 2))
    with pipelab.start(traced, plan, device="cpu") as pipe, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = pipe.generate(ids, **settings)
    assert torch.equal(found, want), f"{found.tolist()} is not {want.tolist()}"
    return "without a cache" if any("processes cannot keep" in str(item.message) for item in said) else "with a cache"


def fill(row: Row, entry: str, do: Any) -> None:
    """Note what comes of it."""
    try:
        setattr(row, entry, do())
    except Exception as error:  # whatever it is stands in the table
        setattr(row, entry, first_sentence(error))


def of_family(family: Family, folder: Path) -> Row:
    """Everything about a family of transformers."""
    row = Row(family.model)
    model = family.made()
    model.save_pretrained(folder)  # type: ignore[operator]  # transformers leaves it untyped
    meta = None
    try:
        meta = pipelab.trace_pretrained(folder, batch_size=BATCH, seq_len=SEQ)
    except pipelab.PipelabError as error:
        row.meta = first_sentence(error)
    if meta is None:
        with_weights(row, model, example_inputs(model, BATCH, SEQ))
        row.real = "**fails** likewise" if row.real == row.meta else row.real
        return row
    want = expected(model, meta.kwargs)
    fill(row, "meta", lambda: run(meta, "block", want))
    with_weights(row, model, meta.kwargs)
    if family.generates:
        fill(row, "generates", lambda: generate(pipelab.trace(model, **meta.kwargs), model))
    return row


def with_weights(row: Row, model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """What is tried of a model itself; `run` between blocks as well where there is no checkpoint."""
    try:
        traced = pipelab.trace(model, **inputs)
    except pipelab.PipelabError as error:
        row.real = first_sentence(error)
        return
    want = expected(model, inputs)
    graph = traced.graph
    labels = [block.label for block in graph.blocks]
    row.blocks = f"{len(labels)}: {', '.join(labels[:3])}, ... {labels[-1]}"
    between = sum(point.level == "block" for point in graph.cut_points)
    row.cuts = f"{between} / {len(graph.cut_points)}"
    if not row.meta.startswith("yes"):
        fill(row, "real", lambda: run(traced, "block", want))
    if not row.real.startswith("**"):
        fill(row, "real", lambda: run(traced, "op", want))


def row_of(name: str) -> Row:
    """The row of one family."""
    if name in PRETRAINED:
        with tempfile.TemporaryDirectory() as folder:
            return of_family(PRETRAINED[name], Path(folder))
    make, inputs = OTHERS[name]
    torch.manual_seed(0)
    try:
        model = make().eval()
    except ImportError as error:
        return Row(real=f"not tried: {error}")
    row = Row(type(model).__name__)
    with_weights(row, model, inputs())
    return row


def line_of(name: str) -> str:
    """The row of one family, as the page shows it."""
    row = row_of(name)
    entries = (name, f"`{row.model}`", row.meta, row.real, row.blocks, row.cuts, row.generates)
    return f"| {' | '.join(entries)} |"


def main() -> None:
    """Try all families, or those that are named, and write the page; rows of the others stay as they are."""
    page = HERE / "support.md"
    for name in sys.argv[1:] or [*PRETRAINED, *OTHERS]:
        began = time.perf_counter()
        line = line_of(name)
        print(f"{line} {time.perf_counter() - began:.0f} s", flush=True)
        known = page.read_text(encoding="utf-8").splitlines() if page.exists() else []
        lines = {known_line.split("|")[1].strip(): known_line for known_line in known if known_line.startswith("| ")}
        lines[name] = line
        rows = [lines[family] for family in (*PRETRAINED, *OTHERS) if family in lines]
        page.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
