"""A few shared integers: how far each rank is, and whether to stop.

A wait ends when a process is dead, or when none of these numbers has moved for long; a long step is no error.
"""

from pipelab.launch.memory import Segment

MOST_RANKS = 256
WAITING = -1
_STOP = 0
_FIRST = 1
_PER_RANK = 3
NUM_BYTES = 8 * (_FIRST + _PER_RANK * MOST_RANKS)


class Progress:
    """The integers, over a segment that controller and ranks map.

    Args:
        segment: At least `NUM_BYTES` of it.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._numbers = segment.integers()

    def request_stop(self, step: int) -> None:
        """Ask the ranks to leave this step."""
        self._numbers[_STOP] = step

    def is_stopped(self, step: int) -> bool:
        """Whether this step is to be left."""
        return bool(self._numbers[_STOP] == step)

    def set_op(self, rank: int, index: int) -> None:
        """The op the rank runs, by its row; `WAITING` while it runs none."""
        self._numbers[_FIRST + _PER_RANK * rank] += 1
        self._numbers[_FIRST + _PER_RANK * rank + 2] = index

    def op(self, rank: int) -> int:
        """The op the rank runs, or `WAITING`."""
        return self._numbers[_FIRST + _PER_RANK * rank + 2]

    def set_cpu_ns(self, rank: int, nanoseconds: int) -> None:
        """Processor time the rank has used: one long op moves this, though no counter of ops."""
        self._numbers[_FIRST + _PER_RANK * rank + 1] = nanoseconds

    def snapshot(self, num_ranks: int) -> tuple[int, ...]:
        """All numbers of the ranks; unchanged means that nothing moved."""
        return tuple(self._numbers[_FIRST : _FIRST + _PER_RANK * num_ranks])
