"""What the kernel and the ranks say to each other. Data only."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pipelab.launch.devices import LinkKind
from pipelab.launch.memory import Placed
from pipelab.pieces import Piece
from pipelab.program import StageTable, ValueSpec


@dataclass(frozen=True, slots=True)
class Join:
    """Here are the weights, all of them. Descriptor: the segment of those in memory.

    Attributes:
        weights: Where they lie in it.
        num_bytes: Its size.
        pieces: By name, where the others lie in files.
    """

    weights: tuple[Placed, ...]
    num_bytes: int
    pieces: Mapping[str, Piece]


@dataclass(frozen=True, slots=True)
class Gather:
    """Read the weights that lie in files into memory that others map. Descriptors: of the counters, of that memory.

    Attributes:
        placed: Where each goes.
        num_bytes: Size of that memory.
        counters_bytes: Bytes of the counters' segment.
    """

    placed: tuple[Placed, ...]
    num_bytes: int
    counters_bytes: int


@dataclass(frozen=True, slots=True)
class BatchEnd:
    """Where the first stage reads the whole batch, or the last one writes it.

    Attributes:
        placed: Each tensor of the whole batch.
        batched: Per tensor, whether micro-batches are rows of it.
        num_bytes: Bytes of the segment.
    """

    placed: tuple[Placed, ...]
    batched: tuple[bool, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """One end of a link between neighbours.

    Attributes:
        kind: What carries the values.
        num_bytes: Bytes of its segment.
    """

    kind: LinkKind
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Load:
    """Hold this stage from now on.

    Descriptors: of the counters, then of the source and of the sink a segment and, where it is a link, a socket, and
    where that is a process group's, the file to meet in.

    Attributes:
        rank: Which rank this is.
        sizes: Rows of each micro-batch.
        tables: The stage for each size.
        device: Where it computes.
        num_threads: Threads it computes with on the CPU.
        has_core: Whether every rank has a core of its own, so that it may look for signals before it sleeps.
        counters_bytes: Bytes of the counters' segment.
        source: Where its values come from.
        sink: Where its results go.
    """

    rank: int
    sizes: tuple[int, ...]
    tables: Mapping[int, StageTable]
    device: str
    num_threads: int
    has_core: bool
    counters_bytes: int
    source: BatchEnd | LinkEnd
    sink: BatchEnd | LinkEnd


@dataclass(frozen=True, slots=True)
class RingLoad:
    """Hold these programs from now on, for groups of rows that come and go through a ring of processes.

    Descriptors: of the counters, of the slots before it, of those behind it; the socket it reads tokens from; the one
    it writes tokens to, of the last rank one for each group.

    Attributes:
        rank: Which rank this is.
        programs: The stage for each kind of step and number of rows.
        groups: Per group, what is kept of it from step to step.
        constants: Tensors that the programs read and that are no weights of the model.
        device: Where it computes.
        num_threads: Threads it computes with on the CPU.
        counters_bytes: Bytes of the counters' segment.
        source_bytes: Bytes of the slots before it.
        sink_bytes: Bytes of the slots behind it.
    """

    rank: int
    programs: tuple[StageTable, ...]
    groups: tuple[tuple[ValueSpec, ...], ...]
    constants: Mapping[str, Tensor]
    device: str
    num_threads: int
    counters_bytes: int
    source_bytes: int
    sink_bytes: int


@dataclass(frozen=True, slots=True)
class Flow:
    """Run the steps that tokens name, until a token says that it is the end."""


@dataclass(frozen=True, slots=True)
class Step:
    """Run all micro-batches once.

    Attributes:
        number: Which step it is.
        times_ops: Whether to measure each op.
        pace_s: Per micro-batch, how long to wait instead of computing; None to compute.
    """

    number: int
    times_ops: bool = False
    pace_s: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """The stage is loaded, or the weights are gathered."""


@dataclass(frozen=True, slots=True)
class Spent:
    """How long a rank was at one program of a ring, in all its runs.

    Attributes:
        compute_ns: In its ops.
        move_ns: Taking values in and handing them on.
    """

    compute_ns: int
    move_ns: int


@dataclass(frozen=True, slots=True)
class Done:
    """The step is done.

    Attributes:
        times_ns: When it began, and when each thing that it does with a micro-batch was done, in order.
        peak_memory_bytes: The most memory it held meanwhile.
        op_s: Per micro-batch the seconds of each op, if it was asked to measure them.
        programs: Per program of a ring, how long it was at it.
    """

    times_ns: tuple[int, ...]
    peak_memory_bytes: int
    op_s: tuple[tuple[float, ...], ...] = ()
    programs: tuple[Spent, ...] = ()


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The step was stopped; the rank is ready for the next."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The rank raised; it is ready for the next step all the same.

    Attributes:
        error: The exception in one line.
        op: Index of the op that raised, None outside ops.
        traceback: The traceback's text.
        time_ns: When, on the shared clock.
    """

    error: str
    op: int | None
    traceback: str
    time_ns: int


Reply = Loaded | Done | GivenUp | Failed
