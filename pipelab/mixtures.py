"""One split for several workloads of the same model: prefill and decode share the ranks, and so the cuts."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pipelab.arguments import as_float, listed, whole
from pipelab.candidates import Granularity, candidates
from pipelab.errors import SplitError
from pipelab.graph import Graph, IntArray
from pipelab.hardware import HardwareLike
from pipelab.landscapes import stage_costs
from pipelab.minmax import minimise
from pipelab.plan import HasGraph, Plan, graph_of
from pipelab.planner import TIME_TOLERANCE
from pipelab.polishing import even
from pipelab.problem import MOST_STAGES, MemoryLimit, Problem, pose
from pipelab.refusals import refusal
from pipelab.split_points import name_of
from pipelab.windows import FloatArray


def optimal_mix(
    workloads: Sequence[tuple[HasGraph | Graph, float]],
    *,
    num_stages: int,
    granularity: Granularity = "block",
    hardware: HardwareLike = None,
    memory_limit_bytes: MemoryLimit = None,
    num_microbatches: int | None = None,
) -> Plan:
    """The split whose slowest stage takes the least time for a mix of workloads: exact, within 0.5 % for fewer bytes.

    A stage costs the weighted sum of its times for a micro-batch of each workload; its memory has to do for each of
    them. Cuts are those that all traces have, by name.

    Args:
        workloads: Traces of one model, each with its weight: the micro-batches of it in the mix.
        num_stages: Number of stages.
        granularity: As for `optimal`.
        hardware: As for `optimal`.
        memory_limit_bytes: As for `optimal`.
        num_microbatches: As for `optimal`, for each trace.

    Returns:
        A plan of the first trace; `split_at(another, plan.split_points)` is that of another.

    Raises:
        SplitError: The traces share too few cuts, or nothing fits: names what does not.
        InputError: Hardware, limits or micro-batches do not fit.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(6))).eval()
        >>> one, many = (pipelab.trace(model, torch.zeros(rows, 64)) for rows in (2, 512))
        >>> pipelab.optimal_mix([(one, 100), (many, 1)], num_stages=3, hardware="t4-16gb").cuts
        (2, 4)
    """
    num_stages = whole(num_stages, "num_stages", most=MOST_STAGES, error=SplitError)
    graphs, weights = _sorted_out(workloads)
    problems = [
        pose(
            graph,
            num_stages=num_stages,
            objective="time",
            granularity=granularity,
            hardware=hardware,
            memory_limit_bytes=memory_limit_bytes,
            num_microbatches=num_microbatches,
            positions=positions,
        )
        for graph, positions in zip(graphs, _common(graphs, granularity), strict=True)
    ]
    for problem in problems:
        if minimise(problem.chain) is None:
            raise SplitError(f"optimal_mix cannot make {num_stages} stages: {refusal(problem)}")
    cuts = _best(problems, weights)
    mix = " : ".join(f"{weight:g}" for weight in weights)
    return problems[0].plan(cuts, f"optimal_mix by {problems[0].basis} ({mix})")


def _sorted_out(workloads: Sequence[tuple[HasGraph | Graph, float]]) -> tuple[list[Graph], list[float]]:
    """The graphs, and their weights."""
    workloads = listed(workloads, "workloads", error=SplitError)
    pairs = [item for item in workloads if isinstance(item, tuple | list) and len(item) == 2]
    if not workloads or len(pairs) < len(workloads) or not all(_is_weight(weight) for _, weight in pairs):
        raise SplitError(
            "optimal_mix takes pairs of a trace and its weight above 0, as in [(prefill, 1), (decode, 64)]."
        )
    graphs = [graph_of(traced) for traced, _ in workloads]
    if len(models := sorted({graph.model for graph in graphs})) > 1:
        raise SplitError(f"optimal_mix takes traces of one model; these are of {' and '.join(models)}.")
    return graphs, [float(weight) for _, weight in workloads]


def _is_weight(weight: object) -> bool:
    found = as_float(weight)
    return found is not None and 0 < found < math.inf


def _best(problems: Sequence[Problem], weights: Sequence[float]) -> tuple[int, ...]:
    tables = [stage_costs(problem.chain) for problem in problems]
    costs = [sum_of(of_stage, weights) for of_stage in zip(*tables, strict=True)]
    reach = costs[0][0]
    for cost in costs[1:]:
        reach = np.maximum(reach[:, None], cost).min(axis=0)
    optimum = float(reach[-1])
    if not np.isfinite(optimum):
        raise SplitError("Each workload fits with cuts of its own, but no cuts do for all: add a stage, or memory.")
    last = len(reach) - 1
    ends = [np.arange(1, last)] * (len(costs) - 1) + [np.array([last])]

    def tables_of(stage: int, starts: IntArray, stops: IntArray) -> tuple[FloatArray, FloatArray]:
        shares = [problem.chain.tables(stage, starts, stops)[1] for problem in problems]
        return costs[stage][np.ix_(starts, stops)], sum_of(shares, weights)

    num_bytes = sum_of([problem.num_bytes.astype(float) for problem in problems], weights)
    return even(tables_of, ends, num_bytes, optimum * (1 + TIME_TOLERANCE))


def sum_of(tables: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
    """The weighted sum of tables."""
    total: FloatArray = np.sum([weight * table for weight, table in zip(weights, tables, strict=True)], axis=0)
    return total


def _common(graphs: Sequence[Graph], granularity: Granularity) -> list[tuple[int, ...]]:
    """Per graph the candidates that all graphs have under one name, in one order."""
    named = [{name_of(graph, at): at for at in candidates(graph, granularity)[1:-1]} for graph in graphs]
    names = [name for name in named[0] if all(name in other for other in named)]
    found = [(0, *(of[name] for name in names), len(graph.ops)) for of, graph in zip(named, graphs, strict=True)]
    if any(a >= b for positions in found for a, b in pairwise(positions)):
        raise SplitError("The traces run their modules in different orders; optimal_mix takes traces of one model.")
    return found
