"""The ranks of a pipeline as the kernel sees them: processes it starts, asks, stops and ends together."""

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipelab.errors import Cancelled, LaunchError
from pipelab.launch.channel import Channel, Garbled, Gone, readable
from pipelab.launch.client import ServerClient, ServerEnded
from pipelab.launch.counters import Counters, Stall
from pipelab.launch.forks import drop_in_forked_children
from pipelab.launch.memory import Weights
from pipelab.launch.messages import Failed, GivenUp, Join, Reply
from pipelab.launch.processes import is_stopped

Request = tuple[Any, Sequence[int]]  # a message and its descriptors

_LOOK_AROUND_S = 0.05
_LONGEST_LOOK_S = 1.0
_AFTER_FAILURE_S = 1.0  # the others' chance to become idle; then they are ended, and the error is shown
_AFTER_CANCEL_S = 5.0


@dataclass(frozen=True)
class Patience:
    """How long to wait for ranks.

    Attributes:
        cancelled: Whether the user wants the step stopped; asked again and again.
        stall_s: Seconds without progress of any rank after which the step counts as hung.
        hurried: Whether the user wants it stopped at once, whatever becomes of the ranks.
        awaited: Whether anybody waits for something of the ranks; where nobody does, nothing need move.
    """

    cancelled: Callable[[], bool]
    stall_s: float
    hurried: Callable[[], bool] = lambda: False
    awaited: Callable[[], bool] = lambda: True


class RankDied(Exception):
    """A rank ended while it was asked something; the group is gone. `how` says how, after its name."""

    def __init__(self, rank: int, op: int | None, how: str) -> None:
        super().__init__(rank, op, how)
        self.rank, self.op, self.how = rank, op, how


class RankRaised(Exception):
    """A rank raised."""

    def __init__(self, rank: int, failed: Failed) -> None:
        super().__init__(rank, failed)
        self.rank, self.failed = rank, failed


class RankStalled(Exception):
    """No rank made progress any more; the group is gone.

    `rank` is one that is stopped, else one that was inside an op, if any was.
    """

    def __init__(self, rank: int, op: int | None, *, stopped: bool) -> None:
        super().__init__(rank, op, stopped)
        self.rank, self.op, self.stopped = rank, op, stopped


class _Enough(Exception):
    """Those who have not answered yet are not waited for any more."""


class _Nothing(Exception):
    """Nothing moves."""


