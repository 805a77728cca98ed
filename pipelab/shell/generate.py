"""`generate`: text from a folder with a model, its stages in processes of their own."""

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from pipelab.errors import InputError, PipelabError
from pipelab.plan import Plan
from pipelab.planner import optimal
from pipelab.progress import tell
from pipelab.shell import options
from pipelab.units import format_seconds

if TYPE_CHECKING:
    from torch import Tensor

    from pipelab.launch.controller import Pipeline
    from pipelab.tracing import Trace

_EXAMPLE = """\
example:
  python -m pipelab generate --model DIR --prompt "Once upon" --max-new-tokens 60

DIR is what save_pretrained wrote. Text goes to stdout as it is made, progress
to stderr.

  torchrun --nproc-per-node 4 -m pipelab generate --model DIR --prompt "Hello"

does so with 4 stages. pipelab starts its ranks itself, from one process that
knows when any of them fails; of torchrun's processes the first does so, and
the others end at once."""


def add_to(commands: Any) -> None:
    """Add the command to argparse's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "generate", help="text from a model of transformers, each stage in a process of its own",
        epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    number = options.whole
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="folder with a config.json and weights, or a model id"
    )
    parser.add_argument(
        "--stages", type=number, metavar="N", help="number of stages (default: torchrun's processes, else 2)"
    )
    parser.add_argument("--split", choices=options.SPLITS, default="optimal",
                        help="the policy; optimal: the largest stage is as small as can be")  # fmt: skip
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT", help="text, for the folder's own tokenizer")
    prompt.add_argument("--prompt-ids", type=_ids, metavar='"1 2 3"', help="token ids instead; ids are printed")
    parser.add_argument("--max-new-tokens", type=number, metavar="N", default=60, help="(default: %(default)s)")
    parser.add_argument("--sample", action="store_true", help="draw tokens; without it the likeliest is taken")
    parser.add_argument("--temperature", type=options.positive, metavar="X", help="for --sample")
    parser.add_argument("--top-k", type=number, metavar="N", help="for --sample")
    parser.add_argument("--top-p", type=options.share, metavar="X", help="for --sample")
    parser.add_argument("--seed", type=int, metavar="N", help="for --sample: the same seed, the same text")
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:0 (default: %(default)s)"
    )
    options.add_common(parser)
    parser.set_defaults(run=run)


def _ids(text: str) -> list[int]:
    """Token ids."""
    ids = [int(word) for word in text.replace(",", " ").split()]
    if not ids or min(ids) < 0:
        raise ValueError(text)
    return ids


_ids.__name__ = "token ids"  # argparse's message: "invalid token ids value: 'a b'"


def run(asked: argparse.Namespace) -> None:
    """Print what the model makes of the prompt."""
    num_stages = _stages(asked.stages)
    if num_stages is None:
        return
    import torch

    from pipelab.configs import config_of
    from pipelab.launch.controller import start
    from pipelab.pretrained import trace_pretrained

    config: Any = config_of(asked.model)[0]
    settings = _settings(asked)
    tokenizer: Any = None if asked.prompt_ids else _tokenizer(asked.model)
    ids = torch.tensor([asked.prompt_ids or tokenizer(asked.prompt)["input_ids"]])
    _check_ids(ids, config.get_text_config().vocab_size)
    traced = trace_pretrained(asked.model, batch_size=2, seq_len=max(ids.shape[1], 2), dtype=asked.dtype)
    if "input_ids" not in traced.kwargs:
        raise InputError(
            f"{traced.graph.model} generates from {next(iter(traced.kwargs))}, and this command has text alone to pass "
            "on. Generate in Python: pipelab.start(traced, plan).generate(...)."
        )
    plan = _plan(traced, asked.split, num_stages)
    if not asked.json:
        settings["streamer"] = _streamer(tokenizer)
    if asked.seed is not None:
        torch.manual_seed(asked.seed)
    with start(traced, plan, device=asked.device) as pipe:
        made = _generated(pipe, ids, settings)
        took = pipe.last_generation
    assert took is not None, "it has come to its end"
    seconds = took.prefill.seconds + (took.token_s or 0.0) * (took.num_new_tokens - 1)  # not the tracing before
    new = made[0].tolist() if config.is_encoder_decoder else made[0, ids.shape[1] :].tolist()
    tell(f"{len(new)} tokens in {format_seconds(seconds)}, {plan.num_stages} stages ({plan.policy})")
    if asked.json:
        text = tokenizer.decode(new, skip_special_tokens=True) if tokenizer else None
        print(json.dumps(_result(asked, plan, ids[0].tolist(), new, text, seconds), indent=2))


def _generated(pipe: "Pipeline", ids: "Tensor", settings: dict[str, Any]) -> "Tensor":
    try:
        return pipe.generate(ids, **settings)  # type: ignore[no-any-return]  # transformers' own
    except PipelabError:
        raise
    except (TypeError, ValueError) as error:  # transformers' own checks
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"generate cannot be called so: {reason} Look at generation_config.json.") from error


def _stages(asked: int | None) -> int | None:
    """Number of stages; None for a process of torchrun that has nothing to do."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > int(os.environ.get("LOCAL_WORLD_SIZE", world)):
        raise InputError(f"torchrun started {world} processes on several hosts; pipelab's ranks run on one host.")
    if os.environ.get("RANK", "0") != "0":
        return None
    return asked or (world if world > 1 else 2)


