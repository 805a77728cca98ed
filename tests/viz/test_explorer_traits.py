"""The explorer's Python half: its traits, what they refuse, what they follow. No browser."""

import base64
from dataclasses import replace
from typing import Any

import ipywidgets
import numpy as np
import pytest
import traitlets
from explorers import CUTS, GRAPH, OTHER, changes, make
from graphs import gpt2_graph, mlp_graph

from pipelab.errors import SplitError
from pipelab.hardware import Measurement, remember
from pipelab.plan import Plan
from pipelab.policies import equal_size, threshold, uniform
from pipelab.presets import PRESETS
from pipelab.simulator import simulate
from pipelab.viz.explorer import Explorer
from pipelab.viz.explorer_answers import answer
from pipelab.viz.explorer_runs import ranks_of
from pipelab.viz.explorer_state import graph_state, preset_state
from pipelab.viz.explorer_workloads import opening_plan


def asked(explorer: Explorer, kind: str, **content: Any) -> dict[str, Any]:
    """What the explorer answers to a message."""
    answered = answer(explorer, {"type": kind, **content})
    assert answered is not None
    return answered[0]


def test_it_opens_at_the_plan() -> None:
    explorer = make()
    assert explorer.cuts == explorer.value == CUTS
    assert (explorer.num_stages, explorer.num_microbatches, explorer.report) == (4, 8, None)
    assert explorer.plan.cuts == CUTS
    assert repr(explorer) == "Explorer(GPT2LMHeadModel in 4 stages)"


def test_cuts_set_from_code_are_the_value_too() -> None:
    explorer = make()
    seen = changes(explorer, "value", "num_stages")
    explorer.cuts = equal_size(GRAPH, num_stages=3).cuts
    assert explorer.value == explorer.cuts == explorer.plan.cuts
    assert seen == [("num_stages", 3), ("value", explorer.cuts)]


def test_value_set_from_code_are_the_cuts_too() -> None:
    explorer = make()
    explorer.value = OTHER
    assert explorer.cuts == explorer.plan.cuts == OTHER


@pytest.mark.parametrize("name", ["cuts", "value"])
@pytest.mark.parametrize("cuts", [(5, 5, 9), (0,), (9, 5), (10**9,)])
def test_illegal_cuts_say_why_and_change_nothing(name: str, cuts: tuple[int, ...]) -> None:
    explorer = make()
    with pytest.raises(SplitError) as expected:
        Plan(GRAPH, cuts)
    with pytest.raises(traitlets.TraitError) as raised:
        setattr(explorer, name, cuts)
    assert str(raised.value) == str(expected.value)
    assert explorer.cuts == explorer.value == CUTS
    assert explorer.num_stages == 4


def test_num_stages_splits_uniformly() -> None:
    explorer = make()
    explorer.num_stages = 7
    assert explorer.cuts == explorer.value == uniform(GRAPH, num_stages=7).cuts


def test_too_many_stages_say_why_and_change_nothing() -> None:
    explorer = make()
    with pytest.raises(SplitError) as expected:
        uniform(GRAPH, num_stages=99)
    with pytest.raises(traitlets.TraitError) as raised:
        explorer.num_stages = 99
    assert str(raised.value) == str(expected.value)
    assert (explorer.num_stages, explorer.cuts) == (4, CUTS)


@pytest.mark.parametrize("count", [0, 9])
def test_a_batch_splits_in_at_most_its_size(count: int) -> None:
    explorer = make()
    with pytest.raises(traitlets.TraitError, match=f"A batch of 8 splits into 1 to 8 micro-batches, not into {count}"):
        explorer.num_microbatches = count
    assert explorer.num_microbatches == 8


def test_a_drag_moves_cuts_and_its_release_the_value() -> None:
    explorer = make()
    seen = changes(explorer, "cuts", "value")
    explorer.set_state({"cuts": list(OTHER)})
    explorer.set_state({"cuts": list(OTHER), "value": list(OTHER), "num_stages": 4})
    assert seen == [("cuts", OTHER), ("value", OTHER)]


def test_the_browser_changes_the_number_of_stages_in_one_message() -> None:
    explorer = make()
    cuts = equal_size(GRAPH, num_stages=3).cuts
    explorer.set_state({"cuts": list(cuts), "value": list(cuts), "num_stages": 3})
    assert (explorer.cuts, explorer.value, explorer.num_stages) == (cuts, cuts, 3)


