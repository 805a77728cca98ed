"""From an exported program to a Graph: one op list for every batch size."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from pipelab.aliasing import Memory, illegal_cuts, storage_of
from pipelab.blocks import find_blocks, list_elements
from pipelab.errors import TraceError
from pipelab.flops import FlopCounter
from pipelab.graph import Graph, ModuleCall, Op, TensorInfo, Weight
from pipelab.marks import TARGETS as MARKS
from pipelab.operators import target_name
from pipelab.sizes import Sizes, guards_of, symbols

_KINDS = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
}


_WRITES_NOTHING = "aten.detach.default"  # as which a stage runs `detach_`, of every constant that forward makes


@dataclass(frozen=True)
class Program:
    """An exported program with its nodes sorted by what they are.

    Attributes:
        ops: The nodes of `Graph.ops`, in that order.
        inputs: The nodes of the model's tensor inputs.
        outputs: What the model returns: a node, or a constant.
        key_of: Every tensor node's value number, or its weight's name.
        weights: Every parameter, buffer and constant tensor by every name.
        kinds: Of each of those: "parameter", "buffer" or "constant".
        marks: Positions of `pipe_split()`.
        guards: What the model's own branches made sure of about the number of rows.
    """

    ops: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[Any, ...]
    key_of: dict[fx.Node, int | str]
    weights: dict[str, Tensor]
    kinds: dict[str, str]
    marks: tuple[int, ...]
    guards: tuple[Any, ...]

    @cached_property
    def memory(self) -> Memory:
        """Which values and weights share memory, and which ops write to it."""
        memory = Memory()
        for node, key in self.key_of.items():
            if isinstance(key, int) and key >= 0:
                memory.add_op(key, node, self.key_of)
            else:
                memory.add(key, node)
        return memory

    @cached_property
    def written(self) -> frozenset[str]:
        """Names of the weights that ops write to."""
        roots = {
            self.memory.root(key)
            for key, ops in self.memory.writes.items()
            if any(target_name(self.ops[op]) != _WRITES_NOTHING for op in ops)
        }
        return frozenset(name for name in self.weights if self.memory.root(name) in roots)

    @property
    def output_nodes(self) -> tuple[fx.Node, ...]:
        """The outputs that are tensors."""
        return tuple(output for output in self.outputs if isinstance(output, fx.Node))


def sort_nodes(exported: ExportedProgram) -> Program:
    """Tell weights, inputs and ops apart; sizes and assertions are no ops.

    Raises:
        TraceError: A size depends on the values of a tensor, or the model returns one of its weights.
    """
    specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    stored: dict[str, Any] = {**exported.constants, **exported.state_dict}
    ops: list[fx.Node] = []
    inputs: list[fx.Node] = []
    outputs: tuple[Any, ...] = ()
    key_of: dict[fx.Node, int | str] = {}
    weights: dict[str, Tensor] = {}
    kinds: dict[str, str] = {}
    marks: list[int] = []
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            spec = specs[node.name]
            if spec.kind is InputKind.USER_INPUT:
                if isinstance(node.meta.get("val"), Tensor):
                    key_of[node] = -1 - len(inputs)
                    inputs.append(node)
            elif spec.kind in _KINDS and spec.target is not None:
                key_of[node] = spec.target
                weights[spec.target] = stored[spec.target]
                kinds[spec.target] = _KINDS[spec.kind]
        elif node.op == "call_function":
            if str(node.target) in MARKS:
                marks.append(len(ops))
            elif is_op(node):
                key_of[node] = len(ops)
                ops.append(node)
        elif node.op == "output":
            outputs = tuple(node.args[0])
    returned = [key_of.get(output) for output in outputs if isinstance(output, fx.Node)]
    for key in returned:
        if not isinstance(key, int):
            what = f"its weight {key!r}" if key else "a size"
            raise TraceError(f"The model returns {what} as an output; return a tensor computed from the input instead.")
    guards = _guards(inputs)
    return Program(tuple(ops), tuple(inputs), outputs, key_of, weights, kinds, tuple(marks), guards)


def _guards(inputs: Sequence[fx.Node]) -> tuple[Any, ...]:
    for node in inputs:
        for size in node.meta["val"].shape:
            if symbols(size):
                return guards_of(size)
    return ()


def is_op(node: fx.Node) -> bool:
    """Whether a node computes tensors: sizes become integers in a stage, and assertions are dropped."""
    value = node.meta.get("val")
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        if any(str(symbol).startswith(("u", "zu")) for symbol in value.node.expr.free_symbols):
            raise TraceError(
                f"A size or number in the model depends on the values of a tensor ({node.name} = {node.target}); a "
                "stage needs those that follow from the input's shape alone. Keep it a tensor: no .item(), no "
                "selection by a mask."
            )
        return False
    return _holds_tensor(value) or _only_writes(node)


def _only_writes(node: fx.Node) -> bool:
    """Whether an op makes nothing but writes to what it is given, as `_foreach_add_` does."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(map(_holds_tensor, value)))


def tensor_info(name: str, value: Tensor, sizes: Sizes) -> TensorInfo:
    """Shape, dtype and bytes on a link for one batch size."""
    shape = tuple(sizes(size) for size in value.shape)
    num_elements, batched = 1, False
    for size, symbolic, stride in zip(shape, value.shape, value.stride(), strict=True):
        expanded = isinstance(stride, int) and stride == 0
        num_elements *= 1 if expanded and size > 1 else size
        batched |= not expanded and bool(symbols(symbolic))
    dtype = str(value.dtype).removeprefix("torch.")
    return TensorInfo(name, shape, dtype, num_elements * value.dtype.itemsize, batched)


