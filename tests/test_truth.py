"""Every figure of idle and busy time that is shown, rebuilt from raw events by looking at each millisecond."""

from dataclasses import dataclass

import pytest
from graphs import mlp_graph
from hypothesis import given
from random_timelines import GRID_S, any_timeline, pipeline_timeline

from pipelab.comparing import side_by_side
from pipelab.events import COMPUTE, Timeline
from pipelab.policies import uniform
from pipelab.report import Report
from pipelab.simulator import simulate
from pipelab.units import format_percent, format_seconds
from pipelab.viz.comparison_state import comparison_state
from pipelab.viz.explorer_state import report_state, timeline_state
from pipelab.viz.timeline_figure import _rank_text, _sentence

GRAPH = mlp_graph()


@dataclass(frozen=True)
class Looked:
    """What was seen at each moment of a grid.

    Attributes:
        moments: Moments from the first event to the last.
        busy: Per rank, at how many of them it computed.
    """

    moments: int
    busy: tuple[int, ...]

    @property
    def idle_share(self) -> float:
        return 1 - sum(self.busy) / (len(self.busy) * self.moments) if self.moments else 0.0

    def rank_idle_share(self, rank: int) -> float:
        return 1 - self.busy[rank] / self.moments if self.moments else 0.0


def look(timeline: Timeline, grid_s: float = GRID_S) -> Looked:
    """Look at the middle of every cell of the grid."""
    if not timeline.events:
        return Looked(0, (0,) * timeline.num_ranks)
    first = min(event.start_s for event in timeline.events)
    moments = round((max(event.end_s for event in timeline.events) - first) / grid_s)
    computed = [
        [e for e in timeline.events if e.rank == rank and e.kind in COMPUTE] for rank in range(timeline.num_ranks)
    ]
    times = [first + (moment + 0.5) * grid_s for moment in range(moments)]
    return Looked(moments, tuple(sum(any(e.start_s < t < e.end_s for e in of) for t in times) for of in computed))


def report_of(timeline: Timeline) -> Report:
    plan = uniform(GRAPH, num_stages=timeline.num_ranks)
    return Report(plan, timeline, (max(timeline.makespan_s, 1e-3),), 8, 1.0, (0,) * timeline.num_ranks)


@given(any_timeline())
def test_every_figure_is_what_was_seen(timeline: Timeline) -> None:
    seen = look(timeline)
    busy_s = sum(seen.busy) * GRID_S
    total_s = timeline.num_ranks * seen.moments * GRID_S
    assert timeline.makespan_s == pytest.approx(seen.moments * GRID_S)
    assert timeline.rank_busy_s == pytest.approx([cells * GRID_S for cells in seen.busy])
    assert (timeline.busy_s, timeline.idle_s) == pytest.approx((busy_s, total_s - busy_s), abs=1e-12)
    assert timeline.bubble_fraction == pytest.approx(seen.idle_share)
    assert timeline.overhead_fraction == pytest.approx((total_s - busy_s) / busy_s if busy_s else 0.0)


@given(any_timeline())
def test_the_explorer_and_the_figure_say_what_was_seen(timeline: Timeline) -> None:
    seen = look(timeline)
    shares = [seen.rank_idle_share(rank) for rank in range(timeline.num_ranks)]
    report = report_of(timeline)
    for state in (timeline_state(timeline), report_state(report)):
        assert state["idle"] == pytest.approx(seen.idle_share)
        assert state["rank_idle"] == pytest.approx(shares)
    assert report.bubble_fraction == timeline.bubble_fraction
    assert f"Ranks are idle {format_percent(timeline.bubble_fraction)} of the time" in _sentence(timeline, None)
    for rank, share in enumerate(shares):
        said = _rank_text(timeline, rank).rpartition("idle ")[2].removesuffix("\u00a0%")
        assert abs(int(said) - 100 * share) <= 0.5 + 1e-9


@given(pipeline_timeline())
def test_a_reports_table_adds_up_what_was_seen(timeline: Timeline) -> None:
    seen = look(timeline)
    *_, header, first = repr(report_of(timeline)).splitlines()[: -timeline.num_ranks + 1 or None]
    assert header.split()[:3] == ["rank", "holds", "computes"]
    assert f"  {format_seconds(seen.busy[0] * GRID_S)}  " in first
    for rank in range(timeline.num_ranks):  # it does one thing at a time, until it is done
        of_rank = [event for event in timeline.events if event.rank == rank]
        told = sum(event.end_s - event.start_s for event in of_rank)
        assert told == pytest.approx(max((event.end_s for event in of_rank), default=0.0))


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved_1f1b", "zb_h1"])
def test_a_simulated_step_is_idle_as_it_looks(schedule: str) -> None:
    ranks = 2 if schedule == "interleaved_1f1b" else 4
    plan = uniform(GRAPH, num_stages=4)
    timeline = simulate(plan, schedule=schedule, num_microbatches=8, hardware="t4-16gb", train=True, num_ranks=ranks)
    seen = look(timeline, timeline.makespan_s / 20_000)
    assert timeline.bubble_fraction == pytest.approx(seen.idle_share, abs=2e-3)
    assert timeline_state(timeline)["rank_idle"] == pytest.approx(
        [seen.rank_idle_share(rank) for rank in range(ranks)], abs=2e-3
    )


def test_plans_side_by_side_are_idle_as_they_look() -> None:
    plans = {"even": uniform(GRAPH, num_stages=3), "two": uniform(GRAPH, num_stages=2)}
    comparison = side_by_side(plans, hardware="t4-16gb", num_microbatches=4)
    for entry, state in zip(comparison.entries, comparison_state(comparison)["entries"], strict=True):
        seen = look(entry.predicted, entry.predicted.makespan_s / 20_000)
        assert state["idle"] == pytest.approx(seen.idle_share, abs=2e-3)
