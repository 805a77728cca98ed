"""A timeline in the words of Perfetto: slices that do not overlap, arrows that go forward in time."""

from itertools import groupby, pairwise

import pytest
from graphs import mlp_graph
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
        assert (of_it["pid"], of_it["ts"]) == (event.rank, pytest.approx(event.start_s * 1e6))
        assert of_it["dur"] == pytest.approx((event.end_s - event.start_s) * 1e6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_slices_of_a_thread_do_not_overlap(schedule: str) -> None:
    def thread(event: dict[str, int]) -> tuple[int, int]:
        return event["pid"], event["tid"]

    slices = [e for e in chrome_trace(predicted(schedule))["traceEvents"] if e["ph"] == "X"]
    for _, of_thread in groupby(sorted(slices, key=lambda e: (thread(e), e["ts"])), key=thread):
        for one, other in pairwise(of_thread):
            assert one["ts"] + one["dur"] <= other["ts"] + 1e-6


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
