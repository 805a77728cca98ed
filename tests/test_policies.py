"""The policies on small graphs: their cuts by hand, and what they refuse."""

from dataclasses import replace

import pytest
from graphs import chain_graph, gpt2_graph, mlp_graph
from pippy import charged

from pipelab.errors import SplitError
from pipelab.greedy import charges_of
from pipelab.policies import equal_size, split_at, threshold, uniform
from pipelab.split_points import SplitPoint

# --- equal_size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_layers", "num_stages", "layers"),
    [
        (8, 4, [2, 2, 2, 2]),
        (10, 4, [2, 2, 2, 4]),
        (6, 4, [1, 1, 1, 3]),
        (7, 4, [1, 1, 1, 4]),
        (9, 5, [1, 1, 1, 1, 5]),
        (12, 8, [1, 1, 1, 1, 1, 1, 1, 5]),
        (5, 1, [5]),
    ],
)
def test_equal_size_gives_the_rest_to_the_last_stage(num_layers: int, num_stages: int, layers: list[int]) -> None:
    plan = equal_size(mlp_graph(num_layers), num_stages=num_stages)
    assert [size // 272 for size in charged(plan)] == layers


def test_equal_size_may_leave_the_last_stage_empty() -> None:
    plan = equal_size(mlp_graph(3), num_stages=4)
    assert charged(plan) == [272, 272, 272, 0]
    assert plan.has_empty_stage and plan.without_empty_stage().num_stages == 3


def test_equal_size_may_leave_the_last_stage_without_weights() -> None:
    plan = equal_size(chain_graph(["a"], ["b"], ["c"], [], [], sizes=dict.fromkeys("abc", 10)), num_stages=4)
    assert charged(plan) == [10, 10, 10, 0]
    assert plan.bounds[-1] == (3, 5) and not plan.has_empty_stage


def test_equal_size_refuses_more_stages_than_layers_can_fill() -> None:
    with pytest.raises(SplitError) as error:
        equal_size(mlp_graph(2), num_stages=4)
    assert str(error.value) == (
        "equal_size cannot make 4 stages of MLP: layers.0.weight alone (256) exceeds the 136 elements each stage may "
        "hold. The greedy pass makes 3 stages. The largest number of stages below 4 that works is 3."
    )


def test_equal_size_counts_a_weight_in_each_bucket_and_a_buffer_under_its_full_size() -> None:
    # PiPPy's test_autosplit: three matrices, two linear layers, and a buffer of which a slice is added.
    square, layer, buffer = 512 * 512, 512 * 512 + 512, 356 * 512
    graph = chain_graph(
        ["m0"], [], ["m1"], ["buffer"], [], ["l0"], [], ["m2"], ["l1"],
        sizes={"m0": square, "m1": square, "m2": square, "l0": layer, "l1": layer, "buffer": buffer},
        kinds={"buffer": "buffer"},
    )  # fmt: skip
    assert charged(equal_size(graph, num_stages=4)) == [262144, 262144, 182272, 787456]


def test_equal_size_names_the_buffer_that_raises_the_budget() -> None:
    graph = chain_graph(["a"], ["b"], sizes={"a": 10, "b": 10, "rope": 100}, kinds={"rope": "buffer"})
    with pytest.raises(SplitError, match=r"rope \(buffer, 100\) counts towards the 60 elements .* works is 1\."):
        equal_size(graph, num_stages=2)


def test_equal_size_names_an_op_whose_weights_together_exceed_the_budget() -> None:
    graph = chain_graph(["a", "b", "c"], ["d"], sizes={"a": 10, "b": 10, "c": 10, "d": 10})
    with pytest.raises(SplitError, match=r"the weights of op_0 together \(30\) exceed the 13 elements"):
        equal_size(graph, num_stages=3)


def test_equal_size_of_a_model_without_parameters() -> None:
    with pytest.raises(SplitError, match="none of its ops reads a parameter"):
        equal_size(chain_graph([], [], sizes={}), num_stages=2)


@pytest.mark.parametrize("num_stages", [0, -3])
def test_the_number_of_stages_is_positive(num_stages: int) -> None:
    for policy in (equal_size, threshold, uniform):
        with pytest.raises(SplitError, match="1 or more"):
            policy(mlp_graph(), num_stages=num_stages)


@pytest.mark.parametrize("num_stages", [2.0, "2", None, True])
def test_the_number_of_stages_is_whole(num_stages: object) -> None:
    for policy in (equal_size, uniform, threshold):
        with pytest.raises(SplitError, match=r"whole number|pass one of them"):
            policy(mlp_graph(), num_stages=num_stages)


def test_a_huge_number_of_stages_is_refused_at_once() -> None:
    """The search for a number that works went down one by one from what was asked."""
    with pytest.raises(SplitError, match=r"below 1000000000000 that works is 3\."):
        equal_size(mlp_graph(2), num_stages=10**12)


# --- threshold ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_params", "sizes"),
    [
        (0, [272, 272, 272, 272, 0]),
        (271, [272, 272, 272, 272, 0]),
        (272, [272, 272, 272, 272]),
        (273, [272, 272, 272, 272]),
        (544, [544, 544]),
        (816, [816, 272]),
        (1088, [1088]),
        (1e9, [1088]),
    ],
)
def test_threshold_fills_each_stage_up_to_it(max_params: float, sizes: list[int]) -> None:
    assert charged(threshold(mlp_graph(4), max_params=max_params)) == sizes


