"""No call over a second is silent: one line on stderr says what is going on, and how long it took."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


def tell(sentence: str) -> None:
    """Print a sentence where progress is told."""
    print(f"pipelab: {sentence}", file=sys.stderr, flush=True)


@contextmanager
def announce(what: str, *, after_s: float = 1.0) -> Iterator[None]:
    """Print `what` if the block takes longer than `after_s`, and its duration at the end."""
    start = time.perf_counter()
    said = threading.Event()

    def say() -> None:
        said.set()
        tell(f"{what} …")

    timer = threading.Timer(after_s, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if said.is_set():
            tell(f"{what}: {time.perf_counter() - start:.1f} s")
