"""The picture below a widget, as IPython shows it."""

import base64
from collections.abc import Iterator
from typing import Any

import ipywidgets
import pytest
from graphs import gpt2_graph, mlp_graph
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from runs import Runner

import pipelab
from pipelab.comparing import side_by_side
from pipelab.comparison import Comparison
from pipelab.policies import uniform
from pipelab.viz import still
from pipelab.viz.explorer import Explorer

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """An IPython that shows pictures, as a kernel's does."""
    shell = InteractiveShell.instance()
    shell.display_formatter.active_types = shell.display_formatter.format_types
    yield shell
    InteractiveShell.clear_instance()


def explorer_of(model: str = "MLP") -> Explorer:
    return Explorer(uniform(mlp_graph(model=model), num_stages=3), num_microbatches=2, runner=Runner())


def outputs_of(explorer: Explorer | Comparison) -> list[dict[str, Any]]:
    with capture_output() as captured:
        explorer._ipython_display_()
    return [output.data for output in captured.outputs]


def test_a_cell_shows_the_widget_and_then_its_picture(shell: InteractiveShell) -> None:
    explorer = explorer_of()
    widget, picture = outputs_of(explorer)
    assert widget[WIDGET]["model_id"] == explorer.model_id
    assert widget["text/plain"] == repr(explorer.plan)
    assert list(picture) == ["text/html"]
    png = picture["text/html"].partition("base64,")[2].partition('"')[0]
    assert base64.b64decode(png).startswith(b"\x89PNG")


def test_a_box_leaves_the_pictures_of_what_is_in_it(shell: InteractiveShell) -> None:
    """Two explorers in an HBox left nothing in a saved notebook: IPython shows the box, and asks nobody in it."""
    explorers = [explorer_of(), explorer_of()]
    boxes = [ipywidgets.HBox([ipywidgets.VBox(explorers[:1]), ipywidgets.Label("or")]), ipywidgets.HBox(explorers[1:])]
    box = ipywidgets.VBox(boxes)
    with capture_output() as captured:
        shell.display_formatter.format(box)
    shown, *pictures = [output.data for output in captured.outputs]
    assert shown[WIDGET]["model_id"] == box.model_id
    for explorer, picture in zip(explorers, pictures, strict=True):
        assert f"pipelab-still-{explorer._still}" in picture["text/html"]
    with capture_output() as captured:
        others, _ = shell.display_formatter.format(ipywidgets.HBox([ipywidgets.Label("alone")]))
    assert WIDGET in others
    assert captured.outputs == []


def test_a_name_in_the_picture_is_text(shell: InteractiveShell) -> None:
    _, picture = outputs_of(explorer_of('"><script>alert(1)</script>'))
    assert "<script" not in picture["text/html"]
    assert "&quot;&gt;&lt;script&gt;" in picture["text/html"]


def test_a_terminal_shows_the_table_alone(shell: InteractiveShell) -> None:
    shell.display_formatter.active_types = ["text/plain"]
    with pytest.raises(NotImplementedError):
        explorer_of()._ipython_display_()
    explorer = explorer_of()
    data, _ = shell.display_formatter.format(explorer)
    assert data["text/plain"] == repr(explorer.plan)


def test_a_comparison_leaves_its_picture_too(shell: InteractiveShell) -> None:
    comparison = pipelab.compare(gpt2_graph(), num_stages=4)
    widget, picture = outputs_of(comparison)
    assert widget[WIDGET]["model_id"] == comparison.view.model_id
    assert "width: 1152px" in picture["text/html"]
    assert shell.display_formatter.format(side_by_side([uniform(gpt2_graph(), num_stages=2)]))[0]["text/plain"]


@pytest.mark.parametrize("change", [lambda e: setattr(e, "cuts", (1, 2)), lambda e: e.run()])
def test_the_picture_follows_when_all_is_quiet(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    monkeypatch.setattr(still, "REDRAW_S", 0.01)
    explorer = explorer_of()
    _, before = outputs_of(explorer)
    told: list[tuple[dict[str, Any], dict[str, Any]]] = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, **kwargs: told.append((data, kwargs)))
    change(explorer)
    explorer._redrawing.join()
    ((after, how),) = told
    assert how["update"] and how["transient"]["display_id"] in before["text/html"]
    assert after["text/html"] != before["text/html"]


def test_a_closed_widget_draws_no_more(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = explorer_of()
    outputs_of(explorer)
    explorer.cuts = (1, 2)
    explorer.close()
    explorer._redrawing.join()
    explorer._redraw()
    with pytest.raises(NotImplementedError):
        explorer._ipython_display_()
