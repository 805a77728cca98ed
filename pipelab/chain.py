"""A model as a chain to be cut into stages: arrays alone, one entry per candidate cut.

Candidates are numbered 0..n, both ends included; segments lie between them. Stage k of K runs segments a..b and costs
`receive + work + send` where its rank does one after the other, the longest of the three where transfers run beside
the work, or, for sizes, what it holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelab.graph import IntArray
from pipelab.windows import FloatArray, Window


@dataclass(frozen=True, eq=False)
class StageCosts:
    """What one stage costs, by candidate.

    Attributes:
        work: Work of all segments before each candidate.
        receive: What a stage pays that starts at the candidate.
        send: What a stage pays that ends there.
        fixed: What the stage costs besides its segments.
        overlap: Whether receiving and sending run beside the work.
        limit: Bytes the stage may hold at most.
        held: Bytes of that which are taken before the model is loaded.
    """

    work: FloatArray
    receive: FloatArray
    send: FloatArray
    fixed: float = 0.0
    overlap: bool = False
    limit: float = float("inf")
    held: float = 0.0

    def between(self, starts: IntArray, stops: IntArray) -> FloatArray:
        """What work and transfers cost from starts to stops, entry by entry."""
        work = self.work[stops] - self.work[starts] + self.fixed
        receive, send = self.receive[starts], self.send[stops]
        return np.maximum(np.maximum(work, receive), send) if self.overlap else receive + work + send

    @cached_property
    def latest_is_best(self) -> bool:
        """Whether a stage that starts later never costs more, as far as its work goes."""
        return self.overlap or not self.receive.any()


@dataclass(frozen=True, eq=False)
class Chain:
    """A row of segments, and what a stage made of them costs.

    Attributes:
        stages: Costs per stage.
        windows: What stages hold in bytes; each stage keeps its limit in every one.
        measure: The size that is the cost, where a size is minimised and there is no work; None where work is.
        pins: Candidates that must be cuts.
    """

    stages: tuple[StageCosts, ...]
    windows: tuple[Window, ...] = ()
    measure: Window | None = None
    pins: tuple[int, ...] = ()

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.stages)

    @property
    def num_segments(self) -> int:
        """Number of segments; there is one candidate more."""
        return len(self.stages[0].work) - 1

    # --- what a stage costs -------------------------------------------------------------------------

    def tables(self, stage: int, starts: IntArray, stops: IntArray) -> tuple[FloatArray, FloatArray]:
        """Costs of a stage for every start and stop, infinite where it may not be: shape (starts, stops).

        Beside them their shares: what of a cost the stages divide among them, the work or the size.
        """
        of = self.stages[stage]
        if self.measure is None:
            shares = of.work[stops][None, :] - of.work[starts][:, None]
            costs = of.between(starts[:, None], stops[None, :])
        else:
            shares = self.measure.sizes(starts, stops)
            costs = shares + of.fixed
        costs[self.limits(stage)[stops][None, :] > starts[:, None]] = np.inf
        costs[starts[:, None] >= stops[None, :]] = np.inf
        return costs, shares

    def cost(self, stage: int, start: int, stop: int) -> float:
        """Cost of one stage between two candidates; infinite where it may not be."""
        of = self.stages[stage]
        if start >= stop or self.limits(stage)[stop] > start:
            return float("inf")
        if self.measure is not None:
            return self.measure.size(start, stop) + of.fixed
        return float(of.between(np.array(start), np.array(stop)))

    def alone(self, stage: int) -> FloatArray:
        """Costs of a stage made of a single segment, for each; transfers left out: shape (n,)."""
        of = self.stages[stage]
        return (np.diff(of.work) if self.measure is None else self.measure.segments()) + of.fixed

    def bottleneck(self, cuts: Sequence[int]) -> float:
        """Cost of the dearest stage of a split."""
        edges = [0, *cuts, self.num_segments]
        return max(self.cost(k, edges[k], edges[k + 1]) for k in range(self.num_stages))

    # --- where a stage may start --------------------------------------------------------------------

    @cached_property
    def _kept(self) -> dict[int, IntArray]:
        return {}

    def limits(self, stage: int) -> IntArray:
        """Per candidate, where a stage that ends there may start at the earliest: memory and pins say."""
        if stage not in self._kept:
            pins = np.array([0, *sorted(self.pins)])
            lows = pins[np.maximum(np.searchsorted(pins, np.arange(self.num_segments + 1)) - 1, 0)]
            of = self.stages[stage]
            if np.isfinite(of.limit):
                for window in self.windows:
                    lows = np.maximum(lows, window.lows(of.limit - of.held))
            self._kept[stage] = lows
        return self._kept[stage]

    def lows(self, stage: int, bound: float) -> IntArray:
        """The same if the stage must cost no more than a bound, as far as its size is the cost."""
        limits = self.limits(stage)
        if self.measure is None:
            return limits
        return np.maximum(limits, self.measure.lows(bound - self.stages[stage].fixed))

    # --- bounds -------------------------------------------------------------------------------------

    @cached_property
    def unlike(self) -> tuple[int, ...]:
        """A stage of every kind."""
        return tuple({id(of): stage for stage, of in enumerate(self.stages)}.values())

    @cached_property
    def pace(self) -> tuple[FloatArray, tuple[float, ...]]:
        """The first stage's work, and how much of it all stages from k on can do per unit of cost, at best."""
        base = self.stages[0].work
        steps = np.diff(base)
        some = steps > 0
        able = [0.0]
        for of in reversed(self.stages):
            slowest = float((np.diff(of.work)[some] / steps[some]).min(initial=np.inf))
            able.append(able[-1] + (1 / slowest if slowest else float("inf")))
        return base, tuple(reversed(able))

    @cached_property
    def slack(self) -> float:
        """More than the rounding error of a difference of prefix sums."""
        return 1e-14 * max(float(of.work[-1]) for of in self.stages)

    def margin(self, cost: float) -> float:
        """Costs that differ by less are the same: more than rounding, less than anybody measures."""
        return max(1e-12 * cost, 4 * self.slack)

    @cached_property
    def lower_bound(self) -> float:
        """No split costs less: all work shared out evenly, or the largest segment alone."""
        base, able = self.pace
        shared = float(base[-1]) / able[0] if able[0] else 0.0
        if self.measure is not None:
            shared = self.measure.distinct / self.num_stages + min(of.fixed for of in self.stages)
        single = float(np.min([self.alone(stage) for stage in self.unlike], axis=0).max())
        return max(shared, single)

    @cached_property
    def upper_bound(self) -> float:
        """No split costs more, by far more than rounding."""
        work = max(float(of.work[-1] + of.fixed + of.receive.max() + of.send.max()) for of in self.stages)
        if self.measure is None:
            return 1.001 * work
        return 1.001 * max(work, self.measure.size(0, self.num_segments) + max(of.fixed for of in self.stages))
