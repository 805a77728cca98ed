"""A traced model as data: its ops in execution order, the weights they use, and every place to cut it.

A value is the tensor an op makes, or a model input. Value `i >= 0` is made by op `i`; value `-1 - k` is
model input `k`. A cut at position `p` lies before op `p`. All sizes speak of the traced batch.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelab.elements import Block, CutPoint, Level, ModuleCall, Op, TensorInfo, Weight
from pipelab.files import damaged, decode
from pipelab.names import printable
from pipelab.units import format_bytes, plural

__all__ = ["Block", "CutPoint", "Graph", "Level", "ModuleCall", "Op", "TensorInfo", "Weight"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Graph:
    """A traced model: ops in execution order, weights, and where it may be cut.

    Attributes:
        model: Class name of the model.
        batch_size: Size of the traced batch.
        inputs: The model's tensor inputs.
        ops: The operators in execution order.
        outputs: The values the model returns, by value number.
        weights: Every parameter, buffer and constant, under every name.
        modules: Every module call, outer before inner.
        blocks: The pieces of the model; together they cover all ops.
        prefix: What labels leave out of module paths: "transformer.".
        legal: The legal cut positions, ascending.
        marks: Where the model's own `forward` called `pipe_split()`.
        caches: The inputs, by value number, that are key-value caches of a decode step. They cross no cut:
            each stage keeps those that its ops read.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
        >>> graph = pipelab.trace(model, torch.zeros(6, 4)).graph
        >>> [(point.position, point.label, point.num_bytes) for point in graph.cut_points]
        [(1, 'before 1', 192), (2, 'before 2', 192)]
    """

    model: str
    batch_size: int
    inputs: tuple[TensorInfo, ...]
    ops: tuple[Op, ...]
    outputs: tuple[int, ...]
    weights: tuple[Weight, ...]
    modules: tuple[ModuleCall, ...]
    blocks: tuple[Block, ...]
    prefix: str
    legal: tuple[int, ...]
    marks: tuple[int, ...] = ()
    caches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # These two are for people only; paths and names of weights are as the model has them.
        object.__setattr__(self, "model", printable(self.model))
        object.__setattr__(self, "blocks", tuple(replace(b, label=printable(b.label)) for b in self.blocks))

    def __repr__(self) -> str:
        return (
            f"Graph({self.model}: {plural(len(self.ops), 'op')}, {self.num_params:,} parameters, "
            f"{plural(len(self.legal), 'split point')})"
        )

    # --- totals -------------------------------------------------------------------------------------

    @cached_property
    def weight_by_name(self) -> dict[str, Weight]:
        """Weights by each of their names."""
        return {weight.name: weight for weight in self.weights}

    @cached_property
    def distinct_weights(self) -> tuple[Weight, ...]:
        """Each tensor once, under its first name."""
        return tuple(weight for weight in self.weights if weight.tied_to == weight.name)

    @cached_property
    def num_params(self) -> int:
        """Elements of all parameters; a tied one counts once."""
        return sum(w.num_elements for w in self.distinct_weights if w.kind == "parameter")

    @cached_property
    def param_bytes(self) -> int:
        """Bytes of all parameters; a tied one counts once."""
        return sum(w.num_bytes for w in self.distinct_weights if w.kind == "parameter")

    @cached_property
    def buffer_bytes(self) -> int:
        """Bytes of all buffers and constants."""
        return sum(w.num_bytes for w in self.distinct_weights if w.kind != "parameter")

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of one forward pass of the traced batch."""
        return sum(op.flops for op in self.ops)

    # --- values -------------------------------------------------------------------------------------

    @cached_property
    def last_use(self) -> dict[int, int]:
        """The last op that reads each value; `len(ops)` for what the model returns.

        A value nobody reads has no entry.
        """
        last = {value: index for index, op in enumerate(self.ops) for value in op.args}
        last.update(dict.fromkeys(self.outputs, len(self.ops)))
        return last

    def tensor(self, value: int) -> TensorInfo | None:
        """The tensor of a value; None for an op that makes a list."""
        return self.inputs[-1 - value] if value < 0 else self.ops[value].output

    def values_at(self, position: int) -> tuple[int, ...]:
        """The values alive at a cut: made before it, read at or after it. Model inputs first."""
        last = self.last_use
        inputs = (-1 - k for k in range(len(self.inputs)) if -1 - k not in self._caches)
        return tuple(
            value
            for value in (*inputs, *range(position))
            if last.get(value, -1) >= position and self.tensor(value) is not None
        )

    @cached_property
    def live_bytes(self) -> IntArray:
        """Bytes alive at each position 0..len(ops), as they would cross a cut there."""
        return self.live_bytes_for(self.batch_size)

    def live_bytes_for(self, rows: int) -> IntArray:
        """The same for a micro-batch of this many rows."""
        change = np.zeros(len(self.ops) + 2, dtype=np.int64)
        for value, last in self.last_use.items():
            if value not in self._caches:
                num_bytes = self.value_bytes(value, rows)
                change[max(value + 1, 0)] += num_bytes
                change[last + 1] -= num_bytes
        return np.cumsum(change)[:-1]

    @cached_property
    def memory_bytes(self) -> IntArray:
        """Activation bytes in memory while each op runs; a view takes none of its own."""
        return self.memory_bytes_for(self.batch_size)

    def memory_bytes_for(self, rows: int) -> IntArray:
        """The same for a micro-batch of this many rows."""
        change = np.zeros(len(self.ops) + 2, dtype=np.int64)
        for storage, (start, last) in self._storage_spans.items():
            num_bytes = self.value_bytes(storage, rows)
            change[start] += num_bytes
            change[last + 1] -= num_bytes
        return np.cumsum(change)[: len(self.ops)]

    @cached_property
    def _storage_spans(self) -> dict[int, tuple[int, int]]:
        """Of each value that has memory of its own, the first and the last op during which it is held."""
        born: dict[int, int] = {}
        dies: dict[int, int] = {}
        for value in (*(-1 - k for k in range(len(self.inputs))), *range(len(self.ops))):
            storage = value if value < 0 else self.ops[value].storage
            if storage is None or storage in self._caches:
                continue
            last = self.last_use.get(value, max(value, 0))
            born[storage] = min(born.get(storage, max(value, 0)), max(value, 0))
            dies[storage] = max(dies.get(storage, 0), last)
        return {storage: (start, dies[storage]) for storage, start in born.items()}

    def value_bytes(self, value: int, rows: int) -> int:
        """Bytes of a value for this many rows; 0 for a list of tensors."""
        tensor = self.tensor(value)
        if tensor is None:
            return 0
        return tensor.num_bytes * rows // self.batch_size if tensor.batched else tensor.num_bytes

    def flops_for(self, rows: int) -> IntArray:
        """Floating-point operations of each op, for this many rows."""
        flops = np.array([op.flops for op in self.ops], dtype=np.int64)
        return np.where(self._scales, flops * rows // self.batch_size, flops)

    @cached_property
    def _scales(self) -> npt.NDArray[np.bool_]:
        """Per op: whether its work grows with the rows."""
        values = ((self.tensor(value) for value in (index, *op.args)) for index, op in enumerate(self.ops))
        return np.array(
            [any(tensor is not None and tensor.batched for tensor in of_op) for of_op in values], dtype=bool
        )

    # --- caches -------------------------------------------------------------------------------------

    @cached_property
    def sent_inputs(self) -> tuple[TensorInfo, ...]:
        """The inputs that are no caches: what a call brings."""
        return tuple(tensor for k, tensor in enumerate(self.inputs) if -1 - k not in self._caches)

    @cached_property
    def _caches(self) -> frozenset[int]:
        return frozenset(self.caches)

    @cached_property
    def cache_uses(self) -> dict[int, tuple[int, ...]]:
        """The ops that read each cache, ascending."""
        uses: dict[int, list[int]] = {}
        for index, op in enumerate(self.ops):
            for value in op.args:
                if value in self._caches:
                    uses.setdefault(value, []).append(index)
        return {value: tuple(indices) for value, indices in uses.items()}

    def caches_between(self, start: int, stop: int) -> tuple[int, ...]:
        """The caches that ops `start` to `stop` read."""
        uses = self.cache_uses.items()
        return tuple(value for value, indices in uses if bisect_left(indices, start) < bisect_left(indices, stop))

    def cache_bytes_between(self, start: int, stop: int, rows: int) -> int:
        """Bytes of the caches that ops `start` to `stop` read."""
        return sum(self.value_bytes(value, rows) for value in self.caches_between(start, stop))

    # --- weights of a range of ops ------------------------------------------------------------------

    @cached_property
    def weight_uses(self) -> dict[str, tuple[int, ...]]:
        """The ops that read each distinct weight, ascending; unused weights are left out."""
        uses: dict[str, list[int]] = {}
        for index, op in enumerate(self.ops):
            for name in dict.fromkeys(self.weight_by_name[name].tied_to for name in op.weights):
                uses.setdefault(name, []).append(index)
        return {name: tuple(indices) for name, indices in uses.items()}

    @cached_property
    def _reads(self) -> tuple[tuple[int, ...], tuple[tuple[Weight, ...], ...]]:
        """The ops that read weights, and which: few ops do, and every figure of a plan asks."""
        tied = {name: self.weight_by_name[weight.tied_to] for name, weight in self.weight_by_name.items()}
        found = [(index, tuple(tied[name] for name in op.weights)) for index, op in enumerate(self.ops) if op.weights]
        return tuple(index for index, _ in found), tuple(weights for _, weights in found)

    def weights_between(self, start: int, stop: int) -> tuple[Weight, ...]:
        """The distinct weights that ops `start` to `stop` read, in order of their first use."""
        readers, weights = self._reads
        read = weights[bisect_left(readers, start) : bisect_left(readers, stop)]
        return tuple({weight.name: weight for of_op in read for weight in of_op}.values())

    @cached_property
    def flops_before(self) -> IntArray:
        """Floating-point operations of all ops before each position 0..len(ops)."""
        return np.cumsum([0, *(op.flops for op in self.ops)])

    @cached_property
    def module_paths(self) -> frozenset[str]:
        """Every module that ran, the model itself ("") included."""
        return frozenset({"", *(call.path for call in self.modules), *(op.module for op in self.ops)})

    # --- cuts ---------------------------------------------------------------------------------------

    @cached_property
    def calls_by_start(self) -> dict[int, tuple[ModuleCall, ...]]:
        """Module calls by their first op, outer first."""
        return _grouped((call.start, call) for call in self.modules)

    @cached_property
    def calls_by_stop(self) -> dict[int, tuple[ModuleCall, ...]]:
        """Module calls by the op after their last, outer first."""
        return _grouped((call.stop, call) for call in self.modules)

    @cached_property
    def block_starts(self) -> dict[int, Block]:
        """Blocks by their first op."""
        return {block.start: block for block in self.blocks}

    def blocks_between(self, start: int, stop: int) -> tuple[Block, ...]:
        """The blocks that ops `start` to `stop` belong to, wholly or in part."""
        edges = tuple(self.block_starts)
        return self.blocks[bisect_right(edges, start) - 1 : bisect_left(edges, stop)] if start < stop else ()

    def short(self, path: str) -> str:
        """A module path without the prefix all labels would share."""
        return printable(path.removeprefix(self.prefix)) or self.model

    def level_at(self, position: int) -> Level:
        """What a cut at this position lies between."""
        if position in self.block_starts and position > 0:
            return "block"
        return "module" if position in self.calls_by_start or position in self.calls_by_stop else "op"

    def label_at(self, position: int) -> str:
        """Where a position is, in words."""
        if position >= len(self.ops):
            return "after the last op"
        if block := self.block_starts.get(position):
            return f"before {block.label}"
        for word, calls in (("before", self.calls_by_start), ("after", self.calls_by_stop)):
            if found := calls.get(position):
                return f"{word} {self.short(found[0].path)}{_call_text(found[0].call)}"
        op = self.ops[position]
        count = self._counts[position]
        number = f" #{count}" if count else ""
        return f"inside {self.short(op.module)}{_call_text(op.call)}, before {op.short_target}{number}"

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        """Per op, how many of the same name its module's call ran before; overloads share a name here."""
        seen: dict[tuple[str, int, str], int] = {}
        counts = []
        for op in self.ops:
            key = (op.module, op.call, op.short_target)
            counts.append(seen.get(key, 0))
            seen[key] = counts[-1] + 1
        return tuple(counts)

    @cached_property
    def cut_points(self) -> tuple[CutPoint, ...]:
        """Every legal cut, by position."""
        points = []
        alive: dict[int, TensorInfo] = {
            -1 - k: tensor
            for k, tensor in enumerate(self.inputs)
            if -1 - k in self.last_use and -1 - k not in self._caches
        }
        legal = set(self.legal)
        for position in range(len(self.ops)):
            if position in legal:
                tensors = tuple(alive.values())
                num_bytes = int(self.live_bytes[position])
                label, level = self.label_at(position), self.level_at(position)
                points.append(CutPoint(position, label, level, num_bytes, tensors))
            op = self.ops[position]
            for value in op.args:
                if self.last_use[value] == position:
                    alive.pop(value, None)
            if op.output is not None and position in self.last_use:
                alive[position] = op.output
        return tuple(points)

    @cached_property
    def cut_point_at(self) -> dict[int, CutPoint]:
        """Cut points by position."""
        return {point.position: point for point in self.cut_points}

    # --- JSON ---------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict that `from_json` turns back into an equal graph."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any, *, source: str = "the graph", path: str = "") -> "Graph":
        """The graph that `to_json` described.

        Args:
            data: What `to_json` gave.
            source: What an error names: the file.
            path: Where in it the graph is.

        Raises:
            PipelabError: It is no graph, or one that cannot be.
        """
        from pipelab.graph_checks import problem_of  # it takes graphs

        graph: Graph = decode(cls, data, source, path)
        if problem := problem_of(graph):
            raise damaged(source, problem)
        return graph

    def summary(self) -> str:
        """Parameters, batch, blocks and split points in one line."""
        named = sum(1 for block in self.blocks if block.path)
        between = sum(1 for point in self.cut_points if point.level == "block")
        shape = " × ".join(map(str, self.inputs[0].shape)) if self.inputs else "no inputs"
        if self.caches:
            shape += f" over a KV cache of {format_bytes(self.cache_bytes_between(0, len(self.ops), self.batch_size))}"
        return (
            f"{self.model}  {self.num_params:,} parameters ({format_bytes(self.param_bytes)})  {shape}  "
            f"{plural(named, 'block')}  {plural(len(self.legal), 'split point')}, {between} between blocks"
        )


def _grouped(pairs: Iterator[tuple[int, ModuleCall]]) -> dict[int, tuple[ModuleCall, ...]]:
    groups: dict[int, list[ModuleCall]] = {}
    for key, call in pairs:
        groups.setdefault(key, []).append(call)
    return {key: tuple(calls) for key, calls in groups.items()}


def _call_text(call: int) -> str:
    return f" (call {call + 1})" if call else ""
