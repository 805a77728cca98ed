"""Comparisons: the same figures for all plans, the verdict first."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from graphs import gpt2_graph, mlp_graph
from runs import made_up_report
from torch import nn

import pipelab
from pipelab.comparing import side_by_side
from pipelab.comparison import Comparison
from pipelab.contenders import Contender
from pipelab.errors import InputError, SplitError
from pipelab.graph import Graph
from pipelab.hardware import Hardware
from pipelab.planner import optimal, regret
from pipelab.policies import equal_size, split_at, threshold, uniform
from pipelab.report import Report
from pipelab.simulator import simulate

GPT2 = gpt2_graph()
MLP = mlp_graph(12)
# 1 µs per op, and nothing else takes time worth a mention.
CLOCK = Hardware("clock", 1e9, {"float32": 1e18}, 1e18, 1e18, 0.0, op_s=1e-6, reserve_bytes=0)
TINY = replace(CLOCK, memory_bytes=2000)


def by_name(comparison: Comparison) -> dict[str, Contender]:
    return {entry.name: entry for entry in comparison.entries}


def test_a_trace_is_split_by_the_two_policies_and_the_optimum() -> None:
    plans = {name: entry.plan for name, entry in by_name(pipelab.compare(GPT2, num_stages=4)).items()}
    assert plans == {
        "equal_size": equal_size(GPT2, num_stages=4),
        "threshold": threshold(GPT2, num_stages=4),
        "optimal": optimal(GPT2, num_stages=4),
    }


def test_its_figures_are_those_of_simulate_regret_and_the_plan() -> None:
    comparison = pipelab.compare(GPT2, num_stages=4, hardware="h100-80gb", num_microbatches=4)
    for entry in comparison.entries:
        limits = {"hardware": "h100-80gb", "num_microbatches": 4}
        assert entry.predicted == simulate(entry.plan, **limits)
        assert entry.regret.cost == regret(entry.plan, **limits).cost
        assert entry.sent_bytes == sum(boundary.num_bytes for boundary in entry.plan.boundaries)
        assert entry.regret.cost == pytest.approx(entry.bottleneck_s)  # the link beside it is faster here
        assert entry.edges[0] == 0 and entry.edges[-1] == 1 and list(entry.edges) == sorted(entry.edges)


def test_ten_equal_layers_by_hand() -> None:
    # PiPPy's equal_size makes 2, 2, 2, 4 layers; the best is 3, 3, 2, 2. Batch of 8: micro-batches of 1 row.
    comparison = pipelab.compare(mlp_graph(10), num_stages=4, hardware=CLOCK)
    even, best = by_name(comparison)["equal_size"], comparison.best
    assert even.stage_s == pytest.approx((2e-6, 2e-6, 2e-6, 4e-6))
    assert (even.slowest, even.bottleneck_text, even.above_text) == (3, "stage 3", "33\u00a0% above")
    # sum of the stages + 7 x the slowest
    assert [even.step_s, best.step_s] == pytest.approx([38e-6, 31e-6])
    assert comparison.more(even) == pytest.approx(7 / 31)
    assert comparison.verdict == (
        "threshold needs 31.0 µs per step; optimal as much, equal_size 23\u00a0% more: its stage 3 takes 4.00 µs per "
        "micro-batch, threshold's slowest 3.00 µs."
    )


def test_the_optimum_is_held_to_the_micro_batches_that_all_are_measured_with() -> None:
    # The head's logits of the whole batch alone are 206 MB; of one row, which is what runs at a time, 26 MB.
    entries = by_name(pipelab.compare(GPT2, num_stages=4, hardware="t4-16gb", memory_limit_bytes=1.2e9))
    assert entries["optimal"].misfits == () and entries["optimal"].above_text == "0\u00a0% above"
    assert entries["equal_size"].misfits == (3,)


def test_plans_of_a_model_without_parameters_hold_as_much() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid()).eval()
    comparison = pipelab.compare(pipelab.trace(model, torch.zeros(4, 8)), num_stages=2)
    assert comparison.verdict.startswith("threshold holds 0 parameters in its largest stage; optimal as much.")


def test_the_table_follows_the_verdict() -> None:
    comparison = pipelab.compare(mlp_graph(10), num_stages=4, hardware=CLOCK)
    verdict, title, header, even, *_ = repr(comparison).splitlines()
    assert verdict == comparison.verdict
    assert title == "MLP: batch of 8 in 8 micro-batches of 1 row, predicted for clock, by its data sheet"
    assert header.split("  ")[0] == "plan" and "measured" not in header
    assert " ".join(even.split()) == (
        "equal_size 4 stage 3: 1.09 k stage 3: 4.00 µs 38.0 µs 47 % stage 3: 4.48 kB of 1 GB 1.54 kB 33 % above"
    )


def test_without_a_cost_source_it_counts_parameters_and_says_what_times_rest_on() -> None:
    comparison = pipelab.compare(GPT2, num_stages=4)
    assert comparison.objective == "params"
    assert comparison.verdict == (
        "threshold holds 41.2 M parameters in its largest stage; optimal 3\u00a0% more, equal_size 57\u00a0% more: its "
        "stage 3 holds 64.6 M. No hardware was named: times are for h100-80gb, by its data sheet."
    )
    assert by_name(comparison)["equal_size"].regret.objective == "params"


def test_the_budget_of_threshold_is_printed() -> None:
    assert "41,157,120 elements per stage" in repr(pipelab.compare(GPT2, num_stages=4))


def test_a_policy_that_refuses_is_named_with_its_reason() -> None:
    comparison = pipelab.compare(MLP, num_stages=4, hardware=TINY)
    assert set(by_name(comparison)) == {"equal_size", "threshold"}
    assert "\noptimal cannot make 4 stages: " in repr(comparison)
    assert "2 kB of clock" in comparison.refused["optimal"]
    assert comparison.verdict.endswith(
        "equal_size comes closest: stage 0 needs 3.4 of 2.0 kB, and 3 other stages more than there is."
    )


def test_no_number_of_stages_is_no_reason_of_a_policy() -> None:
    with pytest.raises(SplitError, match="num_stages must be a whole number, 1 to 100,000; it is 0"):
        pipelab.compare(MLP, num_stages=0)


def test_a_plan_that_does_not_fit_is_not_the_best() -> None:
    plans = {"thin": split_at(MLP, [2]), "even": split_at(MLP, [6])}
    comparison = side_by_side(plans, hardware=TINY, memory_limit_bytes=7000)
    assert (comparison.best.name, by_name(comparison)["thin"].misfits) == ("even", (1,))
    assert "thin does not fit: stage 1 needs 11.2 of 7.0 kB." in comparison.verdict


def test_under_a_limit_without_hardware_memory_is_what_the_optimum_is_held_to() -> None:
    comparison = pipelab.compare(gpt2_graph(), num_stages=2, memory_limit_bytes=400e6)
    optimal = comparison.entries[-1]
    assert optimal.name == "optimal"
    assert not optimal.misfits
    assert max(optimal.memory_bytes) <= 400e6
    assert "the device's own" not in repr(comparison)


def test_above_optimal_is_counted_from_one_optimum_for_all() -> None:
    # Inside blocks thirds are even; between blocks 4 stages of 12 blocks' head is not.
    comparison = side_by_side([equal_size(GPT2, num_stages=8), uniform(GPT2, num_stages=8)], hardware="h100-80gb")
    assert len({entry.optimum for entry in comparison.entries}) == 1
    for entry in comparison.entries:
        assert entry.above == pytest.approx(entry.regret.cost / entry.optimum - 1)


def test_a_list_is_named_by_policies() -> None:
    plans = [uniform(MLP, num_stages=2), split_at(MLP, [3]), uniform(MLP, num_stages=3)]
    assert list(by_name(side_by_side(plans))) == ["uniform", "split_at", "uniform 2"]


def test_plans_of_other_hardware_are_compared_on_the_first() -> None:
    mine = optimal(MLP, num_stages=2, objective="time", hardware="a100-40gb")
    comparison = side_by_side({"even": uniform(MLP, num_stages=2), "mine": mine})
    assert comparison.hardware.startswith("a100-40gb") and comparison.objective == "time"


def test_an_empty_last_stage_is_left_out() -> None:
    (entry,) = side_by_side([equal_size(mlp_graph(3), num_stages=4)]).entries
    assert entry.plan.num_stages == len(entry.stage_s) == 3


def test_a_saved_report_stands_beside_the_prediction(tmp_path: Path) -> None:
    made_up_report(uniform(GPT2, num_stages=3), num_microbatches=4).save(tmp_path / "run.json")
    report = Report.load(tmp_path / "run.json")
    comparison = pipelab.compare({"ran": report, "other": equal_size(GPT2, num_stages=3)})
    ran = by_name(comparison)["ran"]
    assert (comparison.num_microbatches, ran.report) == (4, report)
    assert ran.plan == uniform(GPT2, num_stages=3)
    assert (
        f"Measured: ran {ran.measured_text}." in comparison.verdict and "measured" in repr(comparison).splitlines()[2]
    )
    others = side_by_side([report], num_microbatches=8).entries[0].measured_text
    assert others == f"{ran.measured_text} (batch of 8 in 4)"


def test_plans_of_different_models_are_refused() -> None:
    with pytest.raises(SplitError, match=r"'a' cuts a MLP of 12 ops .* 'b' cuts a MLP of 8 ops"):
        pipelab.compare({"a": uniform(MLP, num_stages=2), "b": uniform(mlp_graph(8), num_stages=2)})


def test_an_equal_graph_of_another_trace_is_the_same_model() -> None:
    plans = {"a": uniform(MLP, num_stages=2), "b": uniform(Graph.from_json(MLP.to_json()), num_stages=3)}
    assert all(entry.plan.graph is MLP for entry in pipelab.compare(plans).entries)


@pytest.mark.parametrize(
    ("given", "says"),
    [({}, "nothing to compare"), ({"a": 3}, "'a' is of type int"), (uniform(MLP, num_stages=2), "plans by name"),
     (3, "this is of type int")],
)  # fmt: skip
def test_what_is_no_plan_is_refused(given: object, says: str) -> None:
    with pytest.raises(SplitError, match=says):
        pipelab.compare(given)


def test_unknown_hardware_is_an_error_of_the_input() -> None:
    with pytest.raises(InputError, match="h100-80gb"):
        pipelab.compare(MLP, num_stages=2, hardware="abacus")


def test_a_policy_that_leaves_a_device_over_is_refused() -> None:
    assert threshold(mlp_graph(4), num_stages=3).num_stages == 2  # of two layers each
    comparison = pipelab.compare(mlp_graph(4), num_stages=3, hardware=[CLOCK] * 3)
    assert set(by_name(comparison)) == {"equal_size", "optimal"}
    assert "threshold makes no plan: hardware names 3 devices for 2 stages" in repr(comparison)


def test_only_what_lab_makes_draws_itself() -> None:
    data, size = pipelab.compare(MLP, num_stages=2)._repr_png_()
    assert data.startswith(b"\x89PNG") and size["width"] == 1152
    assert side_by_side([uniform(MLP, num_stages=2)])._repr_png_() is None
