"""The link between two neighbouring ranks: two slots in shared memory, and a socket pair that says which is full.

    sender    wait for a free slot, copy the values in, say "full"
    receiver  wait for "full", use the values in place, say "free"

A token names step and micro-batch. Tokens of an earlier step are dropped, so an abandoned step leaves nothing
behind. The end of the other process shows at once, as the end of the stream.
"""

import select
import socket
import struct
from collections.abc import Callable, Sequence

from torch import Tensor

from pipelab.launch.memory import Segment, lay_out
from pipelab.program import ValueSpec

NUM_SLOTS = 2
_TOKEN = struct.Struct("<QQ")
_POLL_MS = 20


class PeerGone(Exception):
    """The neighbour's process has ended."""


def slot_bytes(specs_by_size: Sequence[Sequence[ValueSpec]]) -> int:
    """Bytes of a slot that holds a boundary's values for any of these micro-batch sizes."""
    return max(lay_out(specs)[1] for specs in specs_by_size)


class Link:
    """One end of a link.

    Args:
        sock: This end of the socket pair.
        segment: The slots.
        check: Called while waiting; raises when the step is to be left.
    """

    def __init__(self, sock: socket.socket, segment: Segment, check: Callable[[], None]) -> None:
        self.sock = sock
        self._segment = segment
        self._check = check
        storage = segment.tensor()
        size = len(storage) // NUM_SLOTS
        self._slots = [storage[index * size : (index + 1) * size] for index in range(NUM_SLOTS)]
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def send(self, values: Sequence[Tensor], specs: Sequence[ValueSpec], step: int, microbatch: int) -> None:
        """Copy a micro-batch into its slot, which `wait_free` found free, and say so."""
        slot = self._slots[microbatch % NUM_SLOTS]
        for place, value in zip(lay_out(specs)[0], values, strict=True):
            place.write(slot, value)
        self._say(step, microbatch)

    def wait_free(self, step: int, microbatch: int) -> None:
        """Wait until the slot of this micro-batch may be written again."""
        if microbatch >= NUM_SLOTS:
            self._hear(step, microbatch - NUM_SLOTS)

    def receive(self, specs: Sequence[ValueSpec], step: int, microbatch: int) -> list[Tensor]:
        """Wait for a micro-batch; its values are views of the slot until `release`."""
        self._hear(step, microbatch)
        slot = self._slots[microbatch % NUM_SLOTS]
        return [place.view(slot) for place in lay_out(specs)[0]]

    def release(self, step: int, microbatch: int) -> None:
        """The slot of this micro-batch may be written again."""
        self._say(step, microbatch)

    def _say(self, step: int, microbatch: int) -> None:
        try:
            self.sock.sendall(_TOKEN.pack(step, microbatch))
        except OSError as error:
            raise PeerGone from error

    def _hear(self, step: int, microbatch: int) -> None:
        while True:
            while not self._poll.poll(_POLL_MS):
                self._check()
            try:
                token = self.sock.recv(_TOKEN.size, socket.MSG_WAITALL)
            except OSError as error:
                raise PeerGone from error
            if len(token) < _TOKEN.size:
                raise PeerGone
            heard = _TOKEN.unpack(token)
            if heard[0] == step:
                assert heard[1] == microbatch, f"expected micro-batch {microbatch}, heard of {heard[1]}"
                return

    def close(self) -> None:
        """Give the descriptors back."""
        self.sock.close()
        self._segment.close()
