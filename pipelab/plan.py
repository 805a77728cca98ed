"""Where a model is cut, and what each stage and boundary then holds. Pure arithmetic on a Graph."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

from pipelab.arguments import listed, shown
from pipelab.costs import Costs
from pipelab.errors import SplitError
from pipelab.files import check_header, read_json, write_json
from pipelab.graph import Graph
from pipelab.hardware import Device, HardwareLike, describe, devices_of, has_costs
from pipelab.names import printable
from pipelab.plan_parts import Boundary, Stage, boundary_of, stage_of
from pipelab.split_points import check_legal, name_of, resolve
from pipelab.table import format_table, wrap
from pipelab.units import format_bytes, format_count, format_seconds, plural

FORMAT = "pipelab-plan"
VERSION = 1


class HasGraph(Protocol):
    """A Trace, or anything else that carries a graph."""

    @property
    def graph(self) -> Graph:
        """The graph."""


def graph_of(traced: "HasGraph | Graph") -> Graph:
    """The graph of a trace; a graph is its own.

    Raises:
        SplitError: It is neither: names what it is.
    """
    graph = traced if isinstance(traced, Graph) else getattr(traced, "graph", None)
    if not isinstance(graph, Graph):
        raise SplitError(f"Pass what pipelab.trace(model, ...) returned; this is of type {type(traced).__name__}.")
    return graph


def check_plan(plan: object) -> None:
    """Raise a SplitError that names what it is, if it is no plan."""
    if not isinstance(plan, Plan):
        raise SplitError(
            f"A {type(plan).__name__} is no plan: pass what a policy returned, such as "
            "pipelab.uniform(traced, num_stages=4)."
        )


def as_run(plan: "Plan") -> "Plan":
    """The plan a run uses: without an empty last stage.

    Raises:
        SplitError: It is no plan: names what it is.
    """
    check_plan(plan)
    return plan.without_empty_stage()


@dataclass(frozen=True)
class Plan:
    """A model and where it is cut.

    Attributes:
        graph: The traced model.
        cuts: Op positions, ascending: stage k runs `graph.ops[cuts[k-1]:cuts[k]]`. A last cut after the
            last op makes an empty last stage (PiPPy's greedy policies can), which a run leaves out.
        policy: What chose the cuts, for people.
        hardware: What times rest on: a preset's name, a `Hardware`, a `Measurement`, or one per stage. None for
            this machine, if `measure` was called.

    Raises:
        SplitError: A cut is not legal, or the cuts are not ascending.
        InputError: The hardware is not known, or not one per stage.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
        >>> plan = pipelab.split_at(pipelab.trace(model, torch.zeros(6, 4)), ["2"])
        >>> plan
        Sequential in 2 stages, split_at (batch of 6)
        stage  holds  parameters  weights  FLOPs  sends
        0      0–1            40    160 B    384  192 B
        1      2              18     72 B    192
        Stage 0 holds 40 parameters, 1.38 × the mean.
        >>> plan.with_cuts([1]).boundaries[0].num_bytes
        192
    """

    graph: Graph = field(repr=False)
    cuts: tuple[int, ...]
    policy: str = "split_at"
    hardware: HardwareLike = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.graph, Graph):
            raise SplitError(f"A plan cuts a graph; this is a {type(self.graph).__name__}. Pass traced.graph.")
        if not isinstance(self.policy, str):
            raise SplitError(f"The policy of a plan is a text; it is {shown(self.policy)}.")
        object.__setattr__(self, "policy", printable(self.policy))
        cuts = listed(self.cuts, "cuts", error=SplitError)
        for cut in cuts:
            if not isinstance(cut, Integral) or isinstance(cut, bool):
                raise SplitError(f"A cut is the position of an op, a whole number; it is {shown(cut)}.")
        object.__setattr__(self, "cuts", tuple(int(cut) for cut in cuts))
        if any(a >= b for a, b in pairwise(self.cuts)):
            raise SplitError(f"The cuts must ascend without repetition, so that no stage is empty: {shown(self.cuts)}.")
        inner = self.cuts[:-1] if self.has_empty_stage else self.cuts
        for cut in inner:
            check_legal(self.graph, cut)
        if self.hardware is not None:
            devices_of(self.hardware, self.graph, self.num_stages)

    @property
    def num_stages(self) -> int:
        """Number of stages, an empty last one included."""
        return len(self.cuts) + 1

    @property
    def has_empty_stage(self) -> bool:
        """Whether the last stage holds no op."""
        return bool(self.cuts) and self.cuts[-1] == len(self.graph.ops)

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """First op and the op after the last, per stage."""
        edges = (0, *self.cuts, len(self.graph.ops))
        return tuple(pairwise(edges))

    @property
    def split_points(self) -> tuple[str, ...]:
        """The cuts by name: what `split_at` takes and another trace of the model resolves."""
        return tuple(name_of(self.graph, cut) for cut in self.cuts if cut < len(self.graph.ops))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What each stage holds."""
        if not self.has_times:
            return self._untimed
        devices = devices_of(self.hardware, self.graph, self.num_stages)
        return tuple(_timed(self, stage, device) for stage, device in zip(self._untimed, devices, strict=True))

    @cached_property
    def _untimed(self) -> tuple[Stage, ...]:
        return tuple(stage_of(self.graph, index, *bounds) for index, bounds in enumerate(self.bounds))

    @property
    def has_times(self) -> bool:
        """Whether its stages tell seconds: hardware was named, or the model was measured."""
        return self.hardware is not None or has_costs(self.graph)

    @cached_property
    def boundaries(self) -> tuple[Boundary, ...]:
        """What crosses between stage k and k + 1."""
        return tuple(boundary_of(self.graph, index, cut) for index, cut in enumerate(self.cuts))

    def with_cuts(self, cuts: Iterable[int]) -> "Plan":
        """The same model cut elsewhere.

        Raises:
            SplitError: A cut is not legal.
        """
        return Plan(self.graph, listed(cuts, "cuts", error=SplitError), "by hand", self.hardware)

    def with_hardware(self, hardware: HardwareLike) -> "Plan":
        """The same cuts on other hardware: what the stages' times rest on.

        Args:
            hardware: A preset's name, a `Hardware`, a `Measurement`, or one per stage.

        Raises:
            InputError: It is not known.

        Example:
            >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4))).eval()
            >>> plan = pipelab.uniform(pipelab.trace(model, torch.zeros(2, 16)), num_stages=2)
            >>> plan.stages[0].time_s is None, plan.with_hardware("t4-16gb").stages[0].time_s > 0
            (True, True)
        """
        return replace(self, hardware=hardware)

    def without_empty_stage(self) -> "Plan":
        """The plan a run uses: without an empty last stage."""
        if not self.has_empty_stage:
            return self
        hardware = self.hardware
        if isinstance(hardware, Sequence) and not isinstance(hardware, str):
            hardware = hardware[:-1]
        return replace(self, cuts=self.cuts[:-1], hardware=hardware)

    def to_json(self) -> dict[str, Any]:
        """Names of the cuts and the sizes they gave, JSON-ready."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.graph.model,
            "num_stages": self.without_empty_stage().num_stages,
            "split_points": list(self.split_points),
            "policy": self.policy,
            "num_params": [stage.num_params for stage in self.without_empty_stage().stages],
        }

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON: the cuts by name, so that another trace of the model can load it.

        An empty last stage is not written.
        """
        write_json(path, json.dumps(self.to_json(), indent=2) + "\n", "plan")

    @classmethod
    def load(cls, path: str | Path, traced: "HasGraph | Graph") -> "Plan":
        """A saved plan on a trace of the same model.

        Args:
            path: A file `save` wrote.
            traced: The trace, or its graph.

        Raises:
            SplitError: The file is not a plan, or is of another model, or a cut has no place in this one.
        """
        return cls.from_json(read_json(path, "plan", error=SplitError), traced, source=str(path))

    @classmethod
    def from_json(cls, data: Any, traced: "HasGraph | Graph", *, source: str = "the plan") -> "Plan":
        """The plan that `to_json` described, on a trace of the same model."""
        data = check_header(data, FORMAT, VERSION, "plan", source, error=SplitError)
        names, policy, model = data.get("split_points"), data.get("policy", "split_at"), data.get("model")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SplitError(f"{source} is not a plan: its split_points are not a list of names.")
        if not isinstance(policy, str):
            raise SplitError(f"{source} is not a plan: its policy is not a text.")
        graph = graph_of(traced)
        if not isinstance(model, str) or model != graph.model:
            raise SplitError(
                f"{source} is a plan of {model[:80] if isinstance(model, str) else shown(model)}, and this is a "
                f"trace of {graph.model}. To try its cuts here, use split_at(traced, {names})."
            )
        try:
            return cls(graph, tuple(resolve(graph, name) for name in names), policy)
        except SplitError as error:
            raise SplitError(f"{source} does not fit this trace: {error}") from error

    def __repr__(self) -> str:
        columns: dict[str, list[str]] = {
            "stage": [str(stage.index) for stage in self.stages],
            "holds": [shorten(stage.labels) for stage in self.stages],
            "parameters": [f"{stage.num_params:,}" for stage in self.stages],
            "weights": [format_bytes(stage.param_bytes) for stage in self.stages],
        }
        if self.graph.caches:
            columns["KV cache"] = [format_bytes(stage.cache_bytes) for stage in self.stages]
        columns["FLOPs"] = [format_count(stage.flops) for stage in self.stages]
        if self.has_times:
            columns["time"] = [format_seconds(stage.time_s or 0.0) for stage in self.stages]
        columns["sends"] = [*(format_bytes(boundary.num_bytes) for boundary in self.boundaries), ""]
        rows = list(zip(*columns.values(), strict=True))
        stages, batch = plural(self.num_stages, "stage"), self.graph.batch_size
        title = f"{self.graph.model} in {stages}, {self.policy} (batch of {batch})"
        return f"{title}\n{format_table(list(columns), rows, left=(0, 1))}\n{wrap(self.verdict)}"

    @property
    def verdict(self) -> str:
        """The stage that takes longest, or while there are no times that with most parameters."""
        if self.has_times:
            return self._time_verdict()
        params = [stage.num_params for stage in self.stages]
        mean = sum(params) / len(params)
        if not mean:
            return "The model has no parameters."
        largest = max(params)
        index = params.index(largest)
        return f"Stage {index} holds {format_count(largest)} parameters, {largest / mean:.2f} × the mean."

    def _time_verdict(self) -> str:
        seconds = [stage.time_s or 0.0 for stage in self.stages]
        longest, mean = max(seconds), sum(seconds) / len(seconds)
        index = seconds.index(longest)
        rests_on = describe(devices_of(self.hardware, self.graph, self.num_stages))
        ratio = f", {longest / mean:.2f} × the mean" if mean else ""
        return f"Stage {index} is the bottleneck: {format_seconds(longest)}{ratio} ({rests_on})."

    def export(self, system: str) -> str | dict[str, int]:
        """The split as another system takes it.

        Args:
            system: "vllm" and "megatron" for a launch line, "torch" for code, "device_map" for a dict.

        Raises:
            SplitError: The system is unknown, or cannot cut there; names the cut.

        Example:
            >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4))).eval()
            >>> pipelab.uniform(pipelab.trace(model, torch.zeros(1, 16)), num_stages=2).export("device_map")
            {'0': 0, '1': 0, '2': 1, '3': 1}
        """
        from pipelab.exports import export  # it takes plans

        return export(self, system)


def shorten(labels: Sequence[str]) -> str:
    """Labels in a few words: runs of numbered blocks are joined.

    Example:
        >>> shorten(["embed", "h.0", "h.1", "h.2", "head"])
        'embed, h.0–2, head'
    """
    parts: list[tuple[str, int | None, int | None]] = []
    for label in labels:
        stem, _, number = label.rpartition(".")
        if number.isdigit():
            if parts and parts[-1][0] == stem and parts[-1][2] == int(number) - 1:
                parts[-1] = (stem, parts[-1][1], int(number))
            else:
                parts.append((stem, int(number), int(number)))
        else:
            parts.append((label, None, None))
    texts = []
    for stem, first, last in parts:
        dotted = f"{stem}." if stem else ""
        texts.append(stem if first is None else f"{dotted}{first}" if first == last else f"{dotted}{first}–{last}")
    return ", ".join(texts)


def _timed(plan: Plan, stage: Stage, device: Device) -> Stage:
    before = Costs.of(plan.graph, device, plan.graph.batch_size).work_before(plan.num_stages)
    return replace(stage, time_s=float(before[stage.stop] - before[stage.start]))
