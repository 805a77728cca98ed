"""The exact min-max split of a chain: can a bound be kept, and which is the least that can.

The sweep carries the *set* of candidates each stage can end at. The farthest alone would be wrong: a stage that starts
later may have more to receive.
"""

from dataclasses import dataclass

import numpy as np

from pipelab.chain import Chain
from pipelab.graph import IntArray
from pipelab.windows import FloatArray

_CLOSE = 1e-9


@dataclass(frozen=True, eq=False)
class Optimum:
    """The least bottleneck of a chain, a split that has it, and the proof.

    Attributes:
        cuts: The split, by candidate.
        cost: Its bottleneck.
        refused: A bound just below that no split keeps.
        reached: Per stage, all candidates it can end at within the refused bound; up to the first that has none.
    """

    cuts: tuple[int, ...]
    cost: float
    refused: float
    reached: tuple[IntArray, ...]


def minimise(chain: Chain) -> Optimum | None:
    """The split with the least bottleneck; None if limits and pins admit none."""
    found = _first_kept(chain)
    if found is None:
        return None
    low, high, cuts = found
    raised = False
    while high - low > _CLOSE * high:
        # Sizes take few values: once a bound in between was refused, the split at hand may well be the best.
        bound = high - chain.margin(high) if raised and chain.measure is not None else (low + high) / 2
        raised = False
        reached = reachable(chain, bound)
        if is_kept(chain, reached):
            cuts = split_within(chain, reached, bound)
            high = min(chain.bottleneck(cuts), bound)
        else:
            low, raised = bound, True
    while True:
        cost = chain.bottleneck(cuts)
        refused = cost - chain.margin(cost) if cost > 0 else -1.0
        reached = reachable(chain, refused, prune=False)
        if not is_kept(chain, reached):
            return Optimum(cuts, cost, refused, tuple(reached))
        cuts = split_within(chain, reached, refused)


def _first_kept(chain: Chain) -> tuple[float, float, tuple[int, ...]] | None:
    """A bound that cannot be kept, one that can, and a split that keeps it; None if there is no split at all."""
    if chain.num_segments < chain.num_stages:
        return None
    low, step, most = 0.0, 0.02, chain.upper_bound
    bound = chain.lower_bound
    while True:
        reached = reachable(chain, bound)
        if is_kept(chain, reached):
            cuts = split_within(chain, reached, bound)
            return low, chain.bottleneck(cuts), cuts
        if bound >= most:
            return None
        low, bound, step = bound, min(bound * (1 + step) or most, most), 2 * step


def is_kept(chain: Chain, reached: list[IntArray]) -> bool:
    """Whether a sweep came to the end of the chain with the last stage."""
    return len(reached) == chain.num_stages and int(reached[-1][-1]) == chain.num_segments


def reachable(chain: Chain, bound: float, *, prune: bool = True) -> list[IntArray]:
    """The candidates each stage can end at if none costs more than a bound.

    Args:
        chain: The chain.
        bound: The bound.
        prune: Leave out ends from which the stages after it cannot finish.

    Returns:
        Per stage its ends, ascending; up to the first stage that has none.
    """
    ends = np.zeros(1, dtype=np.int64)
    reached: list[IntArray] = []
    for stage in range(chain.num_stages):
        least, most = _range(chain, stage, bound) if prune else (1, chain.num_segments)
        ends = _step(chain, stage, ends, bound, least, most)
        if not len(ends):
            break
        reached.append(ends)
    return reached


def _range(chain: Chain, stage: int, bound: float) -> tuple[int, int]:
    """Ends of a stage that leave a segment for each stage after it, and no more work than those can do."""
    left = chain.num_stages - 1 - stage
    if not left:
        return chain.num_segments, chain.num_segments
    base, able = chain.pace
    behind = float(base[-1]) - (bound + chain.slack) * able[stage + 1]
    least = int(np.searchsorted(base, behind)) if behind > 0 else 0
    return max(stage + 1, least), chain.num_segments - left


def _step(chain: Chain, stage: int, starts: IntArray, bound: float, least: int, most: int) -> IntArray:
    """The ends in least..most that one stage reaches from a set of starts within a bound."""
    of = chain.stages[stage]
    starts = starts[starts < most]
    if of.overlap:
        starts = starts[of.receive[starts] <= bound]
    if not len(starts):
        return starts
    first = int(starts[0])
    farthest = of.work[starts[-1]] + (bound - of.fixed + chain.slack)
    most = min(most, int(np.searchsorted(of.work, farthest, side="right")) - 1)
    least = max(least, first + 1)
    if least > most:
        return starts[:0]
    starts, stops = starts[starts < most], slice(least, most + 1)
    lows, send = chain.lows(stage, bound)[stops], of.send[stops]
    needed = of.work[stops] + (of.fixed - bound) + (0.0 if of.overlap else send)
    if of.latest_is_best:
        latest = np.zeros(most - first, dtype=np.int64)
        latest[starts - first] = starts
        start = np.maximum.accumulate(latest)[least - 1 - first :]
        reached = (start >= lows) & (of.work[start] >= needed)
    else:
        keys = np.full(most - first, -np.inf)
        keys[starts - first] = of.work[starts] - of.receive[starts]
        reached = _largest(keys, lows - first, least - first) >= needed
    if of.overlap:
        reached &= send <= bound
    ends: IntArray = np.flatnonzero(reached) + least
    return ends


def _largest(keys: FloatArray, lows: IntArray, least: int) -> FloatArray:
    """For each stop from `least` on, the largest key from its low up to before it."""
    if lows[-1] <= 0:
        return np.maximum.accumulate(keys)[least - 1 :]
    return window_max(keys, np.maximum(lows, 0), np.arange(least, len(keys) + 1))


def split_within(chain: Chain, reached: list[IntArray], bound: float) -> tuple[int, ...]:
    """A split within a bound, from the sets of a sweep that came to the end."""
    stop, cuts = chain.num_segments, []
    for stage in range(chain.num_stages - 1, 0, -1):
        starts = reached[stage - 1]
        starts = starts[(starts >= chain.lows(stage, bound)[stop]) & (starts < stop)]
        costs = chain.stages[stage].between(starts, np.array(stop))
        stop = int(starts[len(starts) - 1 - int(np.argmin(costs[::-1]))])  # the latest of the cheapest
        cuts.append(stop)
    return tuple(reversed(cuts))


def window_max(values: FloatArray, starts: IntArray, stops: IntArray) -> FloatArray:
    """Largest of `values[start:stop]` per pair; minus infinity for an empty one."""
    widths = stops - starts
    levels = np.frexp(np.maximum(widths, 1))[1] - 1  # the largest power of two that is no wider
    table = [values]
    for level in range(int(levels.max(initial=0))):
        half = 1 << level
        wide = table[-1].copy()
        np.maximum(wide[:-half], table[-1][half:], out=wide[:-half])
        table.append(wide)
    stacked = np.array(table)
    left = stacked[levels, np.minimum(starts, len(values) - 1)]
    right = stacked[levels, np.maximum(stops - (1 << levels), 0)]
    return np.where(widths > 0, np.maximum(left, right), -np.inf)
