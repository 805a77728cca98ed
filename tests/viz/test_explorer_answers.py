"""What the browser half asks, and the files an explorer gives: messages in, messages out."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from graphs import gpt2_graph, mlp_graph
from runs import Runner

from pipelab.errors import InputError
from pipelab.events import Timeline
from pipelab.plan import Plan
from pipelab.planner import optimal
from pipelab.policies import uniform
from pipelab.report import Report
from pipelab.viz.explorer import Explorer

GRAPH = gpt2_graph()


def make(**kwargs: Any) -> tuple[Explorer, list[tuple[dict[str, Any], list[bytes]]]]:
    """An explorer, and what it sends."""
    plan = replace(uniform(kwargs.pop("graph", GRAPH), num_stages=4), hardware=kwargs.pop("hardware", None))
    explorer = Explorer(plan, num_microbatches=8, runner=Runner(), **kwargs)
    sent: list[tuple[dict[str, Any], list[bytes]]] = []
    explorer.send = lambda content, buffers=(): sent.append((content, list(buffers)))
    return explorer, sent


def ask(explorer: Explorer, sent: list[Any], **content: Any) -> tuple[dict[str, Any], list[bytes]]:
    explorer._hear(explorer, content, [])
    return sent.pop()


@pytest.mark.parametrize("hardware", [None, "t4-16gb"])
def test_optimal_keeps_the_pins_and_its_plan_says_so(hardware: str | None) -> None:
    explorer, sent = make(hardware=hardware)
    pin = GRAPH.blocks[3].start
    answer, _ = ask(explorer, sent, type="optimal", pins=[pin], level="block", num_stages=5)
    by: dict[str, Any] = {"objective": "time", "hardware": hardware, "num_microbatches": 8} if hardware else {}
    best = optimal(GRAPH, num_stages=5, pins=[pin], **by)
    assert answer == {"type": "optimal", "cuts": best.cuts, "num_stages": 5, "view": None}
    assert pin in best.cuts
    explorer.set_state({"cuts": list(best.cuts), "value": list(best.cuts), "num_stages": 5})
    assert explorer.plan.policy == best.policy
    explorer.num_microbatches = 4
    assert explorer.plan.policy == "by hand"


def test_the_optimal_button_and_optimal_name_their_plan_alike() -> None:
    explorer, _ = make(hardware="t4-16gb")
    explorer.cuts = tuple(explorer._presets["optimal"][4])
    best = optimal(GRAPH, num_stages=4, objective="time", hardware="t4-16gb", num_microbatches=8)
    assert (explorer.plan.cuts, explorer.plan.policy) == (best.cuts, best.policy)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"type": "optimal", "pins": [0], "level": "block", "num_stages": 4}, "legal cut"),
        ({"type": "optimal", "pins": [], "level": "block", "num_stages": 99}, "optimal cannot make 99 stages"),
        ({"type": "optimal", "pins": [], "level": "layer", "num_stages": 4}, "layer"),
        ({"type": "optimal", "pins": "x", "num_stages": 4}, "cannot be answered"),
        ({"type": "optimal", "pins": 3, "num_stages": None}, "cannot be answered"),
        ({"type": "export"}, "cannot be answered: KeyError: 'system'"),
        ({"type": "export", "system": ["vllm"]}, "is none of them"),
        ({"type": "export", "system": "deepspeed"}, "'vllm'"),
        ({"type": "save", "what": "pdf"}, "html, png, svg, plan, report, trace"),
        ({"type": "save", "what": {}}, "cannot be answered"),
        ({"type": "save", "what": "report"}, "no report yet"),
        ({"type": "save", "what": "trace"}, "choose hardware, or press Run"),
        ({"type": "threshold", "max_params": "many", "num_stages": 4}, "cannot be answered"),
    ],
)
def test_what_cannot_be_answered_is_answered_with_the_reason(content: dict[str, Any], says: str) -> None:
    explorer, sent = make()
    answer, buffers = ask(explorer, sent, **content)
    assert answer["type"] == content["type"]
    assert says in answer["error"]
    assert buffers == []


@pytest.mark.parametrize(
    "content",
    [None, 5, [], {}, {"type": None}, {"type": []}, {"type": "dance"}, {"type": "show_report"},
     {"type": "show_report", "index": 7}, {"type": "show_report", "index": "x"}, {"type": "cancel"}],
)  # fmt: skip
def test_what_is_no_message_is_ignored(content: Any) -> None:
    explorer, sent = make()
    before = explorer.get_state()
    explorer._hear(explorer, content, [])
    assert (sent, explorer.get_state()) == ([], before)


def test_a_plan_is_exported_in_the_words_of_other_systems() -> None:
    explorer, sent = make()
    for system in ("vllm", "megatron", "torch"):
        assert ask(explorer, sent, type="export", system=system)[0]["text"] == explorer.plan.export(system)
    scope: dict[str, Any] = {}
    exec(ask(explorer, sent, type="export", system="device_map")[0]["text"], scope)
    assert scope["device_map"] == explorer.plan.export("device_map")


@pytest.mark.parametrize(
    ("what", "name", "starts"),
    [
        ("html", "GPT2LMHeadModel-4-stages.html", b"<!doctype html>"),
        ("png", "GPT2LMHeadModel-4-stages.png", b"\x89PNG"),
        ("svg", "GPT2LMHeadModel-4-stages.svg", b"<?xml"),
    ],
)
def test_pages_and_pictures_come_as_bytes_and_as_files(what: str, name: str, starts: bytes, tmp_path: Path) -> None:
    explorer, sent = make()
    answer, (content,) = ask(explorer, sent, type="save", what=what)
    assert answer["name"] == name
    explorer.save(tmp_path / name)
    explorer.save(tmp_path / name.upper())
    for written in (content, (tmp_path / name).read_bytes(), (tmp_path / name.upper()).read_bytes()):
        assert written.startswith(starts)


@pytest.mark.parametrize("name", ["split.pdf", "split"])
def test_other_endings_are_refused_with_those_there_are(name: str, tmp_path: Path) -> None:
    explorer, _ = make()
    with pytest.raises(InputError, match=r"\.html, \.png or \.svg"):
        explorer.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_plan_and_report_come_as_their_own_save_writes_them(tmp_path: Path) -> None:
    explorer, sent = make()
    report = explorer.run()
    for what, load in (("plan", lambda path: Plan.load(path, GRAPH)), ("report", Report.load)):
        path = tmp_path / what
        path.write_bytes(ask(explorer, sent, type="save", what=what)[1][0])
        assert getattr(load(path), "cuts", None) or load(path) == report


def test_the_trace_is_of_the_run_that_is_shown() -> None:
    explorer, sent = make(hardware="t4-16gb")

    def source() -> str:
        return str(json.loads(ask(explorer, sent, type="save", what="trace")[1][0])["otherData"]["source"])

    assert source().startswith("simulated, t4-16gb")
    explorer.run()
    assert source() == "measured"


def test_a_hostile_models_name_makes_a_harmless_file_name() -> None:
    explorer, sent = make(graph=mlp_graph(model='../<script>"\n' + "x" * 300))
    name = ask(explorer, sent, type="save", what="plan")[0]["name"]
    assert re.fullmatch(r"script-[nx-]{1,60}-4-stages\.plan\.json", name)


def test_earlier_runs_can_be_shown_again() -> None:
    explorer, _ = make()
    first = explorer.run()
    explorer.num_stages = 2
    second = explorer.run()
    assert explorer.reports == [first, second]
    assert explorer.report is explorer.reports[-1] is second
    assert [row["num_microbatches"] for row in explorer._reports] == [8, 8]
    assert explorer._reports[0] == {
        "label": "4 stages, 8 micro-batches, uniform", "step_s": first.step_s, "cuts": list(first.plan.cuts),
        "num_microbatches": 8, "workload": "",
    }  # fmt: skip
    explorer._hear(explorer, {"type": "show_report", "index": 0}, [])
    assert explorer._report_state["cuts"] == list(first.plan.cuts)
    assert explorer.report is second


def test_only_the_newest_run_keeps_its_output() -> None:
    explorer, _ = make()
    explorer.report = None
    explorer._choices[""].runner.run = lambda plan, count, progress: replace(
        Runner().run(plan, count, progress), output="logits"
    )
    explorer.run()
    explorer.run()
    assert [report.output for report in explorer.reports] == [None, "logits"]


def test_a_predicted_timeline_is_as_long_in_the_trace() -> None:
    explorer, sent = make(hardware="t4-16gb")
    timeline = explorer.timeline
    assert isinstance(timeline, Timeline)
    slices = [e for e in json.loads(ask(explorer, sent, type="save", what="trace")[1][0])["traceEvents"] if "dur" in e]
    assert max(e["ts"] + e["dur"] for e in slices) == pytest.approx(timeline.makespan_s * 1e6)
