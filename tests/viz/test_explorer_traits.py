"""The explorer's Python half: traits, refusals, running. No browser."""

import base64
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets
import numpy as np
import pytest
import traitlets
from graphs import gpt2_graph, mlp_graph
from runs import Runner

from pipelab.errors import Cancelled, LaunchError, SplitError, StageError
from pipelab.hardware import Measurement, remember
from pipelab.plan import Plan
from pipelab.policies import equal_size, threshold, uniform
from pipelab.presets import PRESETS
from pipelab.simulator import simulate
from pipelab.viz.explorer import Explorer
from pipelab.viz.explorer_answers import answer
from pipelab.viz.explorer_runs import ranks_of
from pipelab.viz.explorer_state import graph_state, preset_state, report_state
from pipelab.viz.explorer_workloads import Workload, carried, opening_plan

GRAPH = gpt2_graph()
STARTS = {block.label: block.start for block in GRAPH.blocks}
CUTS = (STARTS["h.3"], STARTS["h.6"], STARTS["h.9"])
OTHER = (STARTS["h.2"], STARTS["h.6"], STARTS["h.9"])


def make(runner: Any = None, **kwargs: Any) -> Explorer:
    return Explorer(Plan(GRAPH, CUTS), num_microbatches=8, runner=runner, refusal="" if runner else "Off.", **kwargs)


def changes(explorer: Explorer, *names: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    explorer.observe(lambda change: found.append((change["name"], change["new"])), list(names))
    return found


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


def test_run_returns_the_report_and_keeps_it() -> None:
    explorer = make(Runner())
    states = changes(explorer, "_run_state")
    report = explorer.run()
    assert explorer.report is report
    assert report.plan.cuts == CUTS
    assert [state["phase"] for _, state in states] == ["running", "running", "done"]
    assert states[1][1] == {"phase": "running", "text": "Step 1 of 2", "fraction": 0.5, "cancellable": False}
    assert states[-1][1]["text"] == report.verdict


def test_without_a_runner_run_says_why() -> None:
    with pytest.raises(LaunchError, match=r"Off\."):
        make().run()


def test_a_second_run_is_refused_while_one_is_under_way() -> None:
    refusals: list[str] = []

    def again() -> None:
        with pytest.raises(LaunchError) as raised:
            explorer.run()
        refusals.append(str(raised.value))

    explorer = make(Runner(during=again))
    explorer.run()
    assert refusals == ["A run of this explorer is under way: wait for it, or press Cancel."]
    explorer.run()


def raising(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "phase", "text"),
    [
        (LaunchError("No memory for 4 ranks.\nFree some."), "failed", "No memory for 4 ranks."),
        (ZeroDivisionError("ours"), "failed", "ZeroDivisionError: ours"),
        (Cancelled("Stopped."), "cancelled", "Stopped."),
        (KeyboardInterrupt(), "cancelled", "The run was interrupted."),
    ],
)
def test_a_failed_run_raises_and_is_told(error: BaseException, phase: str, text: str) -> None:
    runner = Runner(during=raising(error))
    explorer = make(runner)
    with pytest.raises(type(error)):
        explorer.run()
    assert explorer._run_state["phase"] == phase
    assert explorer._run_state["text"] == text
    assert explorer.cuts == CUTS
    runner.during = lambda: None
    assert explorer.run() is explorer.report


def test_cancel_reaches_the_runner_while_it_runs_and_close_always() -> None:
    runner = Runner(during=lambda: explorer._hear(explorer, {"type": "cancel"}, []))
    explorer = make(runner)
    explorer._hear(explorer, {"type": "cancel"}, [])
    explorer.run()
    explorer.close()
    assert runner.told == ["run", "cancel", "close"]


def test_the_button_runs_in_the_background_and_tells_how_it_ended() -> None:
    explorer = make(Runner(during=raising(ZeroDivisionError("ours"))))
    ended = threading.Event()
    explorer.observe(lambda change: ended.set() if change["new"]["phase"] == "failed" else None, "_run_state")
    explorer._hear(explorer, {"type": "run"}, [])
    assert ended.wait(10)
    assert explorer._run_state["text"] == "ZeroDivisionError: ours"
    assert "raise_it" in explorer._run_state["details"]


def test_details_of_a_failed_rank_are_its_traceback_once() -> None:
    failed = StageError(
        "Rank 1 failed.\n\nTraceback of rank 1:\nKeyError", rank=1, stage=1, remote_traceback="KeyError"
    )
    killed = StageError("Rank 1 was killed.", rank=1, stage=1)
    for error, details in ((failed, "Traceback of rank 1:\nKeyError"), (killed, "")):
        explorer = make(Runner(during=raising(error)))
        with pytest.raises(StageError):
            explorer.run()
        assert explorer._run_state["details"] == details


