"""What `Pipeline.generate` does with the arguments of transformers' `generate`: checks them, and groups the rows."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipelab.arguments import whole
from pipelab.errors import InputError
from pipelab.generation_report import GenerationReport
from pipelab.launch.draws import Draws
from pipelab.launch.generation import Generation, Loop, Ranks
from pipelab.launch.ring_job import rows_of_groups
from pipelab.launch.ring_wiring import MOST_GROUPS
from pipelab.plan import Plan
from pipelab.stand_in import twin
from pipelab.token_steps import TokenSteps

# What cannot be had from processes that give nothing but logits, or what would make a second loop of its own.
_REFUSED = (
    "assistant_model", "custom_generate", "encoder_outputs", "inputs_embeds", "output_attentions",
    "output_hidden_states", "past_key_values", "prefill_chunk_size", "prompt_lookup_num_tokens", "synced_gpus",
)  # fmt: skip

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

OnToken = Callable[[int, int], None]


def generate(
    model: Any,
    steps: TokenSteps,
    plan: Plan,
    ranks: Ranks,
    arguments: Mapping[str, Any],
    num_microbatches: int | None,
    on_token: OnToken,
) -> tuple[Any, GenerationReport]:
    """The result of transformers' `generate` for these arguments, and how it came about.

    Args:
        model: The user's.
        steps: Its steps.
        plan: Where it is cut.
        ranks: What computes.
        arguments: As `generate` takes them; the token ids as `input_ids`.
        num_microbatches: Groups of rows that are under way at once; None for one per stage, if there are as many rows.
        on_token: Called with the tokens made per row and the most there can be.
    """
    arguments = _checked(model, arguments)
    ids = arguments["input_ids"]
    if steps.no_cache_reason and _setting(model, arguments, "use_cache") is not False:
        warnings.warn(
            f"{steps.no_cache_reason}, which processes cannot keep: every token is computed from all before it.",
            stacklevel=4,
        )
        arguments["use_cache"] = False
    num_groups = _num_groups(ids.shape[0], num_microbatches, plan.num_stages)
    rows = rows_of_groups(ids.shape[0], num_groups)
    generation = Generation(steps, plan, ranks, rows)
    groups = dict(enumerate(rows))
    if not _are_independent(model, arguments):
        loop = Loop(generation, groups, on_token)
        (result,) = generation.run([partial(twin(model, loop, ids.device).generate, **arguments)])
        if not isinstance(result, Tensor) and "past_key_values" in result:
            result.past_key_values = None  # they were the ranks'
        return result, generation.report
    loops = [Loop(generation, {group: count}, on_token) for group, count in groups.items()]
    parts = _parts(arguments, rows)
    twins = [partial(twin(model, loop, ids.device).generate, **part) for loop, part in zip(loops, parts, strict=True)]
    if len(rows) > 1 and _setting(model, arguments, "do_sample"):
        draws = Draws(rows)
        twins = [partial(draws.for_group, group, generate) for group, generate in enumerate(twins)]
    results = generation.run(twins)
    longest = max(result.shape[1] for result in results)
    together = torch.cat(
        [
            pad(result, (0, longest - result.shape[1]), value=loop.pad_token) if result.shape[1] < longest else result
            for result, loop in zip(results, loops, strict=True)
        ]
    )
    return together, generation.report


def _checked(model: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with token ids and mask as the ranks take them.

    Raises:
        InputError: There are no ids, the mask is of others, or an argument is of no use here.
    """
    if model.main_input_name != "input_ids":
        name = model.main_input_name
        raise InputError(
            f"{type(model).__name__} generates from {name}, and in a pipeline generate takes token ids alone: generate "
            f"with the model itself. In stages it runs whole calls, such as pipe({name}=..., decoder_input_ids=...)."
        )
    refused = [name for name in _REFUSED if arguments.get(name)]
    if refused:
        raise InputError(f"generate in a pipeline does not take {', '.join(refused)}. Leave it out.")
    ids = arguments.get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.dtype not in _INTEGERS or 0 in ids.shape:
        raise InputError(
            f"generate takes token ids, a tensor of integers of shape (rows, tokens); it was given {_found(ids)}. "
            "A tokenizer makes them: tokenizer(texts, return_tensors='pt', padding=True, padding_side='left')."
        )
    mask = arguments.get("attention_mask")
    if mask is None:
        return {**arguments, "input_ids": ids.long()}
    if not isinstance(mask, Tensor) or mask.shape != ids.shape:
        raise InputError(
            f"attention_mask must be a tensor with a number for each token, of shape {tuple(ids.shape)} as input_ids; "
            f"it is {_found(mask)}."
        )
    return {**arguments, "input_ids": ids.long(), "attention_mask": mask.long()}


def _found(given: Any) -> str:
    return f"{tuple(given.shape)} {given.dtype}" if isinstance(given, Tensor) else type(given).__name__


def _num_groups(num_rows: int, asked: int | None, num_stages: int) -> int:
    if asked is None:
        return min(num_rows, num_stages)
    asked = whole(asked, "num_microbatches")
    if asked > num_rows:
        raise InputError(f"num_microbatches must be between 1 and the batch of {num_rows}; it is {asked}.")
    if asked > MOST_GROUPS:
        raise InputError(
            f"num_microbatches must be at most {MOST_GROUPS} to generate; it is {asked}. One or two per stage keep all "
            "stages at work."
        )
    return asked


def _setting(model: Any, arguments: Mapping[str, Any], name: str) -> Any:
    """A setting of this generation: the argument's, else the config's."""
    for source in (arguments, vars(arguments.get("generation_config") or object), vars(model.generation_config)):
        if source.get(name) is not None:
            return source[name]
    return None


def _are_independent(model: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether each group can have a loop of its own: nothing of the batch, or the user's, to see in between."""
    plain = all(
        isinstance(value, bool | int | float | str | list | tuple | None)
        for name, value in arguments.items()
        if name not in ("input_ids", "attention_mask", "generation_config")
    )
    together = ("return_dict_in_generate", "penalty_alpha", "max_time")
    if not plain or any(_setting(model, arguments, name) for name in together):
        return False
    if (_setting(model, arguments, "num_beams") or 1) == 1:
        return True
    # Of several sequences per row those behind the best may depend on how long the batch goes on.
    several = (_setting(model, arguments, "num_return_sequences") or 1) > 1
    return not several and not _setting(model, arguments, "do_sample")


def _parts(arguments: Mapping[str, Any], rows: Sequence[int]) -> list[dict[str, Any]]:
    """The arguments of each group."""
    split = {name: torch.split(value, list(rows)) for name, value in arguments.items() if isinstance(value, Tensor)}
    return [{**arguments, **{name: pieces[index] for name, pieces in split.items()}} for index in range(len(rows))]