def test_two_explorers_can_be_linked() -> None:
    first, second = make(), make()
    traitlets.link((first, "value"), (second, "value"))
    first.cuts = OTHER
    assert second.cuts == OTHER


def test_a_split_that_an_observer_corrects_is_the_value_too() -> None:
    explorer = make()
    explorer.observe(lambda _: setattr(explorer, "cuts", CUTS), "value")
    explorer.set_state({"cuts": list(OTHER), "value": list(OTHER), "num_stages": 4})
    assert explorer.cuts == explorer.value == CUTS


def test_a_threshold_is_answered() -> None:
    explorer = make()
    answer = asked(explorer, "threshold", max_params=None, num_stages=4)
    assert answer["cuts"] == threshold(GRAPH, num_stages=4).cuts
    again = asked(explorer, "threshold", max_params=answer["suggested"], num_stages=9)
    assert again == {"type": "threshold", "cuts": answer["cuts"], "note": ""}
    assert asked(explorer, "threshold", max_params=100, num_stages=9)["note"] == "; one operator alone holds more"
    assert asked(explorer, "threshold", max_params=float("nan"), num_stages=4).keys() == {"type", "error"}


def test_a_notebook_without_widgets_shows_a_picture_and_the_table() -> None:
    explorer = make()
    bundle = explorer._repr_mimebundle_()
    assert bundle is not None
    data, _ = bundle
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"] == repr(explorer.plan)
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_the_opening_plan_is_the_largest_that_works() -> None:
    graph = mlp_graph(3)
    plan, refusal = opening_plan(graph, 8)
    assert plan.num_stages == 3
    assert "8" in refusal
    assert opening_plan(graph, 2) == (uniform(graph, num_stages=2), "")


def test_presets_hold_cuts_or_the_refusal() -> None:
    graph = mlp_graph(3)
    presets = preset_state(graph)["uniform"]
    assert presets[0] is None
    assert presets[1] == []
    assert presets[3] == list(uniform(graph, num_stages=3).cuts)


def test_the_state_lists_a_tied_weight_once_with_both_names() -> None:
    tied = [row for row in graph_state(GRAPH)["weights"] if row[3]]
    assert tied == [[[1, len(GRAPH.ops) - 1], 50257 * 768, 4 * 50257 * 768, "wte = lm_head"]]


def test_the_plan_names_the_policy_whose_cuts_it_has() -> None:
    graph = gpt2_graph(12)
    explorer = Explorer(uniform(graph, num_stages=4), num_microbatches=8, runner=None)
    assert explorer.plan.policy == "uniform"
    explorer.cuts = equal_size(graph, num_stages=4).cuts
    assert explorer.plan.policy == "equal_size"
    explorer.cuts = (graph.blocks[2].start, *explorer.cuts[1:])
    assert explorer.plan.policy == "by hand"


# --- schedule, training, hardware ---------------------------------------------------------------------


def test_the_predicted_timeline_follows_the_traits() -> None:
    explorer = make()
    assert explorer.timeline is None
    explorer.hardware = "h100-80gb"
    assert explorer.timeline == simulate(explorer.plan, num_microbatches=8)
    explorer.schedule, explorer.num_microbatches = "interleaved_1f1b", 4
    assert explorer.timeline.events == simulate(explorer.plan, num_microbatches=4).events  # nothing comes back
    explorer.train = True
    expected = simulate(explorer.plan, schedule="interleaved_1f1b", num_microbatches=4, train=True, num_ranks=2)
    assert explorer.timeline == expected


