"""The steps of which a generation consists, traced: prompt in, next token's logits out, key-value caches in between.

All sizes are left open, so one trace serves prompts, batches and caches of any length. Loaded by `generate` only,
because it needs transformers.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.cache_utils import (
    Cache,
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
)

from pipelab.capture import bind_call
from pipelab.errors import TraceError
from pipelab.growing_cache import SourceSlots, TokenSlots
from pipelab.progress import announce
from pipelab.sizes import symbols
from pipelab.tracing import Trace, trace_call

# "prompt" fills the caches, "next" goes on from them, "whole" has none and computes all tokens again. Without an
# encoder, "next" is "prompt" with one token.
Kind = Literal["prompt", "next", "whole"]

_PARTS = ("", "cross_")


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long everything is in one step.

    Attributes:
        rows: Sequences.
        new: Tokens per row that the step is given.
        slots: Tokens per row that the caches have room for.
        source: Tokens per row of the encoder's input; 0 without an encoder.
    """

    rows: int
    new: int
    slots: int
    source: int = 0


# Unlike each other and unlike the sizes of models, so that a trace cannot take one for another.
_TRACED = Lengths(rows=7, new=11, slots=29, source=13)


@dataclass(frozen=True)
class Input:
    """One input of a step: the names of its dimensions, as in `Lengths` (or a number), and its dtype."""

    dims: tuple[str | int, ...]
    dtype: torch.dtype = torch.int64

    def shape(self, lengths: Lengths) -> tuple[int, ...]:
        """Its shape for these lengths."""
        return tuple(getattr(lengths, dim) if isinstance(dim, str) else dim for dim in self.dims)

    @property
    def opened(self) -> tuple[int, ...]:
        """The dimensions that a trace leaves open, besides the rows."""
        return tuple(dim for dim, name in enumerate(self.dims) if dim and isinstance(name, str))


@dataclass(frozen=True)
class TokenStep:
    """One kind of step, traced.

    Attributes:
        traced: The trace.
        inputs: What it takes, caches last.
    """

    traced: Trace
    inputs: Mapping[str, Input]

    def shapes(self, lengths: Lengths) -> dict[str, tuple[int, ...]]:
        """The shape of each input."""
        return {name: given.shape(lengths) for name, given in self.inputs.items()}


