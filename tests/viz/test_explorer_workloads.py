"""Several traces of one model in one explorer. No browser."""

from typing import Any

from explorers import CUTS, GRAPH, make
from graphs import gpt2_graph
from runs import Runner

from pipelab.plan import Plan
from pipelab.viz.explorer import Explorer
from pipelab.viz.explorer_state import report_state
from pipelab.viz.explorer_workloads import Workload, carried


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
