"""Among the splits within a bound, the one with the fewest bytes on the wire, and of those the most even one."""

from collections.abc import Callable, Sequence

import numpy as np

from pipelab.chain import Chain
from pipelab.graph import IntArray
from pipelab.minmax import reachable, window_max
from pipelab.windows import FloatArray

Tables = Callable[[int, IntArray, IntArray], tuple[FloatArray, FloatArray]]
# So many candidates are compared pair by pair; more are thinned out once the fewest bytes are known.
_FEW = 128


def polish(chain: Chain, num_bytes: IntArray, bound: float, cuts: tuple[int, ...]) -> tuple[int, ...]:
    """The split within a bound with the fewest bytes on the wire.

    Where there are more than a few candidates it may be that another split with as few bytes is more even.

    Args:
        chain: The chain.
        num_bytes: Bytes on the wire at each candidate, 0 at both ends.
        bound: What no stage may exceed.
        cuts: A split within the bound.
    """
    if not cuts:
        return cuts
    ends = reachable(chain, bound)
    inner = np.unique(np.concatenate(ends[:-1]))
    if len(inner) > _FEW:
        cuts = _fewest_bytes(chain, ends, num_bytes, bound)
        scattered = inner * 2654435761 % 2**32
        few = np.zeros(chain.num_segments + 1, dtype=bool)
        few[inner[np.lexsort((scattered, num_bytes[inner]))[:_FEW]]] = True
        ends = [*(of[few[of] | (of == cut)] for of, cut in zip(ends, cuts, strict=False)), ends[-1]]
    return even(chain.tables, ends, num_bytes, bound)


def even(tables: Tables, ends: Sequence[IntArray], num_bytes: IntArray | FloatArray, bound: float) -> tuple[int, ...]:
    """The split with the fewest bytes and, of those, the least sum of squared shares; stage by stage.

    Args:
        tables: Costs of a stage for every start and stop, and their shares, which are to be even: `Chain.tables`.
        ends: Per stage, the candidates it may end at; some split of them is within the bound.
        num_bytes: Bytes on the wire at each candidate.
        bound: What no stage may exceed.
    """
    starts, totals = np.zeros(1, dtype=np.int64), np.zeros(1)
    origins: list[IntArray] = []
    for stage, stops in enumerate(ends):
        costs, shares = tables(stage, starts, stops)
        # The squares of all stages together stay below one byte.
        steps = num_bytes[stops] * (len(ends) + 1.0) + (shares / (bound or 1.0)) ** 2
        sums = np.where(costs <= bound, totals[:, None] + steps, np.inf)
        origins.append(np.argmin(sums, axis=0))
        starts, totals = stops, sums.min(axis=0)
    index, cuts = 0, []
    for stage in range(len(ends) - 1, 0, -1):
        index = int(origins[stage][index])
        cuts.append(int(ends[stage - 1][index]))
    return tuple(reversed(cuts))


def _fewest_bytes(chain: Chain, ends: Sequence[IntArray], num_bytes: IntArray, bound: float) -> tuple[int, ...]:
    """The fewest bytes up to each end of each stage, by windows of starts, then back along them."""
    starts = np.zeros(1, dtype=np.int64)
    totals = np.full(chain.num_segments + 1, np.inf)
    totals[0] = 0
    kept = [(starts, totals)]
    for stage, stops in enumerate(ends[:-1]):
        least = _least(chain, stage, totals, starts, stops, bound)
        totals = np.full(chain.num_segments + 1, np.inf)
        totals[stops] = least + num_bytes[stops]
        starts = stops[np.isfinite(least)]
        kept.append((starts, totals))
    stop, cuts = chain.num_segments, []
    for stage in range(chain.num_stages - 1, 0, -1):
        starts, totals = kept[stage]
        starts = starts[(starts >= chain.lows(stage, bound)[stop]) & (starts < stop)]
        starts = starts[chain.stages[stage].between(starts, np.array(stop)) <= bound]
        stop = int(starts[np.argmin(totals[starts])])
        cuts.append(stop)
    return tuple(reversed(cuts))


def _least(chain: Chain, stage: int, totals: FloatArray, starts: IntArray, stops: IntArray, bound: float) -> FloatArray:
    """The least total over the starts from which a stage gets to each stop within a bound.

    All starts from `sure` on do, as far as work goes; with transfers in turn, those between `first` and `sure` do if
    they receive little.
    """
    of = chain.stages[stage]
    if of.overlap:
        totals = np.where(of.receive <= bound, totals, np.inf)
    lows = chain.lows(stage, bound)[stops]
    needed = of.work[stops] + (of.fixed - bound) + (0 if of.overlap else of.send[stops])
    most = 0.0 if of.overlap else float(of.receive[starts].max())
    first = np.maximum(np.searchsorted(of.work, needed), lows)
    sure = np.minimum(np.maximum(np.searchsorted(of.work, needed + most), lows), stops)
    least = -window_max(-totals, sure, stops)
    if not of.overlap:
        keys = of.work - of.receive
        for back in range(1, int((sure - first).max(initial=0)) + 1):
            start = np.maximum(sure - back, 0)
            possible = (sure - back >= first) & (keys[start] >= needed)
            least = np.where(possible, np.minimum(least, totals[start]), least)
    return least
