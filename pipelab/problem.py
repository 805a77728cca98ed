"""A question to the planner as arrays: which cuts, what a stage costs, and what it may hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np

from pipelab.arguments import as_float, listed, one_of, shown, whole
from pipelab.candidates import Granularity, candidates
from pipelab.chain import Chain, StageCosts
from pipelab.costs import Costs, check_microbatches, rows_of
from pipelab.errors import InputError, SplitError
from pipelab.graph import Graph, IntArray
from pipelab.hardware import DEFAULT, Device, HardwareLike, describe, devices_of, has_costs
from pipelab.plan import Plan, shorten
from pipelab.policies import split_at
from pipelab.units import format_bytes, format_count, format_seconds, format_whole, plural
from pipelab.windows import Window

Objective = Literal["params", "flops", "time", "memory"]
MemoryLimit = float | Sequence[float] | None

MOST_STAGES = 100_000  # a slip of the hand beyond; limits and devices are lists of as many


@dataclass(frozen=True, eq=False)
class Problem:
    """A model to split, and what the best split is.

    Attributes:
        graph: The model.
        objective: What the dearest stage should have least of.
        granularity: Where it may be cut.
        positions: Op positions of the candidates, both ends included.
        chain: Costs and limits, by candidate.
        memory: Bytes a stage holds, by candidate, without what its device holds anyway.
        num_bytes: Bytes a micro-batch sends at each candidate.
        hardware: As it was given.
        devices: One per stage, where they matter: to time, or to how much fits.
        num_microbatches: In how many times and activations come; 1 for the batch in one piece.
        held_to: What the stages' memory limit is, in words.
    """

    graph: Graph
    objective: Objective
    granularity: Granularity
    positions: tuple[int, ...]
    chain: Chain
    memory: Window
    num_bytes: IntArray
    hardware: HardwareLike
    devices: tuple[Device, ...]
    num_microbatches: int
    held_to: str

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return self.chain.num_stages

    @cached_property
    def without_limits(self) -> "Problem":
        """The same with room for everything."""
        stages = tuple(replace(of, limit=float("inf")) for of in self.chain.stages)
        return replace(self, chain=Chain(stages, pins=self.chain.pins, measure=self.chain.measure))

    def plan(self, cuts: Iterable[int], policy: str) -> Plan:
        """The plan of a split by candidate."""
        return Plan(self.graph, tuple(self.positions[cut] for cut in cuts), policy, self.hardware)

    def indices(self, positions: Iterable[int]) -> tuple[int, ...]:
        """Candidates at op positions."""
        return tuple(int(index) for index in np.searchsorted(self.positions, list(positions)))

    def memory_bytes(self, stage: int, start: int, stop: int) -> float:
        """What a stage between two candidates holds, with what its device holds anyway."""
        return self.memory.size(start, stop) + self.chain.stages[stage].held

    def largest_memory(self, cuts: Iterable[int]) -> float:
        """What the fullest stage of a split holds."""
        edges = pairwise((0, *cuts, len(self.positions) - 1))
        return max(self.memory_bytes(k, *edge) for k, edge in enumerate(edges))

    def text(self, cost: float) -> str:
        """A stage's cost, with its unit."""
        return cost_text(self.objective, cost)

    def holds(self, start: int, stop: int) -> str:
        """The blocks between two candidates: "h.0–3"."""
        blocks = self.graph.blocks_between(self.positions[start], self.positions[stop])
        return shorten([block.label for block in blocks])

    @property
    def basis(self) -> str:
        """The objective and what it rests on: "time on h100-80gb"."""
        return basis(self.objective, self.devices, self.num_microbatches)

    @property
    def rests_on(self) -> str:
        """What the costs rest on, in full."""
        return describe(self.devices) if self.objective == "time" else "counted in the graph"


def basis(objective: Objective, devices: Sequence[Device], num_microbatches: int) -> str:
    """An objective and what it rests on: "time on h100-80gb"."""
    if objective != "time":
        return objective
    names = " and ".join(dict.fromkeys(device.name for device in devices))
    split = f", {plural(num_microbatches, 'micro-batch')}" if num_microbatches > 1 else ""
    return f"time on {names}{split}"


def cost_text(objective: Objective, cost: float) -> str:
    """What a stage costs, with its unit."""
    if objective == "params":
        return f"{format_count(cost)} parameters"
    if objective == "flops":
        count = format_count(cost)
        return f"{count}FLOPs" if count[-1].isalpha() else f"{count} FLOPs"
    return format_seconds(cost) if objective == "time" else format_bytes(cost)


