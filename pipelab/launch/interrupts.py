"""Ctrl-C while messages are under way: held back until none is half sent or half read."""

import signal
import threading
from types import TracebackType
from typing import Any


class HeldInterrupts:
    """A block in which Ctrl-C is only noted. It takes effect when the block ends, or at a `check`.

    Outside the main thread, where Python delivers no signal, it does nothing.
    """

    def __init__(self) -> None:
        self._presses = 0
        self._previous: Any = None

    @property
    def pending(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._presses > 0

    @property
    def hurried(self) -> bool:
        """Whether it was pressed again."""
        return self._presses > 1

    def __enter__(self) -> "HeldInterrupts":
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is None:
            return
        signal.signal(signal.SIGINT, self._previous)
        if self.pending and kind is not KeyboardInterrupt:
            try:
                self._previous(signal.SIGINT, None)
            except KeyboardInterrupt as interrupt:
                # Not the tale of how the ranks were stopped.
                raise interrupt from None

    def check(self) -> None:
        """A point where it may take effect.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        if self.pending:
            raise KeyboardInterrupt from None  # not while some read found nothing

    def _note(self, *_: object) -> None:
        self._presses += 1
