"""`trace`: from a model and a call of it to a Trace, which is everything later steps know of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from pipelab.arguments import shown, whole
from pipelab.capture import SMALLEST_TRACED_BATCH, Call, batch_size_of, bind_call, capture, unlike_dense
from pipelab.errors import InputError, LaunchError
from pipelab.graph import Graph
from pipelab.pieces import Piece
from pipelab.progress import announce
from pipelab.recording import Program, record, sort_nodes
from pipelab.sizes import Sizes, for_each_tensor, holds, is_multiple, meanings, symbols


@dataclass(frozen=True, eq=False)
class Trace:
    """A traced model: its graph, and what is needed to run it.

    Attributes:
        graph: The model as data.
        args: Positional arguments of the traced call.
        kwargs: Keyword arguments of the traced call.
        program: The exported program's nodes.
    """

    graph: Graph
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    program: Program = field(repr=False)
    _model: nn.Module = field(repr=False)
    _out_spec: pytree.TreeSpec = field(repr=False)

    def __repr__(self) -> str:
        return self.graph.summary()

    @cached_property
    def model(self) -> nn.Module:
        """The model, to be traced again in other ways."""
        return self._model

    # --- weights ------------------------------------------------------------------------------------

    @property
    def has_weights(self) -> bool:
        """Whether there are weights to run with."""
        return not self.no_weights_reason

    @cached_property
    def no_weights_reason(self) -> str:
        """Why it cannot be run; empty if it can."""
        if any(tensor.is_meta for tensor in self.program.weights.values()):
            return f"Planning only: {self.graph.model} was traced without weights (on the meta device)."
        return ""

    def weights(self) -> dict[str, Tensor]:
        """Each distinct tensor under its first name, detached, on the model's device.

        Raises:
            LaunchError: The model was traced without weights, or they have other shapes or types since.
        """
        if self.no_weights_reason:
            raise LaunchError(f"{self.no_weights_reason} Trace a model that has weights to run it.")
        weights = {w.name: self.program.weights[w.name].detach() for w in self.graph.distinct_weights}
        for known in self.graph.distinct_weights:
            shape, dtype = tuple(weights[known.name].shape), str(weights[known.name].dtype).removeprefix("torch.")
            if (shape, dtype) != (known.shape, known.dtype):
                raise LaunchError(
                    f"Weight {known.name!r} is {shape} {dtype} now; when the model was traced it was {known.shape} "
                    f"{known.dtype}. Trace the model again."
                )
        return weights

    def stored(self) -> tuple[dict[str, Tensor], dict[str, Piece]]:
        """The weights that lie in memory, and where the others lie in files; both by first name.

        Raises:
            LaunchError: As `weights`.
        """
        return self.weights(), {}

    # --- inputs -------------------------------------------------------------------------------------

    @cached_property
    def _call(self) -> Call:
        return bind_call(self._model, self.args, self.kwargs)

    @cached_property
    def batched(self) -> tuple[bool, ...]:
        """Per input: whether dimension 0 carries the batch, so that micro-batches split it."""
        return tuple(bool(node.meta["val"].ndim and symbols(node.meta["val"].shape[0])) for node in self.program.inputs)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The tensor inputs of a call, in the order of `graph.inputs`.

        Raises:
            InputError: The call does not fit the traced one; names the argument, and both shapes.
        """
        call = bind_call(self._model, args, kwargs)
        leaves, spec = call.flatten()
        traced_leaves, traced_spec = self._call.flatten()
        if spec != traced_spec:
            traced_names, names = (", ".join(c.names) or "no arguments" for c in (self._call, call))
            other = f"with {names}" if names != traced_names else "with lists, tuples or dicts in other places of them"
            raise InputError(
                f"{self.graph.model} was traced with {traced_names}; it is now called {other}. "
                "Call it with the same arguments, or trace it again."
            )
        tensors: list[Tensor] = []
        for leaf, traced in zip(leaves, traced_leaves, strict=True):
            if isinstance(traced, Tensor):
                tensors.append(self._checked(leaf, len(tensors)))
            elif not _is_same(leaf, traced):
                raise InputError(
                    f"An argument of {self.graph.model} was {shown(traced)} when it was traced and is now "
                    f"{shown(leaf)}. Only tensors may change; trace the model again for another value."
                )
        return tuple(tensors)

    def _checked(self, given: Any, index: int) -> Tensor:
        info = self.graph.inputs[index]
        if not isinstance(given, Tensor):
            raise InputError(f"Input {info.name!r} must be a tensor, as it was traced; it is {type(given).__name__}.")
        if reason := unlike_dense(given):
            raise InputError(f"Input {info.name!r} {reason}")
        if given.is_meta:
            raise InputError(f"Input {info.name!r} has no values: it is on the meta device. Pass a tensor that has.")
        dtype = str(given.dtype).removeprefix("torch.")
        first = 1 if self.batched[index] else 0
        fits = given.ndim == len(info.shape) and tuple(given.shape[first:]) == info.shape[first:]
        if not fits or dtype != info.dtype:
            free = " (any number of rows)" if first else ""
            raise InputError(
                f"Input {info.name!r} is {tuple(given.shape)} {dtype}; {self.graph.model} was traced with "
                f"{info.shape} {info.dtype}{free}. Pass that shape, or trace the model with the new one."
            )
        return given.detach()

    def batch_size_of(self, inputs: Sequence[Tensor]) -> int:
        """Rows of the batched inputs; the traced batch if none is batched.

        Raises:
            InputError: They disagree, or there are none.
        """
        rows = {
            info.name: tensor.shape[0]
            for info, tensor, batched in zip(self.graph.inputs, inputs, self.batched, strict=True)
            if batched
        }
        if len(set(rows.values())) > 1:
            raise InputError(f"The inputs have different numbers of rows: {rows}. Pass the same batch in each.")
        if 0 in rows.values():
            raise InputError("The batch is empty: pass at least one row.")
        return next(iter(rows.values()), self.graph.batch_size)

    # --- micro-batches ------------------------------------------------------------------------------

    def microbatch_sizes(self, batch_size: int, num_microbatches: int | None, num_stages: int) -> tuple[int, ...]:
        """Rows of each micro-batch, as `torch.tensor_split` divides: 8 in 5 is 2, 2, 2, 1, 1.

        Args:
            batch_size: Rows of the batch.
            num_microbatches: How many; None for min(batch, 2 x stages), or 1 where outputs cannot be merged.
            num_stages: Number of stages.

        Raises:
            InputError: There are fewer rows, or the inputs or outputs cannot be split and merged.
        """
        reason = self._indivisible
        if num_microbatches is None:
            num_microbatches = 1 if reason else min(batch_size, 2 * num_stages)
        num_microbatches = whole(num_microbatches, "num_microbatches")
        if num_microbatches > batch_size:
            raise InputError(
                f"num_microbatches must be between 1 and the batch of {batch_size}; it is {shown(num_microbatches)}."
            )
        if num_microbatches > 1 and reason:
            raise InputError(f"{num_microbatches} micro-batches are not possible: {reason} Use num_microbatches=1.")
        share, rest = divmod(batch_size, num_microbatches)
        return tuple(share + (index < rest) for index in range(num_microbatches))

    def check_rows(self, num_rows: int, others: Mapping[Any, int] = MappingProxyType({})) -> None:
        """Check that the model, with this many rows, takes the branches it was traced into.

        Args:
            num_rows: How many.
            others: What the symbols stand for that are no rows.

        Raises:
            InputError: It does not; names the condition.
        """
        # A trace cannot tell one row from more: torch leaves its branches for one row out.
        rows = max(num_rows, SMALLEST_TRACED_BATCH)
        for guard in self.program.guards:
            if others and not guard.free_symbols <= others.keys():
                continue  # it tells that inputs agree, of which only one symbol is left
            if not holds(guard, rows, others):
                raise InputError(
                    f"{self.graph.model} was traced where {guard} holds for the number of rows, and takes another "
                    f"branch with {num_rows}. Choose another batch size or num_microbatches, or trace it with that "
                    "many rows."
                )

    @cached_property
    def output_batched(self) -> tuple[bool, ...]:
        """Per tensor output: whether micro-batches of it can be concatenated along dimension 0."""
        return tuple(_mergeable(node) for node in self.program.output_nodes)

    @cached_property
    def _indivisible(self) -> str:
        """Why only one micro-batch is possible; empty if there is no reason."""
        if not any(self.batched):
            return f"{self.graph.model} fixes its batch to {self.graph.batch_size} rows."
        for index, merges in enumerate(self.output_batched):
            if not merges:
                node = self.program.output_nodes[index]
                shape = tuple("batch" if symbols(size) else size for size in node.meta["val"].shape)
                return (
                    f"output {index} ({node.name}, shape {shape}) has no single batch dimension in front, "
                    "so parts of it cannot be put together."
                )
        return self._unrelated

    @cached_property
    def _unrelated(self) -> str:
        """Names an output made from all rows of an input that is no part of its batch; empty if there is none.

        Where the model never brings two inputs together row by row, their batches keep symbols of their own.
        """
        merged: dict[int, frozenset[Any]] = {}
        memory = {index: index if op.storage is None else op.storage for index, op in enumerate(self.graph.ops)}
        for index, (op, node) in enumerate(zip(self.graph.ops, self.program.ops, strict=True)):
            sources = [merged.get(memory.get(value, value), frozenset()) for value in (index, *op.args)]
            if not _rows_in(node):
                sources += [_rows_in(source) for source in node.all_input_nodes if source in self.program.key_of]
            merged[memory[index]] = frozenset().union(*sources)
        for index, (value, node) in enumerate(zip(self.graph.outputs, self.program.output_nodes, strict=True)):
            if merged.get(memory.get(value, value), frozenset()) - _rows_in(node):
                names = [info.name for info, batched in zip(self.graph.inputs, self.batched, strict=True) if batched]
                return (
                    f"output {index} ({node.name}) needs all rows of an input whose rows are not its own "
                    f"({', '.join(names)}). If one of them has no batch and as many rows only by accident, trace "
                    "with another batch size."
                )
        return ""

    def unflatten(self, outputs: Sequence[Tensor]) -> Any:
        """The model's own output type from its tensor outputs."""
        tensors = iter(outputs)
        leaves = [next(tensors) if isinstance(output, fx.Node) else output for output in self.program.outputs]
        return pytree.tree_unflatten(leaves, self._out_spec)


