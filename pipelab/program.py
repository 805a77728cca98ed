"""One stage as a table of ops, and the module that runs it. This is all a rank ever receives of a model.

A table is plain data: operators by name, values by name, no code and no class of the user's. (A pickled
GraphModule would run `arange` or `rand` once and freeze the result.)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.operators import operator


@dataclass(frozen=True, slots=True)
class Ref:
    """A value or weight by name, inside an op's arguments."""

    name: str


@dataclass(frozen=True, slots=True)
class DeviceHere:
    """The device the stage runs on, inside an op's arguments."""


@dataclass(frozen=True, slots=True)
class Row:
    """One op: its result's name, the operator, the module path that ran it, and its arguments.

    An argument is a constant, a `Ref`, a `DeviceHere`, a nested `Table` (the branch of a `torch.cond`), or
    a list, tuple or dict of those. `frees` names the values nobody reads afterwards.
    """

    name: str
    target: str
    module: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    frees: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ValueSpec:
    """How one value travels: a dense buffer of this shape and strides.

    A stride of 0 marks an expanded dimension: it travels once and is expanded again on arrival.

    Attributes:
        name: The value.
        dtype: "float32", ...
        shape: Its sizes for the micro-batch size of the table.
        strides: In elements; 0 where expanded, otherwise dense.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's own."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def wire_shape(self) -> tuple[int, ...]:
        """The shape with expanded dimensions of size 1."""
        pairs = zip(self.shape, self.strides, strict=True)
        return tuple(1 if stride == 0 and size > 1 else size for size, stride in pairs)

    @property
    def num_bytes(self) -> int:
        """Bytes on the wire."""
        return prod(self.wire_shape) * self.torch_dtype.itemsize

    def wire_view(self, storage: Tensor) -> Tensor:
        """The value's tensor over a flat uint8 buffer of at least `num_bytes` bytes."""
        flat = storage[: self.num_bytes].view(self.torch_dtype)
        return flat.as_strided(self.wire_shape, self._dense_strides())

    def pack(self, value: Tensor, storage: Tensor) -> None:
        """Copy a value into the buffer; expanded dimensions once."""
        for dim, (size, wire) in enumerate(zip(self.shape, self.wire_shape, strict=True)):
            if size != wire:
                value = value.narrow(dim, 0, 1)
        self.wire_view(storage).copy_(value)

    def unpack(self, storage: Tensor) -> Tensor:
        """The value as a view of the buffer, expanded dimensions expanded again."""
        return self.wire_view(storage).expand(self.shape)

    def _dense_strides(self) -> tuple[int, ...]:
        strides = list(self.strides)
        order = sorted(range(len(strides)), key=lambda dim: (strides[dim], -dim))
        step, shape = 1, self.wire_shape
        for dim in order:
            strides[dim] = step
            step *= max(shape[dim], 1)
        return tuple(strides)


@dataclass(frozen=True)
class Table:
    """A runnable piece of a program: what goes in, the ops, what comes out.

    Attributes:
        inputs: Names of the values it is called with, in order.
        rows: The ops in order.
        outputs: Names of the values it returns, in order (a value it was given may be among them).
        weights: First names of the weights it reads.
        aliases: Other names under which rows read those weights: {name: first name}.
    """

    inputs: tuple[str, ...]
    rows: tuple[Row, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    aliases: Mapping[str, str] | None = None


@dataclass(frozen=True)
class StageTable:
    """One stage for one micro-batch size: its program and how its values travel.

    Attributes:
        index: The stage.
        microbatch_size: Rows of the batch it was made for.
        table: The program.
        inputs: One spec per input of the table.
        outputs: One spec per output of the table.
    """

    index: int
    microbatch_size: int
    table: Table
    inputs: tuple[ValueSpec, ...]
    outputs: tuple[ValueSpec, ...]


class StageModule(nn.Module):
    """A stage as a plain module: `forward(*values) -> tuple of values`.

    It fits `torch.distributed.pipelining.PipelineStage` as well as pipelab's own ranks.

    Args:
        table: The program.
        weights: Tensors by first name; only those the table reads are kept.
        device: Where it runs; device arguments of ops are set to it.
    """

    def __init__(self, table: Table, weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.table = table
        self.device = torch.device(device)
        self.on_op: Callable[[int], None] | None = None
        self._weights = {name: weights[name] for name in table.weights}
        for alias, name in (table.aliases or {}).items():
            self._weights[alias] = weights[name]
        self._steps = [
            (row, operator(row.target), self._prepare(row.args, weights), self._prepare(dict(row.kwargs), weights))
            for row in table.rows
        ]

    def _prepare(self, argument: Any, weights: Mapping[str, Tensor]) -> Any:
        """An argument with devices and nested tables in place; only `Ref`s are left to fill in."""
        if isinstance(argument, DeviceHere):
            return self.device
        if isinstance(argument, Table):
            return _Branch(StageModule(argument, weights, self.device))
        if isinstance(argument, list | tuple):
            return type(argument)(self._prepare(item, weights) for item in argument)
        if isinstance(argument, dict):
            return {key: self._prepare(item, weights) for key, item in argument.items()}
        return argument

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Run every op in order."""
        env: dict[str, Any] = dict(self._weights)
        env.update(zip(self.table.inputs, values, strict=True))
        del values
        for index, (row, function, args, kwargs) in enumerate(self._steps):
            env[row.name] = function(*_filled(args, env), **_filled(kwargs, env))
            for name in row.frees:
                del env[name]
            if self.on_op is not None:
                self.on_op(index)
        return tuple(env[name] for name in self.table.outputs)


class _Branch:
    """A nested program as the callable a higher-order op wants."""

    def __init__(self, module: StageModule) -> None:
        self.module = module

    def __call__(self, *values: Tensor) -> tuple[Tensor, ...]:
        return self.module(*values)  # type: ignore[no-any-return]


def _filled(argument: Any, env: Mapping[str, Any]) -> Any:
    if isinstance(argument, Ref):
        return env[argument.name]
    if isinstance(argument, tuple):
        return tuple(_filled(item, env) for item in argument)
    if isinstance(argument, list):
        return [_filled(item, env) for item in argument]
    if isinstance(argument, dict):
        return {key: _filled(item, env) for key, item in argument.items()}
    return argument
