"""The figure of a comparison: its bars and texts are the comparison's numbers, and none lie over another."""

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest
from graphs import gpt2_graph, mlp_graph
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from runs import made_up_report

from pipelab.comparing import policies_of, side_by_side
from pipelab.comparison import Comparison
from pipelab.events import Timeline
from pipelab.graph import Graph
from pipelab.hardware import Hardware, HardwareLike
from pipelab.plan import Plan
from pipelab.policies import split_at, uniform
from pipelab.report import Report
from pipelab.viz import compare
from pipelab.viz.compare_ribbon import spread

GPT2 = gpt2_graph()
LARGE = gpt2_graph(48, hidden=1600)


def comparison_of(graph: Graph, num_stages: int, hardware: HardwareLike = "h100-80gb") -> Comparison:
    plans, refused = policies_of(graph, num_stages=num_stages, hardware=hardware)
    return side_by_side(plans, hardware=hardware, refused=refused)


def panels(figure: Figure) -> list[list[Axes]]:
    """Per plan: its title, ribbon, parameters, time, memory, boundaries and timeline."""
    axes = figure.axes
    return [axes[start : start + 7] for start in range(0, len(axes), 7)]


def texts_of(figure: Figure) -> list[Text]:
    of_axes = [text for ax in figure.axes for text in ax.texts]
    of_legends = [text for legend in figure.legends for text in legend.get_texts()]
    return [text for text in (*figure.texts, *of_axes, *of_legends) if text.get_text()]


def boxes_of(figure: Figure) -> list[tuple[str, Bbox]]:
    canvas = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    figure.draw(renderer)
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts_of(figure)]


def overlap(a: Bbox, b: Bbox) -> bool:
    """Whether two boxes share more than a hair."""
    return bool(min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2)


def bars_of(ax: Axes) -> list[Rectangle]:
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


def widths_of(ax: Axes) -> list[float]:
    return [bar.get_width() for bar in bars_of(ax)]


@pytest.mark.parametrize(("graph", "num_stages"), [(GPT2, 2), (GPT2, 8), (LARGE, 16)])
def test_no_text_lies_over_another_or_beyond_the_page(graph: Graph, num_stages: int) -> None:
    check_texts(compare(comparison_of(graph, num_stages)))


def test_long_names_reports_and_unlike_devices_find_room() -> None:
    report = made_up_report(uniform(GPT2, num_stages=3), num_microbatches=4)
    plan = split_at(GPT2, ["transformer.h.5", "transformer.h.11.mlp"])
    small = Hardware("a device with $ in its rather long name", 1.2e9, {"float32": 1e18}, 1e18, 1e5, 0.1)
    plans: dict[str, Plan | Report] = {
        "what a first attempt of mine came to": report,
        "what a second attempt of mine came to": plan,
    }
    check_texts(compare(side_by_side(plans, hardware=[small, small, "h100-80gb"], num_microbatches=8)))
    check_texts(compare(side_by_side(plans, num_microbatches=8)))


def check_texts(figure: Figure) -> None:
    boxes = boxes_of(figure)
    width, height = figure.get_size_inches() * figure.dpi
    assert [text for text, box in boxes if min(box.x0, box.y0, width - box.x1, height - box.y1) < 0] == []
    assert [(a, b) for (a, x), (b, y) in combinations(boxes, 2) if overlap(x, y)] == []


def test_bars_are_the_numbers_of_the_comparison() -> None:
    comparison = comparison_of(GPT2, 4)
    for entry, (_, _, params, time, memory, _, _) in zip(comparison.entries, panels(compare(comparison)), strict=True):
        assert widths_of(params) == [stage.num_params for stage in entry.plan.stages]
        assert widths_of(time) == list(entry.stage_s)
        assert widths_of(memory) == list(entry.memory_bytes)


def test_all_plans_share_their_axes() -> None:
    of_plans = panels(compare(comparison_of(GPT2, 4)))
    for column in zip(*of_plans, strict=True):
        assert len({ax.get_xlim() for ax in column}) == 1
        assert len({(ax.get_position().x0, ax.get_position().x1) for ax in column}) == 1


def test_the_ribbon_is_the_model_in_order() -> None:
    comparison = comparison_of(GPT2, 4)
    for entry, (_, ribbon, *_) in zip(comparison.entries, panels(compare(comparison)), strict=True):
        lefts = sorted({bar.get_x() for bar in bars_of(ribbon)})
        assert lefts == pytest.approx([edge * ribbon.get_xlim()[1] for edge in entry.edges[:-1]])


def test_each_cut_is_named_with_what_crosses_it() -> None:
    comparison = side_by_side({"mine": uniform(GPT2, num_stages=4)}, hardware="h100-80gb")
    ((_, ribbon, *_, crossing, _),) = panels(compare(comparison))
    assert [text.get_text() for text in ribbon.texts if "cut" in text.get_text()] == [
        "cut 1: h.3", "cut 2: h.6", "cut 3: h.9",
    ]  # fmt: skip
    assert crossing.texts[1].get_text() == "2: 3.28 MB  h.5: add_63 +1"  # the mask is the other one


def test_the_slowest_stage_is_marked_in_words_and_by_a_frame() -> None:
    comparison = side_by_side({"mine": split_at(GPT2, ["transformer.h.2"])}, hardware="h100-80gb")
    ((_, ribbon, _, time, _, _, _),) = panels(compare(comparison))
    assert [text.get_text().endswith("slowest") for text in time.texts] == [False, True]
    assert [text.get_fontweight() for text in ribbon.texts[:2]] == ["normal", "bold"]


