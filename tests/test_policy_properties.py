"""What every policy promises, for any graph."""

from dataclasses import replace
from itertools import pairwise

import pytest
from graphs import chain_graph
from hypothesis import given
from hypothesis import strategies as st
from pippy import charged

from pipelab.errors import SplitError
from pipelab.graph import Graph
from pipelab.greedy import charges_of, greedy_cuts, smallest_budget
from pipelab.policies import equal_size, threshold


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    sizes = draw(st.lists(st.integers(1, 20), min_size=1, max_size=8))
    names = [f"w{index}" for index in range(len(sizes))]
    reads = st.lists(st.sampled_from(names), max_size=3, unique=True)
    ops = draw(st.lists(reads, min_size=1, max_size=16))
    graph = chain_graph(*ops, sizes=dict(zip(names, sizes, strict=True)))
    return replace(graph, legal=tuple(p for p in graph.legal if draw(st.integers(0, 5))))


def stage_count(graph: Graph, budget: int) -> int:
    return len(greedy_cuts(charges_of(graph), budget)) + 1


@given(graphs(), st.integers(0, 60))
def test_greedy_stages_hold_at_most_the_budget_and_could_not_hold_more(graph: Graph, budget: int) -> None:
    charges = charges_of(graph)
    edges = [0, *greedy_cuts(charges, budget), len(graph.ops)]
    stages = [[index for index in charges if a <= index < b] for a, b in pairwise(edges)]

    def size(indices: list[int]) -> int:
        return sum({name: n for index in indices for name, n in charges[index].items()}.values())

    for stage, following in zip(stages, [*stages[1:], []], strict=True):
        assert size(stage) <= budget or len(stage) == 1
        assert not following or size([*stage, following[0]]) > budget


@given(graphs(), st.integers(1, 8))
def test_the_smallest_budget_is_the_smallest(graph: Graph, num_stages: int) -> None:
    budget = smallest_budget(charges_of(graph), num_stages)
    assert stage_count(graph, budget) <= num_stages
    assert budget == 0 or stage_count(graph, budget - 1) > num_stages


@given(graphs(), st.integers(0, 60))
def test_a_larger_budget_never_needs_more_stages(graph: Graph, budget: int) -> None:
    assert stage_count(graph, budget + 1) <= stage_count(graph, budget)


@given(graphs(), st.integers(1, 6), st.integers(0, 60))
def test_every_op_is_in_one_stage_whatever_the_policy(graph: Graph, num_stages: int, budget: int) -> None:
    for make in (
        lambda: equal_size(graph, num_stages=num_stages),
        lambda: threshold(graph, num_stages=num_stages),
        lambda: threshold(graph, max_params=budget),
    ):
        try:
            plan = make()
        except SplitError:
            continue
        ops = [op for start, stop in plan.bounds for op in range(start, stop)]
        assert ops == list(range(len(graph.ops)))


@given(graphs(), st.integers(0, 60))
def test_moving_a_cut_leaves_the_sizes(graph: Graph, budget: int) -> None:
    every = replace(graph, legal=tuple(range(1, len(graph.ops))))
    try:
        plan = threshold(graph, max_params=budget)
    except SplitError:
        return
    assert charged(plan) == charged(threshold(every, max_params=budget))


@given(graphs(), st.integers(1, 8))
def test_equal_size_or_its_refusal_names_a_number_that_works(graph: Graph, num_stages: int) -> None:
    every = replace(graph, legal=tuple(range(1, len(graph.ops))))
    try:
        assert equal_size(every, num_stages=num_stages).num_stages == num_stages
    except SplitError as error:
        works = int(str(error).rstrip(".").rpartition(" ")[2])
        assert equal_size(every, num_stages=works).num_stages == works
        for more in range(works + 1, num_stages):
            with pytest.raises(SplitError):
                equal_size(every, num_stages=more)
