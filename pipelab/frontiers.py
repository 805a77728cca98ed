"""What more stages buy, in time and in memory: the splits that no other beats in both."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pipelab.arguments import listed, shown, whole
from pipelab.candidates import Granularity
from pipelab.chain import Chain
from pipelab.errors import SplitError
from pipelab.graph import Graph
from pipelab.hardware import HardwareLike, describe, devices_of
from pipelab.minmax import is_kept, minimise, reachable, split_within
from pipelab.plan import HasGraph, Plan, graph_of
from pipelab.polishing import polish
from pipelab.problem import MOST_STAGES, MemoryLimit, Problem, pose
from pipelab.refusals import refusal
from pipelab.table import format_table
from pipelab.units import format_bytes, format_seconds, plural

_STEP = 0.005  # from one point to the next, at least this share of the memory is saved


@dataclass(frozen=True)
class FrontierPoint:
    """A split that no other into as many stages beats in both time and memory.

    Attributes:
        num_stages: Number of stages.
        plan: The split.
        bottleneck_s: Seconds of its slowest stage.
        memory_bytes: Bytes its fullest stage holds, with what the device holds anyway.
    """

    num_stages: int
    plan: Plan
    bottleneck_s: float
    memory_bytes: float


class Frontier(tuple[FrontierPoint, ...]):
    """Points by number of stages, for each the fastest first; its text is a table.

    Attributes:
        refused: Why there is no point, by number of stages.
        rests_on: What times and memory rest on, in words.
    """

    refused: dict[int, str]
    rests_on: str

    def __repr__(self) -> str:
        header = ["stages", "bottleneck", "largest memory", "cuts before"]
        rows = [
            [str(p.num_stages), format_seconds(p.bottleneck_s), format_bytes(p.memory_bytes), _cuts_text(p.plan)]
            for p in self
        ]
        notes = [f"{plural(number, 'stage')}: {text}" for number, text in self.refused.items()]
        return "\n".join([self.rests_on, format_table(header, rows, left=(0, 3)), *notes])


def frontier(
    traced: HasGraph | Graph,
    *,
    num_stages: Iterable[int] = (1, 2, 4, 8),
    granularity: Granularity = "block",
    hardware: HardwareLike = None,
    memory_limit_bytes: MemoryLimit = None,
    num_microbatches: int | None = None,
) -> Frontier:
    """For several numbers of stages, the splits that no other beats in both time and memory.

    Each list begins with the fastest split and the least memory it can have. Neighbours differ by at least 0.5 % of
    the memory.

    Args:
        traced: A trace or its graph.
        num_stages: The numbers of stages.
        granularity: As for `optimal`.
        hardware: As for `optimal`; a device per stage goes with a single number of stages.
        memory_limit_bytes: As for `optimal`.
        num_microbatches: As for `optimal`.

    Returns:
        A tuple of points; numbers of stages of which no split fits are in its `refused`.

    Raises:
        SplitError: The granularity or a number of stages is none.
        InputError: Hardware, limits or micro-batches do not fit.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(8))).eval()
        >>> points = pipelab.frontier(pipelab.trace(model, torch.zeros(4, 64)), num_stages=(1, 2), hardware="t4-16gb")
        >>> [(point.num_stages, point.plan.cuts) for point in points]
        [(1, ()), (2, (4,))]
    """
    graph, numbers = graph_of(traced), _numbers(num_stages)
    points: list[FrontierPoint] = []
    refused: dict[int, str] = {}
    for number in numbers:
        problem = pose(
            graph,
            num_stages=number,
            objective="time",
            granularity=granularity,
            hardware=hardware,
            memory_limit_bytes=memory_limit_bytes,
            num_microbatches=num_microbatches,
        )
        found = _points(problem)
        points += found
        if not found:
            refused[number] = refusal(problem)
    if not points:
        raise SplitError(f"No split of {graph.model} fits. With {numbers[-1]} stages: {refused[numbers[-1]]}")
    result = Frontier(points)
    result.refused = refused
    result.rests_on = _rests_on(points[0].plan, hardware, num_microbatches)
    return result


def _numbers(num_stages: Iterable[int]) -> list[int]:
    if not isinstance(num_stages, Iterable) or not (numbers := listed(num_stages, "num_stages", error=SplitError)):
        raise SplitError(
            f"frontier takes several numbers of stages, as in num_stages=(2, 4); it is {shown(num_stages)}."
        )
    return sorted({whole(number, "num_stages", most=MOST_STAGES, error=SplitError) for number in numbers})


def _points(problem: Problem) -> list[FrontierPoint]:
    """The fastest split, the least memory it can have; then the fastest with less than that, and so on."""
    points = []
    chain = problem.chain
    while found := minimise(chain):
        bound = found.cost + chain.margin(found.cost)
        memory, cuts = _least_memory(problem, bound, found.cuts)
        tight = _within(chain, memory)
        plan = problem.plan(polish(tight, problem.num_bytes, bound, cuts), f"optimal by {problem.basis}")
        points.append(FrontierPoint(problem.num_stages, plan, found.cost, memory))
        chain = _within(chain, memory * (1 - _STEP))
    return points


def _least_memory(problem: Problem, bound: float, cuts: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
    """The least memory of the fullest stage that keeps a bound, and a split that has it."""
    low, high = 0.0, problem.largest_memory(cuts)
    while high - low > 1:
        limit = (low + high) / 2
        tight = _within(problem.chain, limit)
        reached = reachable(tight, bound)
        if is_kept(tight, reached):
            cuts = split_within(tight, reached, bound)
            high = problem.largest_memory(cuts)
        else:
            low = limit
    return high, cuts


def _within(chain: Chain, limit: float) -> Chain:
    """The same with a memory limit for every stage, where it has no lower one."""
    made = {id(of): replace(of, limit=min(of.limit, limit)) for of in chain.stages}
    return replace(chain, stages=tuple(made[id(of)] for of in chain.stages))


def _cuts_text(plan: Plan) -> str:
    return ", ".join(plan.graph.label_at(cut).removeprefix("before ") for cut in plan.cuts)


def _rests_on(plan: Plan, hardware: HardwareLike, num_microbatches: int | None) -> str:
    graph = plan.graph
    pieces = f"in {plural(num_microbatches, 'micro-batch')}" if num_microbatches else "in one piece"
    devices = describe(devices_of(hardware, graph, plan.num_stages))
    return f"{graph.model}: batch of {graph.batch_size} {pieces}, {devices}"
