"""What a rank computes on: a device known by its data sheet, or this machine as it was measured.

Both answer the same questions: how long an op takes, how long bytes take to the next rank, how much memory
there is. Everything that tells seconds asks one of them, and says which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from pipelab.arguments import flag, number, shown
from pipelab.errors import InputError
from pipelab.graph import Graph
from pipelab.load import OtherLoad
from pipelab.units import format_bytes, plural

FloatArray = npt.NDArray[np.float64]
Number = TypeVar("Number", float, FloatArray)

# A lookup reads only the rows it gives back; a write by index touches only what it writes.
_LOOKUPS = frozenset({"embedding", "index_select", "gather", "index", "embedding_bag"})
_WRITES_BY_INDEX = frozenset({"index_copy_", "index_put_", "scatter_", "copy_"})
_COPIES = frozenset({"reshape", "clone", "contiguous"})
_LISTS_OF_VIEWS = frozenset({"split", "split_with_sizes", "chunk", "tensor_split", "unbind", "getitem"})


# Within these, no sum of seconds overflows, and every figure can be written into a file and drawn.
_MOST_RATE, _MOST_BYTES, _MOST_S = 1e30, 1e18, 1e6
_LIMITS = {
    "memory_bytes": (1, _MOST_BYTES),
    "memory_bytes_per_s": (1, _MOST_RATE),
    "link_bytes_per_s": (1, _MOST_RATE),
    "link_latency_s": (0, _MOST_S),
    "op_s": (0, _MOST_S),
    "flops_efficiency": (1e-6, 1),
    "memory_efficiency": (1e-6, 1),
    "reserve_bytes": (0, _MOST_BYTES),
}


@dataclass(frozen=True)
class Hardware:
    """A device by its data sheet.

    An op takes the longer of computing and moving its bytes (the roofline model, Williams, Waterman and Patterson
    2009), and a fixed time on top.

    Attributes:
        name: What it is called.
        memory_bytes: Its memory.
        flops_per_s: Peak rate by dtype ("bfloat16", "float32"), 2 for a multiply-add; other dtypes take float32's.
        memory_bytes_per_s: Peak rate of its memory.
        link_bytes_per_s: To the rank after it, one way.
        link_latency_s: Fixed part of a transfer.
        op_s: Fixed part of every op that is no view: 2 µs to launch a kernel.
        flops_efficiency: Share of the peak rate that large ops reach; Megatron-LM trains at 52 % (arXiv 2104.04473).
        memory_efficiency: The same of the memory's rate.
        reserve_bytes: Memory that is gone before a model is loaded: the driver's context and work space.
        overlap: Whether a transfer runs beside computing.
        source: Where the figures are from.

    Example:
        >>> mine = pipelab.Hardware("mine", 8e9, {"float32": 1e12}, 1e11, link_bytes_per_s=1e10, link_latency_s=1e-5)
        >>> mine.transfer_s(1e6)
        0.00011
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4))).eval()
        >>> plan = pipelab.optimal(pipelab.trace(model, torch.zeros(2, 16)), num_stages=2, hardware=mine)
        >>> plan.stages[0].time_s > 2 * mine.op_s
        True
    """

    name: str
    memory_bytes: float
    flops_per_s: Mapping[str, float]
    memory_bytes_per_s: float
    link_bytes_per_s: float
    link_latency_s: float
    op_s: float = 2e-6
    flops_efficiency: float = 0.5
    memory_efficiency: float = 0.8
    reserve_bytes: float = 1e9
    overlap: bool = True
    source: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.source, str):
            raise InputError(f"name and source are texts; they are {shown(self.name)} and {shown(self.source)}.")
        for field_name, (least, most) in _LIMITS.items():
            value = number(getattr(self, field_name), f"{field_name} of {shown(self.name)}", least=least, most=most)
            object.__setattr__(self, field_name, value)
        flag(self.overlap, f"overlap of {shown(self.name)}")
        object.__setattr__(self, "flops_per_s", self._checked_rates())

    def _checked_rates(self) -> dict[str, float]:
        if not isinstance(self.flops_per_s, Mapping) or "float32" not in self.flops_per_s:
            raise InputError(
                f"flops_per_s of {shown(self.name)} needs an entry for 'float32', such as {{'float32': 1e12}}; it is "
                f"{shown(self.flops_per_s)}."
            )
        rates = self.flops_per_s.items()
        return {
            dtype: number(rate, f"flops_per_s[{shown(dtype)}] of {shown(self.name)}", least=1, most=_MOST_RATE)
            for dtype, rate in rates
        }

    @property
    def parallel(self) -> None:
        """How many ranks can compute at once on it; None as every rank has one of its own."""
        return None

    @property
    def num_slots(self) -> None:
        """Micro-batches a link holds before its sender waits; None for any number."""
        return None

    @property
    def microbatch_s(self) -> float:
        """Fixed time of a rank per micro-batch, besides its ops."""
        return 0.0

    @property
    def description(self) -> str:
        """What figures rest on."""
        return f"{self.name}, by its data sheet"

    def transfer_s(self, num_bytes: Number) -> Number:
        """Seconds until bytes are at the next rank."""
        return self.link_latency_s + num_bytes / self.link_bytes_per_s

    def op_times_s(self, graph: Graph, rows: int) -> FloatArray:
        """Seconds of each op, for a micro-batch of this many rows: shape (num_ops,)."""
        computes = [
            self.flops_per_s.get(_dtype(graph, index), self.flops_per_s["float32"]) for index in _indices(graph)
        ]
        flops_s = graph.flops_for(rows) / (self.flops_efficiency * np.array(computes, dtype=float))
        moved = np.array([_moved_bytes(graph, index, rows) for index in _indices(graph)], dtype=float)
        bytes_s = moved / (self.memory_efficiency * self.memory_bytes_per_s)
        return np.where(moved > 0, np.maximum(flops_s, bytes_s) + self.op_s, 0.0)

    def loaded_op_times_s(self, graph: Graph, rows: int) -> FloatArray:
        """The same while the other ranks compute too; no different, as each has a device of its own."""
        return self.op_times_s(graph, rows)


@dataclass(frozen=True, eq=False)
class Measurement:
    """What the ops of one model took on this machine, from `pipelab.measure`.

    Attributes:
        name: The machine: "this machine (2 cores)".
        num_ops: Number of ops of the model.
        rows: For which numbers of rows they were measured, ascending.
        alone_s: Seconds of each op while one rank computes: shape (len(rows), num_ops).
        loaded_s: The same while as many ranks compute as the machine has room for.
        parallel: How many ranks that is; None where every rank has a device of its own.
        microbatch_s: Fixed time of a rank per micro-batch, besides its ops.
        memory_bytes: Memory of the machine, or of a GPU; ranks may share it.
        link_bytes_per_s: To the rank after it.
        link_latency_s: Fixed part of a transfer.
        num_slots: Micro-batches a link holds before its sender waits.
        overlap: Whether a transfer runs beside computing.
        reserve_bytes: Memory of a rank that holds nothing.
        device: On what: "cpu", "cuda:0".
        num_threads: Threads of each rank.
        other_load: What else the machine did meanwhile; None where nobody can tell.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4))).eval()
        >>> traced = pipelab.trace(model, torch.zeros(4, 16))
        >>> measured = pipelab.measure(traced, device="cpu")
        >>> measured.rows
        (1, 2, 4)
        >>> pipelab.uniform(traced, num_stages=2).stages[0].time_s > 0
        True
    """

    name: str
    num_ops: int
    rows: tuple[int, ...]
    alone_s: FloatArray
    loaded_s: FloatArray
    parallel: int | None
    microbatch_s: float
    memory_bytes: float
    link_bytes_per_s: float
    link_latency_s: float
    num_slots: int | None
    overlap: bool
    reserve_bytes: float
    device: str
    num_threads: int
    other_load: OtherLoad | None = None

    def __repr__(self) -> str:
        rows = ", ".join(map(str, self.rows))
        link = f"links carry {format_bytes(self.link_bytes_per_s)} per second"
        return f"Measurement({self.description}: {plural(self.num_ops, 'op')}, each for {rows} rows; {link})"

    @property
    def description(self) -> str:
        """What figures rest on."""
        busy = " while other programs ran" if self.other_load and self.other_load.disturbed else ""
        return f"{self.name}, measured with {plural(self.num_threads, 'thread')} per rank{busy}"

    def transfer_s(self, num_bytes: Number) -> Number:
        """Seconds until bytes are at the next rank."""
        return self.link_latency_s + num_bytes / self.link_bytes_per_s

    def op_times_s(self, graph: Graph, rows: int) -> FloatArray:
        """Seconds of each op for a micro-batch of this many rows, between the measured ones interpolated."""
        return self._at(self.alone_s, graph, rows)

    def loaded_op_times_s(self, graph: Graph, rows: int) -> FloatArray:
        """The same while as many ranks compute as the machine has room for."""
        return self._at(self.loaded_s, graph, rows)

    def tells(self, rows: int) -> bool:
        """Whether times for this many rows are known: measured, or between or beyond two that were."""
        return rows in self.rows or len(self.rows) > 1

    def _at(self, seconds: FloatArray, graph: Graph, rows: int) -> FloatArray:
        if len(graph.ops) != self.num_ops:
            raise InputError(
                f"{self.name} was measured with a model of {self.num_ops} ops; {graph.model} has {len(graph.ops)}. "
                "Measure this one: pipelab.measure(traced)."
            )
        if rows in self.rows:
            return cast(FloatArray, seconds[self.rows.index(rows)])
        if not self.tells(rows):
            raise InputError(
                f"Micro-batches of {plural(rows, 'row')} were asked for; {graph.model} was measured with "
                f"{self.rows[0]}. Half the rows take more than half the time: name them in "
                "pipelab.measure(traced, microbatch_sizes=(...))."
            )
        right = min(max(int(np.searchsorted(self.rows, rows)), 1), len(self.rows) - 1)
        low, high = self.rows[right - 1], self.rows[right]
        share = (rows - low) / (high - low)
        between: FloatArray = (1 - share) * seconds[right - 1] + share * seconds[right]
        return np.maximum(between, 0.0)


DEFAULT = "h100-80gb"  # where nothing was measured and nothing is named

Device = Hardware | Measurement
HardwareLike = str | Device | Sequence[str | Device] | None


def devices_of(hardware: HardwareLike, graph: Graph, num_stages: int) -> tuple[Device, ...]:
    """One device per stage.

    Args:
        hardware: A preset's name, a device, or one of them per stage; None for this machine if the graph was
            measured, else the preset that is the default.
        graph: The model.
        num_stages: Number of stages.

    Raises:
        InputError: There is no such preset, or not one device per stage.
    """
    if isinstance(hardware, Sequence) and not isinstance(hardware, str):
        if len(hardware) != num_stages:
            raise InputError(
                f"hardware names {plural(len(hardware), 'device')} for {plural(num_stages, 'stage')}; name one per "
                "stage, or one for all."
            )
        return tuple(_device(item) for item in hardware)
    if hardware is None:
        hardware = measurement_of(graph) or DEFAULT
    return (_device(hardware),) * num_stages


def describe(devices: Sequence[Device]) -> str:
    """What figures rest on, each device once."""
    return " and ".join(dict.fromkeys(device.description for device in devices))


def _device(given: Any) -> Device:
    from pipelab.presets import PRESETS  # presets are Hardware

    if isinstance(given, Hardware | Measurement):
        return given
    if isinstance(given, str) and given in PRESETS:
        return PRESETS[given]
    raise InputError(
        f"hardware={shown(given)} is not known. It is one of: {', '.join(map(repr, PRESETS))}; or a "
        "pipelab.Hardware(...); or what pipelab.measure(traced) returned."
    )


# --- what a graph was measured to take ------------------------------------------------------------------------


def remember(graph: Graph, measurement: Measurement) -> None:
    """Keep what was measured of a graph with it, as a cached property would: every plan of it can then tell time."""
    graph.__dict__["_measurement"] = measurement


def measurement_of(graph: Graph) -> Measurement | None:
    """What was measured of a graph, or None."""
    return cast("Measurement | None", graph.__dict__.get("_measurement"))


def has_costs(graph: Graph) -> bool:
    """Whether a graph was measured."""
    return measurement_of(graph) is not None


# --- the roofline ---------------------------------------------------------------------------------------------


def _indices(graph: Graph) -> range:
    return range(len(graph.ops))


def _dtype(graph: Graph, index: int) -> str:
    """What an op computes in: its output's dtype."""
    output = graph.ops[index].output
    return output.dtype if output else "float32"


