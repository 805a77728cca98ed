"""What a micro-batch costs, op by op, on one device: the arrays that planner and simulator add up."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelab.arguments import shown, whole
from pipelab.errors import InputError
from pipelab.graph import Graph, IntArray
from pipelab.hardware import Device, FloatArray
from pipelab.units import plural


@dataclass(frozen=True, eq=False)
class Costs:
    """The costs of one micro-batch. Make it with `Costs.of`, which keeps what it made.

    Attributes:
        graph: The model.
        device: What it runs on.
        rows: Rows of the micro-batch.
    """

    graph: Graph
    device: Device
    rows: int

    @classmethod
    def of(cls, graph: Graph, device: Device, rows: int) -> "Costs":
        """The costs of a graph on a device; the same object for the same question."""
        kept: dict[tuple[int, int], Costs] = graph.__dict__.setdefault("_costs", {})
        key = (id(device), rows)  # a kept entry keeps its device, so that the id stays its own
        found = kept.get(key)
        if found is None or found.device is not device:  # a copied graph has the ids of another's devices
            found = kept[key] = cls(graph, device, rows)
        return found

    @cached_property
    def op_s(self) -> FloatArray:
        """Seconds of each op: shape (num_ops,)."""
        return self.device.op_times_s(self.graph, self.rows)

    @cached_property
    def time_before(self) -> FloatArray:
        """Seconds of all ops before each position: shape (num_ops + 1,)."""
        return np.concatenate([[0.0], np.cumsum(self.op_s)])

    @cached_property
    def loaded_time_before(self) -> FloatArray:
        """The same while as many ranks compute as the machine has room for."""
        return np.concatenate([[0.0], np.cumsum(self.device.loaded_op_times_s(self.graph, self.rows))])

    def work_before(self, num_stages: int) -> FloatArray:
        """Seconds before each position as a stage takes them: if there are several, the others compute meanwhile."""
        return self.loaded_time_before if num_stages > 1 else self.time_before

    @cached_property
    def cut_bytes(self) -> IntArray:
        """Bytes that would cross at each position: shape (num_ops + 1,); 0 at both ends."""
        crossing = self.graph.live_bytes_for(self.rows).copy()
        crossing[[0, -1]] = 0
        return crossing

    @cached_property
    def transfer_s(self) -> FloatArray:
        """Seconds for those bytes over the device's link: shape (num_ops + 1,); 0 at both ends."""
        seconds = self.device.transfer_s(self.cut_bytes.astype(float))
        seconds[[0, -1]] = 0.0
        return seconds

    @cached_property
    def output_bytes(self) -> int:
        """Bytes of what the model returns."""
        return sum(self.graph.value_bytes(value, self.rows) for value in self.graph.outputs)

    @cached_property
    def activation_bytes(self) -> IntArray:
        """Bytes of activations alive while each op runs: shape (num_ops,)."""
        return self.graph.memory_bytes_for(self.rows)

    @cached_property
    def stash_before(self) -> IntArray:
        """Bytes that training keeps for the backward pass of all ops before each position."""
        return np.concatenate([[0], np.cumsum(stash_bytes(self.graph, self.rows), dtype=np.int64)])

    def weight_bytes(self, start: int, stop: int) -> int:
        """Bytes of the distinct weights that ops `start` to `stop` read; a tied one counts once."""
        return sum(weight.num_bytes for weight in self.graph.weights_between(start, stop))

    def cache_bytes(self, start: int, stop: int) -> int:
        """Bytes of the key-value caches they read, of the whole batch: each micro-batch keeps its own."""
        return self.graph.cache_bytes_between(start, stop, self.graph.batch_size)

    def memory_bytes(self, start: int, stop: int) -> float:
        """What a device must hold to run them forward: weights, caches, activations at their peak, its reserve."""
        peak = int(self.activation_bytes[start:stop].max()) if stop > start else 0
        return self.weight_bytes(start, stop) + self.cache_bytes(start, stop) + peak + self.device.reserve_bytes


def stash_bytes(graph: Graph, rows: int) -> list[int]:
    """Bytes that training keeps of each op for its backward pass.

    Every value that has memory of its own is kept: nothing is computed again.
    """
    return [graph.value_bytes(index, rows) if op.storage == index else 0 for index, op in enumerate(graph.ops)]


def check_microbatches(batch_size: int, num_microbatches: int) -> int:
    """The number of micro-batches, if the batch can be split into so many.

    Raises:
        InputError: It cannot.
    """
    found = whole(num_microbatches, "num_microbatches")
    if found > batch_size:
        raise InputError(
            f"A batch of {plural(batch_size, 'row')} cannot be split into {shown(found)} micro-batches: choose 1 to "
            f"{batch_size}."
        )
    return found


def default_microbatches(batch_size: int, num_stages: int) -> int:
    """How many micro-batches there are when nobody says: twice the stages, as far as there are rows."""
    return max(1, min(batch_size, 2 * num_stages))


def microbatch_rows(batch_size: int, num_microbatches: int) -> tuple[int, ...]:
    """Rows of each micro-batch, as `torch.tensor_split` divides: 8 in 5 is 2, 2, 2, 1, 1."""
    share, rest = divmod(batch_size, num_microbatches)
    return tuple(share + (index < rest) for index in range(num_microbatches))


def rows_of(batch_size: int, num_microbatches: int) -> int:
    """Rows of the largest micro-batch."""
    return -(-batch_size // num_microbatches)
