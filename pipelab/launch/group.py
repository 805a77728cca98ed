"""The ranks of a pipeline as the kernel sees them: processes it starts, asks, stops and ends together."""

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelab.errors import Cancelled, LaunchError
from pipelab.launch.channel import Channel, Gone, readable
from pipelab.launch.client import ServerClient
from pipelab.launch.counters import Counters, Stall
from pipelab.launch.forks import drop_in_forked_children
from pipelab.launch.memory import Weights
from pipelab.launch.messages import Failed, GivenUp, Join, Reply

Request = tuple[Any, Sequence[int]]  # a message and its descriptors

_TRANSFER_S = 30.0
_LOOK_AROUND_S = 0.05
_AFTER_FAILURE_S = 1.0  # the others' chance to become idle; then they are ended, and the error is shown
_AFTER_CANCEL_S = 5.0


@dataclass(frozen=True)
class Patience:
    """How long to wait for ranks.

    Attributes:
        cancelled: Whether the user wants the step stopped; asked again and again.
        stall_s: Seconds without progress of any rank after which the step counts as hung.
    """

    cancelled: Callable[[], bool]
    stall_s: float


class RankDied(Exception):
    """A rank ended while it was asked something; the group is gone. `code` is its exit code."""

    def __init__(self, rank: int, op: int | None, code: int | None) -> None:
        super().__init__(rank, op, code)
        self.rank, self.op, self.code = rank, op, code


class RankRaised(Exception):
    """A rank raised."""

    def __init__(self, rank: int, failed: Failed) -> None:
        super().__init__(rank, failed)
        self.rank, self.failed = rank, failed


class RankStalled(Exception):
    """No rank made progress any more; the group is gone. `rank` is one that was inside an op, if any was."""

    def __init__(self, rank: int, op: int | None) -> None:
        super().__init__(rank, op)
        self.rank, self.op = rank, op


