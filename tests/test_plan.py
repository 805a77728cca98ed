"""Plans: stages sum to the model, files hold names, repr is the table."""

import json
from pathlib import Path

import pytest
import zoo
from graphs import gpt2_graph
from hypothesis import given
from hypothesis import strategies as st

import pipelab
from pipelab.errors import InputError, SplitError
from pipelab.plan import Plan

GPT2 = pipelab.trace(*zoo.build("gpt2")[:1], **zoo.build("gpt2")[1])
TIED = pipelab.trace(*zoo.build("tied")[:1], **zoo.build("tied")[1])


@given(st.sets(st.sampled_from(GPT2.graph.legal), max_size=8))
def test_stages_sum_to_the_model(cuts: set[int]) -> None:
    plan = Plan(GPT2.graph, tuple(sorted(cuts)))
    graph = plan.graph
    assert sum(stage.flops for stage in plan.stages) == graph.flops
    for stage in plan.stages:
        names = dict.fromkeys(
            graph.weight_by_name[n].tied_to for op in graph.ops[stage.start : stage.stop] for n in op.weights
        )
        assert [weight.name for weight in graph.weights_between(stage.start, stage.stop)] == list(names)
        inside = [b.label for b in graph.blocks if b.start < stage.stop and stage.start < b.stop]
        assert list(stage.labels) == inside
    assert [stage.stop - stage.start for stage in plan.stages] == [b - a for a, b in plan.bounds]
    extra = sum(
        (sum(any(stage.start <= use < stage.stop for use in uses) for stage in plan.stages) - 1)
        * graph.weight_by_name[name].num_elements
        for name, uses in graph.weight_uses.items()
        if graph.weight_by_name[name].kind == "parameter"
    )
    assert sum(stage.num_params for stage in plan.stages) == graph.num_params + extra
    assert max(stage.activation_bytes for stage in plan.stages) == graph.memory_bytes.max()


@given(st.sets(st.sampled_from(GPT2.graph.legal), max_size=8))
def test_names_find_the_same_cuts(cuts: set[int]) -> None:
    plan = Plan(GPT2.graph, tuple(sorted(cuts)))
    assert pipelab.split_at(GPT2, plan.split_points).cuts == plan.cuts


def test_every_cut_of_every_model_has_a_name_that_finds_it_in_another_trace() -> None:
    for name in ("shared_block", "in_place", "t5", "cond"):
        model, inputs = zoo.build(name)
        first, second = (pipelab.trace(model, **inputs) for _ in range(2))
        for cut in first.graph.legal:
            names = Plan(first.graph, (cut,)).split_points
            assert pipelab.split_at(second, names).cuts == (cut,)


def test_tied_weight_counts_once_per_stage() -> None:
    whole = Plan(TIED.graph, ()).stages[0]
    halves = Plan(TIED.graph, (3,)).stages
    assert whole.num_params == TIED.graph.num_params
    assert sum(stage.num_params for stage in halves) == whole.num_params + 32 * 8


def test_file_holds_names_and_another_trace_resolves_them(tmp_path: Path) -> None:
    plan = Plan(GPT2.graph, (GPT2.graph.legal[40], GPT2.graph.legal[90]), "mine")
    plan.save(tmp_path / "plan.json")
    model, inputs = zoo.build("gpt2")
    other = pipelab.trace(model, input_ids=inputs["input_ids"][:4])
    loaded = Plan.load(tmp_path / "plan.json", other)
    assert loaded.split_points == plan.split_points
    assert loaded.policy == "mine"
    assert Plan.load(tmp_path / "plan.json", GPT2.graph) == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "not JSON"),
        ("[]", "format"),
        ('{"format": "pipelab-plan", "version": 9}', "version 9"),
        ('{"format": "pipelab-plan", "version": 1, "split_points": [3]}', "list of names"),
        (
            '{"format": "pipelab-plan", "version": 1, "model": "GPT2LMHeadModel", "split_points": ["transformer.h.7"]}',
            "Similar: 'transformer.h",
        ),
    ],
)
def test_file_that_is_no_plan_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(SplitError, match=said):
        Plan.load(tmp_path / "plan.json", GPT2)


