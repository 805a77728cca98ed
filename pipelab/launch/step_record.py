"""What one step did: the moments that ranks noted, and the timeline that follows from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from pipelab.events import Event, Kind, Timeline, ordered
from pipelab.launch.job import Job

Source = Literal["measured", "paced"]

_KINDS: tuple[Kind, ...] = ("wait", "recv", "F", "wait", "send")  # what a micro-batch is to a rank, in order


@dataclass(frozen=True)
class StepRecord:
    """What one step did.

    Attributes:
        job: What ran.
        times_ns: Per rank, on the clock that all share: when it began, then when it had waited, received, computed,
            waited and sent, for each micro-batch.
        peak_memory_bytes: Per rank.
        op_s: Per rank and micro-batch the seconds of each op, if they were measured.
        source: Whether the ranks computed, or waited as long as computing was predicted to take.
    """

    job: Job
    times_ns: tuple[tuple[int, ...], ...]
    peak_memory_bytes: tuple[int, ...]
    op_s: tuple[tuple[tuple[float, ...], ...], ...]
    source: Source = "measured"

    @cached_property
    def timeline(self) -> Timeline:
        """Who did what when, on a clock that begins when the first rank takes its first input.

        Before that the others wait for a step that has not begun.
        """
        num_ranks = self.job.num_ranks
        zero_ns = min(times_ns[1] for times_ns in self.times_ns)
        events = [event for rank in range(num_ranks) for event in self._of_rank(rank, zero_ns)]
        return Timeline(ordered(events), num_ranks, num_ranks, len(self.job.sizes), self.source)

    def _of_rank(self, rank: int, zero_ns: int) -> Iterator[Event]:
        moved = {
            size: {
                "recv": sum(spec.num_bytes for spec in table.inputs),
                "send": sum(s.num_bytes for s in table.outputs),
            }
            for size, table in self.job.tables[rank].items()
        }
        kinds = [(microbatch, kind) for microbatch in range(len(self.job.sizes)) for kind in _KINDS]
        for (microbatch, kind), (start_ns, end_ns) in zip(kinds, pairwise(self.times_ns[rank]), strict=True):
            start_s, end_s = max(start_ns - zero_ns, 0) * 1e-9, (end_ns - zero_ns) * 1e-9
            if end_s > start_s:
                num_bytes = moved[self.job.sizes[microbatch]].get(kind, 0)
                yield Event(rank, rank, microbatch, kind, start_s, end_s, num_bytes)
