"""One decode step: a model of transformers called with one new token per row, its key-value caches being inputs.

Loaded by `trace_pretrained(..., cache_len=)` only, because it needs transformers.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pipelab.errors import TraceError

# Fused attention without a mask: one token looks at all that is cached, unless attention is chunked. Untraced,
# transformers makes no mask for it either; traced it does, and then repeats keys and values that heads share.
_ONE_TOKEN = "pipelab_one_token"
AttentionInterface.register(_ONE_TOKEN, sdpa_attention_forward)

_PREFILL_ONLY = "It can be planned for whole sequences only: leave cache_len out."


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    """The cache of one layer with a slot left for the new token, which is written in place.

    Args:
        num_tokens: Tokens seen so far.
        num_slots: Tokens the tensors have room for.
        tensors: Keys and values; None to make empty ones of the shape the model asks for.
        window: Tokens a layer with a sliding window looks at.
    """

    def __init__(
        self, num_tokens: int, num_slots: int, tensors: tuple[Tensor, Tensor] | None = None, window: int | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self.num_tokens = num_tokens
        self.num_slots = num_slots
        self.sliding_window = window
        self.is_sliding = window is not None
        self.is_initialized = True
        if tensors is not None:
            self.keys, self.values = tensors

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make the tensors."""
        self.keys, self.values = (
            states.new_empty(*states.shape[:-2], self.num_slots, states.shape[-1])
            for states in (key_states, value_states)
        )

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new token into the last slot; returns all keys and values."""
        num_new = key_states.shape[-2]
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
            return self.update(key_states, value_states)
        self.num_tokens += num_new
        for cache, states in ((self.keys, key_states), (self.values, value_states)):
            cache.narrow(-2, self.num_slots - num_new, num_new).copy_(states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys attention sees, and the position of the first."""
        return self.num_slots, self.num_tokens + query_length - self.num_slots

    def get_seq_length(self) -> int:
        """Tokens seen so far."""
        return self.num_tokens

    def get_max_length(self) -> int:
        """Tokens a sliding window looks at; -1 for all."""
        return self.sliding_window or -1


@dataclass(frozen=True)
class DecodeStep:
    """What a model is called with in one decode step.

    Attributes:
        cache_len: Tokens in the cache, before the new one.
        source_len: Places of what the encoder makes, if there is one.
        tokens: The new token of each row, and what the encoder made; on the meta device.
        caches: Keys and values of each layer; on the meta device.
    """

    cache_len: int
    source_len: int
    tokens: Mapping[str, Tensor]
    caches: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: Any, cache_len: int, example: Mapping[str, Tensor]) -> "DecodeStep":
        """The step of a model on the meta device, whose caches have the shapes it asks for.

        Args:
            model: The model.
            cache_len: Tokens in the cache.
            example: What the model is called with for whole sequences.

        Raises:
            TraceError: The model keeps no cache of keys and values, or `cache_len` is below 1.
        """
        name = type(model).__name__
        if cache_len < 1:
            raise TraceError(f"cache_len must be at least 1 token; it is {cache_len}. Without it, whole sequences run.")
        if not model.can_generate() or "past_key_values" not in inspect.signature(model.forward).parameters:
            raise TraceError(f"{name} does not generate tokens from a cache of keys and values. {_PREFILL_ONLY}")
        try:
            tokens = _tokens(model, example)
            source_len = tokens["encoder_hidden_states"].shape[1] if "encoder_hidden_states" in tokens else 0
            step = cls(cache_len, source_len, tokens, {})
            cache = step._asked_for(model)
        except TraceError:
            raise
        except Exception as error:  # whatever the model's own code raises
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise TraceError(f"One decode step of {name} fails ({reason}). {_PREFILL_ONLY}") from error
        caches = {
            f"{prefix}{kind}_{index}": torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            for prefix, part in _parts(cache)
            for index, layer in enumerate(part.layers)
            for kind in ("keys", "values")
            for tensor in [getattr(layer, kind)]
            if tensor is not None
        }
        if not caches:
            raise TraceError(f"{name} puts nothing into the cache it is given. {_PREFILL_ONLY}")
        return cls(cache_len, source_len, step.tokens, caches)

    def _asked_for(self, model: Any) -> Cache:
        """A cache in which the model has made the tensors."""
        cache = self._cache(model, {})
        experts = model.get_experts_implementation()
        # Their default, a grouped product, takes nothing but bfloat16 on the meta device.
        model.set_experts_implementation("batched_mm")
        try:
            # Where tensors are fake, transformers leaves out what looks into masks.
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                model(**_arguments(self.tokens), past_key_values=cache, use_cache=True)
        finally:
            model.set_experts_implementation(experts)
        return cache

    def inputs(self, tokens: Mapping[str, Tensor], with_memory: bool) -> dict[str, Tensor]:
        """The new tokens, and empty caches.

        Args:
            tokens: Those of `self.tokens` that are not to be zeros.
            with_memory: Zeros on the CPU, where the system gives memory when it is written to; False leaves the
                caches on the meta device (those of BLOOM-176B take 65 GB for 8 rows of 2,048 tokens).
        """
        device = "cpu" if with_memory else "meta"
        first = {name: tokens.get(name, torch.zeros_like(like, device="cpu")) for name, like in self.tokens.items()}
        return {**first, **{name: torch.zeros_like(like, device=device) for name, like in self.caches.items()}}

    def prepare(self, model: Any) -> None:
        """Make the step the model's `forward`, so that module paths remain the model's own."""
        chunked = getattr(model.config.get_text_config(decoder=True), "attention_chunk_size", None)
        if model.config._attn_implementation == "sdpa" and not chunked:
            model.set_attn_implementation(_ONE_TOKEN)
        forward = model.forward

        def step(**given: Tensor) -> Tensor:
            caches = {name: given.pop(name) for name in self.caches}
            output = forward(**_arguments(given), past_key_values=self._cache(model, caches), use_cache=True)
            assert isinstance(output.logits, Tensor)
            return output.logits

        names = (*self.tokens, *self.caches)
        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        step.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
        model.forward = step

    def _cache(self, model: Any, tensors: Mapping[str, Tensor]) -> Cache:
        layers = DynamicCache(config=model.config).layers
        own = [_slots(model, layer, self.cache_len, _pair(tensors, "", index)) for index, layer in enumerate(layers)]
        if not model.config.is_encoder_decoder:
            return Cache(layers=own)
        seen = self.source_len if tensors else 0
        pairs = (_pair(tensors, "cross_", index) for index in range(len(layers)))
        cross: list[Any] = [SlotLayer(seen, self.source_len, pair) for pair in pairs]
        return EncoderDecoderCache(Cache(layers=own), Cache(layers=cross))


