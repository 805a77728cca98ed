"""From a graph to a plan: where to cut a model. Pure arithmetic on data.

`equal_size` and `threshold` are PiPPy's policies, cut for cut; they count elements, never bytes.
"""

from collections.abc import Iterable, Mapping
from itertools import accumulate
from numbers import Integral

from pipelab.arguments import as_float, listed, shown, whole
from pipelab.errors import SplitError
from pipelab.graph import Graph
from pipelab.greedy import Charges, charges_of, greedy_cuts, smallest_budget, to_legal
from pipelab.plan import HasGraph, Plan, graph_of
from pipelab.split_points import SplitPoint, check_legal, resolve
from pipelab.units import format_count, plural


def equal_size(traced: HasGraph | Graph, *, num_stages: int) -> Plan:
    """PiPPy's `split_into_equal_size`: stages of at most a `num_stages`-th of all elements, greedily.

    The last stage takes all that is left. Where every op exceeds that share, the last stage may be empty, as
    PiPPy's is; a run leaves it out.

    Args:
        traced: A trace or its graph.
        num_stages: Number of stages.

    Raises:
        SplitError: The greedy pass makes fewer stages. Says why, and which number works.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(10))).eval()
        >>> plan = pipelab.equal_size(pipelab.trace(model, torch.zeros(1, 16)), num_stages=4)
        >>> [stage.num_params // 272 for stage in plan.stages]
        [2, 2, 2, 4]
    """
    graph = graph_of(traced)
    num_stages = whole(num_stages, "num_stages", error=SplitError)
    charges = charges_of(graph)
    cuts = greedy_cuts(charges, _equal_budget(graph, num_stages))
    if len(cuts) < num_stages - 1:
        raise SplitError(_refusal(graph, charges, num_stages, len(cuts) + 1))
    return Plan(graph, to_legal(graph, charges, cuts[: num_stages - 1]), "equal_size (PiPPy, greedy)")


def threshold(traced: HasGraph | Graph, *, max_params: float | None = None, num_stages: int | None = None) -> Plan:
    """PiPPy's `split_on_size_threshold`: stages of at most `max_params` elements, greedily.

    A single op that reads more is a stage of its own.

    Args:
        traced: A trace or its graph.
        max_params: Elements per stage; as many stages as that needs.
        num_stages: Instead: the smallest `max_params` that needs at most this many stages. The plan's
            `policy` names it.

    Raises:
        SplitError: Not exactly one of the two was given, or it is out of range.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4))).eval()
        >>> traced = pipelab.trace(model, torch.zeros(1, 16))
        >>> [stage.num_params for stage in pipelab.threshold(traced, max_params=816).stages]
        [816, 272]
        >>> pipelab.threshold(traced, num_stages=2).policy
        'threshold (PiPPy, greedy, 544 elements per stage)'
    """
    graph = graph_of(traced)
    if (max_params is None) == (num_stages is None):
        raise SplitError("threshold takes either max_params (elements per stage) or num_stages; pass one of them.")
    charges = charges_of(graph)
    if num_stages is not None:
        budget = smallest_budget(charges, whole(num_stages, "num_stages", error=SplitError))
    else:
        elements = as_float(max_params)
        if elements is None or not 0 <= elements < float("inf"):
            raise SplitError(f"max_params is a number of elements per stage, 0 or more; it is {shown(max_params)}.")
        budget = int(elements)
    cuts = to_legal(graph, charges, greedy_cuts(charges, budget))
    return Plan(graph, cuts, f"threshold (PiPPy, greedy, {plural(budget, 'element')} per stage)")


def uniform(traced: HasGraph | Graph, *, num_stages: int) -> Plan:
    """The same number of blocks in each stage; where it does not come out even, earlier stages take one more.

    What lies before the first block (an embedding) goes with the first stage, what lies after the last (a head)
    with the last, and what lies between two blocks with the one before it.

    Args:
        traced: A trace or its graph.
        num_stages: Number of stages.

    Raises:
        SplitError: There are fewer blocks; names how many.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(5))).eval()
        >>> [stage.labels for stage in pipelab.uniform(pipelab.trace(model, torch.zeros(1, 16)), num_stages=2).stages]
        [('0', '1', '2'), ('3', '4')]
    """
    graph = graph_of(traced)
    num_stages = whole(num_stages, "num_stages", error=SplitError)
    starts = [block.start for block in graph.blocks if block.path]
    # A block that cannot be cut off from the one before it (they share memory) counts as part of that one.
    starts = [start for index, start in enumerate(starts) if index == 0 or start in graph.cut_point_at]
    most = max(len(starts), 1)
    if num_stages > most:
        raise SplitError(
            f"uniform cannot make {shown(num_stages)} stages of {graph.model}: it has {plural(len(starts), 'block')} "
            f"to share out. The largest number of stages that works is {most}; equal_size, threshold, split_at and "
            'optimal(granularity="op") can cut inside a block.'
        )
    share, rest = divmod(len(starts), num_stages)
    firsts = accumulate(share + (index < rest) for index in range(num_stages - 1))
    return Plan(graph, tuple(starts[first] for first in firsts), "uniform")


