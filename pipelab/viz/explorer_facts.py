"""What the explorer's picture tells of a plan: numbers and words."""

from itertools import pairwise
from typing import Any

import numpy as np

from pipelab.costs import Costs, rows_of
from pipelab.errors import InputError
from pipelab.hardware import Device, describe, devices_of
from pipelab.plan import Plan, shorten
from pipelab.plan_parts import Stage
from pipelab.planner import Regret, problem_of, regret
from pipelab.problem import Objective
from pipelab.units import format_bytes, format_count, format_need, format_percent, format_seconds, format_whole, plural
from pipelab.viz.compare_ribbon import shortened
from pipelab.viz.explorer_panels import Box

# The widget's words for a plan so near to the optimum.
_SAME, _CLOSE = 1e-9, 0.005


class Facts:
    """Numbers and words of a plan, for so many micro-batches."""

    def __init__(self, plan: Plan, num_microbatches: int) -> None:
        self.plan, self.num_microbatches = plan, num_microbatches
        self.rows = rows_of(max(1, plan.graph.batch_size), num_microbatches)
        self.devices: tuple[Device, ...] = ()
        self.refusal = "no hardware is named"
        if plan.has_times:
            try:
                self.devices, self.optimum, self.costs = self._posed("time")
            except InputError as error:  # measured with other rows: sizes are compared, and the page says why
                self.refusal = str(error).rstrip(".")
        if not self.devices:
            _, self.optimum, self.costs = self._posed("params")
        self.slowest = int(np.argmax(self.costs))

    def _posed(self, objective: Objective) -> tuple[tuple[Device, ...], Regret, list[float]]:
        """The devices, how far from the optimum the plan is, and what each stage costs."""
        plan = self.plan
        asked: dict[str, Any] = {"objective": objective, "num_microbatches": self.num_microbatches}
        rest: dict[str, Any] = {"granularity": "block", "hardware": None, "memory_limit_bytes": None}
        problem = problem_of(plan, **asked, **rest).without_limits
        edges = pairwise((0, *problem.indices(plan.cuts), len(problem.positions) - 1))
        costs = [problem.chain.cost(stage, *bounds) for stage, bounds in enumerate(edges)]
        devices = devices_of(plan.hardware, plan.graph, plan.num_stages) if objective == "time" else ()
        return tuple(devices), regret(plan, **asked), costs

    @property
    def verdict(self) -> str:
        """Which stage matters, and how far from the optimum that is."""
        cost, mean = self.costs[self.slowest], sum(self.costs) / len(self.costs)
        if not mean:
            return "The model has no parameters."
        if not self.devices:
            text = f"Stage {self.slowest} holds {format_count(cost)} parameters, {cost / mean:.2f} × the mean."
        elif len(self.costs) == 1:
            text = f"Stage 0 takes {format_seconds(cost)} per micro-batch."
        else:
            text = f"Stage {self.slowest} is the bottleneck: {format_seconds(cost)} per micro-batch, "
            text += f"the average is {format_seconds(mean)}."
        return f"{text} {self._shortage or self._distance}".strip()

    @property
    def _distance(self) -> str:
        above, far = self.optimum.fraction, abs(self.optimum.fraction)
        if len(self.costs) == 1:
            return ""
        if far < _SAME:
            return "This is optimal."
        if far <= _CLOSE:
            return f"Optimal within {format_percent(_CLOSE, 1)}."
        percent = format_percent(far, 0 if far >= 0.0995 else 1)
        return f"{percent} above optimal." if above > 0 else f"{percent} below the best split between blocks."

    @property
    def _shortage(self) -> str:
        over = self.optimum.over_limit
        if not over:
            return ""
        if len(over) == 1:
            return f"Stage {over[0]} needs {self._need(self.plan.stages[over[0]])}."
        named = f"Stages {', '.join(map(str, over[:-1]))} and {over[-1]}" if len(over) <= 3 else f"{len(over)} stages"
        return f"{named} need more than {format_whole(self.devices[over[0]].memory_bytes)}."

    @property
    def boxes(self) -> list[Box]:
        """What the stage boxes say."""
        crossing = self.plan.graph.live_bytes_for(self.rows)
        sent = [*(format_bytes(int(crossing[cut])) for cut in self.plan.cuts), ""]
        return [
            Box(self._lines(stage), stage.index == self.slowest, stage.index in self.optimum.over_limit, crosses)
            for stage, crosses in zip(self.plan.stages, sent, strict=True)
        ]

    def _lines(self, stage: Stage) -> tuple[str, ...]:
        held = stage.param_bytes + stage.buffer_bytes + stage.cache_bytes
        marked = stage.index == self.slowest and len(self.costs) > 1
        lines = [
            f"{stage.index} · {shorten(stage.labels)}",
            f"{format_count(stage.num_params)} · {format_bytes(held)}",
        ]
        if self.devices:
            lines.append(f"{format_seconds(self.costs[stage.index])}{' · slowest' if marked else ''}")
        elif marked:
            lines.append("largest")
        if stage.index in self.optimum.over_limit:
            lines.append(self._need(stage))
        return tuple(lines)

    def _need(self, stage: Stage) -> str:
        device = self.devices[stage.index]
        needed = Costs.of(self.plan.graph, device, self.rows).memory_bytes(stage.start, stage.stop)
        return format_need(needed, device.memory_bytes)

    @property
    def notes(self) -> list[str]:
        """What boxes and arrows do not say."""
        split = f"{plural(self.num_microbatches, 'micro-batch')} of {plural(self.rows, 'row')}"
        rests = f"times for {describe(self.devices)}" if self.devices else f"no times: {self.refusal}"
        return [
            f"Width: parameters. Stages: parameters and bytes of weights; arrows: bytes of one micro-batch. "
            f"{split[0].upper()}{split[1:]}; {rests}.",
            *self._shared,
        ]

    @property
    def _shared(self) -> list[str]:
        """The weights that several stages hold."""
        graph, starts = self.plan.graph, [start for start, _ in self.plan.bounds]
        found = []
        for name, uses in graph.weight_uses.items():
            holders = sorted({int(np.searchsorted(starts, use, "right")) - 1 for use in uses})
            if len(holders) > 1:
                found.append((graph.weight_by_name[name], holders))
        if not found:
            return []
        num_bytes = sum(weight.num_bytes for weight, _ in found)
        if len(found) > 1:
            return [f"Shared: {plural(len(found), 'weight')}, {format_bytes(num_bytes)}, in each stage that uses them."]
        weight, holders = found[0]
        name = shortened(graph.short(weight.name), 60)
        return [f"Shared: {name}, {format_bytes(num_bytes)}, in stages {', '.join(map(str, holders))}."]
