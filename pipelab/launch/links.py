"""How values come to a stage and leave it: from the batch, over a link to a neighbour, into the merged output.

A link is two slots in shared memory and signals (see signals.py). The sender waits until a slot is free, copies
its values there and signals "full"; the receiver computes on the slot itself, and signals "free" once the
results are copied onward (they may lie in the slot).

    micro-batch      0      1      2      3
    slot             0      1      0      1
    sender waits     -      -    free 0  free 1
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor

from pipelab.launch.memory import ALIGNMENT, Segment, place
from pipelab.launch.messages import BatchEnd
from pipelab.launch.places import Place
from pipelab.launch.signals import HEADER_BYTES, Signals
from pipelab.program import ValueSpec

NUM_SLOTS = 2

Specs = tuple[ValueSpec, ...]


class Source(Protocol):
    """Where a stage's values come from."""

    def wait(self, step: int, microbatch: int) -> None:
        """Wait until the values are there."""

    def take(self, microbatch: int) -> tuple[Tensor, ...]:
        """The values; they may lie in shared memory until `release`."""

    def release(self, step: int, microbatch: int) -> None:
        """The values and everything made of them in place are no longer needed."""


class Sink(Protocol):
    """Where a stage's results go."""

    def wait(self, step: int, microbatch: int) -> None:
        """Wait until there is room."""

    def put(self, step: int, microbatch: int, values: Sequence[Tensor]) -> None:
        """Copy the results out and say so."""


