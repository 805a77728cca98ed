import math

import numpy as np
import pytest
from brute_force import Case, random_case
from graphs import gpt2_graph, mlp_graph

import pipelab
from pipelab.minmax import Optimum, minimise
from pipelab.polishing import polish

# --- the arrays against trying everything ----------------------------------------------------------------------


def check_certificate(case: Case, refused: float, reached: list[set[int]]) -> None:
    """No stage leaves its set within the refused bound, and the end of the model is in none that matters."""
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
        check_certificate(case, found.refused, [set(ends.tolist()) for ends in found.reached])
    return found


@pytest.mark.parametrize("batch", range(10))
def test_the_optimum_is_that_of_trying_everything(batch: int) -> None:
    answers = [solved(random_case(seed)) for seed in range(400 * batch, 400 * (batch + 1))]
    assert any(found is None for found in answers)
    assert sum(found is not None for found in answers) > 150


@pytest.mark.parametrize("tolerance", [0.0, 0.005, 0.3])
def test_the_polished_split_has_the_fewest_bytes_of_all_within_the_tolerance(tolerance: float) -> None:
    for seed in range(500):
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
        assert chain.bottleneck(cuts) <= bound
        assert case.bytes_of(cuts) <= min(within, default=case.bytes_of(found.cuts))
        assert case.bytes_of(cuts) <= case.bytes_of(found.cuts)


@pytest.mark.parametrize("few", [0, 3])
def test_the_polish_of_many_candidates_is_as_exact(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr("pipelab.polishing._FEW", few)
    test_the_polished_split_has_the_fewest_bytes_of_all_within_the_tolerance(0.3)


# --- graphs ----------------------------------------------------------------------------------------------------


def test_equal_layers_are_shared_out_evenly() -> None:
    for num_stages in range(1, 11):
        plan = pipelab.optimal(mlp_graph(10), num_stages=num_stages)
        sizes = [len(stage.labels) for stage in plan.stages]
        assert max(sizes) == math.ceil(10 / num_stages)
        assert max(sizes) - min(sizes) <= 1 or sum(sizes) == 10


@pytest.mark.parametrize(
    ("num_stages", "largest"),
    # By hand: the embedding is 39,383,808, a block 7,087,872, the head (tied, with its norm) 38,598,912.
    [(2, 39_383_808 + 6 * 7_087_872), (3, 8 * 7_087_872), (4, 6 * 7_087_872), (8, 39_383_808)],
)
def test_the_best_splits_of_gpt2_by_parameters(num_stages: int, largest: int) -> None:
    plan = pipelab.optimal(gpt2_graph(), num_stages=num_stages)
    assert max(stage.num_params for stage in plan.stages) == largest


@pytest.mark.parametrize("objective", ["params", "flops", "time", "memory"])
@pytest.mark.parametrize("granularity", ["block", "narrow", "module", "op"])
def test_every_objective_and_granularity(objective: str, granularity: str) -> None:
    graph = gpt2_graph(4)
    plan = pipelab.optimal(graph, num_stages=3, objective=objective, granularity=granularity)
    best = {
        "params": lambda: min(
            max(stage.num_params for stage in plan.with_cuts((a, b)).stages)
            for a in graph.legal
            for b in graph.legal
            if a < b and {graph.level_at(a), graph.level_at(b)} == {"block"}
        ),
    }
    if objective == "params":
        worst = max(stage.num_params for stage in plan.stages)
        assert worst <= best["params"]()
    far = pipelab.regret(plan, objective=objective, granularity=granularity)
    assert 0 <= far.fraction <= (0.005 if objective == "time" else 0)
    assert plan.policy.startswith(f"optimal by {objective}")
