"""Messages over a private socket pair, with descriptors beside them.

The other end is always a process of ours that inherited it; that is why messages may be pickled.
"""

import contextlib
import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any

_HEADER = struct.Struct("<QI")
_MOST_DESCRIPTORS = 16


class Closed(Exception):
    """The other end is gone."""


class Channel:
    """One end of a socket pair.

    Args:
        sock: The socket, which the channel owns from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @classmethod
    def pair(cls) -> "tuple[Channel, Channel]":
        """Two connected ends."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        """The descriptor; -1 after `close`."""
        return self.sock.fileno()

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message.

        Raises:
            Closed: Nobody is there to read it.
        """
        payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        header = _HEADER.pack(len(payload), len(descriptors))
        try:
            if descriptors:
                socket.send_fds(self.sock, [header], list(descriptors))
            else:
                self.sock.sendall(header)
            self.sock.sendall(payload)
        except OSError as error:
            raise Closed from error

    def receive(self) -> tuple[Any, list[int]]:
        """The next message, and the descriptors that came with it.

        Raises:
            Closed: The other end was closed.
        """
        try:
            header, descriptors, _, _ = socket.recv_fds(self.sock, _HEADER.size, _MOST_DESCRIPTORS)
            header += self._exactly(_HEADER.size - len(header)) if header else b""
            if not header:
                raise Closed
            length, count = _HEADER.unpack(header)
            assert count == len(descriptors), "descriptors were lost on the way"
            return pickle.loads(self._exactly(length)), list(descriptors)
        except OSError as error:
            raise Closed from error

    def _exactly(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            part = self.sock.recv(length - len(parts))
            if not part:
                raise Closed
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """Close this end."""
        with contextlib.suppress(OSError):
            self.sock.close()
