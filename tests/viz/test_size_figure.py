"""The bars of `stage_sizes` are the plan's numbers."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from graphs import gpt2_graph, mlp_graph
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pipelab.costs import Costs
from pipelab.errors import SplitError
from pipelab.hardware import Hardware
from pipelab.policies import equal_size, uniform
from pipelab.units import format_bytes
from pipelab.viz import compare, stage_graph, stage_sizes
from pipelab.viz.palette import stage_colour

GPT2 = gpt2_graph(12, hidden=64, vocab=100, batch=2, length=8)


def test_the_bars_are_weights_activations_and_what_is_sent() -> None:
    plan = uniform(GPT2, num_stages=3)
    (ax,) = stage_sizes(plan).axes
    widths = [patch.get_width() for patch in ax.patches]
    expected = []
    for stage in plan.stages:
        expected += [stage.param_bytes + stage.buffer_bytes, stage.activation_bytes]
        expected += [boundary.num_bytes for boundary in plan.boundaries if boundary.index == stage.index]
    assert widths == expected
    assert [text.get_text() for text in ax.texts] == [format_bytes(width) for width in expected]


def test_each_stage_has_its_colour_and_its_name() -> None:
    (ax,) = stage_sizes(uniform(GPT2, num_stages=3)).axes
    from matplotlib.colors import to_hex

    assert [to_hex(ax.patches[index].get_facecolor()) for index in (0, 3, 6)] == [stage_colour(k) for k in range(3)]
    assert ax.get_yticklabels()[0].get_text() == "stage 0: embed, h.0–3\n272 k parameters"


@pytest.mark.parametrize("num_stages", [1, 2, 16])
def test_any_number_of_stages_can_be_drawn(num_stages: int) -> None:
    data, size = stage_sizes(uniform(mlp_graph(16), num_stages=num_stages))._repr_png_()
    assert data.startswith(b"\x89PNG") and size["width"] == 864


def test_an_empty_stage_is_drawn_as_empty() -> None:
    (ax,) = stage_sizes(equal_size(mlp_graph(3), num_stages=4)).axes
    assert ax.get_yticklabels()[3].get_text() == "stage 3: empty\n0 parameters"


def test_with_hardware_memory_stands_against_what_the_device_holds() -> None:
    small = Hardware("small", 900_000, {"float32": 1e12}, 1e11, 1e10, 1e-5, reserve_bytes=0)
    plan = replace(uniform(GPT2, num_stages=3), hardware=small)
    needed = [Costs.of(GPT2, small, 1).memory_bytes(*bounds) for bounds in plan.bounds]
    (ax,) = stage_sizes(plan).axes
    hatched = [bar for bar in ax.patches if isinstance(bar, Rectangle) and bar.get_hatch() == "xxxxxx"]
    beyond = [bar.get_x() + bar.get_width() for bar in hatched]
    assert beyond == pytest.approx([num_bytes for num_bytes in needed if num_bytes > 900_000])
    assert 0 < len(beyond) < 3
    legend = ax.get_legend()
    assert legend and "micro-batch of\n1 row, and the device's own" in legend.get_texts()[3].get_text()
    texts = [text.get_text() for text in ax.texts if " of 900 kB" in text.get_text()]
    assert [text.endswith(": too much") for text in texts] == [num_bytes > 900_000 for num_bytes in needed]


def test_memory_that_dwarfs_the_model_is_told_not_drawn() -> None:
    """A lecture's own small model on a T4: bars of a gigabyte, most of it the driver's, and nothing else to see."""
    (ax,) = stage_sizes(replace(uniform(GPT2, num_stages=3), hardware="t4-16gb")).axes
    weights = max(bar.get_width() for bar in ax.patches if isinstance(bar, Rectangle))
    assert weights < 10_000_000 < 1e9
    assert all("\nneeds 1.00 GB of 16.0 GB\n" in label.get_text() for label in ax.get_yticklabels())


def test_the_bottleneck_is_bold_and_named() -> None:
    plan = replace(uniform(GPT2, num_stages=3), hardware="h100-80gb")
    (ax,) = stage_sizes(plan).axes
    slowest = max(plan.stages, key=lambda stage: stage.time_s or 0).index
    labels = ax.get_yticklabels()
    assert [label.get_fontweight() == "bold" for label in labels] == [index == slowest for index in range(3)]
    assert labels[slowest].get_text().endswith(", slowest")
    assert plan.verdict in ax.get_title(loc="left")


def test_it_draws_on_axes_of_the_caller() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert stage_sizes(uniform(GPT2, num_stages=2), ax=right) is figure
    assert right.patches and not left.patches


@pytest.mark.parametrize("draw", [stage_sizes, stage_graph, compare, lambda plan: compare([plan])])
def test_what_is_no_plan_is_named(draw: Callable[[object], object]) -> None:
    with pytest.raises(SplitError, match=r"A Graph is no plan: pass |this is of type Graph"):
        draw(GPT2)
