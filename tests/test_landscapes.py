import math

import pytest
from graphs import gpt2_graph, mlp_graph

import pipelab
from pipelab.errors import SplitError
from pipelab.policies import equal_size, split_at, uniform


@pytest.mark.parametrize("objective", ["params", "flops", "time", "memory"])
def test_every_value_is_the_optimum_with_that_cut_held(objective: str) -> None:
    graph = gpt2_graph(6)
    plan = uniform(graph, num_stages=3)
    found = pipelab.landscape(plan, objective=objective, hardware="t4-16gb", num_microbatches=6)
    for index, position in enumerate(found.positions):
        held = [values[index] for values in found.values if math.isfinite(values[index])]
        best = pipelab.optimal(
            graph, num_stages=3, objective=objective, hardware="t4-16gb", pins=[position], num_microbatches=6
        )
        cost = pipelab.regret(best, objective=objective, num_microbatches=6).cost
        assert min(held) <= cost <= min(held) * 1.005  # the held cut may be either of the two


@pytest.mark.parametrize("granularity", ["block", "narrow", "op"])
def test_its_least_value_is_the_optimum(granularity: str) -> None:
    plan = equal_size(gpt2_graph(6), num_stages=4)
    found = pipelab.landscape(plan, granularity=granularity)
    optimum = pipelab.regret(plan, granularity=granularity).optimum
    assert found.optimum == optimum
    assert {min(values) for values in found.values} == {optimum}


def test_by_hand() -> None:
    # Six equal layers in three: with the first cut after layer 3, the rest takes 2 and 1.
    found = pipelab.landscape(split_at(mlp_graph(6), [3, 5]))
    layers = [[value / 272 for value in values] for values in found.values]
    assert layers == [[3, 2, 3, 4, math.inf], [math.inf, 4, 3, 2, 3]]
    assert found.at(0, 3) == 3 * 272
    assert "before layers.3" in repr(found)
    cells = ["1", "before layers.3", "816 parameters", "before layers.2", "544 parameters"]
    assert [cell.strip() for cell in repr(found).splitlines()[1].split("  ") if cell] == cells


def test_a_place_where_nothing_fits_is_infinite_unless_nothing_fits_anywhere() -> None:
    plan = uniform(mlp_graph(6), num_stages=2)
    tight = pipelab.landscape(
        plan, memory_limit_bytes=4 * 1088 + 300, num_microbatches=4
    )  # four layers, and activations of two rows
    assert tight.fits
    assert [math.isinf(value) for value in tight.values[0]] == [True, False, False, False, True]
    nowhere = pipelab.landscape(plan, memory_limit_bytes=1000)
    assert not nowhere.fits
    assert nowhere.values == pipelab.landscape(plan).values


def test_a_plan_without_cuts_has_a_flat_landscape() -> None:
    found = pipelab.landscape(uniform(mlp_graph(3), num_stages=1))
    assert (found.values, found.fits) == ((), True)


def test_too_many_places_are_refused() -> None:
    plan = uniform(gpt2_graph(30, extra_ops=100), num_stages=2)
    with pytest.raises(SplitError, match=r'places takes too much memory.*granularity="narrow"'):
        pipelab.landscape(plan, granularity="op")


# --- more stages -----------------------------------------------------------------------------------------------


def test_no_point_of_a_frontier_is_beaten_by_another_of_as_many_stages() -> None:
    points = pipelab.frontier(
        gpt2_graph(), num_stages=(1, 2, 4), granularity="narrow", hardware="t4-16gb", num_microbatches=8
    )
    assert {point.num_stages for point in points} == {1, 2, 4}
    for number in (1, 2, 4):
        of = [point for point in points if point.num_stages == number]
        assert [p.bottleneck_s for p in of] == sorted(p.bottleneck_s for p in of)
        assert [p.memory_bytes for p in of] == sorted((p.memory_bytes for p in of), reverse=True)
        best = pipelab.optimal(
            gpt2_graph(), num_stages=number, objective="time", granularity="narrow", hardware="t4-16gb",
            num_microbatches=8,
        )  # fmt: skip
        far = pipelab.regret(best, granularity="narrow", num_microbatches=8)
        assert of[0].bottleneck_s == pytest.approx(far.optimum)


def test_a_point_cannot_be_had_with_less_memory() -> None:
    for point in pipelab.frontier(gpt2_graph(), num_stages=(3,), granularity="narrow", hardware="t4-16gb"):
        limit = point.memory_bytes
        far = pipelab.regret(point.plan, granularity="narrow", memory_limit_bytes=limit)
        assert far.over_limit == ()
        assert far.cost == pytest.approx(point.bottleneck_s)
        try:
            less = pipelab.regret(point.plan, granularity="narrow", memory_limit_bytes=limit - 100)
        except SplitError:
            continue
        assert less.over_limit != ()


def test_numbers_of_stages_that_do_not_fit_say_why() -> None:
    points = pipelab.frontier(
        gpt2_graph(), num_stages=(1, 4), hardware="t4-16gb", memory_limit_bytes=1.3e9, num_microbatches=8
    )
    assert {point.num_stages for point in points} == {4}
    assert "The smallest limit that works for 1 stage is" in points.refused[1]
    assert repr(points).splitlines()[-1].startswith("1 stage: With the limit of 1.30 GB per stage")
    assert repr(points).startswith("GPT2LMHeadModel: batch of 8 in 8 micro-batches, t4-16gb, by its data sheet\n")
    with pytest.raises(SplitError, match=r"No split of GPT2LMHeadModel fits. With 2 stages: "):
        pipelab.frontier(gpt2_graph(), num_stages=(1, 2), hardware="t4-16gb", memory_limit_bytes=1.01e9)


@pytest.mark.parametrize("num_stages", [4, ()])
def test_a_frontier_takes_several_numbers_of_stages(num_stages: object) -> None:
    with pytest.raises(SplitError, match=r"several numbers of stages, as in num_stages=\(2, 4\); it is"):
        pipelab.frontier(gpt2_graph(), num_stages=num_stages)
