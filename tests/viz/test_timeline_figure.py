"""The timeline figure: its boxes lie where the events do."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelab.events import Event, Timeline, ordered
from pipelab.viz import timeline
from pipelab.viz.palette import stage_colour


def fill_drain(num_ranks: int, num_microbatches: int, *, seconds: float = 1.0, start: float = 0.0) -> Timeline:
    """Equal stages: rank r computes micro-batch m in slot r + m; a send after each but on the last rank."""
    events = []
    for rank in range(num_ranks):
        for microbatch in range(num_microbatches):
            begin = start + (rank + microbatch) * seconds
            events.append(Event(rank, rank, microbatch, "F", begin, begin + seconds))
            if rank < num_ranks - 1:
                events.append(Event(rank, rank, microbatch, "send", begin + seconds, begin + seconds, 8))
    return Timeline(ordered(events), num_ranks, num_ranks, num_microbatches)


def boxes(collection: PolyCollection) -> NDArray[np.float64]:
    """Row, left and right of each box, ascending."""
    corners = [np.asarray(path.vertices) for path in collection.get_paths()]
    return np.array(sorted((c[:4, 1].mean(), c[:, 0].min(), c[:, 0].max()) for c in corners))


def test_each_box_is_one_event_of_its_rank_in_the_colour_of_its_stage() -> None:
    (ax,) = timeline(fill_drain(3, 2, start=5.0)).axes
    computed = ax.collections[0]
    expected = np.array([(r, r + m, r + m + 1) for r in range(3) for m in range(2)])
    assert boxes(computed) == pytest.approx(expected)
    assert [to_hex(colour) for colour in computed.get_facecolor()] == [
        stage_colour(event.stage) for event in fill_drain(3, 2).events if event.kind == "F"
    ]


def test_boxes_bear_the_number_of_their_microbatch() -> None:
    (ax,) = timeline(fill_drain(2, 3)).axes
    assert sorted(text.get_text() for text in ax.texts) == ["0", "0", "1", "1", "2", "2"]


def test_numbers_that_do_not_fit_are_left_out() -> None:
    (ax,) = timeline(fill_drain(2, 400)).axes
    assert not ax.texts


def test_with_backward_the_kind_stands_before_the_number() -> None:
    events = (Event(0, 0, 0, "F", 0.0, 1.0), Event(0, 0, 0, "B", 1.0, 3.0))
    (ax,) = timeline(Timeline(events, 1, 1, 1)).axes
    assert [text.get_text() for text in ax.texts] == ["F0", "B0"]


def test_idle_time_stands_at_the_axis_and_at_each_rank() -> None:
    # 2 stages, 8 micro-batches: 1 of 9 slots is idle on each rank.
    (ax,) = timeline(fill_drain(2, 8), predicted=fill_drain(2, 1)).axes
    assert ax.get_xlabel() == "time in s. Ranks are idle 11% of the time; predicted 50%"
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "rank 0: stage 0, idle 11%",
        "rank 1: stage 1, idle 11%",
    ]


def test_the_prediction_is_an_outline_over_the_measurement() -> None:
    predicted = fill_drain(2, 3, seconds=2.0)
    (ax,) = timeline(fill_drain(2, 3), predicted=predicted).axes
    outline = ax.collections[-1]
    expected = np.array([(r, 2.0 * (r + m), 2.0 * (r + m + 1)) for r in range(2) for m in range(3)])
    assert boxes(outline) == pytest.approx(expected)
    assert len(outline.get_facecolor()) == 0
    assert ax.get_xlim()[1] >= predicted.makespan_s


@pytest.mark.parametrize(("seconds", "unit"), [(2.0, "s"), (2e-3, "ms"), (2e-6, "µs")])
def test_the_unit_fits_the_span(seconds: float, unit: str) -> None:
    (ax,) = timeline(fill_drain(2, 3, seconds=seconds)).axes
    assert ax.get_xlabel().startswith(f"time in {unit}.")
    assert 1 < ax.get_xlim()[1] < 10


def test_a_timeline_without_events_draws_empty_rows() -> None:
    assert timeline(Timeline((), 2, 2, 1))._repr_png_()[0].startswith(b"\x89PNG")


def test_it_draws_on_axes_of_the_caller() -> None:
    figure = Figure()
    ax = figure.add_subplot()
    assert timeline(fill_drain(2, 2), ax=ax) is figure