class Sentinel:
    """A pipe whose end tells ranks that their owner is gone; only the owner holds the writing side."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self._ends = [writer, self.reader]
        drop_in_forked_children(self)

    def close(self) -> None:
        """End it."""
        with suppress(IndexError):
            while True:  # two threads may close it
                os.close(self._ends.pop())


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
        try:
            return bool(self._pids) and self._server.alive and not readable(self._channels, 0)
        except Gone:
            return False

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
        wait = _Wait(counters, len(requests), patience)
        try:
            self._exchange(requests, wait)
        except Gone as gone:
            raise self._death(wait, counters, gone) from gone
        except _Enough:
            self.kill()
        except _Nothing:
            raise self._stalled(wait.missing, counters) from None
        except BaseException:  # a mistake of ours: some have been asked, some not
            self.kill()
            raise
        return _checked(wait.replies, wait.missing)

    def _exchange(self, requests: Sequence[Request], wait: "_Wait") -> None:
        """Ask, the last rank first, so that a stage is ready when its first value comes; then hear all of them."""
        channels = tuple(self._channels)
        for rank, (message, descriptors) in reversed(list(enumerate(requests))):
            wait.rank = rank
            channels[rank].send(message, descriptors, wait.look)
        while missing := wait.missing:
            for index in readable([channels[rank] for rank in missing], _LOOK_AROUND_S):
                wait.rank = missing[index]
                wait.replies[wait.rank], _ = channels[wait.rank].receive(wait.look)
            wait.look()

    def kill(self) -> None:
        """End every rank, and wait until they are gone."""
        pids = self.pids
        self.abandon()
        self._server.kill(pids)

    def abandon(self) -> None:
        """Let the ranks end by themselves. Takes no lock, so that a finalizer may call it."""
        channels = self._channels
        self._channels, self._pids = [], []
        self._sentinel.close()
        for channel in channels:
            channel.close()

    def _add(self, check: Callable[[], None]) -> None:
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        try:
            pid = self._server.fork((theirs.fileno(), self._sentinel.reader), check)
            segment = self._weights.segment
            join = Join(self._weights.placed, segment.num_bytes, self._weights.pieces)
            channel.send(join, [segment.descriptor], check)
        except Gone as gone:
            channel.close()
            how = ServerEnded if not self._server.alive else LaunchError
            raise how(f"Rank {len(self._pids)} ended as soon as it was started. Start again.") from gone
        except BaseException:
            channel.close()
            raise
        finally:
            theirs.close()
        self._channels.append(channel)
        self._pids.append(pid)

    def _death(self, wait: "_Wait", counters: Counters, gone: Gone) -> RankDied | RankRaised | Cancelled:
        """What to raise when a rank is gone: what another one raised before is the cause, and not its end."""
        pids, rank = self.pids, wait.rank
        if not pids:
            return Cancelled("The pipeline was closed while it ran.")
        self._hear_the_rest(wait)
        garbled = isinstance(gone, Garbled)
        how = f"sent what is no message ({gone})" if garbled else self._server.how_ended(pids[rank])
        self.kill()
        return _first_failure(wait.replies) or RankDied(rank, counters.current_op(rank), how)

    def _hear_the_rest(self, wait: "_Wait") -> None:
        """What ranks have said already."""
        for rank, channel in enumerate(tuple(self._channels)):
            with suppress(Gone, _Enough, _Nothing):
                if rank in wait.missing and readable([channel], 0):
                    wait.replies[rank], _ = channel.receive(wait.look)

    def _stalled(self, missing: Sequence[int], counters: Counters) -> RankStalled:
        stopped = [rank for rank in missing if is_stopped(self._pids[rank])]
        inside = [rank for rank in missing if counters.current_op(rank) is not None]
        rank = (*stopped, *inside, *missing)[0]
        self.kill()
        return RankStalled(rank, counters.current_op(rank), stopped=bool(stopped))


class _Wait:
    """One question to all ranks: who has answered, and how long the others may still take.

    Args:
        counters: What the ranks publish.
        num_ranks: How many are asked.
        patience: How long to wait.

    Attributes:
        replies: By rank.
        rank: The one that is listened to.
    """

    def __init__(self, counters: Counters, num_ranks: int, patience: Patience) -> None:
        self._counters = counters
        self._num_ranks = num_ranks
        self._patience = patience
        self._stall = Stall(counters, num_ranks, 0.0)
        self._looked_s = time.monotonic()
        self._now_s = 0.0
        self._end_s: float | None = None
        self.replies: dict[int, Reply] = {}
        self.rank = 0

    @property
    def missing(self) -> list[int]:
        """Who has not answered."""
        return [rank for rank in range(self._num_ranks) if rank not in self.replies]

    def look(self) -> None:
        """See whether waiting still makes sense.

        Raises:
            _Enough: The user, or a rank that failed, has been let wait long enough.
            _Nothing: Nothing moves any more.
        """
        self._tell_time()
        if self._patience.hurried():
            raise _Enough
        if self._end_s is None and (grace_s := _grace_s(self.replies, self._patience)) is not None:
            self._counters.stop()
            self._end_s = self._now_s + grace_s
        if self._end_s is not None and self._now_s > self._end_s:
            raise _Enough
        if not self._patience.awaited():
            self._stall = Stall(self._counters, self._num_ranks, self._now_s)
        if self._stall.duration_s(self._now_s) > self._patience.stall_s:
            raise _Nothing

    def _tell_time(self) -> None:
        """A clock that stands still while this process does: with the machine, its ranks stood as well."""
        looked_s = time.monotonic()
        self._now_s += min(looked_s - self._looked_s, _LONGEST_LOOK_S)
        self._looked_s = looked_s


def _grace_s(replies: dict[int, Reply], patience: Patience) -> float | None:
    """How long ranks may take to become idle; None while nothing asks for it."""
    if any(isinstance(reply, Failed) for reply in replies.values()):
        return _AFTER_FAILURE_S
    return _AFTER_CANCEL_S if patience.cancelled() else None


def _first_failure(replies: dict[int, Reply]) -> RankRaised | None:
    """What was raised first, on the clock that all processes share."""
    failures = [(reply.time_ns, rank, reply) for rank, reply in replies.items() if isinstance(reply, Failed)]
    if not failures:
        return None
    _, rank, failed = min(failures, key=lambda failure: failure[0])
    return RankRaised(rank, failed)


def _checked(replies: dict[int, Reply], missing: Sequence[int]) -> list[Reply]:
    """The replies by rank, if every rank did what it was asked.

    Args:
        replies: What ranks said.
        missing: Ranks that did not become idle, for which all were ended.
    """
    if failure := _first_failure(replies):
        raise failure
    if missing:
        raise Cancelled(
            f"The run was stopped. Rank {missing[0]} had not come to an end, so the next run starts new ranks."
        )
    if any(isinstance(reply, GivenUp) for reply in replies.values()):
        raise Cancelled("The run was stopped; the ranks are still there.")
    return [replies[rank] for rank in sorted(replies)]
