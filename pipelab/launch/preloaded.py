"""The controller's side of the preloaded server: one per process, started on first use, replaced if it died."""

import contextlib
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pipelab
from pipelab.errors import LaunchError
from pipelab.launch.channel import Channel, Closed

_LOCK = threading.RLock()
_CHANNELS: "weakref.WeakSet[Channel]" = weakref.WeakSet()


class Preloaded:
    """A running server.

    Args:
        options: More arguments for its command line.
    """

    def __init__(self, *options: str) -> None:
        if sys.platform == "win32":
            raise LaunchError(
                "Running a pipeline needs Linux or macOS: its processes pass memory to each other by descriptor. "
                "Tracing, planning and exploring work on Windows; to run there, use WSL."
            )
        self.channel, theirs = Channel.pair()
        guard(self.channel)
        self._codes: dict[int, int] = {}
        folder = str(Path(pipelab.__file__).resolve().parent.parent)
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        # -P: a file named random.py in the notebook's folder must not be imported. A session of its own:
        # Jupyter interrupts the kernel's whole process group.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipelab.launch.server", str(theirs.fileno()), *options],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()
        self._end = weakref.finalize(self, _end_server, self.channel, self.process, os.getpid())

    def start_rank(self, descriptor: int) -> int:
        """Start a rank that talks over this descriptor; returns its pid."""
        with _LOCK:
            self.channel.send(("start", ()), [descriptor])
            while True:
                verb, value = self._next()
                if verb == "started":
                    return int(value)

    def kill(self, pids: Iterable[int]) -> None:
        """End ranks at once; those that are gone already are left alone."""
        with _LOCK, contextlib.suppress(Closed):
            self.channel.send(("kill", tuple(pids)))

    def exit_code(self, pid: int) -> int | None:
        """How a rank that has ended did so, negative for a signal; None if the server ended with it."""
        with _LOCK, contextlib.suppress(Closed):
            while pid not in self._codes:
                self._next()
        return self._codes.pop(pid, None)

    def is_alive(self) -> bool:
        """Whether the server runs."""
        return self._end.alive and self.process.poll() is None

    def close(self) -> None:
        """End the server and its ranks."""
        self._end()

    def _next(self) -> tuple[str, Any]:
        message, _ = self.channel.receive()
        verb, value = message
        if verb == "ended":
            pid, code = value
            self._codes[pid] = code
        return verb, value


def _end_server(channel: Channel, process: "subprocess.Popen[bytes]", owner: int) -> None:
    channel.close()
    if os.getpid() == owner:
        process.wait()  # it ends at the end of its channel, and its ranks with it


def guard(channel: Channel) -> None:
    """Close a channel in every process forked from this one, which must not keep ranks alive."""
    _CHANNELS.add(channel)


def _after_fork() -> None:
    global _LOCK, _current
    _LOCK, _current = threading.RLock(), None
    for channel in tuple(_CHANNELS):
        channel.close()


os.register_at_fork(after_in_child=_after_fork)

_current: Preloaded | None = None


def prepare() -> Preloaded:
    """The server of this process; started if there is none. Returns before it is ready."""
    global _current
    with _LOCK:
        if _current is None or not _current.is_alive():
            if _current is not None:
                _current.close()
            _current = Preloaded()
        return _current
