"""Messages between two processes that trust each other, with descriptors, over one end of a socket pair.

Messages are pickled. That is safe here and only here: the other end is held by a process of our own, and
the pair has no name by which anybody else could open it.
"""

import os
import pickle
import select
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

from pipelab.launch.forks import drop_in_forked_children

_MARK = b"pipelab\0"
_HEADER = struct.Struct("<8sqq")  # the mark, bytes of the message, number of descriptors
MOST_DESCRIPTORS = 253  # of a message, to Linux
_MAX_PART = 1 << 20
_LOOK_AROUND_S = 0.05

Watch = Callable[[], None]  # called while nothing moves, and may raise


class Gone(Exception):
    """The process at the other end is dead, or has closed its end."""


class Garbled(Gone):
    """What came is no message."""


class Channel:
    """One end of a socket pair.

    Args:
        end: The socket.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._is_midway = False  # of a message
        drop_in_forked_children(self)

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        return self._socket.fileno()

    def send(self, message: Any, descriptors: Sequence[int] = (), watch: Watch | None = None) -> None:
        """Send a message; the receiver gets descriptors of its own.

        Args:
            message: Anything that can be pickled.
            descriptors: Sent along.
            watch: Called again and again while the other end takes nothing; None to wait as long as it lives.

        Raises:
            Gone: Nobody can receive it.
        """
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        left = memoryview(_HEADER.pack(_MARK, len(data), len(descriptors)) + data)
        while left:
            try:
                sent = socket.send_fds(self._socket, [left], descriptors) if descriptors else self._socket.send(left)
            except BlockingIOError:
                self._wait(select.POLLOUT, watch)
            except OSError as error:
                raise Gone(str(error)) from error
            else:
                left, descriptors = left[sent:], ()
                self._is_midway = bool(left)

    def receive(self, watch: Watch | None = None) -> tuple[Any, list[int]]:
        """The next message and its descriptors; waits for it.

        Args:
            watch: Called again and again while nothing comes; None to wait as long as the other end lives.

        Raises:
            Gone: There will be none.
            Garbled: It is none.
        """
        descriptors: list[int] = []
        mark, num_bytes, num_descriptors = _HEADER.unpack(self._exactly(_HEADER.size, watch, descriptors))
        try:
            if mark != _MARK or num_descriptors != len(descriptors):
                raise Garbled("it has no header, or lost descriptors because too many files are open")
            data = self._exactly(num_bytes, watch)
            self._is_midway = False
            try:
                return pickle.loads(data), descriptors
            except Exception as error:  # whatever bytes that are no pickle make the reader raise
                raise Garbled(f"it cannot be read: {error}") from error
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    def _exactly(self, num_bytes: int, watch: Watch | None, descriptors: list[int] | None = None) -> bytes:
        """So many bytes; descriptors that come with them are added to the list."""
        parts = bytearray()
        while (missing := num_bytes - len(parts)) > 0:
            try:
                if descriptors is None:
                    part = self._socket.recv(min(missing, _MAX_PART))
                else:
                    part, came, _, _ = socket.recv_fds(self._socket, missing, MOST_DESCRIPTORS)
                    descriptors += came
            except BlockingIOError:
                self._wait(select.POLLIN, watch)
                continue
            except OSError as error:
                raise Gone(str(error)) from error
            if not part:
                raise Gone("closed")
            parts += part
            self._is_midway = True
        return bytes(parts)

    def _wait(self, events: int, watch: Watch | None) -> None:
        """Wait until the other end has taken or given something."""
        poll = select.poll()
        if self.fileno() < 0:
            raise Gone("closed here")
        poll.register(self.fileno(), events)
        while not poll.poll(_LOOK_AROUND_S * 1e3 if watch else None):
            try:
                if watch:
                    watch()
            except BaseException:
                if self._is_midway:  # what follows would make no sense
                    self.close()
                raise

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