def _moved_bytes(graph: Graph, index: int, rows: int) -> float:
    """Bytes an op reads and writes; 0 for a view, which does nothing."""
    op = graph.ops[index]
    in_place = op.short_target.endswith("_")
    if op.short_target in _LISTS_OF_VIEWS or (op.output is not None and op.storage != index and not in_place):
        return 0
    if _repeats(graph, index):
        return 0
    read = [_read_bytes(graph, value, rows) for value in op.args]
    made = graph.value_bytes(index, rows) if op.output else sum(read)
    if op.short_target in _WRITES_BY_INDEX:
        return 2 * sum(read[1:])
    if op.short_target in _LOOKUPS:
        return 2 * made
    return sum(read) + sum(graph.weight_by_name[name].num_bytes for name in op.weights) + made


def _repeats(graph: Graph, index: int) -> bool:
    """Whether an op only writes out an expanded view, as grouped attention does with its keys.

    Kernels of GPUs read such values where they lie.
    """
    op = graph.ops[index]
    if op.short_target not in _COPIES or op.output is None or len(op.args) != 1:
        return False
    given = graph.tensor(op.args[0])
    return given is not None and given.num_bytes < op.output.num_bytes


def _read_bytes(graph: Graph, value: int, rows: int) -> int:
    """Bytes an op reads of one of its arguments."""
    if value >= 0 and _repeats(graph, value):
        value = graph.ops[value].args[0]
    return graph.value_bytes(value, rows)
