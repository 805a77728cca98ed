"""How groups of rows go round: from the kernel through all ranks and back, again for each token.

Between two neighbours each group has one slot in shared memory. A group is in one place at a time, so whoever holds
its token may write to its slot behind it: nobody waits for room, and while one group is in the last stage others fill
the rest.

    kernel ──▸ rank 0 ──▸ rank 1 ──▸ kernel
             A          B          C            one token under way per group
"""

import socket
import struct
from collections.abc import Sequence

from torch import Tensor

from pipelab.launch.counters import Counters, Stopped
from pipelab.launch.memory import place
from pipelab.program import ValueSpec

_TOKEN = struct.Struct("<qq")  # program, group
_END = -1
_LOOK_AROUND_S = 0.02

Specs = tuple[ValueSpec, ...]


class GroupSlots:
    """One buffer per group, for the values of whichever program it is in.

    Args:
        memory: At least `num_bytes(specs, num_groups)` bytes.
        specs: The values, per program.
        num_groups: How many groups there are.
    """

    def __init__(self, memory: Tensor, specs: Sequence[Specs], num_groups: int) -> None:
        slot_bytes = self._bytes_of_slot(specs)
        slots = [memory[slot_bytes * group :][:slot_bytes] for group in range(num_groups)]
        self._places = [[_places(slot, of_program) for slot in slots] for of_program in specs]

    @classmethod
    def num_bytes(cls, specs: Sequence[Specs], num_groups: int) -> int:
        """Bytes of all slots."""
        return cls._bytes_of_slot(specs) * num_groups

    def pack(self, program: int, group: int, values: Sequence[Tensor]) -> None:
        """Copy values into the group's slot."""
        for (spec, buffer), value in zip(self._places[program][group], values, strict=True):
            buffer.copy_(spec.compact(value))

    def unpack(self, program: int, group: int) -> tuple[Tensor, ...]:
        """The values in the group's slot."""
        # A new view each time: a stage may reshape in place what it is given.
        return tuple([buffer.expand(spec.shape) for spec, buffer in self._places[program][group]])

    @staticmethod
    def _bytes_of_slot(specs: Sequence[Specs]) -> int:
        return max(place(of_program)[1] for of_program in specs)


def _places(slot: Tensor, specs: Specs) -> list[tuple[ValueSpec, Tensor]]:
    """Each value with its place in the slot."""
    return [(placed.spec, placed.spec.wire_view(slot[placed.offset :])) for placed in place(specs)[0]]


def send_token(end: socket.socket, program: int, group: int) -> None:
    """Hand a group on.

    Raises:
        Stopped: The neighbour is gone.
    """
    try:
        end.sendall(_TOKEN.pack(program, group))
    except OSError as error:
        raise Stopped from error


def send_end(end: socket.socket) -> None:
    """Say that no more will come.

    Raises:
        Stopped: The neighbour is gone.
    """
    send_token(end, _END, _END)


def next_token(end: socket.socket, counters: Counters) -> tuple[int, int] | None:
    """The program and group that come next; None at the end.

    Raises:
        Stopped: The flow is to be given up, or the neighbour is gone.
    """
    end.settimeout(_LOOK_AROUND_S)
    while True:
        try:
            program, group = _TOKEN.unpack(_exactly(end))
        except TimeoutError:
            if counters.stopped:
                raise Stopped from None
            continue
        return None if program == _END else (program, group)


def wait_token(end: socket.socket) -> None:
    """Wait for the one group whose socket this is.

    Raises:
        Stopped: The last rank is gone, or nobody waits any more.
    """
    _exactly(end)


def _exactly(end: socket.socket) -> bytes:
    """One token, which a neighbour writes in one piece."""
    try:
        data = end.recv(_TOKEN.size)
    except TimeoutError:
        raise
    except OSError as error:
        raise Stopped from error
    if len(data) < _TOKEN.size:
        raise Stopped
    return data
