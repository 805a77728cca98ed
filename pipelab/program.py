"""One stage as a table of ops: all that a rank ever receives of a model.

A table is plain data: operators by name, values by name, no code and no class of the user's. (A pickled
GraphModule would run `arange` or `rand` once and freeze the result.)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor


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
        flat = storage[: self.num_bytes]
        if flat.device.type == "cpu" and self.num_bytes:
            # A storage that begins with the value, as in the model: `as_strided` counts from there.
            flat = torch.from_numpy(flat.numpy())
        flat = flat.view(self.torch_dtype)
        return flat.as_strided(self.wire_shape, self._dense_strides())

    def compact(self, value: Tensor) -> Tensor:
        """The value with expanded dimensions of size 1.

        Raises:
            ValueError: It is another one than was traced: an op gave what it had not said. (A copy would spread it.)
        """
        if value.shape != self.shape or value.dtype != self.torch_dtype:
            raise ValueError(
                f"{self.name} is {tuple(value.shape)} {value.dtype}; traced it was {self.shape} {self.dtype}"
            )
        if 0 in self.strides:
            for dim, (size, wire) in enumerate(zip(self.shape, self.wire_shape, strict=True)):
                if size != wire:
                    value = value.narrow(dim, 0, 1)
        return value

    def pack(self, value: Tensor, storage: Tensor) -> None:
        """Copy a value into the buffer; expanded dimensions once."""
        self.wire_view(storage).copy_(self.compact(value))

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
        written: First names of the weights that ops write to.
    """

    inputs: tuple[str, ...]
    rows: tuple[Row, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    aliases: Mapping[str, str] | None = None
    written: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageTable:
    """One stage for one micro-batch size: its program and how its values travel.

    Attributes:
        index: The stage.
        microbatch_size: Rows of the batch it was made for.
        table: The program.
        inputs: One spec per input of the table that travels.
        outputs: One spec per output of the table.
        kept: One spec per input after those: what the rank keeps from step to step, and ops write to.
    """

    index: int
    microbatch_size: int
    table: Table
    inputs: tuple[ValueSpec, ...]
    outputs: tuple[ValueSpec, ...]
    kept: tuple[ValueSpec, ...] = ()
