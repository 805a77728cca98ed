"""What `Pipeline.generate` does with the arguments of transformers' `generate`: checks them, and groups the rows."""

import inspect
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
from pipelab.stand_in import has_own_generate, step_names, twin
from pipelab.token_steps import TokenSteps

# What cannot be had from processes that give nothing but logits, or what would make a second loop of its own.
_REFUSED = (
    "assistant_model", "custom_generate", "encoder_outputs", "inputs_embeds", "output_attentions",
    "no_speech_threshold", "output_hidden_states", "past_key_values", "prefill_chunk_size", "prompt_lookup_num_tokens",
    "return_token_timestamps", "synced_gpus",
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
        arguments: As `generate` takes them; what it generates from as `inputs`, or by name.
        num_microbatches: Groups of rows that are under way at once; None for one per stage, if there are as many rows.
        on_token: Called with the tokens made per row and the most there can be.
    """
    arguments = _checked(model, steps.source, arguments)
    given = arguments[steps.source or "input_ids"]
    if steps.no_cache_reason and _setting(model, arguments, "use_cache") is not False:
        warnings.warn(
            f"{steps.no_cache_reason}, which processes cannot keep: every token is computed from all before it.",
            stacklevel=4,
        )
        arguments["use_cache"] = False
    rows = rows_of_groups(len(given), _num_groups(len(given), num_microbatches, plan.num_stages))
    generation = Generation(steps, plan, ranks)

    def generate_in(loop: Loop) -> Any:
        return twin(model, steps.source, loop, given.device).generate

    if not _are_independent(model, arguments, given):
        loop = Loop(generation, rows, range(len(rows)), on_token)
        (result,) = generation.run([partial(generate_in(loop), **arguments)])
        return result, generation.report
    loops = [Loop(generation, rows, range(group, group + 1), on_token) for group in range(len(rows))]
    twins = [partial(generate_in(loop), **part) for loop, part in zip(loops, _parts(arguments, rows), strict=True)]
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


def _checked(model: Any, source: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name, with ids and masks as the ranks take them.

    Raises:
        InputError: There is nothing to generate from, it is not what the model takes, the mask is of others, or an
            argument is of no use here.
    """
    settings = {name: _setting(model, arguments, name) for name in _REFUSED}
    refused = [name for name, value in settings.items() if value is not None and value is not False]
    if refused:
        raise InputError(f"generate in a pipeline does not take {', '.join(refused)}. Leave it out.")
    found = {name: value for name, value in arguments.items() if name != "inputs"}
    name = source or "input_ids"
    if arguments.get("inputs") is not None:
        if found.get(name) is not None:
            raise InputError(f"generate was given {name} twice, once without its name. Pass it once.")
        found[name] = arguments["inputs"]
    _check_names(model, source, found)
    if name == "input_ids":
        found[name] = _checked_ids(model, found.get(name))
    else:
        _check_source(model, name, found.get(name))
    mask, shape = found.get("attention_mask"), found[name].shape
    if mask is not None:
        found["attention_mask"] = _checked_mask(mask, shape if name == "input_ids" else shape[:1])
    return found


def _check_names(model: Any, source: str, arguments: Mapping[str, Any]) -> None:
    """Nothing may be left aside in silence, such as the image beside a prompt."""
    takes = inspect.signature(type(model).forward).parameters
    others = [
        name
        for name, value in arguments.items()
        if isinstance(value, Tensor) and name in takes and name not in step_names(source)
    ]
    if others:
        raise InputError(
            f"{type(model).__name__} would generate from {', '.join(others)} as well, and in a pipeline generate takes "
            f"{source or 'input_ids'} alone: generate with the model itself. In stages it runs whole calls, such as "
            f"pipe({others[0]}=...)."
        )


def _check_source(model: Any, name: str, given: Any) -> None:
    if not isinstance(given, Tensor) or given.dtype != model.dtype or given.ndim < 2 or 0 in given.shape:
        raise InputError(
            f"{type(model).__name__} generates from {name}, a tensor of {model.dtype} with rows, as its processor "
            f"makes it; it was given {_found(given)}."
        )


def _checked_ids(model: Any, ids: Any) -> Tensor:
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.dtype not in _INTEGERS or 0 in ids.shape:
        raise InputError(
            f"generate takes token ids, a tensor of integers of shape (rows, tokens); it was given {_found(ids)}. "
            "A tokenizer makes them: tokenizer(texts, return_tensors='pt', padding=True, padding_side='left')."
        )
    size = model.get_input_embeddings().weight.shape[0]
    for wrong in (int(ids.min()), int(ids.max())):
        if not 0 <= wrong < size:
            raise InputError(
                f"Token id {wrong} is none of {type(model).__name__}'s, which has 0 to {size - 1}. Use the tokenizer "
                "that was made for it."
            )
    return ids.long()


def _checked_mask(mask: Any, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(mask, Tensor) or mask.shape[: len(shape)] != shape:
        sizes = ", ".join([*map(str, shape), *(["..."] if len(shape) == 1 else [])])
        raise InputError(
            f"attention_mask must be a tensor with a number for each token, of shape ({sizes}) as the input; it is "
            f"{_found(mask)}."
        )
    return mask.long()


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


def _are_independent(model: Any, arguments: Mapping[str, Any], given: Tensor) -> bool:
    """Whether each group can have a loop of its own: nothing of the batch, or the user's, to see in between."""
    if has_own_generate(model):
        return False  # it may begin the loop several times, each time with other rows
    plain = all(
        isinstance(value, bool | int | float | str | list | tuple | None)
        for name, value in arguments.items()
        if value is not given and name not in ("attention_mask", "generation_config")
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
