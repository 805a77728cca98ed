"""Among the splits within a bound, the one with the fewest bytes on the wire, and of those the most even one."""

from collections.abc import Callable, Sequence

import numpy as np

from pipelab.graph import IntArray
from pipelab.windows import FloatArray

CostsOf = Callable[[int, IntArray, IntArray], FloatArray]
_FIRST_TRY = 256


def fewest_bytes(
    costs: CostsOf, ends: Sequence[IntArray], num_bytes: IntArray, bound: float, cuts: tuple[int, ...]
) -> tuple[int, ...]:
    """The split within a bound with the fewest bytes; exact, though it first tries the narrowest candidates alone.

    Args:
        costs: Costs of a stage for every start and stop: shape (starts, stops).
        ends: Per stage, the candidates it may end at.
        num_bytes: Bytes on the wire at each candidate, 0 at both ends.
        bound: What no stage may exceed.
        cuts: A split within the bound.
    """
    if not cuts:
        return cuts
    inner = np.unique(np.concatenate([*ends[:-1], np.array(cuts)]))
    others = (len(cuts) - 1) * int(num_bytes[inner].min())  # what the other cuts take at least
    inner = inner[num_bytes[inner] <= int(num_bytes[list(cuts)].sum()) - others]
    scattered = inner * 2654435761 % 2**32  # so that a first try finds candidates everywhere
    inner = inner[np.lexsort((scattered, num_bytes[inner]))]
    count = _FIRST_TRY
    while True:
        kept = np.sort(inner[:count])
        sets = [np.union1d(np.intersect1d(of, kept), [cut]) for of, cut in zip(ends[:-1], cuts, strict=True)]
        found = _cheapest(costs, [*sets, np.array([len(num_bytes) - 1])], num_bytes, bound)
        if count >= len(inner) or num_bytes[list(found)].sum() <= num_bytes[inner[count]] + others:
            return found
        count *= 2


def _cheapest(costs: CostsOf, ends: Sequence[IntArray], num_bytes: IntArray, bound: float) -> tuple[int, ...]:
    """Stage by stage: the fewest bytes up to each end, then the least sum of squared costs."""
    starts, totals = np.zeros(1, dtype=np.int64), np.zeros(1)
    origins: list[IntArray] = []
    for stage, stops in enumerate(ends):
        cost = costs(stage, starts, stops)
        # The squares of all stages together stay below one byte.
        steps = num_bytes[stops] * (len(ends) + 1.0) + (cost / (bound or 1.0)) ** 2
        sums = np.where(cost <= bound, totals[:, None] + steps, np.inf)
        origins.append(np.argmin(sums, axis=0))
        starts, totals = stops, sums.min(axis=0)
    index, cuts = 0, []
    for stage in range(len(ends) - 1, 0, -1):
        index = int(origins[stage][index])
        cuts.append(int(ends[stage - 1][index]))
    return tuple(reversed(cuts))
