"""The best split and the proof that nothing is better; and how far any other split is from it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pipelab.candidates import WHERE, Granularity
from pipelab.certificates import Certificate, certificate_of, why_nothing_is_better
from pipelab.errors import SplitError
from pipelab.graph import Graph
from pipelab.hardware import HardwareLike, has_costs
from pipelab.minmax import Optimum, minimise
from pipelab.plan import HasGraph, Plan, as_run, graph_of
from pipelab.polishing import polish
from pipelab.problem import MemoryLimit, Objective, Problem, pose
from pipelab.refusals import refusal
from pipelab.table import wrap
from pipelab.units import format_bytes, format_percent

# Times are known no better than this: within it, fewer bytes on the wire are worth more. Counts are exact.
TIME_TOLERANCE = 0.005


def optimal(
    traced: HasGraph | Graph,
    *,
    num_stages: int,
    objective: Objective = "params",
    granularity: Granularity = "block",
    hardware: HardwareLike = None,
    memory_limit_bytes: MemoryLimit = None,
    num_microbatches: int | None = None,
    pins: Iterable[str | int] = (),
) -> Plan:
    """The split whose dearest stage is as cheap as can be: exact, over all legal cuts of a granularity.

    Among splits that are as good (for "time": within 0.5 %) it is the one with the fewest bytes on the wire, and of
    those the most even one. A tied weight counts once in every stage that reads it. "time" is that of a stage's ops
    and its transfers, one after the other or side by side as the device has it. With "time", or where
    hardware is named, no stage holds more than its device: weights, caches, activations at their peak, and what the
    device holds anyway.

    Args:
        traced: A trace or its graph.
        num_stages: Number of stages.
        objective: "params" (elements), "flops", "time" (seconds) or "memory" (bytes).
        granularity: Cuts "block" between blocks, "narrow" also where a block is narrowest, "module" also between
            modules, "op" anywhere.
        hardware: A preset's name, a `Hardware`, a `Measurement`, or one per stage. None for "time" is this machine
            if `measure` was called, else a preset.
        memory_limit_bytes: What a stage may hold, for all or one per stage, instead of the devices' memory.
        num_microbatches: Into how many micro-batches the traced batch is split; None for the batch in one piece, of
            which a plan's own figures speak.
        pins: Cuts the plan must have: what `split_at` takes.

    Raises:
        SplitError: There are fewer cuts, or nothing fits: names what does not, and what would.
        InputError: Hardware, limits or micro-batches do not fit.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(10))).eval()
        >>> plan = pipelab.optimal(pipelab.trace(model, torch.zeros(1, 16)), num_stages=4)
        >>> [stage.num_params // 272 for stage in plan.stages]
        [2, 2, 3, 3]
    """
    graph = graph_of(traced)
    problem = pose(
        graph,
        num_stages=num_stages,
        objective=objective,
        granularity=granularity,
        hardware=hardware,
        memory_limit_bytes=memory_limit_bytes,
        num_microbatches=num_microbatches,
        pins=pins,
    )
    found = minimise(problem.chain)
    if found is None:
        raise SplitError(f"optimal cannot make {num_stages} stages: {refusal(problem)}")
    return polished(problem, found)


def polished(problem: Problem, found: Optimum) -> Plan:
    """The plan of an optimum: of all that are as good, the one with the fewest bytes on the wire."""
    tolerance = TIME_TOLERANCE if problem.objective == "time" else 0.0
    bound = found.cost * (1 + tolerance) + problem.chain.margin(found.cost)
    cuts = polish(problem.chain, problem.num_bytes, bound, found.cuts)
    return problem.plan(cuts, f"optimal by {problem.basis}")


@dataclass(frozen=True)
class Regret:
    """How far a plan is from the best split into as many stages.

    Attributes:
        plan: The plan.
        objective: What is compared: "params", "flops", "time" or "memory".
        cost: Its dearest stage's.
        optimum: The least there is.
        best: A plan that has it (for "time" within 0.5 %, with the fewest bytes on the wire).
        certificate: Why nothing is better.
        over_limit: Stages of the plan that do not fit their device or limit.
        verdict: All this in words.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(10))).eval()
        >>> far = pipelab.regret(pipelab.equal_size(pipelab.trace(model, torch.zeros(1, 16)), num_stages=4))
        >>> far.cost, far.optimum, round(far.fraction, 2), far.best.cuts
        (1088.0, 816.0, 0.33, (2, 4, 7))
    """

    plan: Plan = field(repr=False)
    objective: Objective
    cost: float
    optimum: float
    best: Plan
    certificate: Certificate
    over_limit: tuple[int, ...]
    verdict: str

    @property
    def fraction(self) -> float:
        """0.57 for 57 % above optimal; below 0 only where the plan does not fit and the best has to."""
        if not self.optimum:
            return 0.0 if not self.cost else float("inf")
        return self.cost / self.optimum - 1

    def __repr__(self) -> str:
        return wrap(f"{self.plan.policy}: {self.verdict}")


def regret(
    plan: Plan,
    *,
    objective: Objective | None = None,
    granularity: Granularity = "block",
    hardware: HardwareLike = None,
    memory_limit_bytes: MemoryLimit = None,
    num_microbatches: int | None = None,
) -> Regret:
    """How far a plan is from the best split into as many stages, and the proof that nothing is better.

    The best split may cut where `optimal` may, and where the plan does. An empty last stage is left out.

    Args:
        plan: The plan.
        objective: What to compare; None is "time" where the plan has hardware or the model was measured, else
            "params".
        granularity: As for `optimal`.
        hardware: As for `optimal`; None is the plan's.
        memory_limit_bytes: As for `optimal`. If nothing fits, the best split is the best with room for everything.
        num_microbatches: As for `optimal`.

    Raises:
        SplitError: The objective or the granularity is unknown.
        InputError: Hardware, limits or micro-batches do not fit.
    """
    plan = as_run(plan)
    problem = problem_of(
        plan,
        objective=objective,
        granularity=granularity,
        hardware=hardware,
        memory_limit_bytes=memory_limit_bytes,
        num_microbatches=num_microbatches,
    )
    free = problem.without_limits
    asked, found = problem, minimise(problem.chain)
    if found is None:
        asked, found = free, minimise(free.chain)
    assert found is not None  # the plan itself is a split
    bounds = list(pairwise((0, *problem.indices(plan.cuts), len(problem.positions) - 1)))
    cost = max(costs := [free.chain.cost(k, *edges) for k, edges in enumerate(bounds)])
    if abs(cost - found.cost) <= asked.chain.margin(found.cost):  # the same, but for rounding
        cost = found.cost
    over = tuple(k for k, edges in enumerate(bounds) if problem.memory_bytes(k, *edges) > problem.chain.stages[k].limit)
    sentences = [_bottleneck(problem, costs, found.cost)]
    if over:
        sentences.append(_over_limit(problem, over[0], *bounds[over[0]]))
    if asked is free:
        sentences.append(f"No split into {problem.num_stages} fits; the best is the best with room for everything.")
    return Regret(
        plan=plan,
        objective=problem.objective,
        cost=cost,
        optimum=found.cost,
        best=polished(asked, found),
        certificate=certificate_of(asked, found),
        over_limit=over,
        verdict=" ".join([*sentences, why_nothing_is_better(asked, found)]),
    )


def problem_of(
    plan: Plan,
    *,
    objective: Objective | None,
    granularity: Granularity,
    hardware: HardwareLike,
    memory_limit_bytes: MemoryLimit,
    num_microbatches: int | None,
) -> Problem:
    """The question a plan is one answer to."""
    hardware = plan.hardware if hardware is None else hardware
    timed = hardware is not None or has_costs(plan.graph)
    return pose(
        plan.graph,
        num_stages=plan.num_stages,
        objective=objective if objective is not None else ("time" if timed else "params"),
        granularity=granularity,
        hardware=hardware,
        memory_limit_bytes=memory_limit_bytes,
        num_microbatches=num_microbatches,
        also=plan.cuts,
    )


def _bottleneck(problem: Problem, costs: Sequence[float], optimum: float) -> str:
    """Which stage is the bottleneck, and how far above optimal."""
    cost = max(costs)
    above = cost / optimum - 1 if optimum else 0.0
    if abs(above) < 5e-5:
        distance = "no split has less"
    else:
        percent = format_percent(abs(above), 0 if abs(above) >= 0.1 else 1)
        side = "above" if above > 0 else "below"
        distance = f"{percent} {side} the best, {problem.text(optimum)}"
    per = " per micro-batch" if problem.objective == "time" and problem.num_microbatches > 1 else ""
    return (
        f"Stage {costs.index(cost)} is the bottleneck: {problem.text(cost)}{per}, {distance} ({problem.rests_on}; cuts "
        f"{WHERE[problem.granularity]})."
    )


def _over_limit(problem: Problem, stage: int, start: int, stop: int) -> str:
    needs = format_bytes(problem.memory_bytes(stage, start, stop))
    return f"It does not fit: stage {stage} needs {needs}, more than {problem.held_to}."
