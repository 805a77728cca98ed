"""How neighbours tell each other "full" and "free", and how one of them waits for the other.

Each direction of a link counts what was sent in a semaphore in the link's own memory: telling costs a fraction of
a microsecond, and no system call where nobody sleeps. Who waits looks for a while before it sleeps, where every
rank has a core for itself: waking a core that sleeps takes as long as a small stage.
"""

import ctypes
import os
import select
import socket
import struct
import time
from typing import Protocol

from pipelab.launch.counters import Counters, Stopped
from pipelab.launch.memory import Segment

SPIN_NS = 200_000  # how long to look: a few times what waking up costs
_TAKEN_NS = 500_000  # between two looks: somebody else had the core
_NUM_SLEEPS = 64  # so many waits sleep at once after that
_LOOK_AROUND_S = 0.02
_PARTING_S = 1.0  # what a dying process holds is closed piece by piece


class Signals(Protocol):
    """One end of a link's two directions. A signal names its step: what an abandoned one left behind is ignored."""

    def send(self, step: int, microbatch: int) -> None:
        """Tell the neighbour; of a step, micro-batch after micro-batch from 0."""

    def wait(self, step: int, microbatch: int) -> None:
        """Wait until the neighbour has told.

        Raises:
            Stopped: The step is to be given up, or the neighbour is gone.
        """

    def is_alone(self) -> bool:
        """Whether the neighbour is gone; looks for a moment."""

    def close(self) -> None:
        """Close this end; the neighbour's waits then end."""


# --- semaphores in shared memory ------------------------------------------------------------------------

_LINE = 64  # bytes of a cache line; a semaphore takes at most so many
_DIRECTION = 2 * _LINE  # a semaphore, and a word beside it
HEADER_BYTES = 2 * _DIRECTION
_WORD = 8
_LOW = (1 << 32) - 1

_quick = ctypes.PyDLL(None)  # keeps the interpreter's lock: these calls return at once
_slow = ctypes.CDLL(None, use_errno=True)
# macOS has none that processes could share without a name, an old libc none that a change of date leaves alone.
HAS_SEMAPHORES = hasattr(_slow, "sem_clockwait") and os.name == "posix"


class _Timespec(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class Semaphores:
    """An end whose signals are counted in the link's memory.

    The order of memory: the values of a micro-batch are written before its post, and read after a wait has taken
    this very post (waits count what they take, and what earlier steps left over). POSIX makes memory synchronous
    between the two, on every processor, so neither the values nor the word of the step need a fence of their own.

    Args:
        segment: Shared memory that begins with `HEADER_BYTES` for this.
        is_sender: Which end this is: the one that sends values. It prepares the memory, before any step.
        end: A socket whose other end the neighbour holds: it tells of his death.
        counters: Where the flag is that ends a wait.
        spin_ns: How long to look before sleeping.
    """

    def __init__(
        self, segment: Segment, end: socket.socket, counters: Counters, *, is_sender: bool, spin_ns: int
    ) -> None:
        end.setblocking(False)
        self._segment = segment
        self._end = end
        self._counters = counters
        self._spin_ns = spin_ns
        there, here = (0, _DIRECTION) if is_sender else (_DIRECTION, 0)
        address = segment.bytes.data_ptr()
        self._there, self._here = ctypes.c_void_p(address + there), ctypes.c_void_p(address + here)
        self._word_there, self._word_here = (there + _LINE) // _WORD, (here + _LINE) // _WORD
        self._num_sent = self._num_taken = self._step = self._num_sleeps = 0
        if is_sender:
            for semaphore in (self._there, self._here):
                assert _slow.sem_init(semaphore, 1, 0) == 0, "this system has no semaphores"

    def send(self, step: int, microbatch: int) -> None:
        """Post; first of all, say how many posts came before those of this step."""
        if step != self._step:
            self._step = step
            self._segment.words[self._word_there] = step << 32 | self._num_sent
        self._num_sent += 1
        _quick.sem_post(self._there)

    def wait(self, step: int, microbatch: int) -> None:
        """Take posts until that of the micro-batch is among them."""
        words, at = self._segment.words, self._word_here
        while (word := words[at]) >> 32 < step or self._num_taken - (word & _LOW) <= microbatch:
            if not self._found():
                self._sleep()
            self._num_taken += 1

    def is_alone(self) -> bool:
        """Whether the neighbour has closed its end of the socket, or died."""
        return bool(select.select([self._end], [], [], _PARTING_S)[0]) and self._is_alone()

    def close(self) -> None:
        """Close the socket."""
        self._end.close()

    def _found(self) -> bool:
        """Take a post if there is one, or comes soon. On a busy machine whoever looks keeps others from their work."""
        take, semaphore, now = _quick.sem_trywait, self._here, time.perf_counter_ns
        last_ns = now()
        end_ns = last_ns + (0 if self._num_sleeps else self._spin_ns)
        self._num_sleeps = max(0, self._num_sleeps - 1)
        while take(semaphore):
            now_ns = now()
            if now_ns - last_ns > _TAKEN_NS:
                self._num_sleeps = _NUM_SLEEPS
            if now_ns >= end_ns:
                return False
            last_ns = now_ns
        return True

    def _sleep(self) -> None:
        """Take a post, whenever it comes; look around now and then."""
        while True:
            if self._counters.stopped or self._is_alone():
                raise Stopped
            s, ns = divmod(time.monotonic_ns() + int(_LOOK_AROUND_S * 1e9), 1_000_000_000)
            if _slow.sem_clockwait(self._here, time.CLOCK_MONOTONIC, ctypes.byref(_Timespec(s, ns))) == 0:
                return

    def _is_alone(self) -> bool:
        try:
            return not self._end.recv(1)
        except BlockingIOError:
            return False
        except OSError:
            return True


# --- tokens through a socket, where there are no semaphores ---------------------------------------------

_TOKEN = struct.Struct("<qq")  # step, micro-batch


class Tokens:
    """An end whose signals go through a socket.

    Args:
        end: The socket.
        counters: Where the flag is that ends a wait.
    """

    def __init__(self, end: socket.socket, counters: Counters) -> None:
        end.settimeout(_LOOK_AROUND_S)
        self._socket = end
        self._counters = counters

    def send(self, step: int, microbatch: int) -> None:
        """Send a token.

        Raises:
            Stopped: The neighbour is gone.
        """
        try:
            self._socket.sendall(_TOKEN.pack(step, microbatch))
        except OSError as error:
            raise Stopped from error

    def wait(self, step: int, microbatch: int) -> None:
        """Receive tokens until that of the micro-batch comes."""
        while (token := self._next())[0] < step:
            pass
        assert token == (step, microbatch), (
            f"expected step {step}, micro-batch {microbatch}; the neighbour says {token}"
        )

    def is_alone(self) -> bool:
        """Whether the neighbour has closed its end of the socket, or died; a token may still lie there."""
        readable = select.select([self._socket], [], [], _PARTING_S)[0]
        return bool(readable) and not self._socket.recv(_TOKEN.size, socket.MSG_PEEK)

    def close(self) -> None:
        """Close the socket."""
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
