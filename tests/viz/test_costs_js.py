"""What the browser says that stages cost is what Python says, for any cuts."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from graphs import gpt2_graph
from hypothesis import given
from hypothesis import strategies as st
from node import Node
from random_graphs import random_cuts, random_device, random_graph

from pipelab.costs import Costs, microbatch_rows
from pipelab.graph import Graph
from pipelab.hardware import Device
from pipelab.plan import Plan
from pipelab.policies import uniform
from pipelab.presets import PRESETS
from pipelab.simulator import simulate
from pipelab.viz.explorer_costs import cost_state
from pipelab.viz.explorer_state import graph_state

STAGES = """
const [{ Model }, { Costs }] = await Promise.all(["model.js", "costs.js"].map(load));
const [data, state, splits] = args;
const costs = new Costs(new Model(data), state);
return splits.map((cuts) => {
  const stages = costs.stages(cuts);
  const one = stages.map(({ start, stop }) => costs.stageCost(start, stop, stages.length));
  const crossing = cuts.map((cut) => costs.cutBytes(cut));
  const tooLarge = costs.tooLarge(stages).map((stage) => stage.index);
  return { stages, one, crossing, tooLarge, move: costs.wouldFit(stages) };
});
"""
seeds = st.integers(0, 2**32).map(random.Random)


def found_of(
    node: Node, graph: Graph, device: Device | None, num_microbatches: int, splits: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """What the browser says of these splits."""
    state = cost_state(graph, device, num_microbatches)
    found: list[dict[str, Any]] = node.run(STAGES, graph_state(graph), state, splits)
    return found


def expected_stages(graph: Graph, device: Device | None, num_microbatches: int, cuts: Sequence[int]) -> list[Any]:
    """What Python says of each stage of a split."""
    rows = microbatch_rows(graph.batch_size, num_microbatches)[0]
    crossing, peaks, flops = graph.live_bytes_for(rows), graph.memory_bytes_for(rows), graph.flops_for(rows)
    expected = []
    for stage in Plan(graph, tuple(cuts)).stages:
        memory = {
            "weights": stage.param_bytes + stage.buffer_bytes,
            "gradients": 0,
            "activations": int(peaks[stage.start : stage.stop].max()),
            "caches": stage.cache_bytes,
            "reserve": device.reserve_bytes if device else 0,
        }
        total = sum(memory.values())
        expected.append(
            {
                "index": stage.index, "start": stage.start, "stop": stage.stop, "params": stage.num_params,
                "bytes": stage.param_bytes, "flops": int(flops[stage.start : stage.stop].sum()),
                "memory": {**memory, "total": total}, "needs": total, "inFlight": None,
                "pinned": False, "rank": stage.index,
                **_seconds(graph, device, rows, stage.start, stage.stop, len(cuts) + 1, stage.num_params),
            }
        )  # fmt: skip
        if device:
            assert total == Costs.of(graph, device, rows).memory_bytes(stage.start, stage.stop)
    return [expected, [int(crossing[cut]) for cut in cuts]]


def _seconds(graph: Graph, device: Device | None, rows: int, start: int, stop: int, count: int, params: int) -> Any:
    if device is None:
        return {"cost": params, "work": None, "receive": None, "send": None}
    costs = Costs.of(graph, device, rows)
    before, moves = costs.work_before(count), costs.transfer_s
    parts = [float(moves[start]), float(before[stop] - before[start] + device.microbatch_s), float(moves[stop])]
    cost = max(parts) if device.overlap else sum(parts)
    return {"cost": pytest.approx(cost, rel=1e-9), **dict(zip(("receive", "work", "send"), parts, strict=True))}


def check_splits(node: Node, choose: random.Random, graph: Graph, num_splits: int) -> None:
    device = random_device(choose, graph) if choose.random() < 0.8 else None
    if device and choose.random() < 0.7:
        whole = Costs.of(graph, device, graph.batch_size).memory_bytes(0, len(graph.ops))
        device = replace(device, memory_bytes=max(1, choose.random() * whole))
    num_microbatches = choose.randint(1, graph.batch_size)
    most = min(8, len(graph.legal) + 1)
    splits = [random_cuts(choose, graph, choose.randint(1, most)) for _ in range(num_splits)]
    for cuts, found in zip(splits, found_of(node, graph, device, num_microbatches, splits), strict=True):
        stages, crossing = expected_stages(graph, device, num_microbatches, cuts)
        assert found["stages"] == stages
        assert found["one"] == [stage["cost"] for stage in stages]
        assert found["crossing"] == crossing
        over = [stage["index"] for stage in stages if device and stage["needs"] > device.memory_bytes]
        assert found["tooLarge"] == over
        if over and device:
            rows = microbatch_rows(graph.batch_size, num_microbatches)[0]
            check_move(found["move"], Costs.of(graph, device, rows), cuts, over[0])
        else:
            assert found["move"] is None


def check_move(move: dict[str, Any] | None, costs: Costs, cuts: Sequence[int], index: int) -> None:
    """Both stages fit after the move, and with no fewer blocks could they."""
    graph, edges = costs.graph, [0, *cuts, len(costs.graph.ops)]
    between = [point.position for point in graph.cut_points if point.level == "block"]
    inside = [position for position in between if edges[index] < position < edges[index + 1]]
    fitting = []
    for cut in range(max(0, index - 1), min(len(cuts), index + 1)):
        for position in inside:
            moved = [0, *cuts[:cut], position, *cuts[cut + 1 :], len(graph.ops)]
            pair = list(pairwise(moved))[cut : cut + 2]
            if all(costs.memory_bytes(*bounds) <= costs.device.memory_bytes for bounds in pair):
                first, last = sorted((position, cuts[cut]))
                parameters = (weight for weight in graph.weights_between(first, last) if weight.kind == "parameter")
                count = 1 + sum(first < at < last for at in inside)
                fitting.append((count, sum(weight.num_bytes for weight in parameters), cut, position))
    if not fitting:
        assert move is None
        return
    assert move is not None
    assert (move["blocks"], move["bytes"]) == min(fitting)[:2]
    assert (move["blocks"], move["bytes"], move["cut"], move["position"]) in fitting
    assert (move["from"], move["to"]) == (index, index - 1 if move["cut"] < index else index + 1)


@given(seeds)
def test_stages_of_any_graph_are_pythons(node: Node, choose: random.Random) -> None:
    check_splits(node, choose, random_graph(choose), 10)


@given(seeds)
def test_stages_of_a_transformer_are_pythons(node: Node, choose: random.Random) -> None:
    graph = gpt2_graph(choose.randint(1, 12), vocab=choose.randint(1, 50000), batch=choose.randint(1, 12))
    check_splits(node, choose, graph, 10)


def test_stages_of_one_rank_are_too_large_together(node: Node) -> None:
    graph = gpt2_graph()
    plan = uniform(graph, num_stages=4)
    options = {"schedule": "interleaved_1f1b", "num_ranks": 2, "num_microbatches": 8}
    timeline = simulate(plan, hardware="h100-80gb", **options)
    least, most = timeline.peak_memory_bytes
    state = cost_state(graph, replace(PRESETS["h100-80gb"], memory_bytes=(least + most) / 2), 8)
    body = """
      const [{ Model }, { Costs }] = await Promise.all(["model.js", "costs.js"].map(load));
      const costs = new Costs(new Model(args[0]), args[1]);
      const stages = costs.stages(args[2], { schedule: "interleaved_1f1b", numRanks: 2 });
      return [costs.verdict(stages, null), costs.wouldFit(stages)];
    """
    verdict, move = node.run(body, graph_state(graph), state, plan.cuts)
    assert verdict.endswith(f"Stages 1 and 3 together need {most / 1e9:.1f} of 1.3 GB.")
    assert move is None


def test_no_block_moves_over_a_pinned_divider(node: Node) -> None:
    """What did not fit was to move to the neighbour, be the divider between them pinned or not."""
    graph = gpt2_graph()
    plan = uniform(graph, num_stages=4)
    state = cost_state(graph, replace(PRESETS["h100-80gb"], memory_bytes=1.2e9), 8)
    body = """
      const [{ Model }, { Costs }] = await Promise.all(["model.js", "costs.js"].map(load));
      const costs = new Costs(new Model(args[0]), args[1]);
      return args[3].map((pins) => costs.wouldFit(costs.stages(args[2], { pins: new Set(pins) })));
    """
    free, *pinned = node.run(body, graph_state(graph), state, plan.cuts, [[], [plan.cuts[0]], plan.cuts])
    assert (free["from"], free["to"]) == (0, 1)
    assert pinned == [None, None]
