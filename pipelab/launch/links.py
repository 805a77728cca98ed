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
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from pipelab.launch.memory import Segment, place
from pipelab.launch.messages import BatchEnd
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
        for (spec, buffer), value in zip(self._of(microbatch), values, strict=True):
            buffer.copy_(spec.compact(value))

    def unpack(self, microbatch: int) -> tuple[Tensor, ...]:
        """The values of the micro-batch, in its slot."""
        # A new view each time: a stage may reshape in place what it is given.
        return tuple([buffer.expand(spec.shape) for spec, buffer in self._of(microbatch)])

    def flat(self, microbatch: int) -> Tensor:
        """The bytes of the micro-batch's values in its slot, with what lies between them."""
        return self._flat[microbatch % NUM_SLOTS][self._sizes[microbatch]]

    def _of(self, microbatch: int) -> list[tuple[ValueSpec, Tensor]]:
        return self._places[microbatch % NUM_SLOTS][self._sizes[microbatch]]


def _places(slot: Tensor, specs: Specs) -> list[tuple[ValueSpec, Tensor]]:
    """Each value with its place in the slot."""
    return [(placed.spec, placed.spec.wire_view(slot[placed.offset :])) for placed in place(specs)[0]]


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
    """Receives from the stage before."""

    def __init__(self, slots: Slots, signals: Signals, num_microbatches: int) -> None:
        self._slots = slots
        self._signals = signals
        self._num_microbatches = num_microbatches

    def wait(self, step: int, microbatch: int) -> None:
        """Wait for "full"."""
        self._signals.wait(step, microbatch)

    def take(self, microbatch: int) -> tuple[Tensor, ...]:
        """The values, in the slot."""
        return self._slots.unpack(microbatch)

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
    """The first stage's inputs: each micro-batch is copied, so that writes in place do not spoil the batch."""

    def __init__(
        self,
        segment: Segment,
        end: BatchEnd,
        specs: Mapping[int, Specs],
        sizes: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        self._batch = [placed.spec.unpack(segment.storage(placed)) for placed in end.placed]
        self._batched = end.batched
        self._starts = [0, *accumulate(sizes)]
        self._slots = slots_on(device, specs, sizes)

    def wait(self, step: int, microbatch: int) -> None:
        """The batch is there when the step begins."""

    def take(self, microbatch: int) -> tuple[Tensor, ...]:
        """A copy of the micro-batch's rows."""
        start, stop = self._starts[microbatch], self._starts[microbatch + 1]
        rows = [
            tensor[start:stop] if batched else tensor
            for tensor, batched in zip(self._batch, self._batched, strict=True)
        ]
        self._slots.pack(microbatch, rows)
        return self._slots.unpack(microbatch)

    def release(self, step: int, microbatch: int) -> None:
        """Nobody waits for the copy."""


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
                    tensor.narrow(0, start, count) if batched else tensor
                    for tensor, start, count, batched in zip(whole, starts, rows, end.batched, strict=True)
                ]
            )
            starts = [start + count for start, count in zip(starts, rows, strict=True)]

    def wait(self, step: int, microbatch: int) -> None:
        """There is always room."""

    def put(self, step: int, microbatch: int, values: Sequence[Tensor]) -> None:
        """Copy to the micro-batch's rows."""
        for place_of_value, value in zip(self._places[microbatch], values, strict=True):
            if value.shape != place_of_value.shape:  # a copy would spread it
                raise ValueError(f"an output is {tuple(value.shape)}; traced it was {tuple(place_of_value.shape)}")
            place_of_value.copy_(value)


def contiguous(spec: ValueSpec, rows: int | None) -> ValueSpec:
    """The same value without gaps or expansion, with this many rows."""
    shape = spec.shape if rows is None else (rows, *spec.shape[1:])
    return replace(spec, shape=shape, strides=torch.empty(shape, device="meta").stride())
