"""The preloaded server: imports torch once, starts ranks on request, reaps them, and ends with its owner.

It is a process session of its own and ignores SIGINT: Jupyter interrupts the kernel's whole process group.
It runs no op, so that a fork of it carries no thread and no CUDA context. On Linux ranks are forked from it
(0.03 s); elsewhere, where a fork of a process that loaded torch is not safe, they are started afresh.

    python -m pipelab.launch.server FD
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys

from pipelab.launch import rank
from pipelab.launch.channel import Channel, Closed

FORKS = sys.platform == "linux"


class Server:
    """The server's side of the conversation with one controller process.

    Args:
        channel: Where requests come from.
        forks: Whether ranks are forked rather than started afresh.
    """

    def __init__(self, channel: Channel, *, forks: bool) -> None:
        self.channel = channel
        self.forks = forks
        self.ranks: set[int] = set()

    def serve(self) -> None:
        """Answer requests until the owner is gone, then end every rank."""
        reading, writing = socket.socketpair()
        for end in (reading, writing):
            end.setblocking(False)
        signal.set_wakeup_fd(writing.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        selector = selectors.DefaultSelector()
        selector.register(self.channel, selectors.EVENT_READ)
        selector.register(reading, selectors.EVENT_READ)
        try:
            while True:
                for key, _ in selector.select():
                    if key.fileobj is reading:
                        with contextlib.suppress(BlockingIOError):
                            reading.recv(4096)
                        self._reap()
                    else:
                        self._answer()
        except Closed:
            self._kill(self.ranks)

    def _answer(self) -> None:
        (verb, pids), descriptors = self.channel.receive()
        if verb == "kill":
            self._kill(self.ranks & set(pids))
            return
        (descriptor,) = descriptors
        pid = self._fork(descriptor) if self.forks else self._spawn(descriptor)
        os.close(descriptor)
        self.ranks.add(pid)
        self.channel.send(("started", pid))

    def _fork(self, descriptor: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.channel.close()
            rank.main(descriptor)
            status = 0
        finally:
            os._exit(status)

    def _spawn(self, descriptor: int) -> int:
        command = [sys.executable, "-m", "pipelab.launch.rank", str(descriptor)]
        process = subprocess.Popen(command, pass_fds=[descriptor], stdin=subprocess.DEVNULL)
        process.returncode = 0  # reaped below, with the others
        return process.pid

    def _reap(self) -> None:
        for pid in tuple(self.ranks):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.ranks.discard(pid)
                self.channel.send(("ended", (pid, os.waitstatus_to_exitcode(status))))

    def _kill(self, pids: set[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)  # ours and not reaped yet, so the pid is still that process


def main() -> None:
    """Serve over the inherited descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    Server(channel, forks=FORKS and "--spawn" not in sys.argv).serve()


if __name__ == "__main__":
    main()
