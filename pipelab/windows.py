"""What all ops between two cuts hold together: distinct weights and caches, and the largest peak among them.

This is not a sum over ops: a weight that two ops read counts once while both lie in one stage.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipelab.graph import IntArray

FloatArray = npt.NDArray[np.float64]
Pairs = list[list[tuple[int, int]]]


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

    def sizes(self, starts: IntArray, stops: IntArray) -> FloatArray:
        """What the stages between every start and stop hold, 0 where there are none: shape (starts, stops)."""
        edges = np.flatnonzero(np.bincount(np.concatenate([starts, stops])))  # np.unique would hash them
        uses = slice(self._first[edges[0]], self._first[edges[-1]])
        new = np.where(self._before[uses] < starts[:, None], self._size[uses], 0)
        held = np.zeros((len(starts), new.shape[1] + 1))
        np.cumsum(new, axis=1, out=held[:, 1:])
        first = self._first - self._first[edges[0]]
        table: FloatArray = held[:, first[stops]] - np.take_along_axis(held, first[starts][:, None], axis=1)
        rows, columns = np.searchsorted(edges, starts), np.searchsorted(edges, stops)
        peaks = np.maximum.reduceat(np.append(self._peaks, 0.0), edges)
        inside = np.where(np.arange(len(edges)) >= rows[:, None], peaks, 0.0)
        table += np.maximum.accumulate(inside, axis=1)[:, np.maximum(columns - 1, 0)]
        table[columns <= rows[:, None]] = 0.0
        return table

    @property
    def distinct(self) -> int:
        """All that is held, each thing once; peaks left out."""
        return int(self._size[self._before < 0].sum())

    def segments(self) -> FloatArray:
        """What each segment alone holds: shape (n,)."""
        at = np.repeat(np.arange(self.num_segments), np.diff(self._first))
        held = np.bincount(at, weights=self._size.astype(float), minlength=self.num_segments)
        return np.add(held, self._peaks, dtype=float)

    def lows(self, limit: float) -> IntArray:
        """Per candidate, the first one from which a stage that ends here stays within a limit: shape (n + 1,).

        A candidate is its own where not even the last segment before it does.
        """
        if limit not in self._lows:
            self._lows[limit] = self._two_pointers(limit)
        return self._lows[limit]

    def _two_pointers(self, limit: float) -> IntArray:
        """Both ends of the window move to the right, over the segments that hold something."""
        if limit < 0:
            return np.arange(self.num_segments + 1)
        if self.size(0, self.num_segments) <= limit:
            return np.zeros(self.num_segments + 1, dtype=np.int64)
        busy, (segments, entering, leaving, peaks) = self._busy
        begins = [0] * (len(segments) + 1)
        falling: deque[int] = deque()  # of the window, those whose peaks no later one reaches; the first is largest
        start = held = 0
        for index, (segment, uses, peak) in enumerate(zip(segments, entering, peaks, strict=True)):
            opened = segments[start]
            for before, size in uses:
                if before < opened:
                    held += size
            while falling and peaks[falling[-1]] <= peak:
                falling.pop()
            falling.append(index)
            while start <= index and held + peaks[falling[0]] > limit:
                for after, size in leaving[start]:
                    if after > segment:
                        held -= size
                if falling[0] == start:
                    falling.popleft()
                start += 1
            begins[index + 1] = start
        after_busy = np.concatenate([[0], busy + 1])  # a stage may start right after the last one it cannot hold
        lows: IntArray = after_busy[begins][np.searchsorted(busy, np.arange(self.num_segments + 1))]
        return lows

    @cached_property
    def _busy(self) -> tuple[IntArray, tuple[list[int], Pairs, Pairs, list[float]]]:
        """The segments that hold something, and per segment: its uses as they enter a window and leave it, its peak."""
        busy = np.flatnonzero((np.diff(self._first) > 0) | (self._peaks > 0))
        before, after, sizes, first = (array.tolist() for array in (self._before, self._after, self._size, self._first))
        of = [range(first[segment], first[segment + 1]) for segment in busy]
        entering = [[(before[use], sizes[use]) for use in uses] for uses in of]
        leaving = [[(after[use], sizes[use]) for use in uses] for uses in of]
        return busy, (busy.tolist(), entering, leaving, self._peaks[busy].tolist())
