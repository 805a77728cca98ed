"""PiPPy's greedy pass over a graph: one bucket after another, in elements, without looking ahead.

An op that reads weights is charged the elements of each *name* it reads: once per bucket and name, so that a
tied weight counts under each of its names. Non-persistent buffers and constants weigh nothing.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from pipelab.errors import SplitError
from pipelab.graph import Graph
from pipelab.split_points import name_of

Charges = Mapping[int, Mapping[str, int]]


def charges_of(graph: Graph) -> Charges:
    """Per op that weighs something: the elements of each name it reads, by op index, ascending."""
    weights = graph.weight_by_name
    charged = {
        index: {name: weights[name].num_elements for name in op.weights if weights[name].persistent}
        for index, op in enumerate(graph.ops)
    }
    return {index: sizes for index, sizes in charged.items() if sizes}


def greedy_cuts(charges: Charges, budget: int) -> tuple[int, ...]:
    """Where PiPPy cuts so that no stage holds more than `budget` elements, unless one op alone does.

    The last cut may lie after the last op that weighs something: all of them exceed the budget then.
    """
    cuts: list[int] = []
    total = 0
    names: set[str] = set()
    for index, sizes in charges.items():
        new = sum(size for name, size in sizes.items() if name not in names)
        if total + new <= budget:
            total += new
            names.update(sizes)
        elif total == 0:
            cuts.append(index + 1)  # the op fills a stage; the next bucket is still empty
        else:
            cuts.append(index)
            total = sum(sizes.values())
            names = set(sizes)
    return tuple(cuts)


def smallest_budget(charges: Charges, num_stages: int) -> int:
    """The smallest budget with which the greedy pass makes at most `num_stages` stages.

    A larger budget never makes more stages, so halving the range finds it exactly.
    """
    highest = sum(sum(sizes.values()) for sizes in charges.values())
    return bisect_left(range(highest), True, key=lambda budget: len(greedy_cuts(charges, budget)) < num_stages)


def to_legal(graph: Graph, charges: Charges, cuts: Sequence[int]) -> tuple[int, ...]:
    """The cuts, each moved to the nearest legal place that leaves every op that weighs something in its stage.

    Raises:
        SplitError: There is no such place.
    """
    heavy = list(charges)
    end = len(graph.ops)
    places = [*graph.legal, end]
    moved = []
    for cut in cuts:
        after = bisect_left(heavy, cut)
        first, last = heavy[after - 1] + 1, heavy[after] if after < len(heavy) else end
        allowed = places[bisect_left(places, first) : bisect_left(places, last + 1)]
        if not allowed:
            raise SplitError(
                f"The greedy pass cuts {graph.model} {graph.label_at(cut)} ({name_of(graph, cut)!r}), where values "
                "share memory or belong to one list, and no legal cut keeps the same sizes. Ask for another number."
            )
        moved.append(min(allowed, key=lambda place: abs(place - cut)))
    return tuple(moved)
