"""What ranks publish while they work, and the flag that stops them: a few integers in shared memory."""

import time
from collections.abc import Callable

from pipelab.launch.memory import Segment

_STOP = 0
_FIRST = 8  # a cache line of its own for what all read
_PER_RANK = 8  # and one for each rank
_PROGRESS, _CPU_NS, _READ_BYTES, _TO_READ_BYTES = range(4)
# A rank's progress is one word that only grows: whole turns, and within a turn 0 outside ops or 1 + the index of
# an op. One word costs one write per op, and op and turn are never read apart.
_TURN = 1 << 20

# A rank that waits wakes a few times a second; one that computes uses much more of a core than this.
_BUSY_SHARE = 0.05


class Stopped(Exception):
    """In a rank: this step is to be given up."""


class Counters:
    """Integers that every rank writes for itself and the kernel reads.

    Args:
        segment: Shared memory of at least `num_bytes(num_ranks)`.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._words = segment.words
        self._turn = 0  # of the rank that this process is

    @staticmethod
    def num_bytes(num_ranks: int) -> int:
        """Bytes for this many ranks."""
        return 8 * (_FIRST + _PER_RANK * num_ranks)

    @property
    def stopped(self) -> bool:
        """Whether the ranks are to stop."""
        return bool(self._words[_STOP])

    def stop(self) -> None:
        """Have every rank give up the step before its next op."""
        self._words[_STOP] = 1

    def resume(self) -> None:
        """Let the next step run."""
        self._words[_STOP] = 0

    def progress(self, rank: int) -> int:
        """A number that grows with every op, and with every other thing a rank tells."""
        return self._words[self._at(rank, _PROGRESS)]

    def current_op(self, rank: int) -> int | None:
        """The op of its stage that a rank is running; None while it waits or moves data."""
        index = self.progress(rank) % _TURN - 1
        return index if index >= 0 else None

    def cpu_s(self, rank: int) -> float:
        """Processor seconds a rank has used, as it last said."""
        return self._words[self._at(rank, _CPU_NS)] * 1e-9

    def enter(self, rank: int, first: int = 0) -> None:
        """The rank begins the first op of its stage, or of the program whose first op has this number."""
        self.leave(rank)
        self._words[self._at(rank, _PROGRESS)] += 1 + first

    def leave(self, rank: int) -> None:
        """The rank has run its stage, or goes on with something that is no op."""
        at = self._at(rank, _PROGRESS)
        self._turn = (self._words[at] // _TURN + 1) * _TURN
        self._words[at] = self._turn

    def go_on(self, rank: int) -> None:
        """The rank waits for nothing but time: tells that it moves, and raises `Stopped` once the flag is up."""
        self.enter(rank)
        if self.stopped:
            raise Stopped

    def begin_reading(self, rank: int, num_bytes: int) -> None:
        """The rank is about to read so many bytes of files."""
        self._words[self._at(rank, _TO_READ_BYTES)] = num_bytes

    def count_read(self, rank: int, num_bytes: int) -> None:
        """The rank has read so many more; raises `Stopped` once the flag is up."""
        self._words[self._at(rank, _READ_BYTES)] += num_bytes
        self.leave(rank)
        if self.stopped:
            raise Stopped

    def read_bytes(self, rank: int) -> tuple[int, int]:
        """Bytes that a rank has read of files, and all that it is to read."""
        return self._words[self._at(rank, _READ_BYTES)], self._words[self._at(rank, _TO_READ_BYTES)]

    def publish_cpu(self, rank: int) -> None:
        """The rank says how much processor time it has used."""
        self._words[self._at(rank, _CPU_NS)] = time.process_time_ns()

    def on_op(self, rank: int, first: int = 0) -> Callable[[int], None]:
        """What the rank calls after every op: tells of it, and raises `Stopped` once the flag is up.

        Args:
            rank: Which one it is.
            first: The number of its program's first op, if it holds several.
        """
        words, at, following = self._words, self._at(rank, _PROGRESS), first + 2

        def count(index: int) -> None:
            words[at] = self._turn + index + following
            if words[_STOP]:
                raise Stopped

        return count

    @staticmethod
    def _at(rank: int, field: int) -> int:
        return _FIRST + _PER_RANK * rank + field


class Stall:
    """Tells a long step from one that hangs: in the latter no op ends and no rank computes.

    Args:
        counters: What the ranks publish.
        num_ranks: How many there are.
        now_s: The time.
    """

    def __init__(self, counters: Counters, num_ranks: int, now_s: float) -> None:
        self._counters = counters
        self._ranks = range(num_ranks)
        self._mark(now_s)

    def duration_s(self, now_s: float) -> float:
        """Seconds without any progress."""
        elapsed_s = now_s - self._since_s
        busy_s = max(self._counters.cpu_s(rank) - cpu_s for rank, cpu_s in zip(self._ranks, self._cpu_s, strict=True))
        if self._done() != self._ops or busy_s > max(_BUSY_SHARE * elapsed_s, 0.01):
            self._mark(now_s)
            return 0.0
        return elapsed_s

    def _mark(self, now_s: float) -> None:
        self._since_s = now_s
        self._ops = self._done()
        self._cpu_s = [self._counters.cpu_s(rank) for rank in self._ranks]

    def _done(self) -> list[int]:
        return [self._counters.progress(rank) for rank in self._ranks]
