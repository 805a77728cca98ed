"""What transformers' own `generate` runs on: a twin of the user's model that has other processes compute.

The loop, the logits processors and the stopping criteria are transformers'. Loaded by `generate` only.
"""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationMixin
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutputWithPast, Seq2SeqLMOutput

from pipelab.errors import InputError

# Arguments of `forward` that say how, not what; the twin does it in its own way.
_MANNERS = {"use_cache", "return_dict", "logits_to_keep", "past_key_values", "cache_params", "encoder_outputs"}
_LOOPS = ("_sample", "_beam_search")  # transformers'
# What comes with each step; where there is an encoder, `forward` calls it decoder_input_ids and so on.
_OF_TOKENS = ("input_ids", "attention_mask", "position_ids")


class RankCache(Cache):
    """Stands in transformers' loop for the caches that ranks keep.

    Attributes:
        num_seen: Tokens in them.
        beams: Which row each row goes on from; None for its own.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.num_seen = 0
        self.beams: Tensor | None = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens in the caches."""
        return self.num_seen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Have each row go on from another one."""
        self.beams = beam_idx if self.beams is None else self.beams[beam_idx]


class Computer(Protocol):
    """Computes in the place of the model."""

    def begin(self, settings: Any) -> None:
        """What transformers has made of the arguments of `generate`, before the first step; None for a step alone."""

    def logits(self, tokens: Mapping[str, Tensor], source: Mapping[str, Tensor], cache: RankCache | None) -> Tensor:
        """The logits of each row's last token, (rows, vocabulary).

        Args:
            tokens: `input_ids`, `attention_mask` and `position_ids` of the step.
            source: What the encoder is given, if there is one.
            cache: What the ranks keep; None to compute all tokens.
        """


class _Encoder:
    """Stands for the encoder: it hands on what it is given, which the first step sends to the ranks.

    Args:
        source: The name of its input.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    def forward(self, **kwargs: Any) -> BaseModelOutput:
        """Its input in the place of hidden states."""
        return BaseModelOutput(last_hidden_state=kwargs[self.source])

    __call__ = forward


class _Twin:
    """What a twin does otherwise than its model."""

    _computer: Computer
    _source: str
    _device: torch.device
    config: Any

    @property
    def device(self) -> torch.device:
        return self._device

    def get_encoder(self, *args: Any, **kwargs: Any) -> _Encoder:
        return _Encoder(self._source)

    def _prepare_position_ids_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        # One number per token; a model that counts in three dimensions, for images, makes them of it.
        plain: Any = GenerationMixin
        return plain._prepare_position_ids_for_generation(self, *args, **kwargs)

    def _prepare_cache_for_generation(
        self, settings: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        self._computer.begin(settings)
        if settings.use_cache is not False:
            model_kwargs["past_key_values"] = RankCache()

    def _forward(self, **given: Any) -> Any:
        cache: RankCache | None = given.get("past_key_values")
        _check_known(given, self._source)
        if self._source and given.get(self._source) is not None:
            self._computer.begin(None)
        tokens = _tokens(given, "decoder_" if self._source else "", cache.num_seen if cache is not None else 0)
        source = _encoded(given, self._source) if self._source else {}
        logits = self._computer.logits(tokens, source, cache)[:, None]
        if cache is not None:
            cache.num_seen += tokens["input_ids"].shape[1]
            cache.beams = None
        output: Any = Seq2SeqLMOutput if self._source else CausalLMOutputWithPast
        return output(logits=logits, past_key_values=cache)


def twin(model: Any, source: str, computer: Computer, device: torch.device) -> Any:
    """A model whose `generate` is its own and whose steps are computed elsewhere.

    Args:
        model: The user's; untouched, and not read.
        source: The name of what its encoder takes; empty without an encoder.
        computer: What computes.
        device: Where the inputs are.
    """
    kind = type(model)

    @functools.wraps(kind.forward)
    def forward(self: _Twin, *args: Any, **kwargs: Any) -> Any:
        assert not args, "transformers calls its models by keyword"
        return self._forward(**kwargs)

    loops = {name: _without_caches(getattr(kind, name)) for name in _LOOPS}
    made = copy.copy(model)
    made.__class__ = type(kind.__name__, (_Twin, kind), {"forward": forward, **loops, "__module__": kind.__module__})
    made._source, made._computer, made._device = source, computer, device
    return made


def _without_caches(loop: Callable[..., Any]) -> Callable[..., Any]:
    """A loop of transformers that does not give back the caches: they are the ranks'."""

    @functools.wraps(loop)
    def made(*args: Any, **kwargs: Any) -> Any:
        result = loop(*args, **kwargs)
        if isinstance(result, Tensor):
            return result
        return type(result)(**{name: value for name, value in result.items() if name != "past_key_values"})

    return made


def has_own_generate(model: Any) -> bool:
    """Whether a model has a `generate` besides transformers' own, which may call that several times."""
    return type(model).generate is not GenerationMixin.generate


def step_names(source: str) -> set[str]:
    """The arguments of `forward` that a step passes on.

    Args:
        source: The name of what the encoder takes; empty without an encoder.
    """
    return {f"decoder_{name}" for name in _OF_TOKENS} | {source, "attention_mask"} if source else {*_OF_TOKENS}


def _check_known(given: Mapping[str, Any], source: str) -> None:
    known = step_names(source) | _MANNERS
    unknown = [name for name, value in given.items() if name not in known and (isinstance(value, Tensor) or value)]
    if unknown:
        raise InputError(f"generate cannot pass {', '.join(unknown)} to other processes. Leave it out.")


def _tokens(given: Mapping[str, Any], prefix: str, num_seen: int) -> dict[str, Tensor]:
    """What comes with a step's tokens, made where transformers leaves it to the model."""
    found = {name: given.get(f"{prefix}{name}") for name in _OF_TOKENS}
    tokens = {name: value for name, value in found.items() if value is not None}
    ids = tokens["input_ids"]
    num_rows, num_tokens = ids.shape[0], num_seen + ids.shape[1]
    tokens.setdefault("attention_mask", ids.new_ones(num_rows, num_tokens))
    tokens.setdefault("position_ids", torch.arange(num_seen, num_tokens, device=ids.device).expand(num_rows, -1))
    return {name: value.long() for name, value in tokens.items()}


def _encoded(given: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """What the encoder is given."""
    source, mask = given.get(name), given.get("attention_mask")
    source = given["encoder_outputs"][0] if source is None else source
    return {name: source, "attention_mask": source.new_ones(source.shape[:2]).long() if mask is None else mask.long()}