def record(
    program: Program, persistent: set[str], model_name: str, sizes: Sizes, caches: frozenset[str] = frozenset()
) -> Graph:
    """The Graph of a program, with figures for one batch size.

    Args:
        program: The sorted nodes.
        persistent: Names in the model's `state_dict`.
        model_name: Class name of the model.
        sizes: Those of the traced batch.
        caches: Names of the input nodes that are key-value caches.

    Raises:
        TraceError: The model writes to one of its parameters, or to memory that two of its weights share.
    """
    memory = program.memory
    _check_buffers(program)
    calls, places = _places(program.ops)
    ops = _ops(program, places, memory, sizes)
    last_use = {value: index for index, op in enumerate(ops) for value in op.args}
    outputs = tuple(key for node in program.output_nodes for key in [program.key_of[node]] if isinstance(key, int))
    last_use.update(dict.fromkeys(outputs, len(ops)))
    list_valued = [index for index, op in enumerate(ops) if op.output is None]
    cache_values = {-1 - k: None for k, node in enumerate(program.inputs) if node.name in caches}
    reads: dict[int | str, list[int]] = {}
    for index, op in enumerate(ops):
        held: list[int | str] = [*op.weights, *(value for value in op.args if value in cache_values)]
        for key in held:
            reads.setdefault(key, []).append(index)
    illegal = illegal_cuts(memory, len(ops), last_use, list_valued, reads)
    blocks, prefix = find_blocks(calls, [bool(op.weights) for op in ops], [op.args for op in ops])
    return Graph(
        model=model_name,
        batch_size=sizes.num_rows,
        inputs=tuple(tensor_info(node.name, node.meta["val"], sizes) for node in program.inputs),
        ops=ops,
        outputs=outputs,
        weights=_weights(program, persistent),
        modules=calls,
        blocks=blocks,
        prefix=prefix,
        legal=tuple(position for position in range(1, len(ops)) if position not in illegal),
        marks=program.marks,
        caches=tuple(cache_values),
    )


def _check_buffers(program: Program) -> None:
    """A stage holds each weight by itself: what is written to one would not be seen in the other."""
    memory = program.memory
    for name, kind in program.kinds.items():
        if kind == "parameter" and name in program.written:
            op = next(op for key in memory.writes if memory.root(key) == memory.root(name) for op in memory.writes[key])
            raise TraceError(
                f"The model writes to its parameter {name!r} as it runs ({target_name(program.ops[op])}), so that each "
                "micro-batch would change it again. Change it once, before the trace, or set the model not to (RWKV: "
                "rescale_every=0 in its config)."
            )
    found: dict[int | str, tuple[str, Tensor]] = {}
    for name, tensor in program.weights.items():
        root = memory.root(name)
        other, first = found.setdefault(root, (name, tensor))
        if name in program.written and first is not tensor:
            raise TraceError(
                f"The model writes to memory that its weights {other!r} and {name!r} share, and a stage holds each "
                "weight by itself. Keep one of them, and take the view of it in forward."
            )


def _weights(program: Program, persistent: set[str]) -> tuple[Weight, ...]:
    # Identity tells tensors apart: on meta every data_ptr is 0.
    first_name: dict[int, str] = {}
    return tuple(
        Weight(
            name=name,
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            num_elements=tensor.numel(),
            num_bytes=tensor.numel() * tensor.dtype.itemsize,
            kind=program.kinds[name],  # type: ignore[arg-type]  # one of a few words
            persistent=name in persistent,
            tied_to=first_name.setdefault(id(tensor), name),
        )
        for name, tensor in program.weights.items()
    )


def _ops(program: Program, places: Sequence[tuple[str, int]], memory: Memory, sizes: Sizes) -> tuple[Op, ...]:
    count_flops = FlopCounter(sizes)
    ordinals: dict[tuple[str, int, str], int] = {}
    ops = []
    for index, (node, (module, call)) in enumerate(zip(program.ops, places, strict=True)):
        target = target_name(node)
        ordinal = ordinals.get((module, call, target), 0)
        ordinals[module, call, target] = ordinal + 1
        keys = dict.fromkeys(program.key_of[arg] for arg in node.all_input_nodes if arg in program.key_of)
        value = node.meta["val"]
        ops.append(
            Op(
                name=node.name,
                target=target,
                module=module,
                call=call,
                ordinal=ordinal,
                args=tuple(key for key in keys if isinstance(key, int)),
                weights=tuple(key for key in keys if isinstance(key, str)),
                output=tensor_info(node.name, value, sizes) if isinstance(value, Tensor) else None,
                flops=count_flops(node),
                storage=storage_of(memory, index),
            )
        )
    return tuple(ops)


def _places(nodes: Sequence[fx.Node]) -> tuple[tuple[ModuleCall, ...], list[tuple[str, int]]]:
    """Every module call with its span of ops, and per op the innermost call."""
    spans: dict[tuple[str, int], list[Any]] = {}
    places: list[tuple[str, int]] = []
    for index, node in enumerate(nodes):
        innermost = ("", 0)
        for key, entry in node.meta.get("nn_module_stack", {}).items():
            if not isinstance(entry, tuple):
                continue
            path, class_name = entry
            # The second call of a module is keyed "L__self__block@1"; but a module may bear such a name.
            count = key.rpartition("@")[2]
            again = "@" in key and count.isdigit() and not ("@" in path and key.endswith(path))
            innermost = (path, int(count) if again else 0)
            name = class_name if isinstance(class_name, str) else class_name.__name__
            span = spans.setdefault(innermost, [name.rpartition(".")[2], index, index])
            span[2] = index
        places.append(innermost)
    calls = [
        ModuleCall(path, call, name, start, last + 1) for (path, call), (name, start, last) in spans.items() if path
    ]
    calls += list_elements(calls)
    return tuple(sorted(calls, key=lambda c: (c.start, -c.stop))), places
