"""The optimal split for every number of stages at once: what the explorer's Optimal button needs.

The planner answers one question exactly; here all stages are alike, so that one table of what a stage costs between
any two cuts answers 32 of them, by dynamic programming over the cuts between blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipelab.chain import Chain
from pipelab.errors import InputError
from pipelab.graph import Graph, IntArray
from pipelab.hardware import Device
from pipelab.planner import TIME_TOLERANCE
from pipelab.polishing import even
from pipelab.problem import Problem, basis, pose
from pipelab.refusals import refusal
from pipelab.viz.explorer_costs import cost_state
from pipelab.viz.explorer_state import MAX_PRESET_STAGES
from pipelab.windows import FloatArray

Presets = list[list[int] | str | None]


def optimal_presets(
    graph: Graph, device: Device | None, num_microbatches: int, most: int
) -> tuple[Presets, list[float | None]]:
    """What `optimal` finds for each number of stages up to `most`.

    Args:
        graph: The model.
        device: What every stage runs on: the time of a micro-batch is minimised. None minimises parameters.
        num_microbatches: Into how many micro-batches the batch is split.
        most: The largest number of stages.

    Returns:
        By number of stages the cuts, or the sentence why there are none; and the least cost of the dearest stage.
    """
    question: dict[str, Any] = {
        "objective": "time" if device else "params",
        "hardware": device,
        "num_microbatches": num_microbatches,
    }
    alone, several = (pose(graph, num_stages=num_stages, **question) for num_stages in (1, 2))
    whole = alone.chain.cost(0, 0, alone.chain.num_segments)
    found: list[tuple[tuple[int, ...], float] | None] = [((), whole) if np.isfinite(whole) else None]
    found += _splits(several, most)
    presets: Presets = [None]
    for num_stages, split in enumerate(found, start=1):
        problem = alone if num_stages == 1 else _with_stages(several, num_stages)
        presets.append(
            [problem.positions[cut] for cut in split[0]]
            if split
            else f"optimal cannot make {num_stages} stages: {refusal(problem)}"
        )
    return presets, [None, *(split[1] if split else None for split in found)]


def costs_and_optima(graph: Graph, device: Device | None, num_microbatches: int) -> tuple[dict[str, Any], Presets]:
    """What stages cost, with the least cost of the dearest one; and the optimal splits.

    Where a machine was measured with other rows there are no times: the costs hold the refusal, and the optimum is
    that by parameters.
    """
    try:
        costs = cost_state(graph, device, num_microbatches)
    except InputError as error:
        costs, device = {**cost_state(graph, None, num_microbatches), "refusal": str(error)}, None
    most = min(MAX_PRESET_STAGES, len(graph.legal) + 1)
    presets, optima = optimal_presets(graph, device, num_microbatches, most)
    return {**costs, "optima": optima}, presets


def policy_of(cuts: Sequence[int], presets: Mapping[str, Presets], device: Device | None, num_microbatches: int) -> str:
    """What chose these cuts, as a plan says it; "by hand" where none of the presets has them."""
    count = len(cuts) + 1
    for name, plans in presets.items():
        if plans[count : count + 1] == [list(cuts)]:
            by_time = basis("time", [device], num_microbatches) if device else basis("params", [], 1)
            return f"optimal by {by_time}" if name == "optimal" else name
    return "by hand"


def _with_stages(problem: Problem, num_stages: int) -> Problem:
    """The same question for another number of stages, all alike."""
    chain = problem.chain
    stages = chain.stages[:1] * num_stages
    return replace(problem, chain=Chain(stages, chain.windows, chain.measure))


def _splits(problem: Problem, most: int) -> list[tuple[tuple[int, ...], float] | None]:
    """The optimal split into 2, 3, ... `most` stages by candidate, and its cost; None where there is none."""
    end = problem.chain.num_segments
    every = np.arange(end + 1)
    costs, shares = problem.chain.tables(0, every, every)
    least = costs[0]  # by where the last stage ends: the least bottleneck so far
    found: list[tuple[tuple[int, ...], float] | None] = []
    for num_stages in range(2, most + 1):
        least = np.maximum(least[:, None], costs).min(axis=0)
        cost = float(least[end])
        found.append((_polished(problem, (costs, shares), cost, num_stages), cost) if np.isfinite(cost) else None)
    return found


def _polished(problem: Problem, tables: tuple[FloatArray, FloatArray], cost: float, num_stages: int) -> tuple[int, ...]:
    """Of the splits that are as good, the one with the fewest bytes on the wire, as the planner takes it."""
    tolerance = TIME_TOLERANCE if problem.objective == "time" else 0.0
    bound = cost * (1 + tolerance) + problem.chain.margin(cost)
    end = problem.chain.num_segments
    ends = [np.arange(1, end)] * (num_stages - 1) + [np.array([end])]

    def between(_stage: int, starts: IntArray, stops: IntArray) -> tuple[FloatArray, FloatArray]:
        costs, shares = (table[np.ix_(starts, stops)] for table in tables)
        return costs, shares

    return even(between, ends, problem.num_bytes, bound)