def split_at(traced: HasGraph | Graph, points: Iterable[str | int] | Mapping[str, SplitPoint] | None = None) -> Plan:
    """Cut at places of your own.

    Args:
        traced: A trace or its graph.
        points: Names of modules to cut before, or of cuts as `Plan.split_points` gives them, or positions of ops;
            or a dict of module names and `SplitPoint.BEGINNING` or `SplitPoint.END`. Left out: where the model's
            own `forward` calls `pipe_split()`.

    Raises:
        SplitError: A place does not exist, is no legal cut (names the nearest), or is given twice.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4))).eval()
        >>> traced = pipelab.trace(model, torch.zeros(1, 16))
        >>> pipelab.split_at(traced, ["1", "3"]).cuts
        (1, 3)
        >>> pipelab.split_at(traced, {"1": pipelab.SplitPoint.END}).cuts
        (2,)
    """
    graph = graph_of(traced)
    if points is None:
        if not graph.marks:
            raise SplitError(
                f"{graph.model} has no pipe_split() in its forward: say where to cut, as in "
                f'split_at(traced, ["{_example(graph)}"]).'
            )
        return Plan(graph, graph.marks, "split_at pipe_split()")
    if isinstance(points, str):
        raise SplitError(f"split_at takes a list of places: split_at(traced, [{shown(points)}]).")
    named = _named(points)
    places: dict[int, str | int] = {}
    for point, end in named:
        position = _position(graph, point, end)
        if position in places:
            raise SplitError(
                f"{shown(places[position])} and {shown(point)} are the same cut, {graph.label_at(position)}."
            )
        places[position] = point
    return Plan(graph, tuple(sorted(places)), "split_at")


def _named(points: Iterable[str | int] | Mapping[str, SplitPoint]) -> list[tuple[str | int, SplitPoint]]:
    """Places, each with the end of the module that is meant."""
    if isinstance(points, Mapping):
        return list(points.items())
    return [(point, SplitPoint.BEGINNING) for point in listed(points, "What split_at takes", error=SplitError)]


def _position(graph: Graph, point: str | int, end: SplitPoint) -> int:
    if not isinstance(end, SplitPoint):
        raise SplitError(f"{shown(point)} must be cut at SplitPoint.BEGINNING or SplitPoint.END, not {shown(end)}.")
    if isinstance(point, str):
        return resolve(graph, point, end)
    if not isinstance(point, Integral) or isinstance(point, bool):
        raise SplitError(f"A place to cut is a name or the position of an op; it is {shown(point)}.")
    check_legal(graph, int(point))
    return int(point)


def _example(graph: Graph) -> str:
    return next((block.path for block in graph.blocks if block.path and block.start in graph.cut_point_at), "layers.1")


def _equal_budget(graph: Graph, num_stages: int) -> int:
    """PiPPy's share: parameters by tensor, and all buffers, also those that weigh nothing in the greedy pass."""
    return sum(w.num_elements for w in graph.distinct_weights if w.kind != "constant") // num_stages


def _refusal(graph: Graph, charges: Charges, num_stages: int, made: int) -> str:
    budget = _equal_budget(graph, num_stages)
    most = min(num_stages - 1, len(charges) + 1)  # no op that weighs something is cut twice
    works = next(n for n in range(most, 0, -1) if len(greedy_cuts(charges, _equal_budget(graph, n))) >= n - 1)
    return (
        f"equal_size cannot make {shown(num_stages)} stages of {graph.model}: {_reason(graph, charges, budget)} "
        f"The greedy pass makes {plural(made, 'stage')}. The largest number of stages below {shown(num_stages)} that "
        f"works is {works}."
    )


def _reason(graph: Graph, charges: Charges, budget: int) -> str:
    """Why the greedy pass makes fewer stages than its budget was meant for."""
    share = f"the {format_count(budget)} elements each stage may hold"
    sizes = {name: size for of_op in charges.values() for name, size in of_op.items()}
    if not any(sizes.values()):
        return "none of its ops reads a parameter."
    largest = max(sizes, key=lambda name: sizes[name])
    if sizes[largest] > budget:
        return f"{largest} alone ({format_count(sizes[largest])}) exceeds {share}."
    heaviest = max(charges, key=lambda index: sum(charges[index].values()))
    total = sum(charges[heaviest].values())
    if total > budget:
        return f"the weights of {graph.ops[heaviest].name} together ({format_count(total)}) exceed {share}."
    read = {graph.weight_by_name[name].tied_to for name in sizes}
    unread = [weight for weight in graph.distinct_weights if weight.kind != "constant" and weight.name not in read]
    most = max(unread, key=lambda weight: weight.num_elements)
    return (
        f"{most.name} ({most.kind}, {format_count(most.num_elements)}) counts towards {share}, but no op is charged it."
    )
