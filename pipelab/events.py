"""What ranks did and when: one record for what was simulated and what was measured."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipelab.arguments import number
from pipelab.files import damaged, decode, write_json
from pipelab.units import format_percent, plural

Kind = Literal["F", "B", "I", "W", "send", "recv", "wait"]
COMPUTE: frozenset[str] = frozenset({"F", "B", "I", "W"})
_MOST = 1_000_000  # ranks, stages or micro-batches that anybody simulates
_BY_START = attrgetter("start_s", "rank", "end_s")


class Event(NamedTuple):
    """One thing one rank did. A simulation makes thousands of them for each move of a cut, hence a tuple.

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
        rank_bytes: Per rank, bytes it holds all the time; empty where memory was not simulated.
        microbatch_bytes: Per stage, bytes it holds for a micro-batch from its forward to its last action.

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
    rank_bytes: tuple[int, ...] = ()
    microbatch_bytes: tuple[int, ...] = ()

    @cached_property
    def start_s(self) -> float:
        """Start of the first event."""
        return min((event.start_s for event in self.events), default=0.0)

    @cached_property
    def makespan_s(self) -> float:
        """From the start of the first event to the end of the last."""
        return max((event.end_s for event in self.events), default=self.start_s) - self.start_s

    @cached_property
    def has_backward(self) -> bool:
        """Whether it is of training."""
        return any(event.kind in COMPUTE - {"F"} for event in self.events)

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

    @cached_property
    def peak_memory_bytes(self) -> tuple[int, ...]:
        """Per rank, the most memory it holds at once; empty where memory was not simulated."""
        return tuple(
            max(num_bytes for _, num_bytes in self.memory_over_time(rank)) for rank, _ in enumerate(self.rank_bytes)
        )

    def memory_over_time(self, rank: int) -> tuple[tuple[float, int], ...]:
        """The memory of a rank, as steps.

        Returns:
            From when it holds how many bytes, ascending in time; empty where memory was not simulated.
        """
        if not self.rank_bytes:
            return ()
        held: dict[tuple[int, int], tuple[float, float]] = {}
        for event in self.events:
            if event.rank == rank and event.kind in COMPUTE:
                start_s, _ = held.get((event.stage, event.microbatch), (event.start_s, 0.0))
                held[event.stage, event.microbatch] = start_s, event.end_s
        changes = [(start_s, self.microbatch_bytes[stage]) for (stage, _), (start_s, _) in held.items()]
        changes += [(end_s, -self.microbatch_bytes[stage]) for (stage, _), (_, end_s) in held.items()]
        steps = {self.start_s: self.rank_bytes[rank]}
        num_bytes = self.rank_bytes[rank]
        for time_s, change in sorted(changes):  # what ends at a time is gone before what begins at it
            num_bytes += change
            steps[time_s] = num_bytes
        return tuple(steps.items())

    def __repr__(self) -> str:
        return (
            f"Timeline({self.source}: {plural(self.num_ranks, 'rank')}, "
            f"{plural(self.num_microbatches, 'micro-batch')}, "
            f"{self.makespan_s * 1e3:.2f} ms, idle {format_percent(self.bubble_fraction, 1)})"
        )

    def slowed(self, factor: float) -> "Timeline":
        """The same with everything taking this many times as long: a GPU's microseconds at a lecture's pace.

        Raises:
            InputError: The factor is no number, or not above 0.

        Example:
            >>> events = (pipelab.Event(0, 0, 0, "F", 0.0, 2e-6),)
            >>> pipelab.Timeline(events, num_ranks=1, num_stages=1, num_microbatches=1, source="simulated").slowed(1000)
            Timeline(simulated, slowed 1,000 ×: 1 rank, 1 micro-batch, 2.00 ms, idle 0.0...%)
        """
        number(factor, "factor", least=1e-9)
        events = tuple(e._replace(start_s=e.start_s * factor, end_s=e.end_s * factor) for e in self.events)
        return replace(self, events=events, source=f"{self.source}, slowed {factor:,g} ×")

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict that `from_json` turns back into an equal timeline."""
        return {**asdict(replace(self, events=())), "events": [event._asdict() for event in self.events]}

    def to_chrome_trace(self) -> dict[str, Any]:
        """A JSON-ready dict that Perfetto (ui.perfetto.dev) and chrome://tracing open: a process per rank.

        Example:
            >>> events = (pipelab.Event(0, 0, 0, "F", 0.0, 2e-6),)
            >>> trace = pipelab.Timeline(events, num_ranks=1, num_stages=1, num_microbatches=1).to_chrome_trace()
            >>> [(event["name"], event["dur"]) for event in trace["traceEvents"] if event["ph"] == "X"]
            [('0F0', 2.0)]
        """
        from pipelab.chrome_trace import chrome_trace  # it takes timelines

        return chrome_trace(self)

    def save_trace(self, path: str | Path) -> None:
        """Write `to_chrome_trace` as a file, for instance step.trace.json: drop it on ui.perfetto.dev.

        Raises:
            PipelabError: It cannot be written; says why.
        """
        write_json(path, json.dumps(self.to_chrome_trace()), "trace")

    @classmethod
    def from_json(cls, data: Any, *, source: str = "the timeline", path: str = "") -> "Timeline":
        """The timeline that `to_json` described.

        Args:
            data: What `to_json` gave.
            source: What an error names: the file.
            path: Where in it the timeline is.

        Raises:
            PipelabError: It is no timeline, or one that cannot be.
        """
        timeline: Timeline = decode(cls, data, source, path)
        if problem := _problem_of(timeline):
            raise damaged(source, problem)
        return timeline


def _problem_of(timeline: Timeline) -> str:
    """What contradicts itself in a timeline, in words; empty if nothing does."""
    counts = (timeline.num_ranks, timeline.num_stages, timeline.num_microbatches)
    if not all(1 <= count <= _MOST for count in counts):
        return f"its ranks, stages and micro-batches are {counts}"
    for index, event in enumerate(timeline.events):
        if not all(0 <= at < count for at, count in zip(event[:3], counts, strict=True)):
            return f"event {index} is of rank {event.rank}, stage {event.stage}, micro-batch {event.microbatch}"
        if event.end_s < event.start_s or event.num_bytes < 0:
            return f"event {index} ends before it starts, or moves less than nothing"
    if len(timeline.rank_bytes) not in (0, timeline.num_ranks):
        return "its rank_bytes are not one per rank"
    if len(timeline.microbatch_bytes) != (timeline.num_stages if timeline.rank_bytes else 0):
        return "its microbatch_bytes are not one per stage"
    return ""


def ordered(events: Iterable[Event]) -> tuple[Event, ...]:
    """Events by start, then rank."""
    return tuple(sorted(events, key=_BY_START))
