"""The planner's arrays against trying everything, on thousands of random small chains."""

import math
from dataclasses import replace

import numpy as np
import pytest
from brute_force import Case, random_case

from pipelab.landscapes import stage_costs, through
from pipelab.minmax import Optimum, minimise, window_max
from pipelab.polishing import polish


def check_certificate(case: Case, refused: float, reached: list[set[int]]) -> None:
    """No stage leaves its set within the refused bound, and the end of the model is not in the last one."""
    starts = {0}
    for stage in range(case.num_stages):
        ends = reached[stage] if stage < len(reached) else set()
        for start in starts:
            for stop in range(start + 1, case.num_segments + 1):
                assert stop in ends or case.cost(stage, start, stop) > refused
        starts = ends
    assert case.num_segments not in starts


def solved(case: Case) -> Optimum | None:
    """The planner's answer, held against trying everything."""
    found, best = minimise(case.chain()), case.best()
    assert (found is None) == math.isinf(best)
    if found is not None:
        assert found.cost == pytest.approx(best, rel=1e-9)
        assert case.bottleneck(found.cuts) == pytest.approx(best, rel=1e-9)
        assert all(cut in found.cuts for cut in case.pins)
        check_certificate(case, found.refused, [set(ends.tolist()) for ends in found.reached])
    return found


@pytest.mark.parametrize("batch", range(10))
def test_the_optimum_is_that_of_trying_everything(batch: int) -> None:
    answers = [solved(random_case(seed)) for seed in range(300 * batch, 300 * (batch + 1))]
    assert any(found is None for found in answers)
    assert sum(found is not None for found in answers) > 120


@pytest.mark.parametrize("tolerance", [0.0, 0.005, 0.3])
@pytest.mark.parametrize("few", [0, 3, 128])  # above so many candidates windows are used
def test_the_polished_split_has_the_fewest_bytes_within_the_tolerance(
    monkeypatch: pytest.MonkeyPatch, tolerance: float, few: int
) -> None:
    monkeypatch.setattr("pipelab.polishing._FEW", few)
    for seed in range(150):
        case = random_case(seed)
        chain = case.chain()
        found = minimise(chain)
        if found is None:
            continue
        bound = found.cost * (1 + tolerance) + chain.margin(found.cost)
        num_bytes = np.array([case.cut_bytes[position] for position in case.positions])
        cuts = polish(chain, num_bytes, bound, found.cuts)
        most = found.cost * (1 + tolerance)
        within = [case.bytes_of(split) for split in case.splits() if case.bottleneck(split) <= most]
        assert case.bottleneck(cuts) <= bound + chain.margin(bound)
        assert case.bytes_of(cuts) <= min(within, default=case.bytes_of(found.cuts))
        assert case.bytes_of(cuts) <= case.bytes_of(found.cuts)


def test_a_landscape_is_the_optimum_with_that_cut_at_that_place() -> None:
    for seed in range(200):
        case = random_case(seed)
        if case.num_stages == 1 or case.num_segments < case.num_stages:
            continue
        values = through(stage_costs(case.chain()))
        best = np.full(values.shape, np.inf)
        for split in case.splits():
            cost = case.bottleneck(split)
            for cut, place in enumerate(split):
                best[cut, place] = min(best[cut, place], cost)
        assert values[:, 1:-1] == pytest.approx(best[:, 1:-1], rel=1e-9)
        assert values.min(axis=1) == pytest.approx(np.full(case.num_stages - 1, case.best()), rel=1e-9)


def test_windows_hold_what_their_ops_hold_together() -> None:
    for seed in range(100):
        case = random_case(seed)
        window, everywhere = case.chain().windows[0], np.arange(case.num_segments + 1)
        table = window.sizes(everywhere, everywhere)
        for start in range(case.num_segments):
            for stop in range(start + 1, case.num_segments + 1):
                size = case.size(case.positions[start], case.positions[stop])
                assert table[start, stop] == window.size(start, stop) == size
                low = int(window.lows(size)[stop])
                assert low <= start  # the window with exactly this size is within the limit
                assert not low or case.size(case.positions[low - 1], case.positions[stop]) > size
        assert window.segments().tolist() == [table[s, s + 1] for s in range(case.num_segments)]


def test_window_maxima() -> None:
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    starts, stops = np.array([0, 0, 1, 2, 3, 4, 0]), np.array([1, 3, 2, 5, 3, 5, 5])
    assert window_max(values, starts, stops).tolist() == [3, 4, 1, 5, -np.inf, 5, 5]


def test_a_chain_that_costs_nothing_has_a_certificate_too() -> None:
    case = random_case(0)
    nothing = np.zeros(4)
    chain = case.chain()
    stages = (replace(chain.stages[0], work=nothing, receive=nothing, send=nothing, fixed=0.0, limit=math.inf),) * 2
    found = minimise(replace(chain, stages=stages, windows=(), measure=None, pins=()))
    assert found is not None
    assert found.cost == 0 > found.refused
