"""What transformers' own `generate` runs on: a twin of the user's model that has other processes compute.

The loop, the logits processors and the stopping criteria are transformers'. Loaded by `generate` only.
"""

import copy
import functools
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationMixin
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutputWithPast, Seq2SeqLMOutput

from pipelab.errors import InputError

# Arguments of `forward` that say how, not what; the twin does it in its own way.
_MANNERS = {"use_cache", "return_dict", "logits_to_keep", "past_key_values", "cache_params", "encoder_outputs"}


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
        """What transformers has made of the arguments of `generate`, before the first step."""

    def logits(self, tokens: Mapping[str, Tensor], cache: RankCache | None) -> Tensor:
        """The logits of each row's last token, (rows, vocabulary)."""


class _Encoder:
    """Stands for the encoder: it hands on the tokens it is given, which the first step sends to the ranks."""

    def forward(self, **kwargs: Any) -> BaseModelOutput:
        """The tokens in the place of hidden states."""
        ids = kwargs.get("input_ids")
        if ids is None:
            raise InputError("generate takes token ids (input_ids); this encoder was given something else.")
        return BaseModelOutput(last_hidden_state=ids[..., None])

    __call__ = forward


class _Twin:
    """What a twin does otherwise than its model."""

    _computer: Computer
    _device: torch.device
    config: Any

    @property
    def device(self) -> torch.device:
        return self._device

    def get_encoder(self, *args: Any, **kwargs: Any) -> _Encoder:
        return _Encoder()

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
        has_encoder = self.config.is_encoder_decoder
        tokens = _tokens(given, has_encoder, cache.num_seen if cache is not None else 0)
        logits = self._computer.logits(tokens, cache)[:, None]
        if cache is not None:
            cache.num_seen += tokens["decoder_input_ids" if has_encoder else "input_ids"].shape[1]
            cache.beams = None
        output: Any = Seq2SeqLMOutput if has_encoder else CausalLMOutputWithPast
        return output(logits=logits, past_key_values=cache)


def twin(model: Any, computer: Computer, device: torch.device) -> Any:
    """A model whose `generate` is transformers' own and whose steps are computed elsewhere.

    Args:
        model: The user's; untouched, and not read.
        computer: What computes.
        device: Where the token ids are.
    """
    kind = type(model)

    @functools.wraps(kind.forward)
    def forward(self: _Twin, *args: Any, **kwargs: Any) -> Any:
        assert not args, "transformers calls its models by keyword"
        return self._forward(**kwargs)

    made = copy.copy(model)
    made.__class__ = type(kind.__name__, (_Twin, kind), {"forward": forward, "__module__": kind.__module__})
    made._computer, made._device = computer, device
    return made


def _tokens(given: Mapping[str, Any], has_encoder: bool, num_seen: int) -> dict[str, Tensor]:
    """The tensors of a step, with what transformers leaves out where it can be told from the others."""
    tokens = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    unknown = [name for name, value in given.items() if name not in tokens and name not in _MANNERS and value]
    if unknown:
        raise InputError(f"generate cannot pass {', '.join(unknown)} to other processes. Leave it out.")
    ids = tokens["decoder_input_ids" if has_encoder else "input_ids"]
    mask = "decoder_attention_mask" if has_encoder else "attention_mask"
    if has_encoder:
        source = given["encoder_outputs"][0]
        if source.is_floating_point():
            raise InputError("generate runs the encoder in the ranks: pass input_ids, not encoder_outputs.")
        tokens["input_ids"] = source[..., 0]
        tokens.setdefault("attention_mask", torch.ones_like(tokens["input_ids"]))
    if mask not in tokens:
        tokens[mask] = ids.new_ones(ids.shape[0], num_seen + ids.shape[1])
    return tokens
