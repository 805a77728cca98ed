"""The pieces a Graph is made of: tensors, weights, ops, module calls, blocks and cut points."""

from dataclasses import dataclass
from typing import Literal

from pipelab.names import printable

Level = Literal["block", "module", "op"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor without its numbers.

    Attributes:
        name: Name of the value in the traced program.
        shape: Sizes at the traced batch.
        dtype: As torch writes it, without "torch.": "float32".
        num_bytes: Bytes it takes on a link; an expanded (stride-0) dimension travels once.
        batched: Whether a dimension of it carries the batch, so that its bytes grow with the rows.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    num_bytes: int
    batched: bool = False

    def __str__(self) -> str:
        return f"{printable(self.name)} ({'×'.join(map(str, self.shape)) or 'scalar'} {self.dtype})"


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter, buffer or constant of the model under one of its names.

    Attributes:
        name: Dotted name, as in the model's `state_dict`.
        shape: Its sizes.
        dtype: "float32", ...
        num_elements: Number of elements.
        num_bytes: Bytes in memory.
        kind: "parameter", "buffer", or "constant" (a tensor the program itself holds).
        persistent: Whether `state_dict` lists it.
        tied_to: The first name of the same tensor; its own name if it has no other.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    num_elements: int
    num_bytes: int
    kind: Literal["parameter", "buffer", "constant"]
    persistent: bool
    tied_to: str


@dataclass(frozen=True, slots=True)
class Op:
    """One operator of the program.

    Attributes:
        name: Its name in the traced program, unique.
        target: The operator, "aten.linear.default".
        module: Dotted path of the module that ran it, "" for the model itself.
        call: Which call of that module this is, from 0.
        ordinal: How many ops of the same target that call ran before it.
        args: The values it reads, without repetition.
        weights: Names of the weights it reads.
        output: The tensor it makes, or None for a list of tensors (then its `getitem`s follow).
        flops: Floating-point operations; 2 for a multiply-add.
        storage: The value whose memory its output lives in: itself, an earlier value if the output
            is a view, or None if it is a view of a weight.
    """

    name: str
    target: str
    module: str
    call: int
    ordinal: int
    args: tuple[int, ...]
    weights: tuple[str, ...]
    output: TensorInfo | None
    flops: int
    storage: int | None

    @property
    def num_bytes(self) -> int:
        """Bytes of the output as it would cross a cut; 0 for a list of tensors."""
        return self.output.num_bytes if self.output else 0

    @property
    def short_target(self) -> str:
        """The operator without namespace and overload: "linear"."""
        parts = self.target.split(".")
        return parts[1] if len(parts) > 1 else parts[0]


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """One call of one module: it ran ops `start` to `stop` (exclusive)."""

    path: str
    call: int
    class_name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the model that people cut around: a repeated layer, or what lies between them.

    Attributes:
        path: The module it is, "" for what lies between blocks (embedding, head).
        label: A short unique name: "h.3", "embed", "head".
        start: Its first op.
        stop: The op after its last.
    """

    path: str
    label: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class CutPoint:
    """A place where the model may be cut.

    Attributes:
        position: The cut lies before this op.
        label: Where that is, "before h.3".
        level: "block" between blocks, "module" where a module's call begins or ends, else "op".
        num_bytes: Bytes of the values alive there: what the wire carries for the traced batch.
        tensors: Those values, model inputs first.
    """

    position: int
    label: str
    level: Level
    num_bytes: int
    tensors: tuple[TensorInfo, ...]
