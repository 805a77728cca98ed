"""The steps of which a generation consists, traced: prompt in, next token's logits out, key-value caches in between.

All sizes are left open, so one trace serves prompts, batches and caches of any length. Loaded by `generate` only,
because it needs transformers.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
        source: Shape of a row of the encoder's input, such as (tokens,) or (channels, height, width); () without an
            encoder.
    """

    rows: int
    new: int
    slots: int
    source: tuple[int, ...] = ()

    def size(self, name: str) -> int:
        """The size of a dimension of this name; "source" is how long the encoder's input is."""
        size: int = self.source[0] if name == "source" else getattr(self, name)
        return size


# Unlike each other and unlike the sizes of models, so that a trace cannot take one for another.
_TRACED = Lengths(rows=7, new=11, slots=29)
_TRACED_IDS = (13,)


@dataclass(frozen=True)
class Input:
    """One input of a step: its dtype, and of each dimension its size, or its name.

    Names are those of `Lengths`.
    """

    dims: tuple[str | int, ...]
    dtype: torch.dtype = torch.int64

    def shape(self, lengths: Lengths) -> tuple[int, ...]:
        """Its shape for these lengths."""
        return tuple(lengths.size(dim) if isinstance(dim, str) else dim for dim in self.dims)

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

    Attributes:
        source: The name of what its encoder takes, such as "input_ids" or "pixel_values"; empty without an encoder.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        has_encoder = model.config.is_encoder_decoder
        self.source: str = getattr(model.get_encoder(), "main_input_name", model.main_input_name) if has_encoder else ""
        self._known: dict[tuple[Kind, tuple[int, ...]], TokenStep] = {}

    def step(self, kind: Kind, source: tuple[int, ...]) -> TokenStep:
        """The step of a kind.

        Args:
            kind: Which.
            source: Shape of a row of the encoder's input. One trace serves token ids of any length; images and sound
                of another shape are traced anew.

        Raises:
            TraceError: It cannot be traced.
        """
        if kind == "next" and not self.source:
            kind = "prompt"
        key = kind, _TRACED_IDS if self.source == "input_ids" else source
        if key not in self._known:
            self._known[key] = self._trace(*key)
        return self._known[key]

    @property
    def encoder(self) -> str | None:
        """Path of the encoder, if there is one."""
        if not self.source:
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

    def _trace(self, kind: Kind, source: tuple[int, ...]) -> TokenStep:
        caches, encoded = ({}, ()) if kind == "whole" else self._caches(source)
        tokens = self._token_inputs(kind, source)
        inputs = {**tokens, **caches}
        lengths, device = replace(_TRACED, source=source), self._model.device
        tensors = {name: torch.zeros(i.shape(lengths), dtype=i.dtype, device=device) for name, i in inputs.items()}
        opened = {name: given.opened for name, given in inputs.items()}
        told = announce(f"tracing how {type(self._model).__name__} generates")
        with told, _forward(self._model, self._step(kind, tuple(tokens), tuple(caches), encoded)):
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

    def _token_inputs(self, kind: Kind, source: tuple[int, ...]) -> dict[str, Input]:
        seen = "new" if kind == "whole" else "slots"
        inputs = {"last": Input((1,))} if kind == "whole" else {"num_seen": Input(())}
        if self.source:
            inputs = {
                "decoder_input_ids": Input(("rows", "new")),
                "decoder_attention_mask": Input(("rows", seen)),
                "decoder_position_ids": Input(("rows", "new")),
                self.source: self._source_input(source),
                "attention_mask": Input(("rows", self._source_dim(source[0]))),
                **inputs,
            }
            if kind == "next":
                del inputs[self.source]
        else:
            inputs = {
                "input_ids": Input(("rows", "new")),
                "attention_mask": Input(("rows", seen)),
                "position_ids": Input(("rows", "new")),
                **inputs,
            }
        takes = inspect.signature(type(self._model).forward).parameters
        return {name: given for name, given in inputs.items() if name in takes or name in ("last", "num_seen")}

    def _source_input(self, source: tuple[int, ...]) -> Input:
        dtype = torch.int64 if self.source == "input_ids" else self._model.dtype
        return Input(("rows", *map(self._source_dim, source)), dtype)

    def _source_dim(self, size: int) -> str | int:
        """A size that comes of the encoder's input, or its name if a trace leaves it open."""
        return "source" if self.source == "input_ids" else size

    def _caches(self, source: tuple[int, ...]) -> tuple[dict[str, Input], tuple[int, ...]]:
        """Keys and values of each layer, of the shapes that the model asks for; shape of a row of what is encoded."""
        cache, encoded = self._filled(source)
        found = {}
        for prefix, part in zip(_PARTS, _parts(cache), strict=False):
            for index, layer in enumerate(part.layers):
                for kind in ("keys", "values"):
                    tensor = getattr(layer, kind, None)
                    if tensor is not None:
                        length = self._source_dim(tensor.shape[2]) if prefix else "slots"
                        dims = ("rows", tensor.shape[1], length, *tensor.shape[3:])
                        found[f"{prefix}{kind}_{index}"] = Input(dims, tensor.dtype)
        if not found:
            raise TraceError(f"{type(self._model).__name__} puts nothing into the cache it is given.")
        return found, encoded

    def _filled(self, source: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
        """A cache in which the model has made the tensors, and the shape of a row of what its encoder has made."""
        config, device = self._model.config.get_text_config(decoder=True), self._model.device
        cache: Any = DynamicCache(config=config)
        if self.source:
            cache = EncoderDecoderCache(cache, DynamicCache(config=config))
        inputs = {"decoder_input_ids" if self.source else "input_ids": Input(("rows", 1))}
        if self.source:
            inputs[self.source] = self._source_input(source)
        lengths = Lengths(rows=1, new=1, slots=1, source=source)
        tensors = {name: torch.zeros(i.shape(lengths), dtype=i.dtype, device=device) for name, i in inputs.items()}
        experts = self._model.get_experts_implementation()
        # Their default, a grouped product, takes nothing but bfloat16 on the meta device.
        self._model.set_experts_implementation("batched_mm")
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                output = self._model(**tensors, past_key_values=cache, use_cache=True)
        except Exception as error:  # whatever the model's own code raises
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            text = f"{type(self._model).__name__} cannot be called with rows of shape {source or (1,)} ({reason})."
            raise TraceError(f"{text} Pass what its own processor makes.") from error
        finally:
            self._model.set_experts_implementation(experts)
        return cache, tuple(output.encoder_last_hidden_state.shape[1:]) if self.source else ()

    def _step(
        self, kind: Kind, tokens: tuple[str, ...], caches: tuple[str, ...], encoded: tuple[int, ...]
    ) -> Callable[..., Tensor]:
        """What stands for the model's `forward` while it is traced."""
        forward = self._model.forward

        def step(**given: Tensor) -> Tensor:
            last, num_seen = given.pop("last", None), given.pop("num_seen", None)
            arguments: dict[str, Any] = {name: given[name] for name in tokens if name in given}
            if num_seen is not None:
                arguments["past_key_values"] = self._cache(given, num_seen, kind)
            if kind == "next":
                # Nobody reads it any more: its keys and values are cached.
                ids, (length, size) = given["decoder_input_ids"], encoded
                length = given["attention_mask"].shape[1] if self.source == "input_ids" else length
                nothing = ids.new_zeros((1, 1, 1), dtype=self._model.dtype)
                arguments["encoder_outputs"] = (nothing.expand(ids.shape[0], length, size),)
            with _only_last(self._model, last):
                logits = forward(**arguments, use_cache=num_seen is not None).logits
            assert isinstance(logits, Tensor)
            return logits[:, -1]

        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in (*tokens, *caches)]
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
            if self.source:
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
