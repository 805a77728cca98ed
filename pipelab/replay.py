"""The event core of the simulator: orders of actions and seconds of each in, what happened when out.

A rank works off its list; an action starts when the rank is free and its input is there. Transfers are one of
two kinds: beside compute, one at a time per link and direction; or done by the sender's rank, which is busy
with it. Either way a rank whose link is full waits before it goes on, as pipelab's own ranks do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelab.clocks import Clock, SharedClock
from pipelab.events import Event, ordered
from pipelab.schedules import Action, ActionKind, Order, deadlock

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Workload:
    """Seconds of everything a schedule orders; arrays by stage, or boundary, and micro-batch.

    Attributes:
        compute_s: Per kind of action, seconds of a rank that computes alone.
        transfer_s: Seconds on the link; a gradient takes as long as its activation.
        transfer_bytes: Bytes of the same; None where they do not matter.
        output_s: Per micro-batch, seconds in which the last rank gives its outputs away; None is no time.
        overlap: Whether transfers run beside compute. If not, the sender's rank is busy with them.
        num_slots: Micro-batches a link can hold, each from its sending until the receiver has sent on what it
            made of it; None is unbounded.
        parallel: How many ranks can compute at once; None is all of them.
        loaded_s: As `compute_s`, while `parallel` ranks compute; None is the same.
    """

    compute_s: Mapping[ActionKind, FloatArray]
    transfer_s: FloatArray
    transfer_bytes: npt.NDArray[np.int64] | None = None
    output_s: FloatArray | None = None
    overlap: bool = True
    num_slots: int | None = None
    parallel: int | None = None
    loaded_s: Mapping[ActionKind, FloatArray] | None = None


class _Message(NamedTuple):
    """What an action made for a neighbour on another rank; `to_stage` is None for an output."""

    made_by: Action
    rank: int
    to_stage: int | None
    boundary: int


def replay(orders: Sequence[Order], work: Workload) -> tuple[Event, ...]:
    """What every rank does and when.

    Args:
        orders: The actions of each rank.
        work: How long each takes.

    Returns:
        Events "F", "B", "I", "W", "send", and "wait" where a rank waits for an input or a full link.

    Raises:
        InputError: The ranks wait for each other; says where each stands.
    """
    run = _Replay(orders, work)
    run.finish()
    return ordered(run.events)


class _Replay:
    def __init__(self, orders: Sequence[Order], work: Workload) -> None:
        num_stages, num_microbatches = work.compute_s["F"].shape
        num_ranks = len(orders)
        self.events: list[Event] = []
        self._orders, self._work = orders, work
        self._last_stage = num_stages - 1
        self._rank_of = {action.stage: rank for rank, order in enumerate(orders) for action in order}
        self._clock = Clock() if work.parallel is None else SharedClock(work.parallel)
        # Lists: reading one number out of an array is slow.
        self._alone_s = {kind: seconds.tolist() for kind, seconds in work.compute_s.items()}
        self._loaded_s = {kind: seconds.tolist() for kind, seconds in (work.loaded_s or work.compute_s).items()}
        self._transfer_s = work.transfer_s.tolist()
        self._bytes = None if work.transfer_bytes is None else work.transfer_bytes.tolist()
        # Of each rank: its place in the list, since when it is free, and what it must send before it goes on.
        self._at, self._busy = [0] * num_ranks, [False] * num_ranks
        self._free_s = [0.0] * num_ranks
        self._outbox: list[_Message | None] = [None] * num_ranks
        # Inputs that are there.
        gradients = [[False] * num_microbatches for _ in range(num_stages)]
        self._ready = {"F": [[stage == 0] * num_microbatches for stage in range(num_stages)],
                       "B": gradients, "I": gradients,
                       "W": [[False] * num_microbatches for _ in range(num_stages)]}  # fmt: skip
        # Of each boundary, forward and backward: micro-batches its link holds.
        self._held = {True: [0] * num_stages, False: [0] * num_stages}
        self._link_free_s: dict[tuple[int, int], float] = {}

    def finish(self) -> None:
        for rank in range(len(self._orders)):
            self._go_on(rank)
        while self._clock.step():
            pass
        places = enumerate(zip(self._orders, self._at, strict=True))
        if stuck := [(rank, order[at]) for rank, (order, at) in places if at < len(order)]:
            raise deadlock(stuck)

    def _go_on(self, rank: int) -> None:
        """Let a rank begin what it can begin now."""
        if self._busy[rank]:
            return
        if (message := self._outbox[rank]) is not None:
            self._try_to_send(message)
            if self._busy[rank] or self._outbox[rank] is not None:
                return
        order, at = self._orders[rank], self._at[rank]
        if at < len(order):
            stage, kind, microbatch = order[at]
            if self._ready[kind][stage][microbatch]:
                self._occupy(rank, stage, microbatch)
                alone_s, loaded_s = self._alone_s[kind][stage][microbatch], self._loaded_s[kind][stage][microbatch]
                self._clock.compute(alone_s, loaded_s, self._computed, rank)

    def _occupy(self, rank: int, stage: int, microbatch: int) -> None:
        self._waited(rank, stage, microbatch)
        self._busy[rank] = True

    def _waited(self, rank: int, stage: int, microbatch: int) -> None:
        now_s, since_s = self._clock.now_s, self._free_s[rank]
        if now_s > since_s:
            self.events.append(Event(rank, stage, microbatch, "wait", since_s, now_s))
            self._free_s[rank] = now_s

    def _computed(self, rank: int) -> None:
        action = self._orders[rank][self._at[rank]]
        now_s = self._clock.now_s
        self.events.append(Event(rank, action.stage, action.microbatch, action.kind, self._free_s[rank], now_s))
        self._at[rank] += 1
        self._busy[rank], self._free_s[rank] = False, now_s
        self._outbox[rank] = self._pass_on(action, rank)
        if self._outbox[rank] is None:
            self._release(action)
        self._go_on(rank)

    def _pass_on(self, action: Action, rank: int) -> _Message | None:
        """Note what is now there on this rank; what another rank needs is returned."""
        stage, kind, microbatch = action
        if kind == "W":
            return None
        if kind == "F":
            if stage == self._last_stage:
                self._ready["B"][stage][microbatch] = True
                return None if self._work.output_s is None else _Message(action, rank, None, stage)
            to_stage = stage + 1
        else:
            self._ready["W"][stage][microbatch] = True
            if stage == 0:
                return None
            to_stage = stage - 1
        if self._rank_of[to_stage] == rank:
            self._ready[kind][to_stage][microbatch] = True
            return None
        return _Message(action, rank, to_stage, min(stage, to_stage))

    def _try_to_send(self, message: _Message) -> None:
        action, rank, to_stage, boundary = message
        if to_stage is None:
            self._give_away(message)
            return
        held = self._held[action.kind == "F"]
        if self._work.num_slots is not None and held[boundary] >= self._work.num_slots:
            return
        held[boundary] += 1
        self._outbox[rank] = None
        self._waited(rank, action.stage, action.microbatch)
        seconds = self._transfer_s[boundary][action.microbatch]
        if not self._work.overlap:
            self._busy[rank] = True
            self._clock.compute(seconds, seconds, self._sent_by_rank, message)
            return
        link = rank, self._rank_of[to_stage]
        start_s = max(self._clock.now_s, self._link_free_s.get(link, 0.0))
        self._link_free_s[link] = end_s = start_s + seconds
        self._record_send(message, start_s, end_s)
        self._clock.at(end_s, self._sent, message)

    def _give_away(self, message: _Message) -> None:
        action, rank, _, _ = message
        assert self._work.output_s is not None, "outputs take time"
        seconds = float(self._work.output_s[action.microbatch])
        self._outbox[rank], self._busy[rank] = None, True
        self._clock.compute(seconds, seconds, self._sent_by_rank, message)

    def _record_send(self, message: _Message, start_s: float, end_s: float) -> None:
        stage, _, microbatch = message.made_by
        num_bytes = self._bytes[message.boundary][microbatch] if self._bytes and message.to_stage is not None else 0
        self.events.append(Event(message.rank, stage, microbatch, "send", start_s, end_s, num_bytes))

    def _sent_by_rank(self, message: _Message) -> None:
        rank, now_s = message.rank, self._clock.now_s
        self._record_send(message, self._free_s[rank], now_s)
        self._busy[rank], self._free_s[rank] = False, now_s
        self._sent(message)
        self._go_on(rank)

    def _sent(self, message: _Message) -> None:
        action, _, to_stage, _ = message
        self._release(action)
        if to_stage is not None:
            self._ready[action.kind][to_stage][action.microbatch] = True
            self._go_on(self._rank_of[to_stage])

    def _release(self, action: Action) -> None:
        """Free the place in the link by which the action's input came."""
        if self._work.num_slots is None or action.kind == "W":
            return
        forward = action.kind == "F"
        from_stage = action.stage - 1 if forward else action.stage + 1
        sender = self._rank_of.get(from_stage)
        if sender is not None and sender != self._rank_of[action.stage]:
            self._held[forward][min(action.stage, from_stage)] -= 1
            self._go_on(sender)
