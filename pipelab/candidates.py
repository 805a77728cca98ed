"""Where a planner may cut: the legal cuts of one granularity."""

from collections.abc import Iterable
from typing import Literal, get_args

from pipelab.arguments import one_of
from pipelab.errors import SplitError
from pipelab.graph import Graph
from pipelab.units import plural

Granularity = Literal["block", "narrow", "module", "op"]

WHERE: dict[str, str] = {
    "block": "between blocks",
    "narrow": "between blocks and where a block is narrowest",
    "module": "between modules",
    "op": "at any op",
}


def candidates(graph: Graph, granularity: Granularity, also: Iterable[int] = ()) -> tuple[int, ...]:
    """Positions a planner may cut at, ascending, both ends of the model included.

    Args:
        graph: The model.
        granularity: "block" between blocks; "narrow" also where fewest bytes cross within each block; "module" also
            where a module's call begins or ends; "op" every legal cut.
        also: More legal cuts.

    Raises:
        SplitError: There is no such granularity.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
        >>> candidates(pipelab.trace(model, torch.zeros(6, 4)).graph, "block")
        (0, 1, 2, 3)
    """
    one_of(granularity, get_args(Granularity), "granularity", error=SplitError)
    found = {*graph.legal} if granularity == "op" else {*graph.legal} & _between(graph, granularity)
    return (0, *sorted({*found, *also}), len(graph.ops))


def _between(graph: Graph, granularity: Granularity) -> set[int]:
    found = {*graph.block_starts}
    if granularity == "narrow":
        found |= _narrow(graph)
    if granularity == "module":
        found |= {*graph.calls_by_start, *graph.calls_by_stop}
    return found


def _narrow(graph: Graph) -> set[int]:
    """In each block, the legal cuts that the fewest bytes cross."""
    found: set[int] = set()
    legal = set(graph.legal)
    crossing = graph.live_bytes.tolist()
    for block in graph.blocks:
        inside = [position for position in range(block.start, block.stop) if position in legal]
        least = min((crossing[position] for position in inside), default=0)
        found.update(position for position in inside if crossing[position] == least)
    return found


def count_text(positions: tuple[int, ...], granularity: Granularity) -> str:
    """How many cuts there are, and where: "11 cuts between blocks"."""
    return f"{plural(len(positions) - 2, 'cut')} {WHERE[granularity]}"