class Sentinel:
    """A pipe whose end tells ranks that their owner is gone; only the owner holds the writing side."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        self._open = True
        drop_in_forked_children(self)

    def close(self) -> None:
        """End it."""
        if self._open:
            self._open = False
            os.close(self.reader)
            os.close(self._writer)


class Group:
    """Processes that live and die together.

    Args:
        server: What forks them.
        weights: What each of them maps.
    """

    def __init__(self, server: ServerClient, weights: Weights) -> None:
        self._server = server
        self._weights = weights
        self._sentinel = Sentinel()
        self._channels: list[Channel] = []
        self._pids: list[int] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids by rank."""
        return tuple(self._pids)

    @property
    def alive(self) -> bool:
        """Whether every rank is there and idle, as far as can be seen without asking."""
        return bool(self._pids) and self._server.alive and not readable(self._channels, 0)

    def resize(self, num_ranks: int, check: Callable[[], None]) -> None:
        """Add ranks, or end the last ones.

        Raises:
            LaunchError: They cannot be started.
        """
        surplus = self._pids[num_ranks:]
        for channel in self._channels[num_ranks:]:
            channel.close()
        del self._pids[num_ranks:], self._channels[num_ranks:]
        if surplus:
            self._server.kill(surplus)
        while len(self._pids) < num_ranks:
            self._add(check)

    def ask(self, requests: Sequence[Request], counters: Counters, patience: Patience) -> list[Reply]:
        """Send each rank its request, the last rank first, and wait for all replies.

        Raises:
            Cancelled: The user stopped it; the ranks are idle, or ended where they would not become idle.
            RankRaised: A rank raised; the others are idle, or all are ended as above.
            RankDied: A rank died; all are ended.
            RankStalled: Nothing moved any more; all are ended.
        """
        if patience.cancelled():  # short steps, one after another, end before they can be stopped
            raise Cancelled("The run was stopped; the ranks are still there.")
        channels = tuple(self._channels)
        self._send(requests, counters)
        replies: dict[int, Reply] = {}
        stall = Stall(counters, len(requests), time.monotonic())
        deadline_s: float | None = None
        while waiting := [rank for rank in range(len(requests)) if rank not in replies]:
            try:
                ready = readable([channels[rank] for rank in waiting], _LOOK_AROUND_S)
            except Gone as gone:  # closed on this side
                raise Cancelled("The pipeline was closed while it ran.") from gone
            for rank in (waiting[index] for index in ready):
                try:
                    replies[rank], _ = channels[rank].receive()
                except Gone as gone:
                    raise self._death(rank, counters) from gone
            now_s = time.monotonic()
            grace_s = _grace_s(replies, patience)
            if grace_s is not None and deadline_s is None:
                counters.stop()
                deadline_s = now_s + grace_s
            if deadline_s is not None and now_s > deadline_s:
                self.kill()
                return _checked(replies, waiting)
            if stall.duration_s(now_s) > patience.stall_s:
                raise self._stalled(waiting, counters)
        return _checked(replies, ())

    def kill(self) -> None:
        """End every rank, and wait until they are gone."""
        pids = self.pids
        self.abandon()
        self._server.kill(pids)

    def abandon(self) -> None:
        """Let the ranks end by themselves. Takes no lock, so that a finalizer may call it."""
        self._sentinel.close()
        for channel in self._channels:
            channel.close()
        self._channels, self._pids = [], []

    def _add(self, check: Callable[[], None]) -> None:
        ours, theirs = socket.socketpair()
        channel = Channel(ours, _TRANSFER_S)
        try:
            pid = self._server.fork((theirs.fileno(), self._sentinel.reader), check)
            segment = self._weights.segment
            channel.send(Join(self._weights.placed, segment.num_bytes), [segment.descriptor])
        except Gone as gone:
            channel.close()
            raise LaunchError(f"Rank {len(self._pids)} ended as soon as it was started. Start again.") from gone
        except BaseException:
            channel.close()
            raise
        finally:
            theirs.close()
        self._channels.append(channel)
        self._pids.append(pid)

    def _send(self, requests: Sequence[Request], counters: Counters) -> None:
        """The last rank first, so that a stage is ready when its first value comes."""
        for rank, (message, descriptors) in reversed(list(enumerate(requests))):
            try:
                self._channels[rank].send(message, descriptors)
            except Gone as gone:
                raise self._death(rank, counters) from gone

    def _death(self, rank: int, counters: Counters) -> RankDied | Cancelled:
        if not self._pids:
            return Cancelled("The pipeline was closed while it ran.")
        code = self._server.exit_code(self._pids[rank])
        self.kill()
        return RankDied(rank, counters.current_op(rank), code)

    def _stalled(self, waiting: Sequence[int], counters: Counters) -> RankStalled:
        rank = next((rank for rank in waiting if counters.current_op(rank) is not None), waiting[0])
        self.kill()
        return RankStalled(rank, counters.current_op(rank))


def _grace_s(replies: dict[int, Reply], patience: Patience) -> float | None:
    """How long ranks may take to become idle; None while nothing asks for it."""
    if any(isinstance(reply, Failed) for reply in replies.values()):
        return _AFTER_FAILURE_S
    return _AFTER_CANCEL_S if patience.cancelled() else None


def _checked(replies: dict[int, Reply], missing: Sequence[int]) -> list[Reply]:
    """The replies by rank, if every rank did what it was asked.

    Args:
        replies: What ranks said.
        missing: Ranks that did not become idle, for which all were ended.
    """
    failures = [(reply.time_ns, rank, reply) for rank, reply in replies.items() if isinstance(reply, Failed)]
    if failures:
        _, rank, failed = min(failures, key=lambda failure: failure[0])
        raise RankRaised(rank, failed)
    if missing:
        raise Cancelled(
            f"The run was stopped. Rank {missing[0]} was inside a long op, so the next run starts new ranks."
        )
    if any(isinstance(reply, GivenUp) for reply in replies.values()):
        raise Cancelled("The run was stopped; the ranks are still there.")
    return [replies[rank] for rank in sorted(replies)]
