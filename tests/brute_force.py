"""Random chains, and their best split by trying everything: what the planner is held against.

Every figure here is summed op by op from the raw lists, so that nothing is shared with the planner's arrays.
"""

import math
from dataclasses import dataclass
from itertools import combinations, pairwise
from random import Random

import numpy as np

from pipelab.chain import Chain, StageCosts
from pipelab.windows import Window


@dataclass(frozen=True)
class Case:
    """A small problem, as plain lists."""

    positions: tuple[int, ...]  # op positions of the candidates, both ends included
    op_s: tuple[tuple[float, ...], ...]  # per stage, per op
    receive: tuple[tuple[float, ...], ...]  # per stage, per op position
    send: tuple[tuple[float, ...], ...]
    fixed: tuple[float, ...]
    overlap: tuple[bool, ...]
    limit: tuple[float, ...]
    held: tuple[float, ...]
    uses: tuple[tuple[tuple[int, ...], int], ...]  # the ops that use a weight, its size
    peaks: tuple[float, ...]
    cut_bytes: tuple[int, ...]  # per op position
    pins: tuple[int, ...]  # candidates
    by_size: bool  # the size of a stage is its cost

    @property
    def num_stages(self) -> int:
        return len(self.op_s)

    @property
    def num_segments(self) -> int:
        return len(self.positions) - 1

    def size(self, first: int, last: int) -> float:
        """What ops first..last hold."""
        weights = sum(size for ops, size in self.uses if any(first <= op < last for op in ops))
        return weights + max(self.peaks[first:last])

    def cost(self, stage: int, start: int, stop: int) -> float:
        """What a stage between two candidates costs; infinite where it may not be."""
        if start >= stop or any(start < pin < stop for pin in self.pins):
            return math.inf
        first, last = self.positions[start], self.positions[stop]
        size = self.size(first, last) + self.held[stage]
        if size > self.limit[stage]:
            return math.inf
        if self.by_size:
            return size
        work = sum(self.op_s[stage][first:last]) + self.fixed[stage]
        receive, send = self.receive[stage][first], self.send[stage][last]
        return max(receive, work, send) if self.overlap[stage] else receive + work + send

    def bottleneck(self, cuts: tuple[int, ...]) -> float:
        """What the dearest stage of a split costs."""
        return max(self.cost(k, a, b) for k, (a, b) in enumerate(pairwise((0, *cuts, self.num_segments))))

    def bytes_of(self, cuts: tuple[int, ...]) -> int:
        """Bytes on the wire."""
        return sum(self.cut_bytes[self.positions[cut]] for cut in cuts)

    def splits(self) -> list[tuple[int, ...]]:
        """Every split there is."""
        return list(combinations(range(1, self.num_segments), self.num_stages - 1))

    def best(self) -> float:
        """The least bottleneck, stage by stage over all starts and stops; infinite if there is no split."""
        reach = [0.0] + [math.inf] * self.num_segments
        for stage in range(self.num_stages):
            reach = [
                min((max(reach[start], self.cost(stage, start, stop)) for start in range(stop)), default=math.inf)
                for stop in range(self.num_segments + 1)
            ]
        return reach[-1]

    def chain(self) -> Chain:
        """The same as the planner takes it."""
        at = list(self.positions)
        window = Window(at, self.uses, self.peaks)
        nothing = np.zeros(len(at))
        stages = tuple(
            StageCosts(
                work=nothing if self.by_size else np.concatenate([[0.0], np.cumsum(self.op_s[k])])[at],
                receive=nothing if self.by_size else np.array(self.receive[k])[at],
                send=nothing if self.by_size else np.array(self.send[k])[at],
                fixed=self.held[k] if self.by_size else self.fixed[k],
                overlap=self.overlap[k],
                limit=self.limit[k],
                held=self.held[k],
            )
            for k in range(self.num_stages)
        )
        return Chain(stages, (window,), window if self.by_size else None, self.pins)


def random_case(seed: int) -> Case:
    """A problem with any mixture of traps: limits, ties, peaks, pins, unlike devices and links, ops without time."""
    rng = Random(seed)
    num_ops = rng.randint(2, 14)
    inner = sorted(rng.sample(range(1, num_ops), rng.randint(1, num_ops - 1)))
    num_stages = rng.randint(1, min(5, len(inner) + 1 + (rng.random() < 0.05)))
    positions = (0, *inner, num_ops)
    whole = rng.random() < 0.5  # whole numbers make ties, and are added without rounding

    def number(most: float) -> float:
        return float(rng.randint(0, int(most))) if whole else rng.uniform(0, most)

    op_s = [number(6) if rng.random() < 0.7 else 0.0 for _ in range(num_ops)]
    unlike, odd = rng.random() < 0.4, rng.random() < 0.2
    speeds = [rng.choice((1.0, 1.0, 2.0, 0.5)) if unlike else 1.0 for _ in range(num_stages)]
    times = [tuple(op_s if not odd else (number(6) for _ in op_s)) for _ in range(num_stages)]
    crossing = [rng.choice((1, 2, 5, 9)) for _ in range(num_ops + 1)]
    crossing[0] = crossing[-1] = 0
    links = [rng.choice((0.0, 0.3, 1.0)) if rng.random() < 0.5 else 0.5 for _ in range(num_stages + 1)]
    uses = tuple(
        (tuple(sorted(rng.sample(range(num_ops), rng.randint(1, min(3, num_ops))))), rng.randint(0, 9))
        for _ in range(rng.randint(0, num_ops))
    )
    peaks = tuple(float(rng.randint(0, 6)) if rng.random() < 0.6 else 0.0 for _ in range(num_ops))
    total = sum(size for _, size in uses) + max(peaks)
    limited, alike = rng.random() < 0.5, rng.random() < 0.5
    limit = [rng.uniform(0.4, 1.2) * total if limited else math.inf for _ in range(num_stages)]
    mixed = rng.random()
    return Case(
        positions=positions,
        op_s=tuple(tuple(second / speed for second in row) for row, speed in zip(times, speeds, strict=True)),
        receive=tuple(tuple(links[k] * size for size in crossing) for k in range(num_stages)),
        send=tuple(tuple(links[k + 1] * size for size in crossing) for k in range(num_stages)),
        fixed=tuple(rng.choice((0.0, 0.0, 1.0)) for _ in range(num_stages)),
        overlap=tuple(mixed < 0.4 or (mixed < 0.6 and rng.random() < 0.5) for _ in range(num_stages)),
        limit=tuple(limit[:1] * num_stages if alike else limit),
        held=tuple(float(rng.choice((0, 0, 1, 2))) for _ in range(num_stages)),
        uses=uses,
        peaks=peaks,
        cut_bytes=tuple(crossing),
        pins=tuple(sorted(rng.sample(range(1, len(positions) - 1), min(rng.randint(0, 2), len(positions) - 2))))
        if rng.random() < 0.3
        else (),
        by_size=rng.random() < 0.25,
    )
