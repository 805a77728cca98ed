"""`trace_pretrained`: a transformers model by name, traced without its weights, which are read at `start`."""

import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipelab.arguments import whole
from pipelab.capture import bind_call, capture
from pipelab.checkpoint_folder import has_tensor_files, tensors_in
from pipelab.configs import config_of, generation_settings, keep_wide, on_meta
from pipelab.errors import LaunchError
from pipelab.example_inputs import example_inputs
from pipelab.piece_names import folder_of, pieces_of
from pipelab.pieces import Piece
from pipelab.progress import announce
from pipelab.recomputed import left_out, recomputed
from pipelab.tracing import Trace, trace_call
from pipelab.units import format_bytes

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from pipelab.decoding import DecodeStep


@dataclass(frozen=True, eq=False, repr=False)
class PretrainedTrace(Trace):
    """A trace whose weights lie in a checkpoint.

    Attributes:
        source: The folder or model id of the checkpoint; None for a bare config.
        step: What a decode step is called with; None if whole sequences were traced.
    """

    source: str | None = field(default=None)
    step: "DecodeStep | None" = field(default=None)

    @cached_property
    def no_weights_reason(self) -> str:
        """Why it cannot be run; empty if it can."""
        size = format_bytes(self.graph.param_bytes)
        if self.source is None:
            return f"Planning only: {self.graph.model} was traced from a config, without weights ({size})."
        folder = Path(self.source)
        if folder.is_dir() and not has_tensor_files(folder):
            return f"Planning only: {folder} holds a config but no weights ({size})."
        return ""

    def weights(self) -> dict[str, Tensor]:
        """Each distinct tensor of the checkpoint under its first name, on the CPU.

        Raises:
            LaunchError: There is no checkpoint, or it does not fit the model.
        """
        here, pieces = self.stored()
        with announce(f"reading the weights of {self.source}"):
            return here | {name: piece.read("cpu") for name, piece in pieces.items()}

    def stored(self) -> tuple[dict[str, Tensor], dict[str, Piece]]:
        """What no file holds, and where the other weights lie; both by first name.

        Raises:
            LaunchError: There is no checkpoint, or it does not fit the model; names the file and the tensor.
        """
        if self.no_weights_reason or self.source is None:
            raise LaunchError(f"{self.no_weights_reason} Trace a folder or model id that has weights to run it.")
        folder = folder_of(self.source)
        with announce(f"reading the headers in {folder}"):
            found = pieces_of(self._model, tensors_in(folder))
        # A tied weight has one name in the file, and that need not be the first.
        names_of: dict[int, list[str]] = {}
        for name, tensor in self._model.state_dict(keep_vars=True).items():
            names_of.setdefault(id(tensor), []).append(name)
        first_of = {name: names[0] for names in names_of.values() for name in names}
        by_first = {first_of[name]: piece for name, piece in reversed(found.items())}
        names = [weight.name for weight in self.graph.distinct_weights]  # `generate` may read more than this graph
        pieces = {name: by_first[first_of[name]] for name in names if first_of.get(name) in by_first}
        rest = [self.graph.weight_by_name[name] for name in self._read if name not in pieces]
        for weight in rest:
            if weight.kind == "parameter" and not left_out(self._model, weight.name):
                raise LaunchError(
                    f"No file in {folder} holds tensor {weight.name!r} ({weight.dtype} {weight.shape}), which "
                    f"{self.graph.model} needs. Save or download the checkpoint again, or trace the class it is of."
                )
        computed = recomputed(self._model, [weight.name for weight in rest if weight.kind != "constant"])
        return computed | self._constants(), pieces

    @cached_property
    def _read(self) -> list[str]:
        """First names of the weights that ops read."""
        names = (self.graph.weight_by_name[name].tied_to for op in self.graph.ops for name in op.weights)
        return list(dict.fromkeys(names))

    @cached_property
    def model(self) -> nn.Module:
        """The model, to be traced again in other ways: what its `forward` makes of numbers is then really there."""
        return _without_memory(self._model)

    def _constants(self) -> dict[str, Tensor]:
        """The tensors that `forward` itself makes of numbers; made on the meta device, they have lost those."""
        constants = {
            name: self.program.weights[name] for name, kind in self.program.kinds.items() if kind == "constant"
        }
        if any(tensor.is_meta for tensor in constants.values()):
            model = _without_memory(self._model)
            if self.step is not None:
                self.step.prepare(model)
            exported = capture(model, bind_call(model, self.args, self.kwargs), self.graph.batch_size)
            constants = {name: exported.constants[name] for name in constants}
        return constants