def test_ranks_are_as_many_as_the_stages_can_be_dealt_to() -> None:
    assert [ranks_of("interleaved_1f1b", stages, None) for stages in (1, 2, 4, 7, 8, 9)] == [1, 2, 2, 7, 4, 3]
    assert ranks_of("1f1b", 8, 2) == 8
    explorer = make()
    with pytest.raises(traitlets.TraitError, match="cannot be dealt evenly to 3 ranks"):
        explorer.num_ranks = 3
    explorer.num_ranks = 2
    explorer.num_stages = 6
    assert explorer.num_ranks == 2
    explorer.num_stages = 7
    assert explorer.num_ranks is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("schedule", "fill", "'gpipe', '1f1b', 'interleaved_1f1b'"),
        ("train", "yes", "boolean"),
        ("hardware", "h1000", "'h100-80gb'"),
        ("_hardware", "h1000", "'h100-80gb'"),
        ("workload", "decode", "workload='decode' is not known"),
        ("num_microbatches", 1.5, "int"),
    ],
)
def test_a_value_that_is_not_legal_changes_nothing(name: str, value: Any, says: str) -> None:
    explorer = make()
    before = getattr(explorer, name)
    with pytest.raises(traitlets.TraitError, match=says):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before
    explorer.set_state({"schedule": "fill", "_hardware": "h1000"})  # nor from the browser, which is told
    assert (explorer.schedule, explorer._hardware) == ("gpipe", "")


def test_hardware_has_a_name_both_ways() -> None:
    explorer = make()
    names = [choice["name"] for choice in explorer._hardwares]
    assert names == ["", *PRESETS]
    explorer.hardware = "h100-80gb"
    assert explorer._hardware == "h100-80gb"
    explorer.set_state({"_hardware": "t4-16gb"})
    assert explorer.hardware == explorer.plan.hardware == "t4-16gb"
    explorer.set_state({"_hardware": ""})
    assert explorer.hardware is None


def test_a_device_of_ones_own_stays_in_the_list() -> None:
    mine = replace(PRESETS["t4-16gb"], name="mine")
    twin = replace(mine, name="t4-16gb", memory_bytes=1e9)
    explorer = make()
    for device in (mine, twin, PRESETS["l4-24gb"]):
        explorer.hardware = device
    assert [choice["name"] for choice in explorer._hardwares][:3] == ["", "mine", "t4-16gb (yours)"]
    explorer.set_state({"_hardware": "t4-16gb (yours)"})
    assert explorer.hardware is twin
    explorer.set_state({"_hardware": "t4-16gb"})
    assert explorer.hardware == "t4-16gb"


def test_a_measured_model_is_on_this_machine_and_has_no_way_back() -> None:
    graph = mlp_graph()
    seconds = np.full((1, len(graph.ops)), 1e-3)
    here = Measurement(
        "this machine (2 cores)",
        len(graph.ops),
        (8,),
        seconds,
        seconds,
        2,
        0.0,
        8e9,
        1e9,
        1e-5,
        3,
        False,
        6e7,
        "cpu",
        1,
    )
    remember(graph, here)
    explorer = Explorer(uniform(graph, num_stages=4), num_microbatches=1, runner=None)
    assert explorer._hardware == "this machine"
    assert explorer._hardwares[0] == {"name": "this machine", "text": "this machine (2 cores)"}
    explorer.hardware = "t4-16gb"
    explorer.set_state({"_hardware": "this machine"})
    assert explorer.timeline is not None
    assert "this machine (2 cores)" in explorer.timeline.source


# --- an ordinary ipywidget ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("value", OTHER), ("cuts", OTHER), ("num_stages", 3), ("num_microbatches", 2), ("schedule", "zb_h1"),
     ("train", True), ("num_ranks", 2), ("hardware", "t4-16gb")],
)  # fmt: skip
def test_every_trait_can_be_linked_and_observed(name: str, value: Any) -> None:
    first, second, third = make(), make(), make()
    seen = changes(second, name)
    traitlets.link((first, name), (second, name))
    setattr(first, name, value)
    assert getattr(second, name) == value
    assert seen[-1] == (name, value)
    assert getattr(third, name) != value  # two explorers do not disturb each other


def test_it_sits_in_boxes_and_drives_an_interactive_output() -> None:
    explorer = make()
    shown: list[tuple[int, ...]] = []
    ipywidgets.interactive_output(lambda cuts: shown.append(cuts), {"cuts": explorer})
    slider = ipywidgets.IntSlider(4, min=1, max=8)
    ipywidgets.link((slider, "value"), (explorer, "num_microbatches"))
    ipywidgets.jslink((explorer, "value"), (make(), "value"))
    box = ipywidgets.VBox([ipywidgets.HBox([explorer, slider])])
    explorer.value = OTHER
    assert shown[-1] == OTHER
    slider.value = 2
    assert (explorer.num_microbatches, box.children[0].children[0]) == (2, explorer)
