"""Makes a Comparison: the plans to compare, and what each costs on the same hardware."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from pipelab.arguments import shown, whole
from pipelab.comparison import Comparison, Objective
from pipelab.contenders import Contender
from pipelab.costs import Costs, check_microbatches, default_microbatches, rows_of
from pipelab.errors import InputError, SplitError
from pipelab.graph import Graph
from pipelab.hardware import Device, HardwareLike, describe, devices_of, has_costs
from pipelab.names import printable
from pipelab.plan import Plan, check_plan
from pipelab.planner import Regret, optimal, regret
from pipelab.policies import equal_size, threshold
from pipelab.problem import MOST_STAGES, MemoryLimit
from pipelab.report import Report
from pipelab.simulator import simulate
from pipelab.units import plural

_MOST_BYTES = 1e18  # what stands for no limit
_SUCH_AS = 'as in compare({"mine": plan, "other": plan2})'


def side_by_side(
    plans: Mapping[str, Plan | Report] | Sequence[Plan | Report],
    *,
    hardware: HardwareLike = None,
    num_microbatches: int | None = None,
    memory_limit_bytes: MemoryLimit = None,
    refused: Mapping[str, str] | None = None,
) -> Comparison:
    """What each of these plans costs, on the same hardware and in the same micro-batches.

    Args:
        plans: Plans of one model, or reports, by name; without names they get those of their policies.
        hardware: What they run on; None for what a plan was made for, else the measured machine, else a preset.
        num_microbatches: Micro-batches of a step; None for those of the reports, else min(batch, 2 x stages).
        memory_limit_bytes: What a device holds; None for all of its memory.
        refused: Policies that made no plan, and why.

    Raises:
        SplitError: There is no plan, or they are of different models.
        InputError: The hardware is not known, or the batch cannot be split so.
    """
    if not isinstance(plans, Mapping | Sequence):
        raise SplitError(f"Plans are compared by name, {_SUCH_AS}; this is of type {type(plans).__name__}.")
    if isinstance(plans, Mapping) and (wrong := [name for name in plans if not isinstance(name, str)]):
        raise SplitError(f"Plans are compared by name, {_SUCH_AS}; {shown(wrong[0])} is no name.")
    given = {printable(name): item for name, item in plans.items()} if isinstance(plans, Mapping) else _named(plans)
    reports = {name: item for name, item in given.items() if isinstance(item, Report)}
    of_one = _of_one_model({name: item.plan if isinstance(item, Report) else item for name, item in given.items()})
    graph = next(iter(of_one.values())).graph
    most = max(plan.num_stages for plan in of_one.values())
    if hardware is None:
        hardware = next((plan.hardware for plan in of_one.values() if plan.hardware is not None), None)
    if num_microbatches is None:
        ran = {report.timeline.num_microbatches for report in reports.values()}
        num_microbatches = ran.pop() if len(ran) == 1 else default_microbatches(graph.batch_size, most)
    else:
        num_microbatches = check_microbatches(graph.batch_size, num_microbatches)
    devices, rows = devices_of(hardware, graph, most), rows_of(graph.batch_size, num_microbatches)
    yardstick = _Yardstick(graph, hardware, num_microbatches, memory_limit_bytes)
    return Comparison(
        entries=tuple(yardstick.measure(name, plan, reports.get(name)) for name, plan in of_one.items()),
        refused=refused or {},
        objective=yardstick.objective,
        hardware=describe(devices),
        num_microbatches=num_microbatches,
        rows=rows,
        places=_places(Costs.of(graph, devices[0], rows)),
        counts_reserves=yardstick.counts_reserves,
    )


def policies_of(
    graph: Graph,
    *,
    num_stages: int,
    hardware: HardwareLike = None,
    num_microbatches: int | None = None,
    memory_limit_bytes: MemoryLimit = None,
) -> tuple[dict[str, Plan], dict[str, str]]:
    """PiPPy's two policies and the optimum: the plans they make, and the reasons of those that make none."""
    num_stages = whole(num_stages, "num_stages", most=MOST_STAGES, error=SplitError)
    devices_of(hardware, graph, num_stages)  # what is unknown is an error, not a refusal
    if num_microbatches is None:  # the optimum is held to what `side_by_side` measures it with
        num_microbatches = default_microbatches(graph.batch_size, num_stages)
    makers: dict[str, Callable[[], Plan]] = {
        "equal_size": lambda: equal_size(graph, num_stages=num_stages),
        "threshold": lambda: threshold(graph, num_stages=num_stages),
        "optimal": lambda: optimal(
            graph, num_stages=num_stages, objective=_objective(graph, hardware), hardware=hardware,
            num_microbatches=num_microbatches, memory_limit_bytes=memory_limit_bytes,
        ),
    }  # fmt: skip
    plans, refused = {}, {}
    for name, make in makers.items():
        try:
            plan = make()
            devices_of(hardware, graph, plan.without_empty_stage().num_stages)  # one per stage, if they are named so
            plans[name] = plan
        except (SplitError, InputError) as error:
            refused[name] = str(error)
    if not plans:
        raise SplitError("\n".join(f"{name}: {reason}" for name, reason in refused.items()))
    return plans, refused


