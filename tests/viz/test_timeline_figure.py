"""The timeline figure: its boxes lie where the events do."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelab.errors import InputError
from pipelab.events import Event, Timeline, ordered
from pipelab.replay import Workload, replay
from pipelab.schedules import schedule_actions
from pipelab.viz import timeline
from pipelab.viz.palette import KIND_COLOURS, KIND_HATCHES, WAIT, stage_colour


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
    for microbatches in (9, 11, 30, 60):  # all or none
        (ax,) = timeline(fill_drain(2, microbatches)).axes
        assert len(ax.texts) in (0, 2 * microbatches)


def test_sends_are_thin_lines_below_the_boxes() -> None:
    (ax,) = timeline(Timeline((*fill_drain(2, 1).events, Event(0, 0, 0, "recv", 1.0, 1.5)), 2, 2, 1)).axes
    lines = np.concatenate([np.asarray(path.vertices) for path in ax.collections[1].get_paths()])
    lowest = np.asarray(ax.collections[0].get_paths()[0].vertices)[:, 1].max()
    assert lines[:, 1].min() > lowest
    assert lines[:, 1].max() < 0.5


def trained(schedule: str, num_ranks: int = 2, num_microbatches: int = 3, per_rank: int = 1) -> Timeline:
    """Equal stages whose forward takes 1 s, and so each part of the backward."""
    num_stages = num_ranks * per_rank
    one = np.ones((num_stages, num_microbatches))
    work = Workload({"F": one, "B": 2 * one, "I": one, "W": one}, 0.0 * one[1:])
    orders = schedule_actions(schedule, num_ranks, num_stages, num_microbatches, True)
    return Timeline(
        replay(orders, work), num_ranks, num_stages, num_microbatches, f"simulated, mine, {schedule} training"
    )


def test_with_backward_the_kind_stands_before_the_number() -> None:
    (ax,) = timeline(trained("1f1b")).axes
    written = sorted(text.get_text() for text in ax.texts)
    assert written == ["B0", "B0", "B1", "B1", "B2", "B2", "F0", "F0", "F1", "F1", "F2", "F2"]


def test_the_kind_stands_everywhere_or_nowhere() -> None:
    (ax,) = timeline(trained("1f1b", 4, 20)).axes
    assert ax.texts
    assert all(text.get_text().isdigit() for text in ax.texts)


def test_kinds_are_told_apart_by_colour_hatch_and_legend() -> None:
    (ax,) = timeline(trained("zb_h1")).axes
    looks = [(to_hex(kind.get_facecolor()[0]), kind.get_hatch() or "") for kind in ax.collections[:3]]
    assert looks == [(KIND_COLOURS[kind], KIND_HATCHES[kind]) for kind in "FIW"]
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == ["F forward", "I inputs' gradient", "W weights' gradient", "idle", "moves data"]


def test_kinds_and_idle_time_are_told_apart_in_grey() -> None:
    def grey(colour: str) -> float:
        return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))

    for together in ("FB", "FIW"):
        greys = [(grey(KIND_COLOURS[kind]), KIND_HATCHES[kind]) for kind in together] + [(grey(WAIT), "")]
        for (one, hatch), (other, other_hatch) in combinations(greys, 2):
            assert abs(one - other) > 0.1 or hatch != other_hatch


def test_stages_of_one_rank_are_told_apart_by_stripes() -> None:
    (ax,) = timeline(trained("interleaved_1f1b", 2, 4, per_rank=3)).axes
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words[2:5] == ["stripe: stages 0–1", "stripe: stages 2–3", "stripe: stages 4–5"]
    assert ax.get_yticklabels()[1].get_text().startswith("rank 1: stages 1, 3, 5, idle")
    stripes = ax.collections[2]
    assert len(stripes.get_paths()) == 6 * 4 * 2
    assert {to_hex(colour) for colour in stripes.get_facecolor()} == {"#ffffff", "#808080", "#000000"}


def test_an_interleaved_inference_names_the_colours_of_its_stages() -> None:
    events = tuple(Event(stage % 2, stage, 0, "F", float(stage), stage + 1.0) for stage in range(4))
    (ax,) = timeline(Timeline(events, 2, 4, 1)).axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [*(f"stage {k}" for k in range(4)), "idle"]
    many = tuple(Event(stage % 2, stage, 0, "F", float(stage), stage + 1.0) for stage in range(16))
    (ax,) = timeline(Timeline(many, 2, 16, 1)).axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["idle"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1.03, "Measured 3.09 s, 3\u00a0% more than predicted 3.00 s."),
        (0.5, "Measured 1.50 s, 50\u00a0% less than predicted 3.00 s."),
        (1.001, "Measured 3.00 s, as predicted 3.00 s."),
    ],
)
def test_the_difference_from_the_prediction_is_told_in_words(seconds: float, words: str) -> None:
    (ax,) = timeline(fill_drain(2, 2, seconds=seconds), predicted=fill_drain(2, 2)).axes
    assert words in ax.get_xlabel()


def test_the_title_names_schedule_and_source() -> None:
    predicted = trained("zb_h1")
    (ax,) = timeline(predicted).axes
    assert ax.get_title(loc="left") == "simulated, mine, zb_h1 training: 2 ranks, 3 micro-batches"
    assert ax.get_xlabel().endswith(
        "Simulated 10.0 s. Ranks are idle 10\u00a0% of the time; idle over busy time is 11\u00a0%"
    )
    (ax,) = timeline(replace(predicted, source="paced"), predicted).axes
    assert ax.get_title(loc="left").startswith("paced, over simulated, mine, zb_h1 training:")


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb_h1", "interleaved_1f1b"])
def test_nothing_lies_on_something_else_or_is_cut_off(ranks: int, schedule: str) -> None:
    of = trained(schedule, ranks, 2 * ranks, per_rank=2 if schedule == "interleaved_1f1b" else 1)
    figure = timeline(of, of)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    boxes = [artist.get_window_extent() for artist in (ax._left_title, ax.get_legend(), ax.xaxis.label)]
    boxes += [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(not one.overlaps(other) for one, other in combinations([*boxes, ax.get_window_extent()], 2))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_two_stand_side_by_side() -> None:
    figure = Figure(figsize=(14, 4), layout="constrained")
    for ax, schedule in zip(figure.subplots(1, 2), ("interleaved_1f1b", "1f1b"), strict=True):
        timeline(trained(schedule, 4, 8, per_rank=2 if schedule == "interleaved_1f1b" else 1), ax=ax)
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert not boxes[0].overlaps(boxes[1])
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_idle_time_stands_at_the_axis_and_at_each_rank() -> None:
    # 2 stages, 8 micro-batches: 1 of 9 slots is idle on each rank.
    (ax,) = timeline(fill_drain(2, 8), predicted=fill_drain(2, 1)).axes
    assert ax.get_xlabel().endswith("Ranks are idle 11\u00a0% of the time; predicted 50\u00a0%")
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "rank 0: stage 0, idle 11\u00a0%",
        "rank 1: stage 1, idle 11\u00a0%",
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
    assert ax.get_xlabel().startswith(f"time in {unit}\n")
    assert 1 < ax.get_xlim()[1] < 10


def test_a_timeline_without_events_draws_empty_rows() -> None:
    assert timeline(Timeline((), 2, 2, 1))._repr_png_()[0].startswith(b"\x89PNG")


def test_something_else_is_refused() -> None:
    with pytest.raises(InputError, match=r"drawn from pipelab.simulate\(plan\).*; this is a str\."):
        timeline("gpipe")
    with pytest.raises(InputError, match="this is a NoneType"):
        timeline(None)  # of a report that has no prediction, say


def test_it_draws_on_axes_of_the_caller() -> None:
    figure = Figure()
    ax = figure.add_subplot()
    assert timeline(fill_drain(2, 2), ax=ax) is figure