def _plan(traced: "Trace", policy: str, num_stages: int) -> Plan:
    if policy == "optimal":
        return optimal(traced, num_stages=num_stages)
    return options.split(traced.graph, policy, num_stages).without_empty_stage()


def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever a folder without its files makes the readers raise
        reason = " ".join(str(error).split())  # what may be missing stands in later lines
        raise InputError(
            f'{folder} holds no tokenizer that can be read. Pass --prompt-ids "1 2 3" instead of --prompt. '
            f"transformers says: {reason}"
        ) from error


def _check_ids(ids: "Tensor", size: int) -> None:
    if not ids.numel():
        raise InputError("The prompt has no tokens: write something.")
    if int(ids.max()) >= size:
        raise InputError(f"Token id {int(ids.max())} is none of the model's: it has 0 to {size - 1}.")


def _settings(asked: argparse.Namespace) -> dict[str, Any]:
    """What `generate` takes: the folder's generation_config.json, changed as was asked for."""
    from pipelab.configs import generation_settings  # needs torch

    names = ("temperature", "top_k", "top_p")
    drawing = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    if drawing and not asked.sample:
        raise InputError(f"--{next(iter(drawing)).replace('_', '-')} is for --sample; add that.")
    wanted = {"max_new_tokens": asked.max_new_tokens, "do_sample": asked.sample, **drawing}
    beside = generation_settings(asked.model, **wanted)
    return {"generation_config": beside} if beside else wanted


def _streamer(tokenizer: Any) -> Any:
    """What prints text as it is made; without a tokenizer ids."""
    from transformers import TextStreamer

    return TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if tokenizer else _Ids()


class _Ids:
    """Prints ids as they are made."""

    def __init__(self) -> None:
        self._is_prompt = True

    def put(self, ids: "Tensor") -> None:
        """The prompt, then each token."""
        if not self._is_prompt:
            print(*ids.flatten().tolist(), end=" ", flush=True)
        self._is_prompt = False

    def end(self) -> None:
        """No more."""
        print(flush=True)


def _result(
    asked: argparse.Namespace, plan: Plan, prompt: list[int], new: list[int], text: str | None, seconds: float
) -> dict[str, Any]:
    return {
        "model": plan.graph.model,
        "num_stages": plan.num_stages,
        "policy": plan.policy,
        "split_points": list(plan.split_points),
        "prompt_ids": prompt,
        "ids": new,
        "text": text,
        "seconds": seconds,
    }
