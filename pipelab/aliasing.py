"""Which values share memory, and where a cut would therefore change what the model computes.

A value crosses a cut as a copy. Two values of one memory become two memories, so a write through one of
them after the cut is no longer seen through the other. Those cuts are not offered.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from pipelab.errors import TraceError
from pipelab.writes import written

# These return their input itself in evaluation, though neither schema nor fake tensors say so.
_MAY_RETURN_INPUT = frozenset(
    {"dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "type_as", "broadcast_tensors"}
)

# These copy in the trace, but a tensor of one row may already lie as they want it: then they return it itself.
_MAY_NOT_COPY = frozenset({"contiguous", "reshape", "flatten"})

# These read memory outside the tensor they are given, which a copy of that tensor does not have.
_READ_AROUND = frozenset({"as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter"})


@dataclass
class Memory:
    """Groups of values and weights that share memory. A key is a value number or a weight's name.

    Attributes:
        writes: Ops that write to a group's memory, by any key of the group.
        may_share: Ops that copy, unless there is one row, with what they copy.
        reads_around: Ops that read a group's memory outside the tensor they are given, with that tensor's key.
    """

    _parent: dict[int | str, int | str] = field(default_factory=dict)
    _by_storage: dict[int, int | str] = field(default_factory=dict)
    writes: dict[int | str, list[int]] = field(default_factory=dict)
    may_share: list[tuple[int, int | str]] = field(default_factory=list)
    reads_around: list[tuple[int, int | str]] = field(default_factory=list)

    def root(self, key: int | str) -> int | str:
        """The key that stands for the group."""
        while self._parent.setdefault(key, key) != key:
            key = self._parent[key]
        return key

    def add(self, key: int | str, node: fx.Node) -> None:
        """Put a node's tensor into the group of its fake tensor's storage."""
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            # Fake tensors share storage exactly where the real ones do; all are alive, so ids are unique.
            try:
                storage = value.untyped_storage()._cdata
            except NotImplementedError as error:
                raise TraceError(
                    f"The op {node.name} ({node.target}) lies inside a torch.vmap or another torch.func transform, "
                    "which hides what it computes. Write it for the whole batch instead."
                ) from error
            self.join(key, self._by_storage.setdefault(storage, key))

    def join(self, key: int | str, other: int | str) -> None:
        """Make two groups one; the earlier member stands for both."""
        first, second = self.root(key), self.root(other)
        if first != second:
            self._parent[first] = second

    def add_op(self, index: int, node: fx.Node, key_of: dict[fx.Node, int | str]) -> None:
        """Record what an op's output shares memory with, and what it writes to."""
        self.add(index, node)
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            return
        if schema.name.removeprefix("aten::") in _MAY_RETURN_INPUT:
            for argument in _nodes(node.args[:1]):
                self.join(index, key_of[argument])
        if schema.name.removeprefix("aten::") in _MAY_NOT_COPY:
            self.may_share += [(index, key_of[argument]) for argument in _nodes(node.args[:1])]
        if schema.name.removeprefix("aten::") in _READ_AROUND:
            self.reads_around += [(index, key_of[argument]) for argument in _nodes(node.args[:1])]
        for argument in _nodes(written(node.target, node.args, node.kwargs)):
            self.writes.setdefault(key_of[argument], []).append(index)


def _nodes(arguments: Iterable[Any]) -> list[fx.Node]:
    found = []
    for argument in arguments:
        if isinstance(argument, fx.Node):
            found.append(argument)
        elif isinstance(argument, list | tuple):
            found.extend(_nodes(argument))
    return found


def illegal_cuts(
    memory: Memory,
    num_ops: int,
    last_use: dict[int, int],
    list_valued: Sequence[int],
    held_reads: dict[int | str, list[int]],
) -> set[int]:
    """Positions where a cut would tear a list of tensors apart or hide a write.

    Args:
        memory: Who shares memory with whom.
        num_ops: Number of ops.
        last_use: The last op that reads each value; `num_ops` for outputs.
        list_valued: Ops that make a list of tensors; it stays with the ops that take it apart.
        held_reads: Ops that read each weight, and each cache: what a stage holds by itself.
    """
    for value, source in memory.may_share:
        memory.join(value, source)
    illegal: set[int] = set()
    for op in list_valued:
        illegal.update(range(op + 1, last_use.get(op, op) + 1))
    writes: dict[int | str, int] = {}
    for key, ops in memory.writes.items():
        root = memory.root(key)
        writes[root] = max(writes.get(root, -1), *ops)
    for key in held_reads:
        if isinstance(key, int):  # of a cache no view crosses either, written to or not
            writes.setdefault(memory.root(key), -1)
    members: dict[int | str, list[int]] = {root: [] for root in writes}
    for value in last_use:
        if memory.root(value) in members:
            members[memory.root(value)].append(value)
    for root, last_write in writes.items():
        held = [key for key in held_reads if memory.root(key) == root]
        if held:
            illegal.update(_span(held, members[root], held_reads, last_use))
        else:
            illegal.update(_torn(members[root], last_write, last_use, num_ops))
    for op, source in memory.reads_around:
        illegal.update(_cropped(memory, op, source, last_use))
    return illegal


def _cropped(memory: Memory, op: int, source: int | str, last_use: dict[int, int]) -> range:
    """Cuts that a view crosses without the memory around it, which this op reads."""
    root = memory.root(source)
    if source == root:  # the whole of its memory crosses
        return range(0)
    views = [value for value in last_use if value != root and memory.root(value) == root]
    return range(max(min(views), 0) + 1, op + 1)


def _span(
    held: list[int | str], values: list[int], held_reads: dict[int | str, list[int]], last_use: dict[int, int]
) -> range:
    """A weight or cache that the model writes to lives in one stage: no cut between its first and last use."""
    reads = [op for key in held for op in held_reads[key]]
    first = min([*reads, *(value for value in values if value >= 0)])
    last = max([*reads, *(last_use[value] for value in values)])
    return range(first + 1, last + 1)


def _torn(values: list[int], last_write: int, last_use: dict[int, int], num_ops: int) -> set[int]:
    """Cuts that two values of one memory cross while a write is still to come."""
    crossing = [0] * (num_ops + 2)
    for value in values:
        crossing[max(value + 1, 0)] += 1
        crossing[last_use[value] + 1] -= 1
    torn, alive = set(), 0
    for position in range(min(last_write, num_ops) + 1):
        alive += crossing[position]
        if alive > 1:
            torn.add(position)
    return torn


def storage_of(memory: Memory, value: int) -> int | None:
    """The value whose memory this one lives in; None for a weight's."""
    root = memory.root(value)
    return None if isinstance(root, str) else root
