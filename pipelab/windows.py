"""What all ops between two cuts hold together: distinct weights and caches, and the largest peak among them.

This is not a sum over ops: a weight that two ops read counts once while both lie in one stage.
"""

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from pipelab.graph import IntArray

FloatArray = npt.NDArray[np.float64]


class Window:
    """Sizes of the stages between candidate cuts, in bytes or elements.

    Candidates are numbered 0..n; 0 is the first op and n the end of the last. Segment s lies between candidates s
    and s + 1, and a stage is a run of segments.
    """

    def __init__(
        self,
        positions: Sequence[int],
        uses: Iterable[tuple[Sequence[int], int]],
        peaks: npt.ArrayLike | None = None,
    ) -> None:
        """Sort the uses into segments.

        Args:
            positions: Op position of every candidate, ascending, both ends included.
            uses: Per thing that is held: the ops that use it, ascending, and its size.
            peaks: Per op, what is held only while it runs; the stage holds the largest.
        """
        self.num_segments = len(positions) - 1
        listed = list(uses)
        ops = np.array([op for used, _ in listed for op in used], dtype=np.int64)
        things = np.repeat(np.arange(len(listed)), [len(used) for used, _ in listed])
        segments = np.searchsorted(positions, ops, side="right") - 1
        things, segments = np.unique(np.stack([things, segments]), axis=1)
        same = things[1:] == things[:-1]
        before, after = np.full(len(segments), -1), np.full(len(segments), self.num_segments)
        before[1:][same], after[:-1][same] = segments[:-1][same], segments[1:][same]
        order = np.argsort(segments, kind="stable")
        size = np.array([size for _, size in listed], dtype=np.int64)[things]
        self._before, self._after, self._size = before[order], after[order], size[order]
        self._first = np.searchsorted(segments[order], np.arange(self.num_segments + 1)).astype(np.int64)
        self._peaks = (
            np.zeros(self.num_segments)
            if peaks is None
            else np.maximum.reduceat(np.asarray(peaks, dtype=float), list(positions[:-1]))
        )
        self._lows: dict[float, IntArray] = {}

    def size(self, start: int, stop: int) -> float:
        """What the stage between two candidates holds."""
        uses = slice(self._first[start], self._first[stop])
        held = int(self._size[uses][self._before[uses] < start].sum())
        return held + float(self._peaks[start:stop].max(initial=0.0))

    def sizes_from(self, start: int) -> FloatArray:
        """What the stages from one candidate to each candidate after it hold: shape (n - start,)."""
        first = self._first[start]
        new = np.where(self._before[first:] < start, self._size[first:], 0)
        held = np.concatenate([[0], np.cumsum(new)])[self._first[start + 1 :] - first]
        sizes: FloatArray = held + np.maximum.accumulate(self._peaks[start:])
        return sizes

    def sizes(self, starts: IntArray, stops: IntArray) -> FloatArray:
        """What the stages between every start and stop hold, 0 where there are none: shape (starts, stops)."""
        table = np.zeros((len(starts), self.num_segments + 1))
        for row, start in zip(table, starts.tolist(), strict=True):
            row[start + 1 :] = self.sizes_from(start)
        return table[:, stops]

    def largest_segment(self) -> float:
        """The size of the largest single segment: no stage holds less that runs it."""
        return max(self.size(start, start + 1) for start in range(self.num_segments))

    def lows(self, limit: float) -> IntArray:
        """Per candidate, the first one from which a stage that ends here stays within a limit: shape (n + 1,).

        A candidate is its own where not even the last segment before it does.
        """
        if limit not in self._lows:
            self._lows[limit] = self._two_pointers(limit)
        return self._lows[limit]

    def _two_pointers(self, limit: float) -> IntArray:
        lows = np.zeros(self.num_segments + 1, dtype=np.int64)
        before, after, sizes, first = (array.tolist() for array in (self._before, self._after, self._size, self._first))
        peaks = self._peaks.tolist()
        falling: deque[int] = deque()  # segments of the window whose peaks no later one reaches; the first is largest
        start = held = 0
        for segment in range(self.num_segments):
            for use in range(first[segment], first[segment + 1]):
                if before[use] < start:
                    held += sizes[use]
            while falling and peaks[falling[-1]] <= peaks[segment]:
                falling.pop()
            falling.append(segment)
            while start <= segment and held + peaks[falling[0]] > limit:
                for use in range(first[start], first[start + 1]):
                    if after[use] > segment:
                        held -= sizes[use]
                if falling[0] == start:
                    falling.popleft()
                start += 1
            lows[segment + 1] = start
        return lows