def test_a_link_that_is_slower_than_every_stage_is_marked_instead() -> None:
    comparison = comparison_of(mlp_graph(10), 4)  # 10 µs to the next h100, 2 µs per op
    ((_, _, _, time, _, crossing, _), *_) = panels(compare(comparison))
    assert not [text for text in time.texts if "slowest" in text.get_text()]
    assert crossing.texts[0].get_text() == "1: 512 B in 10.0 µs, slowest"
    assert comparison.entries[0].bottleneck_text == "cut 1"


def test_what_does_not_fit_is_hatched_beyond_the_capacity_and_said() -> None:
    comparison = side_by_side([split_at(GPT2, ["transformer.h.2"])], hardware="h100-80gb", memory_limit_bytes=1.6e9)
    ((title, _, _, _, memory, _, _),) = panels(compare(comparison))
    assert not comparison.entries[0].misfits and len(memory.patches) == 2
    comparison = side_by_side([split_at(GPT2, ["transformer.h.2"])], hardware="h100-80gb", memory_limit_bytes=1.4e9)
    ((title, _, _, _, memory, _, _),) = panels(compare(comparison))
    beyond = bars_of(memory)[2]
    assert (beyond.get_x(), beyond.get_hatch()) == (1.4e9, "//////")
    assert "too much" in memory.texts[1].get_text() and "does not fit: 1 stage" in title.texts[1].get_text()


def test_titles_tell_the_distance_from_the_optimum_and_from_the_best() -> None:
    comparison = comparison_of(mlp_graph(10), 4, Hardware("clock", 1e9, {"float32": 1e18}, 1e18, 1e18, 0.0))
    titles = {title.texts[0].get_text(): title.texts[1].get_text() for title, *_ in panels(compare(comparison))}
    assert titles["equal_size"].startswith("33 % above optimal  ·")
    assert "more than" in titles["equal_size"] and ", the best  ·  ranks idle" in titles[comparison.best.name]


def boxes(collection: Collection) -> NDArray[np.float64]:
    """Row, left and right of each box, ascending."""
    corners = [np.asarray(path.vertices) for path in collection.get_paths()]
    return np.array(sorted((c[:4, 1].mean(), c[:, 0].min(), c[:, 0].max()) for c in corners))


def computed(timeline: Timeline) -> NDArray[np.float64]:
    return np.array(sorted((e.rank, e.start_s, e.end_s) for e in timeline.events if e.kind == "F"))


def test_the_timeline_is_the_prediction_or_the_run_with_it_as_outlines() -> None:
    plan = uniform(GPT2, num_stages=3)
    report = made_up_report(plan, num_microbatches=8)
    slow = Hardware("slow", 1e9, {"float32": 1e18}, 1e18, 1e18, 0.0, op_s=1e-3)  # some 40 ms, as the made-up run's
    comparison = side_by_side({"predicted": plan, "ran": report}, hardware=slow)
    predicted, ran = (axes[-1] for axes in panels(compare(comparison)))
    (filled,) = predicted.collections
    assert boxes(filled) == pytest.approx(computed(comparison.entries[0].predicted))
    measured, outlines = ran.collections
    assert boxes(measured) == pytest.approx(computed(report.timeline))
    assert boxes(outlines) == pytest.approx(boxes(filled)) and not len(outlines.get_facecolor())


def test_a_run_elsewhere_has_a_time_axis_of_its_own() -> None:
    plan = uniform(GPT2, num_stages=3)
    report = made_up_report(plan)
    figure = compare(side_by_side({"predicted": plan, "ran": report}, hardware="h100-80gb"))
    predicted, ran = (axes[-1] for axes in panels(figure))
    assert (len(ran.collections), ran.get_xlim()[1]) == (1, report.timeline.makespan_s)
    assert predicted.get_xlim()[1] < report.timeline.makespan_s / 100
    assert "measured, on its own axis: 0 to 857 ms" in [text.get_text() for text in figure.texts]


def test_a_refusal_stands_on_the_page() -> None:
    comparison = comparison_of(LARGE, 2, "a100-40gb")
    refused = Comparison(**{**vars(comparison), "refused": {"optimal": "It does not fit."}})
    assert "optimal makes no plan: It does not fit." in [text.get_text() for text in compare(refused).texts]


@pytest.mark.parametrize("plans", [[uniform(GPT2, num_stages=1)], {"a": uniform(GPT2, num_stages=12)}])
def test_plans_can_be_given_as_they_are(plans: Sequence[object]) -> None:
    data, size = compare(plans)._repr_png_()
    assert data.startswith(b"\x89PNG") and size["width"] == 1152


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 0.6)), min_size=1, max_size=15))
def test_spread_texts_keep_their_order_and_their_distance(items: list[tuple[float, float]]) -> None:
    middles, widths = zip(*sorted(items), strict=True)
    placed = spread(middles, widths, 10.0)
    apart = [(a + b) / 2 for a, b in pairwise(widths)]
    assert all(b - a >= distance - 1e-9 for (a, b), distance in zip(pairwise(placed), apart, strict=True))
    assert placed[0] >= widths[0] / 2 - 1e-9 and placed[-1] <= 10 - widths[-1] / 2 + 1e-9
