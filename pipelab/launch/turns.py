"""Who uses a pipeline: one thread at a time of the process that started it, until it is closed."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pipelab.errors import Cancelled, LaunchError
from pipelab.launch.interrupts import HeldInterrupts

_CLOSE_S = 5.0
# The pipelines that are in use by this thread, or by the one it works for.
_using: ContextVar[frozenset["Turns"]] = ContextVar("using", default=frozenset())
_CLOSED = "This pipeline is closed. Start a new one with pipelab.start(traced, plan)."


class Turns:
    """The turns that threads take.

    Args:
        end: Called once the pipeline is closed and nobody uses it any more.

    Attributes:
        is_closed: Whether the last turn is over, or is to end.
    """

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._owner_pid = os.getpid()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.is_closed = False

    @property
    def stopped(self) -> bool:
        """Whether the turn under way is to end."""
        return self._stop.is_set() or self.is_closed

    def stop(self) -> None:
        """Have the turn under way end."""
        self._stop.set()

    @contextmanager
    def take(self) -> Iterator[HeldInterrupts]:
        """A block in which the pipeline belongs to this thread, and Ctrl-C is held back.

        Raises:
            LaunchError: It is another process's, is in use, or closed.
        """
        if os.getpid() != self._owner_pid:
            raise LaunchError(
                f"This pipeline belongs to process {self._owner_pid}, which forked this one. Start one here."
            )
        with HeldInterrupts() as held:
            if not self._lock.acquire(blocking=False):
                if self.is_closed:  # another thread is at it
                    raise LaunchError(_CLOSED)
                raise LaunchError("This pipeline is running already. Wait for that run, or stop it with interrupt().")
            try:
                if self.is_closed:
                    raise LaunchError(_CLOSED)
                self._stop.clear()
                using = _using.set(_using.get() | {self})
                try:
                    yield held
                finally:
                    _using.reset(using)
            except Cancelled:
                if self.is_closed:
                    raise Cancelled("The pipeline was closed while it ran.") from None
                raise
            finally:
                if self.is_closed:
                    self._end()
                self._lock.release()

    def close(self, kill: Callable[[], None]) -> None:
        """End the last turn, and wait until it is over. Closing twice does nothing.

        Args:
            kill: Ends the ranks of a turn that does not end by itself; it then does the rest.
        """
        if os.getpid() != self._owner_pid:
            return  # in a forked child; the processes are the parent's
        with HeldInterrupts():
            self.is_closed = True
            is_own = self in _using.get()  # from on_progress
            if self._lock.acquire(timeout=0 if is_own else _CLOSE_S):  # a run in another thread stops by itself
                self._end()
                self._lock.release()
            else:
                kill()