def pose(
    graph: Graph,
    *,
    num_stages: int,
    objective: Objective,
    granularity: Granularity = "block",
    hardware: HardwareLike = None,
    memory_limit_bytes: MemoryLimit = None,
    num_microbatches: int | None = None,
    pins: Iterable[str | int] = (),
    also: Iterable[int] = (),
    positions: tuple[int, ...] | None = None,
) -> Problem:
    """The arrays of a question.

    Args:
        graph: The model.
        num_stages: Number of stages.
        objective: What to minimise.
        granularity: Where it may be cut.
        hardware: Devices; None where they matter is this machine, if the model was measured, else a preset.
        memory_limit_bytes: Limit of each stage, or one per stage; None is the devices' memory where they matter.
        num_microbatches: Into how many micro-batches the batch is split; None is one piece.
        pins: Cuts there must be, by name or op position.
        also: More cuts there may be, by op position.
        positions: The candidates, both ends included, where not all of the granularity are.

    Raises:
        SplitError: The objective or granularity is unknown, or there are more pins than cuts.
        InputError: Hardware, limits or micro-batches do not fit.
    """
    one_of(objective, get_args(Objective), "objective", error=SplitError)
    num_stages = whole(num_stages, "num_stages", most=MOST_STAGES, error=SplitError)
    held = tuple(sorted(set(split_at(graph, pins).cuts)))
    if len(held) > num_stages - 1:
        raise SplitError(
            f"{plural(len(held), 'pinned cut')} need at least {plural(len(held) + 1, 'stage')}; num_stages is "
            f"{num_stages}."
        )
    positions = positions or candidates(graph, granularity, (*held, *also))
    rows = _rows(graph, num_microbatches)
    timed = objective == "time" or hardware is not None
    devices = devices_of(hardware, graph, num_stages)
    limits, held_to = _limits(memory_limit_bytes, devices if timed else (), num_stages)
    memory = _memory(graph, positions, Costs.of(graph, devices[0], rows))
    reserves = [device.reserve_bytes if timed else 0.0 for device in devices]
    stages = _stages(graph, positions, objective, devices, rows, limits, reserves)
    measure = memory if objective == "memory" else _params(graph, positions) if objective == "params" else None
    if objective == "time" and hardware is None and not has_costs(graph):
        hardware = DEFAULT
    chain = Chain(stages, (memory,), measure, tuple(positions.index(cut) for cut in held))
    crossing = Costs.of(graph, devices[0], rows).cut_bytes[list(positions)]
    return Problem(
        graph, objective, granularity, positions, chain, memory, crossing, hardware, devices if timed else (),
        num_microbatches or 1, held_to,
    )  # fmt: skip


def _rows(graph: Graph, num_microbatches: int | None) -> int:
    if num_microbatches is None:
        return graph.batch_size
    return rows_of(graph.batch_size, check_microbatches(graph.batch_size, num_microbatches))


def _limits(given: MemoryLimit, devices: Sequence[Device], num_stages: int) -> tuple[tuple[float, ...], str]:
    """Bytes each stage may hold, and whose limit that is."""
    if given is None:
        limits = tuple(float(device.memory_bytes) for device in devices) or (float("inf"),) * num_stages
        names = " and ".join(dict.fromkeys(device.name for device in devices))
        return limits, f"{_texts(limits)} of {names}" if devices else ""
    limits = _limit_list(given, num_stages)
    if len(limits) != num_stages:
        raise InputError(
            f"memory_limit_bytes names {plural(len(limits), 'limit')} for {plural(num_stages, 'stage')}; name one per "
            "stage, or one for all."
        )
    if not all(limit >= 0 for limit in limits):  # nor is it NaN
        raise InputError(f"memory_limit_bytes must be 0 or more; it is {shown(given)}.")
    word = "limit" if len(set(limits)) == 1 else "limits"
    return limits, f"the {word} of {_texts(limits)}"


def _limit_list(given: Any, num_stages: int) -> tuple[float, ...]:
    """The limit of each stage, or those of a list."""
    for_all = as_float(given)
    if for_all is not None:
        return (for_all,) * num_stages
    is_list = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    limits = [as_float(limit) for limit in (listed(given, "memory_limit_bytes", most=MOST_STAGES) if is_list else ())]
    found = tuple(limit for limit in limits if limit is not None)
    if not is_list or len(found) < len(limits):
        raise InputError(
            f"memory_limit_bytes is a number of bytes, such as 80e9, or one per stage; it is {shown(given)}."
        )
    return found


def _texts(limits: Sequence[float]) -> str:
    return " and ".join(dict.fromkeys(format_whole(limit) for limit in limits))


def _memory(graph: Graph, positions: tuple[int, ...], costs: Costs) -> Window:
    """Weights, caches and the activations' peak, in bytes."""
    weights = [(ops, graph.weight_by_name[name].num_bytes) for name, ops in graph.weight_uses.items()]
    # Each micro-batch has caches of its own, and keeps them from step to step.
    caches = [(ops, graph.value_bytes(value, graph.batch_size)) for value, ops in graph.cache_uses.items()]
    return Window(positions, [*weights, *caches], costs.activation_bytes)


def _params(graph: Graph, positions: tuple[int, ...]) -> Window:
    uses = ((graph.weight_by_name[name], ops) for name, ops in graph.weight_uses.items())
    return Window(positions, [(ops, weight.num_elements) for weight, ops in uses if weight.kind == "parameter"])


def _stages(
    graph: Graph,
    positions: tuple[int, ...],
    objective: Objective,
    devices: Sequence[Device],
    rows: int,
    limits: Sequence[float],
    reserves: Sequence[float],
) -> tuple[StageCosts, ...]:
    """One per stage; stages that are alike share one."""
    at = list(positions)
    nothing = np.zeros(len(at))
    made: dict[tuple[int, int, float], StageCosts] = {}
    found = []
    for stage, device in enumerate(devices):
        before = devices[max(stage - 1, 0)]  # link k is described by device k; stage 0 receives nothing at position 0
        key = (id(before), id(device), limits[stage])
        if key not in made:
            made[key] = StageCosts(nothing, nothing, nothing, limit=limits[stage], held=reserves[stage])
            if objective == "flops":
                made[key] = replace(made[key], work=graph.flops_before[at].astype(float))
            elif objective == "memory":
                made[key] = replace(made[key], fixed=reserves[stage])
            elif objective == "time":
                costs = Costs.of(graph, device, rows)
                made[key] = replace(
                    made[key],
                    work=costs.work_before(len(devices))[at],
                    receive=Costs.of(graph, before, rows).transfer_s[at],
                    send=costs.transfer_s[at],
                    fixed=device.microbatch_s,
                    overlap=device.overlap,
                )
        found.append(made[key])
    return tuple(found)
