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
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelab.errors import LaunchError
from pipelab.launch.channel import Channel, Gone
from pipelab.launch.processes import describe_exit
from pipelab.launch.server_messages import Broken, Exited, Fork, Forked, Kill, Refused

_START_S = 120.0  # an import of torch from a slow disk
_ANSWER_S = 10.0  # once that is done
_END_S = 3.0


class ServerEnded(LaunchError):
    """The server ended before it had made a rank: another one may do it."""


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
        self._channel = Channel(ours)
        self._has_answered = False
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
            ServerEnded: The server died.
            LaunchError: It does not answer, or the system gives no process.
        """
        number = next(self._numbers)
        watch = _Deadline(_ANSWER_S if self._has_answered else _START_S, check)
        with self._lock:
            try:
                self._channel.send(Fork(number), descriptors, watch)
                while True:
                    message = self._next(watch)
                    if isinstance(message, Refused) and message.number == number:
                        raise LaunchError(f"The system gives no process for another rank: {message.reason}.")
                    if isinstance(message, Forked) and message.number == number:
                        self._has_answered = True
                        self._exit_codes.pop(message.pid, None)
                        return message.pid
            except Gone as gone:
                raise ServerEnded(f"The process that starts ranks {self._how_it_ended()}. Start again.") from gone
            except Late as late:
                self._give_up(())
                raise LaunchError(
                    f"The process that starts ranks did not answer within {watch.limit_s:.0f} s, and was ended. "
                    "Start again."
                ) from late

    def kill(self, pids: Collection[int]) -> None:
        """End ranks at once, and wait until they are gone."""
        watch = _Deadline(_END_S)
        with self._lock:
            try:
                self._channel.send(Kill(tuple(pids)), (), watch)
                self._await(pids, watch)
            except Gone:
                # A dead server's ranks get a signal from the system, and the end of their sentinel.
                return
            except Late:
                self._give_up(pids)
            for pid in pids:
                self._exit_codes.pop(pid, None)

    def how_ended(self, pid: int) -> str:
        """How a rank ended, in words; waits until it has."""
        with self._lock:
            try:
                self._await([pid], _Deadline(_END_S))
            except Gone:
                return f"ended with the process that starts ranks, which {self._how_it_ended()}"
            except Late:
                return "ended"
            return describe_exit(self._exit_codes[pid])

    def stop(self) -> None:
        """End the server, and with it its ranks."""
        self._channel.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await(self, pids: Collection[int], watch: "_Deadline") -> None:
        while not self._exit_codes.keys() >= set(pids):
            self._next(watch)

    def _next(self, watch: "_Deadline") -> Any:
        """The next message; exits are noted on the way."""
        message, _ = self._channel.receive(watch)
        if isinstance(message, Exited):
            self._exit_codes[message.pid] = message.code
        if isinstance(message, Broken):
            raise LaunchError(f"The process that starts ranks could not load pipelab:\n{message.traceback}")
        return message

    def _give_up(self, pids: Collection[int]) -> None:
        """End a server that hangs; before that ranks, whose numbers are theirs as long as it reaps nobody."""
        self._process.send_signal(signal.SIGSTOP)
        for pid in pids:
            if pid not in self._exit_codes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def _how_it_ended(self) -> str:
        try:
            return describe_exit(self._process.wait(_END_S))
        except subprocess.TimeoutExpired:
            self._give_up(())
            return "closed its connection, and was ended"


class Late(Exception):
    """An answer took too long."""


class _Deadline:
    """A watch that ends a wait.

    Args:
        limit_s: When.
        check: Called meanwhile; may raise.
    """

    def __init__(self, limit_s: float, check: Callable[[], None] | None = None) -> None:
        self.limit_s = limit_s
        self._end_s = time.monotonic() + limit_s
        self._check = check

    def __call__(self) -> None:
        if self._check is not None:
            self._check()
        if time.monotonic() > self._end_s:
            raise Late


def _import_path() -> str:
    """This process's own, so that the server finds the same pipelab and torch."""
    package = Path(__file__).parents[2]
    return os.pathsep.join([*(str(Path(entry).absolute()) for entry in sys.path if entry), str(package)])


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
        with suppress(KeyboardInterrupt):  # its end is under way
            _current.stop()


def _forget() -> None:
    """In a forked child: the server is the parent's."""
    global _current, _lock
    _current, _lock = None, threading.Lock()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