class _Yardstick:
    """What all plans of a comparison are measured with."""

    def __init__(self, graph: Graph, hardware: HardwareLike, num_microbatches: int, limit: MemoryLimit) -> None:
        self.graph, self.hardware, self.num_microbatches, self.limit = graph, hardware, num_microbatches, limit
        self.objective = _objective(graph, hardware)

    def measure(self, name: str, plan: Plan, report: Report | None) -> Contender:
        """One plan's figures."""
        devices = devices_of(self.hardware, self.graph, plan.num_stages)
        rows = rows_of(self.graph.batch_size, self.num_microbatches)
        costs = [Costs.of(self.graph, device, rows) for device in devices]
        stages = list(zip(costs, plan.bounds, strict=True))
        places = _places(costs[0])
        return Contender(
            name=name,
            plan=plan,
            regret=self._regret(plan),
            optimum=self._optimum(plan),
            predicted=simulate(plan, hardware=self.hardware, num_microbatches=self.num_microbatches),
            edges=tuple(places[position] for position in (0, *plan.cuts, -1)),
            stage_s=tuple(self._stage_s(cost, plan.num_stages, *bounds) for cost, bounds in stages),
            link_s=tuple(float(cost.transfer_s[cut]) for cost, cut in zip(costs, plan.cuts, strict=False)),
            memory_bytes=tuple(self._memory_bytes(cost, *bounds) for cost, bounds in stages),
            capacity_bytes=self._capacity_bytes(devices),
            report=report,
        )

    @property
    def counts_reserves(self) -> bool:
        """Whether a device's own memory counts; not under a limit where no device was named, as in `optimal`."""
        return self.limit is None or self.objective == "time"

    def _memory_bytes(self, costs: Costs, start: int, stop: int) -> int:
        held = 0.0 if self.counts_reserves else costs.device.reserve_bytes
        return int(costs.memory_bytes(start, stop) - held)

    def _regret(self, plan: Plan) -> Regret:
        return regret(
            plan, objective=self.objective, hardware=self.hardware, num_microbatches=self.num_microbatches,
            memory_limit_bytes=self.limit,
        )  # fmt: skip

    def _optimum(self, plan: Plan) -> float:
        """The least between blocks; where there are too few, also where the plan is cut."""
        between = [point.position for point in self.graph.cut_points if point.level == "block"]
        cuts = between[: len(plan.cuts)] if len(between) >= len(plan.cuts) else plan.cuts
        return self._regret(replace(plan, cuts=tuple(cuts))).optimum

    def _stage_s(self, costs: Costs, num_stages: int, start: int, stop: int) -> float:
        before = costs.work_before(num_stages)
        return float(before[stop] - before[start]) + costs.device.microbatch_s

    def _capacity_bytes(self, devices: Sequence[Device]) -> tuple[int, ...]:
        if self.limit is None:
            return tuple(int(device.memory_bytes) for device in devices)
        limits = self.limit if isinstance(self.limit, Iterable) else (self.limit,) * len(devices)
        return tuple(int(min(limit, _MOST_BYTES)) for limit in limits)


def _places(costs: Costs) -> tuple[float, ...]:
    """Where along the model each op begins, and the last one ends: shares of the time it computes."""
    before = costs.time_before
    return tuple((before / (before[-1] or 1)).tolist())


def _objective(graph: Graph, hardware: HardwareLike) -> Objective:
    return "time" if hardware is not None or has_costs(graph) else "params"


def _named(items: Sequence[Plan | Report]) -> dict[str, Plan | Report]:
    """Plans by the first word of their policies: "equal_size", a second one "equal_size 2"."""
    named: dict[str, Plan | Report] = {}
    for item in items:
        plan = item.plan if isinstance(item, Report) else item
        check_plan(plan)
        word = plan.policy.split(" (")[0]
        count = sum(name == word or name.startswith(f"{word} ") for name in named)
        named[f"{word} {count + 1}" if count else word] = item
    return named


def _of_one_model(plans: Mapping[str, Plan]) -> dict[str, Plan]:
    """The plans, as they run (without an empty last stage), on one graph: a measured one, if there is one."""
    if not plans:
        raise SplitError(f"There is nothing to compare: pass plans, {_SUCH_AS}.")
    for name, plan in plans.items():
        if not isinstance(plan, Plan):
            raise SplitError(f"compare takes plans and reports; {name!r} is of type {type(plan).__name__}.")
    first = next(iter(plans))
    for name, plan in plans.items():
        if _identity(plan.graph) != _identity(plans[first].graph):
            raise SplitError(
                f"Plans of one model can be compared; {first!r} cuts {_model_text(plans[first].graph)}, and {name!r} "
                f"cuts {_model_text(plan.graph)}."
            )
    graphs = [plan.graph for plan in plans.values()]
    graph = next((graph for graph in graphs if has_costs(graph)), graphs[0])
    return {name: replace(plan.without_empty_stage(), graph=graph) for name, plan in plans.items()}


def _identity(graph: Graph) -> tuple[str, int, int]:
    return graph.model, len(graph.ops), graph.num_params


def _model_text(graph: Graph) -> str:
    return f"a {graph.model} of {plural(len(graph.ops), 'op')} and {graph.num_params:,} parameters"