def _tokens(model: Any, example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One new token per row, and of an encoder-decoder what the encoder made of the example."""
    ids = torch.zeros(len(next(iter(example.values()))), 1, dtype=torch.int64, device="meta")
    if not model.config.is_encoder_decoder:
        return {"input_ids": ids}
    encoder = model.get_encoder()
    name = encoder.main_input_name
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        encoded = encoder(**{name: example[name].to("meta")}).last_hidden_state
    return {
        "decoder_input_ids": ids,
        "encoder_hidden_states": torch.zeros(encoded.shape, dtype=encoded.dtype, device="meta"),
    }


def _arguments(given: Mapping[str, Tensor]) -> dict[str, Any]:
    """The step's inputs as the model's own forward takes them."""
    arguments: dict[str, Any] = dict(given)
    if "encoder_hidden_states" in arguments:
        arguments["encoder_outputs"] = (arguments.pop("encoder_hidden_states"),)
    return arguments


def _parts(cache: Cache) -> list[tuple[str, Cache]]:
    if isinstance(cache, EncoderDecoderCache):
        return [("", cache.self_attention_cache), ("cross_", cache.cross_attention_cache)]
    return [("", cache)]


def _pair(tensors: Mapping[str, Tensor], prefix: str, index: int) -> tuple[Tensor, Tensor] | None:
    keys, values = (tensors.get(f"{prefix}{kind}_{index}") for kind in ("keys", "values"))
    return None if keys is None or values is None else (keys, values)


def _slots(model: Any, like: Any, cache_len: int, tensors: tuple[Tensor, Tensor] | None) -> Any:
    """A layer with slots in the place of the one that generation would use."""
    if type(like) is DummyLayer:
        return like
    if type(like) is DynamicLayer:
        return SlotLayer(cache_len, cache_len + 1, tensors)
    if type(like) is DynamicSlidingWindowLayer:
        return SlotLayer(cache_len, min(cache_len + 1, like.sliding_window), tensors, like.sliding_window)
    raise TraceError(
        f"{type(model).__name__} keeps more than keys and values from token to token ({type(like).__name__}). "
        f"{_PREFILL_ONLY}"
    )
