"""Paced runs: real processes and messages, predicted durations instead of computing."""

import dataclasses
import time

import pytest
import torch
from torch import nn

import pipelab
from pipelab.errors import InputError
from pipelab.events import Event, Timeline
from pipelab.launch.pacing import paces_of

LONG = 0.02


@pytest.fixture(scope="module")
def traced() -> pipelab.Trace:
    return pipelab.trace(nn.Sequential(*(nn.Linear(8, 8) for _ in range(8))).eval(), torch.ones(8, 8))


def with_forwards(timeline: Timeline, seconds: float) -> Timeline:
    """The same timeline with forwards of this length."""
    events = tuple(
        event._replace(end_s=event.start_s + seconds) if event.kind == "F" else event for event in timeline.events
    )
    return dataclasses.replace(timeline, events=events)


def test_eight_stages_on_any_machine_take_what_they_were_told(traced: pipelab.Trace) -> None:
    plan = pipelab.uniform(traced, num_stages=8)
    pace = with_forwards(pipelab.simulate(plan, num_microbatches=4, hardware="t4-16gb"), LONG)
    with pipelab.start(traced, plan, device="cpu") as pipe:
        report = pipe.run(torch.ones(8, 8), pace=pace, repeats=1)
        again = pipe(torch.ones(8, 8))
    assert report.timeline.source == "paced"
    assert report.timeline.num_microbatches == 4
    forwards = [event.end_s - event.start_s for event in report.timeline.events if event.kind == "F"]
    assert len(forwards) == 8 * 4
    assert min(forwards) >= LONG
    assert report.step_s >= LONG * (8 + 4 - 1)  # fill and drain: never faster than the formula
    assert report.predicted is pace
    assert report.output is None
    assert report.baseline_s is None
    assert "Paced" in report.verdict
    assert again.shape == (8, 8)  # and computes again afterwards


def test_stages_too_short_to_pace_are_told_so(traced: pipelab.Trace) -> None:
    # 8 stages of microseconds took seven times as long as predicted, and nothing said why.
    plan = pipelab.uniform(traced, num_stages=2)
    with (
        pipelab.start(traced, plan, device="cpu") as pipe,
        pytest.warns(UserWarning, match="slowed"),
    ):
        pipe.run(torch.ones(8, 8), pace=pipelab.simulate(plan, hardware="t4-16gb"), repeats=1)


def test_a_paced_report_can_be_kept(traced: pipelab.Trace, tmp_path) -> None:
    plan = pipelab.uniform(traced, num_stages=2)
    with pipelab.start(traced, plan, device="cpu") as pipe:
        pace = with_forwards(pipelab.simulate(plan, hardware="t4-16gb"), LONG)
        report = pipe.run(torch.ones(8, 8), pace=pace, repeats=1)
    report.save(tmp_path / "report.json")
    assert pipelab.Report.load(tmp_path / "report.json").is_paced


def test_a_wait_that_is_stopped_ends() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).eval()
    traced = pipelab.trace(model, torch.ones(2, 8))
    plan = pipelab.uniform(traced, num_stages=2)
    pace = with_forwards(pipelab.simulate(plan, num_microbatches=2, hardware="t4-16gb"), 600.0)
    with pipelab.start(traced, plan, device="cpu") as pipe:
        pipe.on_progress = lambda done, total: pipe.interrupt()
        start = time.monotonic()
        with pytest.raises(pipelab.PipelabError, match="stopped"):
            pipe.run(torch.ones(2, 8), pace=pace)
        assert time.monotonic() - start < 300


def test_a_timeline_of_other_stages_or_of_training_is_refused(traced: pipelab.Trace) -> None:
    two, four = (pipelab.uniform(traced, num_stages=count) for count in (2, 4))
    with pipelab.start(traced, two, device="cpu") as pipe:
        with pytest.raises(InputError, match="4 stages on 4 ranks"):
            pipe.run(torch.ones(8, 8), pace=pipelab.simulate(four, hardware="t4-16gb"))
        with pytest.raises(InputError, match=r"makes one; it is a str"):
            pipe.run(torch.ones(8, 8), pace="t4-16gb")
        with pytest.raises(InputError, match="lacks forwards"):
            pipe.run(torch.ones(8, 8), pace=Timeline((), 2, 2, 4))
        with pytest.raises(InputError, match="train=True"):
            pipe.run(torch.ones(8, 8), pace=pipelab.simulate(two, hardware="t4-16gb", train=True))
        with pytest.raises(InputError, match="Leave num_microbatches out"):
            pipe.run(torch.ones(8, 8), pace=pipelab.simulate(two, hardware="t4-16gb"), num_microbatches=2)
        assert pipe(torch.ones(8, 8)).shape == (8, 8)


def test_paces_are_the_durations_of_forwards() -> None:
    events = (Event(0, 0, 0, "F", 0.0, 1.0), Event(0, 0, 0, "send", 1.0, 1.5), Event(1, 1, 0, "F", 1.5, 4.5))
    assert paces_of(Timeline(events, 2, 2, 1), 2) == [(1.0,), (3.0,)]