@pytest.mark.parametrize(
    ("name", "value", "of"), [("cuts", CUTS, ""), ("cuts", OTHER, "The previous split: "), ("workload", "b", "a: ")]
)
def test_a_run_of_what_is_not_shown_any_more_says_of_what_it_was(name: str, value: Any, of: str) -> None:
    runner = Runner(during=lambda: setattr(explorer, name, value))
    explorer = make(workloads={"a": Workload(GRAPH, runner), "b": Workload(gpt2_graph())})
    report = explorer.run()
    assert explorer._run_state["text"] == f"{of}{report.verdict}"
    explorer._hear(explorer, {"type": "show_report", "index": 0}, [])
    assert bool(explorer._report_state) == (name == "cuts")  # it is no run of the other trace


def test_a_split_that_an_observer_corrects_is_the_value_too() -> None:
    explorer = make()
    explorer.observe(lambda _: setattr(explorer, "cuts", CUTS), "value")
    explorer.set_state({"cuts": list(OTHER), "value": list(OTHER), "num_stages": 4})
    assert explorer.cuts == explorer.value == CUTS


def test_who_observes_a_change_of_the_trace_never_sees_half_of_it() -> None:
    workloads = {"a": Workload(GRAPH), "b": Workload(gpt2_graph(6, batch=2))}
    explorer = make(workloads=workloads)
    explorer.hardware = "t4-16gb"
    seen: list[tuple[int, Any]] = []
    explorer.observe(lambda _: seen.append((len(explorer.plan.graph.ops), explorer.timeline)))
    explorer.workload = "b"
    explorer.set_state({"_workload": "a"})
    assert {count for count, _ in seen} == {len(workload.graph.ops) for workload in workloads.values()}
    assert all(timeline.num_microbatches == 2 for _, timeline in seen)  # the smaller batch has no more


def test_the_button_says_why_there_is_no_run() -> None:
    explorer = make()
    explorer._hear(explorer, {"type": "run"}, [])
    assert (explorer._run_state["phase"], explorer._run_state["text"]) == ("failed", "Off.")


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


# --- several traces -----------------------------------------------------------------------------------


def test_another_trace_comes_in_one_message_with_the_cuts_at_their_names() -> None:
    longer = gpt2_graph(extra_ops=3, batch=2)
    choices = {"short": Workload(GRAPH, Runner()), "long": Workload(longer, None, "Off.")}
    explorer = Explorer(Plan(GRAPH, CUTS, "by hand", "t4-16gb"), num_microbatches=8, workloads=choices)
    names, report = explorer.plan.split_points, explorer.run()
    sent: list[set[str]] = []
    explorer.send_state = lambda key=None: sent.append(set(key))
    explorer.workload = "long"
    assert explorer.plan.split_points == names
    assert explorer.plan.graph is longer
    assert (explorer.num_microbatches, explorer._run_refusal, explorer._report_state) == (2, "Off.", None)
    assert [keys for keys in sent if "_data" in keys] == [keys for keys in sent if "cuts" in keys]
    assert {"_data", "_presets", "_costs", "cuts", "value", "_workload"} <= sent[-1]
    explorer.set_state({"_workload": "short"})
    assert (explorer.workload, explorer.cuts, explorer._report_state) == ("short", CUTS, report_state(report))


def test_a_cut_without_its_name_goes_to_the_nearest_place() -> None:
    longer = gpt2_graph(extra_ops=3)
    inside = next(i for i in GRAPH.legal if GRAPH.ops[i].module.endswith("h.3.mlp.act"))
    extra = next(i for i in longer.legal if longer.ops[i].module.endswith("h.3.mlp.act") and longer.ops[i].ordinal == 3)
    (there,), nothing = carried(GRAPH, (inside,), longer)
    assert (longer.ops[there].module, nothing) == (GRAPH.ops[inside].module, "")
    (back,), said = carried(longer, (extra,), GRAPH)
    assert GRAPH.blocks_between(back, back + 1)[0].label == "h.3"
    assert said == "1 split point moved to the nearest legal place."


def test_cuts_that_fall_together_are_one_and_that_is_said() -> None:
    longer = gpt2_graph(extra_ops=9)
    many = tuple(i for i in longer.legal if longer.ops[i].module.endswith("h.3.mlp.act") and longer.ops[i].ordinal > 0)
    cuts, said = carried(longer, many, GRAPH)
    assert len(set(cuts)) == len(cuts) < len(many)
    assert "moved to the nearest legal place and" in said
    assert "found no place of their own." in said


def test_a_closed_explorer_runs_nothing() -> None:
    explorer = make()
    explorer.close()
    with pytest.raises(LaunchError, match="This explorer is closed"):
        explorer.run()
