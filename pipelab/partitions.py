"""How other tools share a row of numbers out to stages: each function gives how many of them each stage takes.

Written anew from what the tools document and do; the names say which objective, `peers.py` says whose it is.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from pipelab.graph import IntArray


def even_counts(num_items: int, num_stages: int, *, spare_last: bool = False) -> list[int]:
    """The same number of items each; what is left over goes to the first stages.

    Args:
        num_items: How many there are.
        num_stages: Number of stages.
        spare_last: Instead, what is left over goes to the stages before the last one, from the back: the last
            stage never gets more, and the first only when all between have.

    Example:
        >>> from pipelab.partitions import even_counts
        >>> even_counts(14, 4), even_counts(14, 4, spare_last=True)
        ([4, 4, 3, 3], [3, 4, 4, 3])
    """
    share, rest = divmod(num_items, num_stages)
    lucky = range(num_stages - 1 - rest, num_stages - 1) if spare_last else range(rest)
    return [share + (index in lucky) for index in range(num_stages)]


def smallest_maximum(weights: Sequence[int], num_stages: int) -> list[int]:
    """The heaviest stage is as light as can be; among such splits, the one with the smallest sum of squares.

    Example:
        >>> from pipelab.partitions import smallest_maximum
        >>> smallest_maximum([3, 1, 1, 1, 3], 3)
        [1, 3, 1]
    """
    before = np.cumsum([0, *weights])
    stage = before[None, :] - before[:, None]  # stage[a, b]: weight of the items a to b
    stage = np.where(np.tri(len(before), dtype=bool), np.inf, stage)  # no stage is empty
    heaviest = stage[0]
    for _ in range(num_stages - 1):
        heaviest = np.maximum(heaviest[:, None], stage).min(axis=0)
    square = np.where(stage <= heaviest[-1], (stage / max(before[-1], 1)) ** 2, np.inf)
    total, choices = square[0], []
    for _ in range(num_stages - 1):
        sums = (total[:, None] + square).round(12)  # equal sums stay equal
        choices.append(sums.argmin(axis=0))
        total = sums.min(axis=0)
    return _counts(choices, len(weights))


def smallest_spread(weights: Sequence[int], num_stages: int) -> list[int]:
    """DeepSpeed's `partition_balanced`: the heaviest stage less the lightest, extended stage by stage.

    Each prefix keeps one split only, the one of least spread (the last of equals). The best of all need not extend a
    best prefix, so the result is not always the smallest spread, and the heaviest stage not always the lightest.

    Example:
        >>> from pipelab.partitions import smallest_spread
        >>> smallest_spread([4, 1, 1, 1, 1], 2)
        [1, 4]
    """
    before = np.cumsum([0.0, *weights])
    stage = before[None, :] - before[:, None]
    stage = np.where(np.tri(len(before), dtype=bool), np.nan, stage)
    columns = np.arange(len(before))
    heaviest, lightest, choices = stage[0], stage[0], []
    for _ in range(num_stages - 1):
        high, low = np.maximum(heaviest[:, None], stage), np.minimum(lightest[:, None], stage)
        spread = np.nan_to_num(high - low, nan=np.inf)
        chosen = len(before) - 1 - spread[::-1].argmin(axis=0)
        heaviest, lightest = high[chosen, columns], low[chosen, columns]
        choices.append(chosen)
    return _counts(choices, len(weights))


def block_partition(weights: Sequence[int], num_stages: int) -> list[int]:
    """The block partition of Bárány and Grinberg (arXiv:1308.2452), as torchgpipe uses it.

    It starts from stages of the same number of items, the last with the rest, and moves single items towards the
    lightest stage, each from its neighbour on the side of the heaviest, until lightest and heaviest differ by at most
    one item. torchgpipe first sets the lightest item to 0 and the heaviest to 1: equal blocks weigh nothing then.

    Example:
        >>> from pipelab.partitions import block_partition
        >>> block_partition([1, 1, 1, 3, 9, 9, 9, 9], 2)
        [6, 2]
    """
    least, most = min(weights), max(weights)
    before = [0, *accumulate(weight - least for weight in weights)]
    share = len(weights) // num_stages
    edges = [*range(0, share * num_stages, share), len(weights)]
    while True:
        loads = [before[stop] - before[start] for start, stop in pairwise(edges)]
        heavy = max(range(num_stages), key=lambda index: (loads[index], index))
        # The paper's choice among equals, the closest, never takes the last item of a stage.
        light = min(range(num_stages), key=lambda index: (loads[index], abs(index - heavy), index))
        if loads[heavy] <= loads[light] + most - least:
            return [stop - start for start, stop in pairwise(edges)]
        if light < heavy:
            edges[light + 1] += 1
        else:
            edges[light] -= 1


def _counts(choices: Sequence[IntArray], num_items: int) -> list[int]:
    """Items per stage, from where the last stage starts, then the one before it, ..."""
    edges = [num_items]
    for chosen in reversed(choices):
        edges.append(int(chosen[edges[-1]]))
    return [b - a for b, a in pairwise([*edges, 0])][::-1]
