"""A timeline in the words of Perfetto: slices that do not overlap, arrows that go forward in time."""

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from graphs import mlp_graph
from hypothesis import given
from random_timelines import pipeline_timeline
from runs import made_up_report

from pipelab.chrome_trace import chrome_trace
from pipelab.events import COMPUTE, Event, Timeline
from pipelab.policies import uniform
from pipelab.simulator import simulate

PLAN = uniform(mlp_graph(), num_stages=4)
SCHEDULES = ("gpipe", "1f1b", "interleaved_1f1b", "zb_h1")


def predicted(schedule: str, train: bool = True) -> Timeline:
    ranks = 2 if schedule == "interleaved_1f1b" else 4
    return simulate(PLAN, schedule=schedule, num_microbatches=8, hardware="t4-16gb", train=train, num_ranks=ranks)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_computed_stands_there_once(schedule: str) -> None:
    timeline = predicted(schedule)
    found = {e["name"]: e for e in chrome_trace(timeline)["traceEvents"] if e["ph"] == "X" and e["tid"] == 0}
    computed = [event for event in timeline.events if event.kind in COMPUTE]
    assert len(found) == len(computed)
    for event in computed:
        of_it = found[f"{event.stage}{event.kind}{event.microbatch}"]
        assert (of_it["pid"], of_it["ts"]) == (event.rank, pytest.approx(event.start_s * 1e6, abs=1e-3))
        assert of_it["dur"] == pytest.approx((event.end_s - event.start_s) * 1e6, abs=1.01e-3)


def broken_rules(trace: dict[str, Any]) -> set[str]:
    """What Perfetto would drop or draw wrongly; times in whole nanoseconds, as it keeps them."""
    events = json.loads(json.dumps(trace))["traceEvents"]
    slices = [e for e in events if e["ph"] == "X"]
    starts, ends = ([e for e in events if e["ph"] == phase] for phase in "sf")
    named = {(e["name"], e["pid"], e["tid"]) for e in events if e["ph"] == "M"}
    ids = Counter(e["id"] for e in starts), Counter(e["id"] for e in ends)
    by_id = {e["id"]: e for e in ends}
    threads = groupby(sorted(slices, key=lambda e: (thread(e), e["ts"])), key=thread)

    def in_a_slice(end: dict[str, Any]) -> bool:
        return any(thread(of) == thread(end) and of["ts"] <= end["ts"] <= of["ts"] + of["dur"] for of in slices)

    rules = {
        "phases are known": all(e["ph"] in "XMsf" for e in events),
        "times are finite and not negative": all(
            math.isfinite(e[key]) and e[key] >= 0 for e in events for key in ("ts", "dur") if key in e
        ),
        "processes and threads have names, once": len(named) == sum(e["ph"] == "M" for e in events)
        and all(("process_name", e["pid"], 0) in named and ("thread_name", *thread(e)) in named for e in slices),
        "slices of a thread do not overlap": all(
            ns(one["ts"]) + ns(one["dur"]) <= ns(other["ts"]) for _, of in threads for one, other in pairwise(of)
        ),
        "arrows have two ends of one name": ids[0] == ids[1] and set(ids[0].values()) <= {1}
        and all((e["name"], e["cat"]) == ("boundary", "transfer") for e in starts + ends),
        "arrows go forward in time": all(e["ts"] <= by_id[e["id"]]["ts"] for e in starts if e["id"] in by_id),
        "arrows begin and end inside slices": all(map(in_a_slice, starts + ends)),
        "arrows end at the slice around them": all(e["bp"] == "e" for e in ends),
    }  # fmt: skip
    return {rule for rule, holds in rules.items() if not holds}


def thread(event: dict[str, Any]) -> tuple[int, int]:
    return event["pid"], event["tid"]


def ns(us: float) -> int:
    return round(us * 1000)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_simulated_step_keeps_every_rule(schedule: str) -> None:
    assert broken_rules(chrome_trace(predicted(schedule))) == set()