def trace_pretrained(
    id_or_folder_or_config: "str | Path | PretrainedConfig",
    *,
    batch_size: int = 8,
    seq_len: int = 128,
    cache_len: int | None = None,
    dtype: torch.dtype | str | None = None,
) -> Trace:
    """Trace a transformers model without loading its weights: BLOOM-176B on a laptop.

    Args:
        id_or_folder_or_config: A model id of the hub, a local folder with a `config.json`, or a config object.
        batch_size: Rows of the traced batch.
        seq_len: Tokens per row, for models that take tokens, or frames of sound (Whisper's are always 30 s). Of a
            decode step, those of the encoder's input, if the model has an encoder. Beside images, no more than the
            model has places for.
        cache_len: Trace one decode step: one new token per row, over a cache of the keys and values of this
            many tokens. None traces whole sequences. The caches (`graph.caches`) are inputs with room for the
            new token, which is written in place; a layer with a sliding window keeps no more than that.
        dtype: Of the parameters; None for the config's own, else float32.

    Returns:
        The trace. `start` reads the weights of an id or folder; a bare config can only be planned. The split
        points of whole sequences and of decode steps are the same.

    Raises:
        TraceError: The config cannot be had, the model cannot be traced, or it generates without such a cache.
        InputError: A size is no whole number above 0.

    Example:
        >>> from transformers import GPT2Config
        >>> config = GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=32, bos_token_id=0, eos_token_id=0)
        >>> pipelab.trace_pretrained(config, batch_size=2, seq_len=4)
        GPT2LMHeadModel  10,208 parameters (40.8 kB)  2 × 4  2 blocks  127 split points, 3 between blocks
        >>> decode = pipelab.trace_pretrained(config, batch_size=2, cache_len=9)
        >>> [stage.cache_bytes for stage in pipelab.uniform(decode, num_stages=2).stages]
        [1280, 1280]
    """
    for name, count in (("batch_size", batch_size), ("seq_len", seq_len), ("cache_len", cache_len)):
        if name != "cache_len" or count is not None:
            whole(count, name)
    config, source = config_of(id_or_folder_or_config)
    step = None
    with announce(f"tracing {config.model_type} without weights"):
        model: Any = on_meta(config, dtype)
        keep_wide(model)
        if source is not None and model.can_generate() and (settings := generation_settings(source)):
            model.generation_config = settings
        if cache_len is None:
            inputs = example_inputs(model, batch_size, seq_len)
        else:
            from pipelab.decoding import DecodeStep  # needs transformers

            step = DecodeStep.of(model, cache_len, example_inputs(model, batch_size, seq_len))
            inputs = step.inputs(example_inputs(model, batch_size, 1), with_memory=source is not None)
            step.prepare(model)
        call = bind_call(model, (), {name: tensor.to("meta") for name, tensor in inputs.items()})
        caches = frozenset(step.caches if step else ())
        traced = trace_call(model, call, batch_size, (), inputs, caches)
    return PretrainedTrace(traced.graph, (), inputs, traced.program, model, traced._out_spec, source=source, step=step)


def _without_memory(model: nn.Module) -> nn.Module:
    """A copy on the CPU whose tensors are all one number: enough to be traced with what `forward` makes itself."""

    def on_cpu(tensor: Tensor) -> Tensor:
        return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)

    model = copy.deepcopy(model)
    model.__dict__.pop("forward", None)  # that of a decode step is bound to the model it was made for
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(on_cpu(parameter), requires_grad=False)
        module._buffers.update({name: on_cpu(buffer) for name, buffer in module._buffers.items() if buffer is not None})
    return model
