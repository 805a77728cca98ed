"""`plan`: where to cut a model, what each device then holds, and how fast it reads and generates. Without weights."""

import argparse
import json
from dataclasses import replace
from typing import Any

from pipelab.costs import check_microbatches
from pipelab.errors import InputError, TraceError
from pipelab.graph import Graph
from pipelab.hardware import DEFAULT
from pipelab.mixtures import optimal_mix
from pipelab.plan import Plan
from pipelab.policies import split_at
from pipelab.serving import Phase, Serving
from pipelab.shell import options
from pipelab.units import plural

_EXAMPLE = """\
example:
  python -m pipelab plan --model DIR --stages 8 --batch-size 64 --context 8192

One split serves both: prefill reads --seq-len tokens of each row, decode makes
one token for each row over a cache of --context tokens. DIR holds a
config.json; weights are neither needed nor read."""


def add_to(commands: Any) -> None:
    """Add the command to argparse's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "plan", help="where to cut a model, memory per device, predicted tokens per second; without weights",
        epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    number = options.whole
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="folder with a config.json, that file, or a model id"
    )
    parser.add_argument("--stages", required=True, type=number, metavar="N", help="number of stages, one device each")
    parser.add_argument("--hardware", choices=options.HARDWARE, default=DEFAULT, metavar="NAME",
                        help=f"one of {', '.join(options.HARDWARE)} (default: %(default)s)")  # fmt: skip
    parser.add_argument("--split", choices=options.SPLITS, default="optimal",
                        help="the policy; optimal: least time of the slowest stage, for both phases")  # fmt: skip
    parser.add_argument("--batch-size", type=number, metavar="N", help="rows served at once (default: 2 per stage)")
    parser.add_argument(
        "--seq-len", type=number, metavar="N", default=512, help="tokens of a prompt (default: %(default)s)"
    )
    parser.add_argument("--context", "--cache-len", type=number, metavar="N", dest="cache_len",
                        help="tokens in the cache of each row (default: --seq-len)")  # fmt: skip
    parser.add_argument("--new-tokens", type=number, metavar="N", default=128,
                        help="tokens made per prompt: weighs decode in optimal (default: %(default)s)")  # fmt: skip
    parser.add_argument("--microbatches", type=number, metavar="N", help="groups of rows (default: one per stage)")
    parser.add_argument("--granularity", choices=("block", "narrow", "module", "op"),
                        help="where optimal may cut (default: between blocks)")  # fmt: skip
    parser.add_argument("--save", type=options.new_file, metavar="FILE", help="write the plan for pipelab.Plan.load")
    parser.add_argument("--export", choices=("vllm", "megatron", "torch", "device_map"), metavar="SYSTEM",
                        help="also print the split for vllm, megatron, torch or device_map")  # fmt: skip
    options.add_common(parser)
    parser.set_defaults(run=run)


def run(asked: argparse.Namespace) -> None:
    """Print the plan."""
    found = serving(asked)
    exported = found.plan.export(asked.export) if asked.export else None
    if asked.save:
        found.plan.save(asked.save)
    if asked.json:
        print(json.dumps({**found.to_json(), **({"export": exported} if exported else {})}, indent=2))
        return
    print(found)
    if exported:
        print(exported if isinstance(exported, str) else json.dumps(exported, indent=2))


def serving(asked: argparse.Namespace) -> Serving:
    """What was asked for, traced and split."""
    rows, length = asked.batch_size or 2 * asked.stages, asked.seq_len
    cache_len = asked.cache_len or length
    groups = asked.microbatches or min(rows, asked.stages)
    if asked.granularity and asked.split != "optimal":
        raise InputError(f"--granularity is for --split optimal; {asked.split} cuts where it cuts. Leave it out.")
    check_microbatches(rows, groups)  # before half a minute of tracing
    graphs, note = _graphs(asked, rows, cache_len)
    plans = _plans(list(graphs.values()), asked, groups)
    tokens = {"prefill": rows * length, "forward": rows * length, "decode": rows}
    phases = [Phase(name, plan, groups, tokens[name]) for name, plan in zip(graphs, plans, strict=True)]
    settings = {
        "hardware": asked.hardware,
        "num_stages": plans[0].num_stages,
        "batch_size": rows,
        "seq_len": length,
        **({"cache_len": cache_len} if "decode" in graphs else {}),
    }
    return Serving(tuple(phases), settings, note)


def _graphs(asked: argparse.Namespace, rows: int, cache_len: int) -> tuple[dict[str, Graph], str]:
    """The graphs of both phases; of a model that does not generate from a cache only the first, and why."""
    from pipelab.configs import config_of  # needs torch
    from pipelab.pretrained import trace_pretrained

    config, _ = config_of(asked.model)  # its caches take no memory, as those for a folder would
    sizes: dict[str, Any] = {"batch_size": rows, "seq_len": asked.seq_len, "dtype": asked.dtype}
    # Traces hold the exported programs; of each only the graph is kept.
    whole = trace_pretrained(config, **sizes).graph
    try:
        return {"prefill": whole, "decode": trace_pretrained(config, **sizes, cache_len=cache_len).graph}, ""
    except TraceError as error:
        reason = str(error).split(". ")[0].removesuffix(".")  # what follows is advice for who calls from Python
        return {"forward": whole}, f"{reason}: it is planned for whole sequences only."


def _plans(graphs: list[Graph], asked: argparse.Namespace, groups: int) -> list[Plan]:
    """The same cuts on each graph."""
    if asked.split == "optimal":
        weights = (1, asked.new_tokens)
        first = optimal_mix(
            list(zip(graphs, weights, strict=False)), num_stages=asked.stages, granularity=asked.granularity or "block",
            hardware=asked.hardware, num_microbatches=groups,
        )  # fmt: skip
        steps = plural(asked.new_tokens, "decode step")
        first = replace(first, policy=f"optimal for a prefill and {steps}" if len(graphs) > 1 else "optimal by time")
    else:
        first = options.split(graphs[0], asked.split, asked.stages).without_empty_stage()
    first = first.with_hardware(asked.hardware)
    others = [split_at(graph, first.split_points).with_hardware(asked.hardware) for graph in graphs[1:]]
    return [first, *others]
