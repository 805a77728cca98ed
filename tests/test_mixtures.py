import math
from itertools import combinations

import pytest
from graphs import gpt2_graph, mlp_graph

import pipelab
from pipelab.candidates import candidates
from pipelab.costs import Costs
from pipelab.errors import SplitError
from pipelab.graph import Graph
from pipelab.hardware import Hardware
from pipelab.plan import Plan
from pipelab.policies import split_at

SERIAL = Hardware("serial", 1e12, {"float32": 1e12}, 1e10, 1e9, 1e-6, overlap=False, reserve_bytes=0)
BESIDE = Hardware("beside", 1e12, {"float32": 1e12}, 1e10, 1e9, 1e-6, overlap=True, reserve_bytes=0)


def prefill_and_decode() -> tuple[Graph, Graph]:
    """Long rows make the head cheap beside the blocks; one token makes reading the head's weights dear."""
    return (gpt2_graph(6, hidden=64, vocab=4000, batch=4, length=length) for length in (256, 1))


def cost(plan: Plan, device: Hardware, weights: tuple[float, float], graphs: tuple[Graph, Graph]) -> float:
    """The dearest stage's weighted time, for micro-batches of one row."""
    total = [0.0] * plan.num_stages
    for graph, weight in zip(graphs, weights, strict=True):
        costs = Costs.of(graph, device, 1)
        for stage, (a, b) in enumerate(split_at(graph, plan.split_points).bounds):
            parts = (costs.transfer_s[a], costs.op_s[a:b].sum(), costs.transfer_s[b])
            total[stage] += weight * float(max(parts) if device.overlap else sum(parts))
    return max(total)


@pytest.mark.parametrize("device", [SERIAL, BESIDE])
@pytest.mark.parametrize("weights", [(1, 1), (1, 50), (1e-9, 1), (1, 1e-9)])
def test_the_mix_is_the_best_of_all(device: Hardware, weights: tuple[float, float]) -> None:
    graphs = tuple(prefill_and_decode())
    plan = pipelab.optimal_mix(
        list(zip(graphs, weights, strict=True)), num_stages=3, hardware=device, num_microbatches=4
    )
    splits = combinations(candidates(graphs[0], "block")[1:-1], 2)
    best = min(cost(plan.with_cuts(cuts), device, weights, graphs) for cuts in splits)
    assert best * (1 - 1e-9) <= cost(plan, device, weights, graphs) <= best * 1.005


def test_a_mix_of_one_is_the_plan_for_it() -> None:
    graph = gpt2_graph(6)
    alone = pipelab.optimal(graph, num_stages=3, objective="time", hardware=SERIAL)
    assert pipelab.optimal_mix([(graph, 5)], num_stages=3, hardware=SERIAL).cuts == alone.cuts


def test_the_plan_says_what_it_is_for() -> None:
    prefill, decode = prefill_and_decode()
    plan = pipelab.optimal_mix([(prefill, 1), (decode, 64)], num_stages=2, hardware=SERIAL)
    assert plan.policy == "optimal_mix by time on serial (1 : 64)"
    assert plan.graph is prefill


def test_the_limit_holds_for_every_workload() -> None:
    prefill, decode = prefill_and_decode()
    fits = pipelab.optimal_mix([(decode, 1)], num_stages=2, hardware=SERIAL, memory_limit_bytes=2.2e6)
    assert fits.num_stages == 2
    with pytest.raises(SplitError, match=r"optimal_mix cannot make 2 stages: .*The smallest limit that works"):
        pipelab.optimal_mix([(decode, 1), (prefill, 1)], num_stages=2, hardware=SERIAL, memory_limit_bytes=2.2e6)


def test_two_models_are_refused() -> None:
    with pytest.raises(SplitError, match="takes traces of one model; these are of GPT2LMHeadModel and MLP"):
        pipelab.optimal_mix([(gpt2_graph(3), 1), (mlp_graph(3), 1)], num_stages=2)


@pytest.mark.parametrize(
    "workloads", [[], [mlp_graph(3)], [(mlp_graph(3), 0)], [(mlp_graph(3), -1)], [(mlp_graph(3), math.nan)]]
)
def test_weights_are_above_zero(workloads: list[tuple[Graph, float]]) -> None:
    with pytest.raises(SplitError, match="pairs of a trace and its weight above 0"):
        pipelab.optimal_mix(workloads, num_stages=2)