@given(pipeline_timeline())
def test_what_ranks_record_keeps_every_rule(timeline: Timeline) -> None:
    assert broken_rules(chrome_trace(timeline)) == set()


def shift(events: list[dict[str, Any]]) -> None:
    next(e for e in events if e["ph"] == "s")["ts"] += 1e9


def double(events: list[dict[str, Any]]) -> None:
    events.append(dict(next(e for e in events if e["ph"] == "s")))


def stretch(events: list[dict[str, Any]]) -> None:
    next(e for e in events if e["ph"] == "X")["dur"] += 1e9


def unname(events: list[dict[str, Any]]) -> None:
    events.remove(next(e for e in events if e["name"] == "thread_name"))


def antedate(events: list[dict[str, Any]]) -> None:
    events[-1]["ts"] = -1.0


@pytest.mark.parametrize("spoil", [shift, double, stretch, unname, antedate])
def test_the_rules_notice_what_is_wrong(spoil: Callable[[list[dict[str, Any]]], None]) -> None:
    trace = chrome_trace(predicted("1f1b"))
    spoil(trace["traceEvents"])
    assert broken_rules(trace)


def test_slices_that_touch_do_not_overlap_in_nanoseconds() -> None:
    """A start and an end that were rounded apart overlapped by a nanosecond: Perfetto drops such slices."""
    events = tuple(Event(0, 0, k, "F", 0.1 + k * 7e-7 / 3, 0.1 + (k + 1) * 7e-7 / 3) for k in range(50))
    assert broken_rules(chrome_trace(Timeline(events, 1, 1, 50))) == set()


def test_a_saved_trace_is_the_same(tmp_path: Path) -> None:
    timeline = predicted("gpipe")
    timeline.save_trace(tmp_path / "step.trace.json")
    assert json.loads((tmp_path / "step.trace.json").read_text()) == timeline.to_chrome_trace()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_send_has_an_arrow_to_the_next_stage_or_back(schedule: str) -> None:
    timeline = predicted(schedule)
    events = chrome_trace(timeline)["traceEvents"]
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert starts.keys() == ends.keys()
    assert len(starts) == sum(event.kind == "send" for event in timeline.events)
    slices = {(e["pid"], e["tid"], e["ts"]): e["args"] for e in events if e["ph"] == "X"}
    for number, start in starts.items():
        end = ends[number]
        sent, got = (slices[e["pid"], e["tid"], e["ts"]] for e in (start, end))
        assert got["micro-batch"] == sent["micro-batch"]
        assert got["stage"] - sent["stage"] == (1 if start["tid"] == 1 else -1)
        assert end["ts"] >= start["ts"]


def test_a_measured_run_starts_at_0_and_arrows_end_where_it_is_received() -> None:
    events = (
        Event(0, 0, 0, "F", 5.0, 6.0),
        Event(0, 0, 0, "send", 6.0, 6.5, 10),
        Event(1, 1, 0, "wait", 5.0, 6.5),
        Event(1, 1, 0, "recv", 6.5, 7.0, 10),
        Event(1, 1, 0, "F", 7.0, 8.0),
    )
    found = chrome_trace(Timeline(events, 2, 2, 1))["traceEvents"]
    names = [(e["pid"], e["args"]["name"]) for e in found if e["name"] == "thread_name"]
    assert names == [(0, "computes"), (0, "sends on"), (1, "computes"), (1, "receives")]
    assert [(e["name"], e["ts"]) for e in found if e["ph"] == "X"] == [
        ("0F0", 0.0), ("send", 1e6), ("receive", 1.5e6), ("1F0", 2e6),
    ]  # fmt: skip
    assert [(e["ph"], e["pid"], e["ts"]) for e in found if e["ph"] in "sf"] == [("s", 0, 1e6), ("f", 1, 1.5e6)]


def test_what_the_last_stage_returns_goes_nowhere() -> None:
    trace = chrome_trace(made_up_report(PLAN, 2).timeline)
    assert sum(e["ph"] == "s" for e in trace["traceEvents"]) == 3 * 2
