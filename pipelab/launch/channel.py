"""Messages between two processes that trust each other, with descriptors, over one end of a socket pair.

Messages are pickled. That is safe here and only here: the other end is held by a process of our own, and
the pair has no name by which anybody else could open it.
"""

import pickle
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any

from pipelab.launch.forks import drop_in_forked_children

_HEADER = struct.Struct("<qq")  # bytes of the message, number of descriptors
_MAX_DESCRIPTORS = 16


class Gone(Exception):
    """The process at the other end is dead, or has closed its end, or takes no more messages."""


class Channel:
    """One end of a socket pair.

    Args:
        end: The socket.
        timeout_s: How long one send or receive may take once it has begun; None for as long as it takes.
    """

    def __init__(self, end: socket.socket, timeout_s: float | None = None) -> None:
        end.settimeout(timeout_s)
        self._socket = end
        drop_in_forked_children(self)

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        return self._socket.fileno()

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message; the receiver gets descriptors of its own.

        Raises:
            Gone: Nobody can receive it.
        """
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        header = _HEADER.pack(len(data), len(descriptors))
        try:
            if descriptors:
                socket.send_fds(self._socket, [header], descriptors)
            else:
                self._socket.sendall(header)
            self._socket.sendall(data)
        except OSError as error:
            raise Gone(str(error)) from error

    def receive(self) -> tuple[Any, list[int]]:
        """The next message and its descriptors; waits for it.

        Raises:
            Gone: There will be none.
        """
        try:
            header, descriptors, _, _ = socket.recv_fds(self._socket, _HEADER.size, _MAX_DESCRIPTORS)
            header += self._exactly(_HEADER.size - len(header)) if header else b""
            if not header:
                raise Gone("closed")
            num_bytes, num_descriptors = _HEADER.unpack(header)
            assert len(descriptors) == num_descriptors, "descriptors were lost on the way"
            return pickle.loads(self._exactly(num_bytes)), descriptors
        except OSError as error:
            raise Gone(str(error)) from error

    def _exactly(self, num_bytes: int) -> bytes:
        parts = bytearray()
        while len(parts) < num_bytes:
            part = self._socket.recv(min(num_bytes - len(parts), 1 << 20))
            if not part:
                raise Gone("closed")
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """Close this end; the other one then reads `Gone`."""
        self._socket.close()


def readable(channels: Sequence[Channel], timeout_s: float) -> list[int]:
    """The positions of the channels that have a message, or whose other end is gone, within a time."""
    poll = select.poll()
    index_of = {channel.fileno(): index for index, channel in enumerate(channels)}
    if -1 in index_of:
        raise Gone("closed here")
    for descriptor in index_of:
        poll.register(descriptor, select.POLLIN)
    return sorted(index_of[descriptor] for descriptor, _ in poll.poll(timeout_s * 1e3))
