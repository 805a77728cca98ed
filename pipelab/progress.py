"""No call over a second is silent: one line says what is going on, and how long it took.

It goes to stderr; in a notebook, which paints stderr red as if something were wrong, to stdout.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelab.units import format_bytes

_SILENT_S = 1.0
_LOOK_S = 0.25
_BAR_WIDTH = 20

_muted = False


def mute() -> None:
    """Tell no progress any more in this process."""
    global _muted
    _muted = True


def tell(sentence: str) -> None:
    """Print a sentence where progress is told."""
    _show(f"pipelab: {sentence}\n")


def _show(text: str) -> None:
    if not _muted:
        in_notebook = type(sys.stderr).__module__.startswith("ipykernel")
        print(text, end="", file=sys.stdout if in_notebook else sys.stderr, flush=True)


@contextmanager
def announce(what: str) -> Iterator[None]:
    """Print `what` if the block takes longer than a second, and its duration at the end."""
    start = time.perf_counter()
    said = threading.Event()

    def say() -> None:
        said.set()
        tell(f"{what} …")

    timer = threading.Timer(_SILENT_S, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it may be about to say it
        if said.is_set():
            tell(f"{what}: {time.perf_counter() - start:.1f} s")


@contextmanager
def announce_bytes(what: str, progress: Callable[[], tuple[int, int]]) -> Iterator[None]:
    """Show a bar of bytes if the block takes longer than a second; it stays as it is at the end.

    Args:
        what: Is going on.
        progress: Says how many bytes are done, and of how many.
    """
    ended = threading.Event()

    def show() -> None:
        wait_s = _SILENT_S
        while not ended.wait(wait_s):
            _show(f"\r{bar(what, *progress())}")
            wait_s = _LOOK_S
        if wait_s == _LOOK_S:
            _show(f"\r{bar(what, *progress())}\n")

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def bar(what: str, done_bytes: int, all_bytes: int) -> str:
    """A line with a bar.

    Example:
        >>> bar("reading the weights", 1_250_000, 5_000_000)
        'pipelab: reading the weights ▕█████               ▏ 1.25 MB of 5.00 MB'
    """
    filled = "█" * round(_BAR_WIDTH * done_bytes / max(all_bytes, 1))
    return f"pipelab: {what} ▕{filled:<{_BAR_WIDTH}}▏ {format_bytes(done_bytes)} of {format_bytes(all_bytes)}"
