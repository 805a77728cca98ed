"""Timelines: both bubble figures equal their closed forms."""

import json

import pytest

from pipelab.errors import InputError
from pipelab.events import Event, Timeline, ordered


def fill_drain(p: int, m: int) -> Timeline:
    """p equal stages of 1 s, m micro-batches."""
    events = [Event(s, s, i, "F", float(s + i), float(s + i + 1)) for s in range(p) for i in range(m)]
    return Timeline(ordered(events), p, p, m, "by hand")


@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 8), (4, 8), (4, 32)])
def test_bubble_is_the_closed_form(p: int, m: int) -> None:
    timeline = fill_drain(p, m)
    assert timeline.makespan_s == m + p - 1
    assert timeline.busy_s == p * m
    assert timeline.bubble_fraction == pytest.approx((p - 1) / (m + p - 1))
    assert timeline.overhead_fraction == pytest.approx((p - 1) / m)


def test_only_compute_is_busy() -> None:
    events = (Event(0, 0, 0, "F", 0, 1), Event(0, 0, 0, "send", 1, 2), Event(1, 1, 0, "wait", 0, 2))
    assert Timeline(events, 2, 2, 1).rank_busy_s == (1.0, 0.0)


def test_json_both_ways() -> None:
    timeline = fill_drain(3, 4)
    assert Timeline.from_json(json.loads(json.dumps(timeline.to_json()))) == timeline


def test_empty_timeline_has_no_bubble() -> None:
    empty = Timeline((), 2, 2, 1)
    assert (empty.makespan_s, empty.bubble_fraction, empty.overhead_fraction) == (0.0, 0.0, 0.0)


def test_repr_is_one_line() -> None:
    assert repr(fill_drain(1, 1)) == "Timeline(by hand: 1 rank, 1 micro-batch, 1000.00 ms, idle 0.0\u00a0%)"
    assert repr(fill_drain(4, 8)) == "Timeline(by hand: 4 ranks, 8 micro-batches, 11000.00 ms, idle 27.3\u00a0%)"


def test_memory_is_held_from_the_forward_to_the_last_action() -> None:
    # Weights of 100; two micro-batches of 10, the second backward in two parts.
    events = (
        Event(0, 0, 0, "F", 0, 1), Event(0, 0, 1, "F", 1, 2), Event(0, 0, 0, "send", 1, 9),
        Event(0, 0, 0, "B", 4, 6), Event(0, 0, 1, "I", 6, 7), Event(0, 0, 1, "W", 8, 9),
    )  # fmt: skip
    timeline = Timeline(events, 1, 1, 2, rank_bytes=(100,), microbatch_bytes=(10,))
    assert timeline.memory_over_time(0) == ((0, 110), (1, 120), (6, 110), (9, 100))
    assert timeline.peak_memory_bytes == (120,)
    assert Timeline.from_json(json.loads(json.dumps(timeline.to_json()))) == timeline


def test_a_measured_timeline_tells_no_memory() -> None:
    assert fill_drain(2, 2).peak_memory_bytes == fill_drain(2, 2).memory_over_time(0) == ()


@pytest.mark.parametrize("factor", [0, -1.0, "2", float("nan"), True])
def test_a_factor_that_is_no_number_above_0_is_refused(factor: object) -> None:
    with pytest.raises(InputError, match="factor must be a number, 1e-09 or more"):
        Timeline((), 1, 1, 1).slowed(factor)  # type: ignore[arg-type]  # that is the test