@pytest.mark.parametrize(("num_stages", "budget"), [(1, 1088), (2, 544), (3, 544), (4, 272), (5, 0), (9, 0)])
def test_threshold_finds_the_smallest_for_a_number_of_stages(num_stages: int, budget: int) -> None:
    plan = threshold(mlp_graph(4), num_stages=num_stages)
    assert plan.cuts == threshold(mlp_graph(4), max_params=budget).cuts
    assert plan.policy == f"threshold (PiPPy, greedy, {budget:,} elements per stage)"


@pytest.mark.parametrize("arguments", [{}, {"max_params": 5.0, "num_stages": 2}])
def test_threshold_takes_one_of_its_two_arguments(arguments: dict[str, int]) -> None:
    with pytest.raises(SplitError, match="pass one of them"):
        threshold(mlp_graph(), **arguments)


@pytest.mark.parametrize("max_params", [-1, float("nan"), float("inf")])
def test_threshold_refuses_a_budget_that_is_no_number_of_elements(max_params: float) -> None:
    with pytest.raises(SplitError, match="0 or more"):
        threshold(mlp_graph(), max_params=max_params)


def test_tied_names_weigh_twice_and_non_persistent_buffers_nothing() -> None:
    graph = chain_graph(
        ["wte"], ["rope"], ["head"], sizes={"wte": 10, "head": 10, "rope": 50}, kinds={"rope": "buffer"}
    )
    wte, head, rope = graph.weights
    graph = replace(graph, weights=(wte, replace(head, tied_to="wte"), replace(rope, persistent=False)))
    assert charges_of(graph) == {0: {"wte": 10}, 2: {"head": 10}}
    assert threshold(graph, max_params=20).cuts == ()
    assert threshold(graph, max_params=19).cuts == (2,)


# --- cuts that are not legal ----------------------------------------------------------------------------


def test_an_illegal_cut_moves_to_the_nearest_place_with_the_same_sizes() -> None:
    graph = chain_graph(["a"], [], [], [], ["b"], [], ["c"], sizes=dict.fromkeys("abc", 10))
    assert threshold(graph, max_params=10).cuts == (4, 6)
    assert threshold(replace(graph, legal=(1, 3, 5)), max_params=10).cuts == (3, 5)


def test_an_illegal_cut_with_no_such_place_is_refused() -> None:
    graph = replace(chain_graph(["a"], [], ["b"], ["c"], sizes=dict.fromkeys("abc", 10)), legal=(3,))
    with pytest.raises(SplitError, match=r"before op #2 .* no legal cut keeps the same sizes"):
        threshold(graph, max_params=10)


# --- uniform ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_stages", "labels"),
    [
        (1, ["embed h.0 h.1 h.2 h.3 h.4 head"]),
        (2, ["embed h.0 h.1 h.2", "h.3 h.4 head"]),
        (3, ["embed h.0 h.1", "h.2 h.3", "h.4 head"]),
        (5, ["embed h.0", "h.1", "h.2", "h.3", "h.4 head"]),
    ],
)
def test_uniform_shares_out_the_blocks(num_stages: int, labels: list[str]) -> None:
    plan = uniform(gpt2_graph(5, hidden=8, vocab=11), num_stages=num_stages)
    assert [" ".join(stage.labels) for stage in plan.stages] == labels


def test_uniform_refuses_more_stages_than_blocks() -> None:
    with pytest.raises(
        SplitError, match=r"it has 5 blocks to share out\. The largest number of stages that works is 5"
    ):
        uniform(gpt2_graph(5, hidden=8, vocab=11), num_stages=6)


def test_uniform_keeps_blocks_together_that_cannot_be_cut_apart() -> None:
    graph = replace(mlp_graph(4), legal=(1, 3))
    assert uniform(graph, num_stages=3).cuts == (1, 3)
    with pytest.raises(SplitError, match="largest number of stages that works is 3"):
        uniform(graph, num_stages=4)


# --- split_at -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "cuts"),
    [
        (["layers.1", "layers.3"], (1, 3)),
        ([5, 2], (2, 5)),
        (["layers.6", 2], (2, 6)),
        ({"layers.1": SplitPoint.END, "layers.5": SplitPoint.BEGINNING}, (2, 5)),
        ([], ()),
    ],
)
def test_split_at_cuts_where_it_is_told(points: list[str | int], cuts: tuple[int, ...]) -> None:
    graph = mlp_graph(8)
    plan = split_at(graph, points)
    assert plan.cuts == cuts
    assert split_at(graph, plan.split_points).cuts == cuts


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (["layers.77"], "ran no module 'layers.77'"),
        (["layers.2", 2], "'layers.2' and 2 are the same cut"),
        ([0], "Position 0 is not a legal cut"),
        ({"layers.7": SplitPoint.END}, "is not a legal cut"),
        ({"layers.2": "middle"}, "SplitPoint.BEGINNING or SplitPoint.END, not 'middle'"),
        ("layers.2", r"takes a list of places: split_at\(traced, \['layers.2'\]\)"),
        (None, r'no pipe_split\(\) in its forward: say where to cut, as in split_at\(traced, \["layers.1"\]\)'),
    ],
)
def test_split_at_says_what_is_wrong_with_a_place(points: list[str | int], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        split_at(mlp_graph(8), points)


def test_split_at_without_places_cuts_at_the_marks() -> None:
    assert split_at(replace(mlp_graph(8), marks=(3, 5))).cuts == (3, 5)