class Slots:
    """Two buffers that hold the values of a cut, for micro-batches of any of the sizes.

    Args:
        memory: At least `num_bytes(specs)` bytes.
        specs: The values, per size of micro-batch.
        sizes: Rows of each micro-batch.
    """

    def __init__(self, memory: Tensor, specs: Mapping[int, Specs], sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self.device = memory.device
        slot_bytes = self.slot_bytes(specs)
        slots = [memory[slot_bytes * slot :][:slot_bytes] for slot in range(NUM_SLOTS)]
        self._places = [{size: _places(slot, of_size) for size, of_size in specs.items()} for slot in slots]
        self._flat = [{size: slot[: place(of_size)[1]] for size, of_size in specs.items()} for slot in slots]

    @staticmethod
    def slot_bytes(specs: Mapping[int, Specs]) -> int:
        """Bytes of one slot: those of the largest micro-batch."""
        return max(place(of_size)[1] for of_size in specs.values())

    @classmethod
    def num_bytes(cls, specs: Mapping[int, Specs]) -> int:
        """Bytes of all slots."""
        return NUM_SLOTS * cls.slot_bytes(specs)

    def pack(self, microbatch: int, values: Sequence[Tensor]) -> None:
        """Copy values into the micro-batch's slot."""
        for (spec, there), value in zip(self._of(microbatch), values, strict=True):
            there.put(spec.compact(value))

    def unpack(self, microbatch: int) -> tuple[Tensor, ...]:
        """The values of the micro-batch, in its slot."""
        # A new view each time: a stage may reshape in place what it is given.
        return _views(self._of(microbatch))

    def values(self) -> list[tuple[Tensor, ...]]:
        """Those of every micro-batch, for stages that write nothing in place."""
        of_slot = [{size: _views(places) for size, places in slot.items()} for slot in self._places]
        return [of_slot[microbatch % NUM_SLOTS][size] for microbatch, size in enumerate(self._sizes)]

    def flat(self, microbatch: int) -> Tensor:
        """The bytes of the micro-batch's values in its slot, with what lies between them."""
        return self._flat[microbatch % NUM_SLOTS][self._sizes[microbatch]]

    def _of(self, microbatch: int) -> list[tuple[ValueSpec, Place]]:
        return self._places[microbatch % NUM_SLOTS][self._sizes[microbatch]]


def _places(slot: Tensor, specs: Specs) -> list[tuple[ValueSpec, Place]]:
    """Each value with its place in the slot."""
    return [(placed.spec, Place(placed.spec.wire_view(slot[placed.offset :]))) for placed in place(specs)[0]]


def _views(places: Sequence[tuple[ValueSpec, Place]]) -> tuple[Tensor, ...]:
    """The values in their places."""
    return tuple([there.buffer.expand(spec.shape) for spec, there in places])


def link_bytes(specs: Mapping[int, Specs]) -> int:
    """Bytes of a link: of its signals, and of its slots."""
    return HEADER_BYTES + Slots.num_bytes(specs)


def slots_of(segment: Segment, specs: Mapping[int, Specs], sizes: Sequence[int]) -> Slots:
    """The slots of a link."""
    return Slots(segment.bytes[HEADER_BYTES:], specs, sizes)


def slots_on(device: torch.device | str, specs: Mapping[int, Specs], sizes: Sequence[int]) -> Slots:
    """Slots of this process alone."""
    return Slots(torch.empty(Slots.num_bytes(specs), dtype=torch.uint8, device=device), specs, sizes)


class LinkSource:
    """Receives from the stage before.

    Args:
        slots: Where the values come.
        signals: From and to the neighbour.
        num_microbatches: Of a step.
        is_read_only: Whether the stage writes nothing in place; then it is given the same views in each step.
    """

    def __init__(self, slots: Slots, signals: Signals, num_microbatches: int, *, is_read_only: bool = False) -> None:
        self._slots = slots
        self._signals = signals
        self._num_microbatches = num_microbatches
        self._values = slots.values() if is_read_only else None

    def wait(self, step: int, microbatch: int) -> None:
        """Wait for "full"."""
        self._signals.wait(step, microbatch)

    def take(self, microbatch: int) -> tuple[Tensor, ...]:
        """The values, in the slot."""
        return self._values[microbatch] if self._values else self._slots.unpack(microbatch)

    def release(self, step: int, microbatch: int) -> None:
        """Signal "free", if the sender still needs the slot in this step."""
        if microbatch + NUM_SLOTS < self._num_microbatches:
            self._signals.send(step, microbatch)


class LinkSink:
    """Sends to the next stage."""

    def __init__(self, slots: Slots, signals: Signals) -> None:
        self._slots = slots
        self._signals = signals

    def wait(self, step: int, microbatch: int) -> None:
        """Wait for "free" of the micro-batch that had the slot before."""
        if microbatch >= NUM_SLOTS:
            self._signals.wait(step, microbatch - NUM_SLOTS)

    def put(self, step: int, microbatch: int, values: Sequence[Tensor]) -> None:
        """Copy into the slot and signal "full"."""
        self._slots.pack(microbatch, values)
        self._signals.send(step, microbatch)


class BatchSource:
    """The first stage's inputs.

    A micro-batch is copied, so that writes in place do not spoil the batch; or handed to the stage where it lies, if
    the stage writes nothing in place and its rows lie as it expects a tensor to.

    Args:
        segment: The whole batch.
        end: How it lies there.
        specs: The stage's inputs, per size of micro-batch.
        sizes: Rows of each micro-batch.
        device: Where the stage computes.
        is_read_only: Whether the stage writes nothing in place.
    """

    def __init__(
        self,
        segment: Segment,
        end: BatchEnd,
        specs: Mapping[int, Specs],
        sizes: Sequence[int],
        device: torch.device | str = "cpu",
        *,
        is_read_only: bool = False,
    ) -> None:
        whole = [placed.spec.unpack(segment.storage(placed)) for placed in end.placed]
        starts = [0, *accumulate(sizes)]
        self._rows = [
            tuple(tensor[start:stop] if batched else tensor for tensor, batched in zip(whole, end.batched, strict=True))
            for start, stop in pairwise(starts)
        ]
        in_place = is_read_only and torch.device(device).type == "cpu"
        self._lying = {
            microbatch: tuple(map(_lying, rows, specs[size]))
            for microbatch, (rows, size) in enumerate(zip(self._rows, sizes, strict=True))
            if in_place and all(map(_lies_as, rows, specs[size]))
        }
        self._slots = slots_on(device, specs, sizes)

    def wait(self, step: int, microbatch: int) -> None:
        """The batch is there when the step begins."""

    def take(self, microbatch: int) -> tuple[Tensor, ...]:
        """The micro-batch's rows, or a copy of them."""
        if lying := self._lying.get(microbatch):
            return lying
        self._slots.pack(microbatch, self._rows[microbatch])
        return self._slots.unpack(microbatch)

    def release(self, step: int, microbatch: int) -> None:
        """Nobody waits for the rows."""


def _lies_as(rows: Tensor, spec: ValueSpec) -> bool:
    """Whether rows of a batch are the tensor that a copy of them would be; kernels also look at the alignment."""
    return rows.stride() == spec.strides and rows.data_ptr() % ALIGNMENT == 0 and rows.is_contiguous()


def _lying(rows: Tensor, spec: ValueSpec) -> Tensor:
    """The rows as a value of their own."""
    return spec.wire_view(rows.reshape(-1).view(torch.uint8))


class BatchSink:
    """The last stage's outputs: each micro-batch is written to its rows of the merged outputs."""

    def __init__(self, segment: Segment, end: BatchEnd, specs: Mapping[int, Specs], sizes: Sequence[int]) -> None:
        self._places = []
        whole = [placed.spec.unpack(segment.storage(placed)) for placed in end.placed]
        starts = [0] * len(whole)
        for size in sizes:
            rows = [spec.shape[0] if batched else 0 for spec, batched in zip(specs[size], end.batched, strict=True)]
            self._places.append(
                [
                    Place(tensor.narrow(0, start, count) if batched else tensor)
                    for tensor, start, count, batched in zip(whole, starts, rows, end.batched, strict=True)
                ]
            )
            starts = [start + count for start, count in zip(starts, rows, strict=True)]

    def wait(self, step: int, microbatch: int) -> None:
        """There is always room."""

    def put(self, step: int, microbatch: int, values: Sequence[Tensor]) -> None:
        """Copy to the micro-batch's rows."""
        for there, value in zip(self._places[microbatch], values, strict=True):
            if value.shape != there.buffer.shape:  # a copy would spread it
                raise ValueError(f"an output is {tuple(value.shape)}; traced it was {tuple(there.buffer.shape)}")
            there.put(value)


def contiguous(spec: ValueSpec, rows: int | None) -> ValueSpec:
    """The same value without gaps or expansion, with this many rows."""
    shape = spec.shape if rows is None else (rows, *spec.shape[1:])
    return replace(spec, shape=shape, strides=torch.empty(shape, device="meta").stride())