def test_plan_of_another_model_is_refused_though_its_names_exist_here(tmp_path: Path) -> None:
    model, inputs = zoo.build("shared_block")
    other = pipelab.trace(model, **inputs)
    pipelab.split_at(other, ["head"]).save(tmp_path / "plan.json")
    with pytest.raises(SplitError, match=r"plan of SharedBlock.*trace of Tied.*split_at\(traced, \['head'\]\)"):
        Plan.load(tmp_path / "plan.json", TIED)
    with pytest.raises(SplitError, match="no plan to read"):
        Plan.load(tmp_path / "elsewhere.json", TIED)


@pytest.mark.parametrize("place", [2.5, None, b"head"])
def test_place_that_is_neither_name_nor_position_is_refused(place: object) -> None:
    with pytest.raises(SplitError, match="name or the position"):
        pipelab.split_at(TIED, [place])
    with pytest.raises(SplitError, match="whole number"):
        Plan(TIED.graph, (place,))


def test_what_was_not_traced_cannot_be_split() -> None:
    with pytest.raises(SplitError, match=r"Pass what pipelab\.trace.* returned; this is of type Tied"):
        pipelab.uniform(zoo.Tied(), num_stages=2)


def test_illegal_cut_names_the_nearest_legal_one() -> None:
    illegal = next(p for p in range(1, len(GPT2.graph.ops)) if p not in GPT2.graph.legal)
    with pytest.raises(SplitError, match=rf"Position {illegal} is not a legal cut.*nearest legal one is \d+"):
        Plan(GPT2.graph, (illegal,))
    with pytest.raises(SplitError, match="between two of the"):
        Plan(GPT2.graph, (0,))
    with pytest.raises(SplitError, match="must ascend"):
        Plan(GPT2.graph, (40, 40))


def test_with_cuts_makes_another_plan() -> None:
    plan = pipelab.uniform(GPT2, num_stages=3)
    assert plan.with_cuts(plan.cuts[:1]).cuts == plan.cuts[:1]
    assert plan.num_stages == 3


def test_empty_last_stage_is_shown_and_left_out_of_a_run() -> None:
    plan = Plan(TIED.graph, (3, len(TIED.graph.ops)))
    assert [stage.num_params for stage in plan.stages][-1] == 0
    assert plan.stages[-1].labels == ()
    assert plan.without_empty_stage().cuts == (3,)
    assert plan.boundaries[-1].label == "after the last op"


def test_plan_json_is_small_and_readable() -> None:
    data = json.loads(json.dumps(pipelab.uniform(GPT2, num_stages=3).to_json()))
    assert data["split_points"] == ["transformer.h.1", "transformer.h.2"]
    assert data["num_stages"] == 3


def test_repr_is_the_table() -> None:
    assert repr(pipelab.split_at(TIED, ["layers.1", "head"])) == GOLDEN


GOLDEN = """\
Tied in 3 stages, split_at (batch of 8)
stage  holds            parameters  weights   FLOPs    sends
0      embed, layers.0         328  1.31 kB  6.14 k  1.54 kB
1      layers.1–2              144    576 B  12.3 k  1.54 kB
2      head                    256  1.02 kB  24.6 k
Stage 0 holds 328 parameters, 1.35 × the mean."""


def test_the_same_cuts_tell_other_times_on_other_hardware() -> None:
    plan = pipelab.uniform(gpt2_graph(), num_stages=3)
    assert all(stage.time_s is None for stage in plan.stages)
    slow, fast = (plan.with_hardware(name) for name in ("t4-16gb", "h100-80gb"))
    assert slow.cuts == fast.cuts == plan.cuts
    for on_slow, on_fast in zip(slow.stages, fast.stages, strict=True):
        assert on_slow.time_s > on_fast.time_s > 0
    assert "time" in repr(slow)
    assert "t4-16gb, by its data sheet" in repr(slow).replace("\n", " ")
    with pytest.raises(InputError, match="h100-80gb"):
        plan.with_hardware("h100")
    with pytest.raises(InputError, match="2 devices for 3 stages"):
        plan.with_hardware(["t4-16gb", "h100-80gb"])


def test_another_number_of_cuts_does_not_fit_one_device_per_stage() -> None:
    plan = pipelab.uniform(gpt2_graph(), num_stages=2).with_hardware(["t4-16gb", "h100-80gb"])
    with pytest.raises(InputError, match="2 devices for 3 stages"):
        plan.with_cuts(pipelab.uniform(plan.graph, num_stages=3).cuts)
