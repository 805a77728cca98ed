"""How values come to a stage and leave it: from the batch, over a link to a neighbour, into the merged output.

A link is two slots in shared memory and a socket pair for tokens. The sender waits until a slot is free,
copies its values there and sends "full"; the receiver computes on the slot itself, and sends "free" once
the results are copied onward (they may lie in the slot). A token names its step, so that what an abandoned
step left behind is thrown away. A dead neighbour shows as the end of the socket.

    micro-batch      0      1      2      3
    slot             0      1      0      1
    sender waits     -      -    free 0  free 1
"""

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from pipelab.launch.counters import Counters, Stopped
from pipelab.launch.memory import Placed, Segment, place
from pipelab.launch.messages import BatchEnd
from pipelab.program import ValueSpec

NUM_SLOTS = 2
_TOKEN = struct.Struct("<qq")  # step, micro-batch
_LOOK_AROUND_S = 0.02

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


class Tokens:
    """One end of the socket pair beside a link.

    Args:
        end: The socket.
        counters: Where the flag is that ends a wait.
    """

    def __init__(self, end: socket.socket, counters: Counters) -> None:
        end.settimeout(_LOOK_AROUND_S)
        self._socket = end
        self._counters = counters

    def send(self, step: int, microbatch: int) -> None:
        """Tell the neighbour.

        Raises:
            Stopped: The neighbour is gone.
        """
        try:
            self._socket.sendall(_TOKEN.pack(step, microbatch))
        except OSError as error:
            raise Stopped from error

    def wait(self, step: int, microbatch: int) -> None:
        """Wait until the neighbour has told.

        Raises:
            Stopped: The step is to be given up, or the neighbour is gone.
        """
        while (token := self._next())[0] < step:
            pass
        assert token == (step, microbatch), (
            f"expected step {step}, micro-batch {microbatch}; the neighbour says {token}"
        )

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _next(self) -> tuple[int, int]:
        data = b""
        while len(data) < _TOKEN.size:
            if self._counters.stopped:
                raise Stopped
            try:
                part = self._socket.recv(_TOKEN.size - len(data))
            except TimeoutError:
                continue
            except OSError as error:
                raise Stopped from error
            if not part:
                raise Stopped
            data += part
        step, microbatch = _TOKEN.unpack(data)
        return step, microbatch


class Slots:
    """Two buffers that hold the values of a cut, for micro-batches of any of the sizes.

    Args:
        memory: At least `num_bytes(specs)` bytes.
        specs: The values, per size of micro-batch.
        sizes: Rows of each micro-batch.
    """

    def __init__(self, memory: Tensor, specs: Mapping[int, Specs], sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._placed = {size: place(of_size)[0] for size, of_size in specs.items()}
        slot_bytes = self.slot_bytes(specs)
        self._slots = [memory[slot_bytes * slot :][:slot_bytes] for slot in range(NUM_SLOTS)]

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
        for (placed, storage), value in zip(self._storages(microbatch), values, strict=True):
            placed.spec.pack(value, storage)

    def unpack(self, microbatch: int) -> tuple[Tensor, ...]:
        """The values of the micro-batch, in its slot."""
        return tuple(placed.spec.unpack(storage) for placed, storage in self._storages(microbatch))

    def _storages(self, microbatch: int) -> list[tuple[Placed, Tensor]]:
        slot = self._slots[microbatch % NUM_SLOTS]
        return [
            (placed, slot[placed.offset : placed.offset + placed.spec.num_bytes])
            for placed in self._placed[self._sizes[microbatch]]
        ]


class LinkSource:
    """Receives from the stage before."""

    def __init__(self, slots: Slots, tokens: Tokens, num_microbatches: int) -> None:
        self._slots = slots
        self._tokens = tokens
        self._num_microbatches = num_microbatches

    def wait(self, step: int, microbatch: int) -> None:
        """Wait for "full"."""
        self._tokens.wait(step, microbatch)

    def take(self, microbatch: int) -> tuple[Tensor, ...]:
        """The values, in the slot."""
        return self._slots.unpack(microbatch)

    def release(self, step: int, microbatch: int) -> None:
        """Send "free", if the sender still needs the slot in this step."""
        if microbatch + NUM_SLOTS < self._num_microbatches:
            self._tokens.send(step, microbatch)


class LinkSink:
    """Sends to the next stage."""

    def __init__(self, slots: Slots, tokens: Tokens) -> None:
        self._slots = slots
        self._tokens = tokens

    def wait(self, step: int, microbatch: int) -> None:
        """Wait for "free" of the micro-batch that had the slot before."""
        if microbatch >= NUM_SLOTS:
            self._tokens.wait(step, microbatch - NUM_SLOTS)

    def put(self, step: int, microbatch: int, values: Sequence[Tensor]) -> None:
        """Copy into the slot and send "full"."""
        self._slots.pack(microbatch, values)
        self._tokens.send(step, microbatch)


class BatchSource:
    """The first stage's inputs: each micro-batch is copied, so that writes in place do not spoil the batch."""

    def __init__(self, segment: Segment, end: BatchEnd, specs: Mapping[int, Specs], sizes: Sequence[int]) -> None:
        self._batch = [placed.spec.unpack(segment.storage(placed)) for placed in end.placed]
        self._batched = end.batched
        self._starts = [0, *accumulate(sizes)]
        self._slots = Slots(torch.empty(Slots.num_bytes(specs), dtype=torch.uint8), specs, sizes)

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
            place_of_value.copy_(value)


def contiguous(spec: ValueSpec, rows: int | None) -> ValueSpec:
    """The same value without gaps or expansion, with this many rows."""
    shape = spec.shape if rows is None else (rows, *spec.shape[1:])
    return replace(spec, shape=shape, strides=torch.empty(shape, device="meta").stride())
