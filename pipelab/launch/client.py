"""The kernel's side of the server: one per kernel, started when it is first needed, again when it has died."""

import atexit
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from pipelab.errors import LaunchError
from pipelab.launch.channel import Channel, Gone, readable
from pipelab.launch.server_messages import Broken, Exited, Fork, Forked, Kill

_START_S = 120.0  # an import of torch from a slow disk
_END_S = 5.0
_LOOK_AROUND_S = 0.1
_TRANSFER_S = 10.0


class ServerClient:
    """A running server.

    Args:
        spawn: Whether it starts ranks afresh instead of forking them.

    Raises:
        LaunchError: It cannot be started.
    """

    def __init__(self, *, spawn: bool) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "pipelab.launch.server", str(theirs.fileno())]
        try:
            # A session of its own: Jupyter interrupts the whole process group of the kernel.
            self._process = subprocess.Popen(
                command + ["--spawn"] * spawn,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": _import_path()},
            )
        except OSError as error:
            ours.close()
            raise LaunchError(f"No process can be started with {sys.executable!r}: {error}") from error
        finally:
            theirs.close()
        self._channel = Channel(ours, _TRANSFER_S)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._exit_codes: dict[int, int] = {}

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def fork(self, descriptors: Sequence[int], check: Callable[[], None]) -> int:
        """Make a rank that gets these descriptors.

        Args:
            descriptors: Its control socket and its sentinel.
            check: Called while waiting; may raise.

        Returns:
            The rank's pid.

        Raises:
            LaunchError: The server failed.
        """
        number = next(self._numbers)
        deadline_s = time.monotonic() + _START_S
        with self._lock:
            try:
                self._channel.send(Fork(number), descriptors)
                while True:
                    message = self._next(deadline_s, check)
                    if isinstance(message, Forked) and message.number == number:
                        self._exit_codes.pop(message.pid, None)
                        return message.pid
            except Gone as gone:
                raise LaunchError(self._epitaph()) from gone
            except TimeoutError as late:
                raise LaunchError(f"The process that starts ranks did not answer within {_START_S:.0f} s.") from late

    def kill(self, pids: Collection[int]) -> None:
        """End ranks at once, and wait until they are gone."""
        with self._lock:
            try:
                self._channel.send(Kill(tuple(pids)))
                self._await(pids)
            except (Gone, TimeoutError):
                # A dead server's ranks get a signal from the system, and the end of their sentinel.
                return

    def exit_code(self, pid: int) -> int | None:
        """The exit code of a rank that has ended, minus the signal if one ended it; None if nobody knows."""
        with self._lock:
            try:
                self._await([pid])
            except (Gone, TimeoutError):
                return None
            return self._exit_codes[pid]

    def stop(self) -> None:
        """End the server, and with it its ranks."""
        self._channel.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await(self, pids: Collection[int]) -> None:
        deadline_s = time.monotonic() + _END_S
        while not self._exit_codes.keys() >= set(pids):
            self._next(deadline_s, _nothing)

    def _next(self, deadline_s: float, check: Callable[[], None]) -> Any:
        """The next message; exits are noted on the way."""
        while not readable([self._channel], _LOOK_AROUND_S):
            check()
            if time.monotonic() > deadline_s:
                raise TimeoutError
        message, _ = self._channel.receive()
        if isinstance(message, Exited):
            self._exit_codes[message.pid] = message.code
        if isinstance(message, Broken):
            raise LaunchError(f"The process that starts ranks could not load pipelab:\n{message.traceback}")
        return message

    def _epitaph(self) -> str:
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return "The process that starts ranks closed its connection. Start again."
        return f"The process that starts ranks {describe_exit(code)}. Start again; the next one is a new process."


def describe_exit(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (by hand, or by the system because memory ran out)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def _import_path() -> str:
    """This process's own, so that the server finds the same pipelab and torch."""
    package = Path(__file__).parents[2]
    return os.pathsep.join([*(str(Path(entry).absolute()) for entry in sys.path if entry), str(package)])


def _nothing() -> None:
    """Nobody interrupts this wait: it is short."""


# --- the kernel's own -------------------------------------------------------------------------------

_lock = threading.Lock()
_current: ServerClient | None = None


def current_server() -> ServerClient:
    """The kernel's server, which runs.

    Raises:
        LaunchError: There is none on this platform.
    """
    global _current
    if sys.platform == "win32":
        raise LaunchError(
            "Running a pipeline needs Unix sockets that pass descriptors, which Python has not on Windows. Tracing, "
            "planning and the explorer work here; run the pipeline under Linux (WSL is enough) or macOS."
        )
    with _lock:
        if _current is not None and not _current.alive:
            _current.stop()
            _current = None
        if _current is None:
            _current = ServerClient(spawn=sys.platform == "darwin")
        return _current


def _stop() -> None:
    if _current is not None:
        _current.stop()


def _forget() -> None:
    """In a forked child: the server is the parent's."""
    global _current, _lock
    _current, _lock = None, threading.Lock()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