class TokenSteps:
    """The steps of a model of transformers, each traced when it is first asked for.

    Args:
        model: The user's model; untouched.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._has_encoder = bool(model.config.is_encoder_decoder)
        self._known: dict[Kind, TokenStep] = {}

    def __getitem__(self, kind: Kind) -> TokenStep:
        """The step of a kind.

        Raises:
            TraceError: It cannot be traced.
        """
        if kind == "next" and not self._has_encoder:
            kind = "prompt"
        if kind not in self._known:
            self._known[kind] = self._trace(kind)
        return self._known[kind]

    @property
    def encoder(self) -> str | None:
        """Path of the encoder, if there is one."""
        if not self._has_encoder:
            return None
        encoder = self._model.get_encoder()
        paths: dict[nn.Module, str] = {module: name for name, module in self._model.named_modules()}
        return paths[encoder]

    @cached_property
    def no_cache_reason(self) -> str:
        """Why the model cannot keep caches in ranks; empty if it can."""
        name = type(self._model).__name__
        if not getattr(self._model, "_can_compile_fullgraph", False):
            return f"{name} computes with the length of its cache"
        known = (DummyLayer, DynamicLayer, DynamicSlidingWindowLayer)
        others = {type(layer).__name__ for layer in self._layers() if type(layer) not in known}
        return f"{name} keeps more than keys and values ({', '.join(sorted(others))})" if others else ""

    def _layers(self) -> list[Any]:
        return list(DynamicCache(config=self._model.config.get_text_config(decoder=True)).layers)

    def _trace(self, kind: Kind) -> TokenStep:
        caches = {} if kind == "whole" else self._caches()
        inputs = {**self._token_inputs(kind), **caches}
        device = self._model.device
        tensors = {name: torch.zeros(i.shape(_TRACED), dtype=i.dtype, device=device) for name, i in inputs.items()}
        opened = {name: given.opened for name, given in inputs.items()}
        told = announce(f"tracing how {type(self._model).__name__} generates")
        with told, _forward(self._model, self._step(kind, inputs)):
            call = bind_call(self._model, (), tensors)
            traced = trace_call(self._model, call, _TRACED.rows, (), tensors, frozenset(caches), opened)
        self._check_lengths(traced, inputs)
        return TokenStep(traced, inputs)

    def _check_lengths(self, traced: Trace, inputs: Mapping[str, Input]) -> None:
        """Every length must be left open: a model that counts its tokens is a program for one length alone."""
        nodes = traced.program.inputs
        fixes = any(
            not symbols(node.meta["val"].shape[dim])
            for node, given in zip(nodes, inputs.values(), strict=True)
            for dim in given.opened
        )
        # Pieces: a condition on what is left of one length alone; those on several tell that a reshape fits.
        in_pieces = any("Mod(" in str(guard) and len(guard.free_symbols) == 1 for guard in traced.program.guards)
        if fixes or in_pieces:
            raise TraceError(
                f"{type(self._model).__name__} cannot generate in stages, because its program depends on the number of "
                "tokens (a loop over them, or pieces of a fixed length): generate with the model itself. In stages it "
                "runs whole sequences of one length."
            )

    def _token_inputs(self, kind: Kind) -> dict[str, Input]:
        seen = "new" if kind == "whole" else "slots"
        inputs = {"last": Input((1,))} if kind == "whole" else {"num_seen": Input(())}
        if self._has_encoder:
            inputs = {
                "decoder_input_ids": Input(("rows", "new")),
                "decoder_attention_mask": Input(("rows", seen)),
                "input_ids": Input(("rows", "source")),
                "attention_mask": Input(("rows", "source")),
                **inputs,
            }
            if kind == "next":
                del inputs["input_ids"]
        else:
            inputs = {
                "input_ids": Input(("rows", "new")),
                "attention_mask": Input(("rows", seen)),
                "position_ids": Input(("rows", "new")),
                **inputs,
            }
        takes = inspect.signature(type(self._model).forward).parameters
        return {name: given for name, given in inputs.items() if name in takes or name in ("last", "num_seen")}

    def _caches(self) -> dict[str, Input]:
        """Keys and values of each layer, of the shapes that the model asks for."""
        found = {}
        for prefix, part in zip(_PARTS, _parts(self._filled()), strict=False):
            for index, layer in enumerate(part.layers):
                for kind in ("keys", "values"):
                    tensor = getattr(layer, kind, None)
                    if tensor is not None:
                        length = "source" if prefix else "slots"
                        dims = ("rows", tensor.shape[1], length, *tensor.shape[3:])
                        found[f"{prefix}{kind}_{index}"] = Input(dims, tensor.dtype)
        if not found:
            raise TraceError(f"{type(self._model).__name__} puts nothing into the cache it is given.")
        return found

    def _filled(self) -> Any:
        """A cache in which the model has made the tensors."""
        config, device = self._model.config.get_text_config(decoder=True), self._model.device
        cache: Any = DynamicCache(config=config)
        if self._has_encoder:
            cache = EncoderDecoderCache(cache, DynamicCache(config=config))
        names = ("input_ids", "decoder_input_ids") if self._has_encoder else ("input_ids",)
        ids = {name: torch.zeros(1, 1, dtype=torch.int64, device=device) for name in names}
        experts = self._model.get_experts_implementation()
        # Their default, a grouped product, takes nothing but bfloat16 on the meta device.
        self._model.set_experts_implementation("batched_mm")
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                self._model(**ids, past_key_values=cache, use_cache=True)
        finally:
            self._model.set_experts_implementation(experts)
        return cache

    def _step(self, kind: Kind, inputs: Mapping[str, Input]) -> Callable[..., Tensor]:
        """What stands for the model's `forward` while it is traced."""
        forward = self._model.forward
        hidden_size = self._model.config.get_text_config(decoder=True).hidden_size

        def step(**given: Tensor) -> Tensor:
            last, num_seen = given.pop("last", None), given.pop("num_seen", None)
            arguments: dict[str, Any] = {name: given[name] for name in given if inputs[name].dtype == torch.int64}
            if num_seen is not None:
                arguments["past_key_values"] = self._cache(given, num_seen, kind)
            if kind == "next":
                # Nobody reads it any more: its keys and values are cached.
                mask = given["attention_mask"]
                nothing = mask.new_zeros((1, 1, 1), dtype=self._model.dtype)
                arguments["encoder_outputs"] = (nothing.expand(*mask.shape, hidden_size),)
            with _only_last(self._model, last):
                logits = forward(**arguments, use_cache=num_seen is not None).logits
            assert isinstance(logits, Tensor)
            return logits[:, -1]

        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in inputs]
        step.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
        return step

    def _cache(self, given: Mapping[str, Tensor], num_seen: Tensor, kind: Kind) -> Any:
        own: list[Any] = []
        cross: list[Any] = []
        for index, layer in enumerate(self._layers()):
            if f"keys_{index}" not in given:
                own.append(layer)  # it shares another layer's
                continue
            window = getattr(layer, "sliding_window", None)
            own.append(TokenSlots(given[f"keys_{index}"], given[f"values_{index}"], num_seen, window))
            if self._has_encoder:
                pair = given[f"cross_keys_{index}"], given[f"cross_values_{index}"]
                cross.append(SourceSlots(*pair, is_filled=kind == "next"))
        return EncoderDecoderCache(Cache(layers=own), Cache(layers=cross)) if cross else Cache(layers=own)


def _parts(cache: Any) -> tuple[Any, ...]:
    if isinstance(cache, EncoderDecoderCache):
        return cache.self_attention_cache, cache.cross_attention_cache
    return (cache,)


@contextmanager
def _forward(model: Any, step: Callable[..., Tensor]) -> Iterator[None]:
    """Put a step in the place of the model's `forward`, so that module paths remain the model's own."""
    before = vars(model).get("forward")
    model.forward = step
    try:
        yield
    finally:
        del model.forward
        if before is not None:
            model.forward = before


@contextmanager
def _only_last(model: Any, last: Tensor | None) -> Iterator[None]:
    """Have the head compute the logits of one position alone: the last one, or that of an index."""
    head = model.get_output_embeddings()

    def narrow(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = given[0]
        return (hidden[:, -1:] if last is None else hidden.index_select(1, last),)

    handle = head.register_forward_pre_hook(narrow)
    try:
        yield
    finally:
        handle.remove()
