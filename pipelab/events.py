"""What ranks did and when: one record for what was simulated and what was measured."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

Kind = Literal["F", "B", "I", "W", "send", "recv", "wait"]
COMPUTE: frozenset[str] = frozenset({"F", "B", "I", "W"})


@dataclass(frozen=True, slots=True)
class Event:
    """One thing one rank did.

    Attributes:
        rank: The process.
        stage: The stage it worked for.
        microbatch: Which micro-batch, from 0.
        kind: "F" forward, "B" backward, "I" / "W" its input / weight part, "send", "recv", or "wait".
        start_s: Start on the timeline's one clock; the first event of a step starts at about 0.
        end_s: End on that clock.
        num_bytes: Bytes moved by a send or a receive.

    Example:
        >>> event = pipelab.Event(rank=0, stage=0, microbatch=1, kind="F", start_s=0.5, end_s=1.5)
        >>> event.end_s - event.start_s
        1.0
    """

    rank: int
    stage: int
    microbatch: int
    kind: Kind
    start_s: float
    end_s: float
    num_bytes: int = 0


@dataclass(frozen=True)
class Timeline:
    """One step of a pipeline.

    Attributes:
        events: Everything that happened, by start.
        num_ranks: Number of processes.
        num_stages: Number of stages.
        num_microbatches: Number of micro-batches.
        source: Where it comes from: "measured", or what it was simulated from.

    Example:
        Two equal stages, one micro-batch: each rank is idle half of the time.

        >>> events = tuple(pipelab.Event(s, s, 0, "F", float(s), s + 1.0) for s in (0, 1))
        >>> pipelab.Timeline(events, num_ranks=2, num_stages=2, num_microbatches=1).bubble_fraction
        0.5
    """

    events: tuple[Event, ...]
    num_ranks: int
    num_stages: int
    num_microbatches: int
    source: str = "measured"

    @cached_property
    def makespan_s(self) -> float:
        """From the start of the first event to the end of the last."""
        if not self.events:
            return 0.0
        return max(e.end_s for e in self.events) - min(e.start_s for e in self.events)

    @cached_property
    def rank_busy_s(self) -> tuple[float, ...]:
        """Seconds each rank computed."""
        busy = [0.0] * self.num_ranks
        for event in self.events:
            if event.kind in COMPUTE:
                busy[event.rank] += event.end_s - event.start_s
        return tuple(busy)

    @property
    def busy_s(self) -> float:
        """Seconds computed, summed over all ranks."""
        return sum(self.rank_busy_s)

    @property
    def idle_s(self) -> float:
        """Seconds not computed, summed over all ranks."""
        return self.num_ranks * self.makespan_s - self.busy_s

    @property
    def bubble_fraction(self) -> float:
        """Idle share of all rank time: (p - 1) / (m + p - 1) for p equal stages and m micro-batches."""
        total = self.num_ranks * self.makespan_s
        return self.idle_s / total if total else 0.0

    @property
    def overhead_fraction(self) -> float:
        """Idle time over busy time: (p - 1) / m for p equal stages and m micro-batches."""
        return self.idle_s / self.busy_s if self.busy_s else 0.0

    def __repr__(self) -> str:
        return (
            f"Timeline({self.source}: {self.num_ranks} ranks, {self.num_microbatches} micro-batches, "
            f"{self.makespan_s * 1e3:.2f} ms, idle {self.bubble_fraction:.1%})"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict that `from_json` turns back into an equal timeline."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Timeline":
        """The timeline that `to_json` described."""
        return cls(**{**data, "events": tuple(Event(**event) for event in data["events"])})


def ordered(events: Iterable[Event]) -> tuple[Event, ...]:
    """Events by start, then rank."""
    return tuple(sorted(events, key=lambda event: (event.start_s, event.rank, event.end_s)))
