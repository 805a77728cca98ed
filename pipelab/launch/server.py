"""The process that ranks are forked from: `python -m pipelab.launch.server <descriptor>`.

It has imported torch once, so that a rank is ready in milliseconds. It forks ranks on request, says when
one has ended, and ends with its owner. It starts no threads, runs no op and touches no GPU: a fork copies
neither. With `--spawn` it starts ranks afresh, for systems where a fork of torch is not safe.
"""

import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence

from pipelab.launch.channel import Channel, Gone
from pipelab.launch.server_messages import Broken, Exited, Fork, Forked, Kill, Refused


class Server:
    """Forks ranks and reaps them.

    Args:
        channel: To the owner.
        become_rank: Runs a rank in this process, given its descriptors and our process id; None to start ranks afresh.
    """

    def __init__(self, channel: Channel, become_rank: Callable[[int, int, int], None] | None) -> None:
        self._channel = channel
        self._become_rank = become_rank
        self._pids: set[int] = set()
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)

    def serve(self) -> None:
        """Do what the owner asks until it is gone, then end every rank."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._woken.fileno())
        poll = select.poll()
        for end in (self._channel, self._wake):
            poll.register(end, select.POLLIN)
        try:
            while True:
                for descriptor, _ in poll.poll():
                    if descriptor == self._channel.fileno():
                        self._handle(*self._channel.receive())
                    else:
                        self._wake.recv(4096)
                        self._reap()
        except Gone:
            self._kill(self._pids)
        finally:
            signal.set_wakeup_fd(-1)  # the ranks' last signals come when its socket is gone

    def _handle(self, message: Fork | Kill, descriptors: Sequence[int]) -> None:
        if isinstance(message, Kill):
            self._kill(self._pids & set(message.pids))
            return
        try:
            pid = self._fork(descriptors) if self._become_rank else _spawn(descriptors)
        except OSError as error:
            self._channel.send(Refused(message.number, str(error)))
        else:
            self._pids.add(pid)
            self._channel.send(Forked(message.number, pid))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, descriptors: Sequence[int]) -> int:
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_rank(descriptors, server)
        return pid

    def _be_rank(self, descriptors: Sequence[int], server: int) -> None:
        """The life of a forked rank; what it inherited of the server is put away first."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._wake.close()
            self._woken.close()
            assert self._become_rank is not None
            control, sentinel = descriptors
            self._become_rank(control, sentinel, server)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _kill(self, pids: set[int]) -> None:
        # Only children not reaped yet are listed, so none of these numbers belongs to anybody else.
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        for pid in tuple(self._pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._pids.discard(pid)
                self._channel.send(Exited(pid, os.waitstatus_to_exitcode(status)))


def _spawn(descriptors: Sequence[int]) -> int:
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    command = [sys.executable, "-P", "-m", "pipelab.launch.rank", *map(str, (*descriptors, os.getpid()))]
    return os.posix_spawn(command[0], command, os.environ)


def main(descriptor: int, *, spawn: bool) -> None:
    """Serve the owner at the other end of a socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(descriptor, False)
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        become_rank = None if spawn else _load_rank()
    except BaseException:
        channel.send(Broken(traceback.format_exc()))
        raise
    Server(channel, become_rank).serve()


def _load_rank() -> Callable[[int, int, int], None]:
    from pipelab.launch import rank

    # A collection in a rank would touch, and so copy, every object that it shares with the server.
    gc.freeze()
    return rank.main


if __name__ == "__main__":
    main(int(sys.argv[1]), spawn="--spawn" in sys.argv[2:])