def _is_same(given: Any, traced: Any) -> bool:
    """Whether an argument that is no tensor is what it was when the model was traced; 1, 1.0 and True differ."""
    if type(given) is not type(traced):
        return False
    try:
        return given is traced or bool(given == traced) or bool(given != given and traced != traced)  # NaN is as NaN
    except Exception:  # a user's own class, or one that compares item by item
        return False


def _rows_in(node: fx.Node) -> frozenset[Any]:
    """The batch symbols in the shape of what a node makes."""
    found: set[Any] = set()
    for_each_tensor(node.meta["val"], lambda tensor: found.update(*map(symbols, tensor.shape)))
    return frozenset(found)


def _mergeable(node: fx.Node) -> bool:
    shape = node.meta["val"].shape
    return bool(len(shape)) and is_multiple(shape[0]) and not any(symbols(size) for size in shape[1:])


def trace(model: nn.Module, /, *args: Any, **kwargs: Any) -> Trace:
    """Record a model as ops, once, for every later split.

    The model is called as usual; nothing is computed, no weight is read, and the model is untouched.

    Args:
        model: Any module `torch.export` can trace. On the meta device it needs no memory, and can only be planned.
        *args: Its positional arguments: the whole batch.
        **kwargs: Its keyword arguments. Every keyword is the model's.

    Returns:
        The trace: `.graph` holds ops, costs and cut points, for the batch that was passed. Batches of any
        other size can be run later.

    Raises:
        TraceError: The model cannot be traced; says where and why.
        InputError: `forward` does not take these arguments.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)).eval()
        >>> pipelab.trace(model, torch.zeros(6, 4))
        Sequential  58 parameters (232 B)  6 × 4  2 blocks  1 split point, 1 between blocks
    """
    call = bind_call(model, args, kwargs)
    leaves, _ = call.flatten()
    batch_size = batch_size_of(leaves)
    with announce(f"tracing {type(model).__name__}"):
        return trace_call(model, call, batch_size, args, kwargs)


def trace_call(
    model: nn.Module,
    call: Call,
    batch_size: int,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    caches: frozenset[str] = frozenset(),
    opened: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Trace:
    """The trace of a bound call.

    Args:
        model: The model.
        call: The call.
        batch_size: Rows of its batch.
        args: Its positional arguments, as they were given.
        kwargs: Its keyword arguments.
        caches: Names of the arguments that are key-value caches.
        opened: Dimensions besides the rows that are left open, by the name of a keyword.
    """
    exported = capture(model, call, batch_size, opened)
    program = sort_nodes(exported)
    if not program.ops:
        raise InputError(f"{type(model).__name__} computes nothing from these inputs.")
    persistent = set(exported.state_dict) - set(exported.graph_signature.non_persistent_buffers)
    others = meanings((node.meta["val"].shape, kwargs[node.name].shape) for node in program.inputs if opened)
    graph = record(program, persistent, type(model).__name__, Sizes(batch_size, others), caches)
    return Trace(graph, args, dict(kwargs), program, model, exported.call_spec.out_spec)
