"""The explorer's picture: the numbers of the plan, nothing over anything else, the same bytes twice."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import pytest
from graphs import gpt2_graph, mlp_graph
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from runs import made_up_report

from pipelab.graph import Graph
from pipelab.hardware import HardwareLike
from pipelab.plan import Plan
from pipelab.planner import optimal, regret
from pipelab.policies import uniform
from pipelab.simulator import simulate
from pipelab.units import format_bytes
from pipelab.viz.explorer_figure import explorer_figure
from pipelab.viz.explorer_panels import piece_edges, places_of
from pipelab.viz.figures import written

GPT2 = gpt2_graph()
HOSTILE = "</text><script>alert(1)</script>\"'&$x_1$\n\u202eevil\x00\x0b" + 20 * "long name "


def cut(graph: Graph, num_stages: int, hardware: HardwareLike = None) -> Plan:
    return replace(uniform(graph, num_stages=num_stages), hardware=hardware)


def texts_of(figure: Figure) -> list[Text]:
    found = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    ticks = {label: ax for ax in figure.axes for label in ax.get_xticklabels()}
    beyond = {
        label for label, ax in ticks.items() if not ax.get_xlim()[0] <= label.get_position()[0] <= ax.get_xlim()[1]
    }
    return [text for text in found if text.get_visible() and text not in beyond]


def told(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts_of(figure)).replace("\u00a0", " ")


def boxes_of(figure: Figure) -> list[tuple[str, Bbox]]:
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    return [(text.get_text(), Text.get_window_extent(text, renderer)) for text in texts_of(figure)]


def lie_apart(boxes: Sequence[tuple[str, Bbox]]) -> None:
    for (first, a), (second, b) in combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        along = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across <= 1 or along <= 2.5, f"{first!r} and {second!r} overlap"


@pytest.mark.parametrize("num_stages", [1, 2, 3, 5, 6, 11, 16])
def test_no_text_lies_over_another_or_leaves_the_page(num_stages: int) -> None:
    graph = gpt2_graph(16, hidden=8192, model="Model" * 30)
    plan = cut(graph, num_stages, "t4-16gb")  # too small for most stages: each says so
    report = made_up_report(cut(graph, num_stages), 4)
    figure = explorer_figure(plan, prediction=simulate(plan, num_microbatches=4), report=report)
    boxes = boxes_of(figure)
    lie_apart(boxes)
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in boxes:
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 0, text
    assert min(float(text.get_fontsize()) for text in texts_of(figure)) >= 8  # numbers in a timeline


def test_names_of_blocks_stay_in_their_stage_box() -> None:
    plan = cut(gpt2_graph(40), 5)
    figure = explorer_figure(plan)
    lie_apart(boxes_of(figure))
    assert "0 · embed, h.0–7" in told(figure)


@pytest.mark.parametrize("hardware", [None, "h100-80gb"])
def test_verdict_and_boxes_tell_the_plans_numbers(hardware: HardwareLike) -> None:
    plan = cut(GPT2, 4, hardware)
    figure = explorer_figure(plan, num_microbatches=8)
    far = regret(plan, num_microbatches=8 if hardware else None)
    assert f"{100 * far.fraction:.0f} % above optimal." in told(figure)
    for stage in plan.stages:
        assert format_bytes(stage.param_bytes + stage.buffer_bytes) in told(figure)
    crossing = GPT2.live_bytes_for(1)
    assert told(figure).count(f"\n{format_bytes(int(crossing[plan.cuts[0]]))}\n") == 3


def test_the_optimal_plan_is_called_so() -> None:
    assert "This is optimal." in told(explorer_figure(optimal(GPT2, num_stages=4)))


def test_a_stage_that_does_not_fit_says_what_it_needs() -> None:
    figure = explorer_figure(cut(gpt2_graph(48, hidden=8192), 8, "t4-16gb"))
    assert "8 stages need more than 16 GB." in told(figure)
    assert sum("of 16 GB" in text.get_text() for text in texts_of(figure)) >= 8


def test_what_was_measured_lies_under_its_prediction_or_apart_if_it_was_another_split() -> None:
    plan = cut(GPT2, 4, "h100-80gb")
    prediction, report = simulate(plan, num_microbatches=8), made_up_report(plan)
    assert len(explorer_figure(plan).axes) == 2
    assert len(explorer_figure(plan, prediction=prediction).axes) == 3
    both = explorer_figure(plan, prediction=prediction, report=report)
    assert len(both.axes) == 3 and "measured, over simulated" in told(both)
    moved = explorer_figure(plan.with_cuts([20, 40]), prediction=prediction, report=report)
    assert len(moved.axes) == 4 and "The previous split: " in told(moved)


def test_pieces_are_as_wide_as_they_hold_parameters_and_cuts_lie_between_their_blocks() -> None:
    graph = mlp_graph(8)
    edges = piece_edges(graph, 8.0)
    assert edges == pytest.approx(range(9))
    assert places_of(Plan(graph, (2, 5), "by hand"), edges) == pytest.approx([0, 2, 5, 8])


def test_the_same_plan_gives_the_same_svg_whatever_its_names() -> None:
    graph = mlp_graph(6, model=HOSTILE)
    graph = replace(graph, blocks=tuple(replace(block, label=HOSTILE + block.label) for block in graph.blocks))
    first, second = (written(explorer_figure(cut(graph, 3)), "svg") for _ in range(2))
    assert first == second
    tree = ElementTree.fromstring(first)
    assert not list(tree.iter("{http://www.w3.org/2000/svg}script"))
    assert "<script>alert(1)</script>" in "".join(tree.itertext())


def test_a_picture_leaves_pyplot_alone() -> None:
    before = pyplot.get_fignums()
    assert written(explorer_figure(cut(GPT2, 2)), "png").startswith(b"\x89PNG")
    assert pyplot.get_fignums() == before
