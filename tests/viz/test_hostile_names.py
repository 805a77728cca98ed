"""Names are text wherever they are shown: the widget, its page, figures, a notebook without widgets."""

import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from explorer_page import handles, texts
from graphs import gpt2_graph
from layout import check_layout
from playwright.sync_api import Page
from runs import Runner, made_up_report

from pipelab.comparing import side_by_side
from pipelab.elements import TensorInfo, Weight
from pipelab.graph import Graph
from pipelab.names import printable
from pipelab.policies import uniform
from pipelab.presets import PRESETS
from pipelab.viz import compare, stage_graph, stage_sizes, timeline
from pipelab.viz.comparison_view import ComparisonView
from pipelab.viz.explorer import Explorer
from pipelab.viz.explorer_figure import explorer_figure
from pipelab.viz.svg_layout import draw

NAMES = {
    "image": "<img src=x onerror=alert(1)>",
    "script": "</script><script>alert(2)</script>",
    "entity": "a & b &lt;",
    "comment": "--><b>bold</b>",
    "braces": "{css} ${x} %s \\n \\",
    "maths": "$x_{$",
    "quotes": "\"'`",
    "lines": "two\nlines\tand\rmore\u2028",
    "control": "\0\x1b[31m\x7f",
    "override": "\u202e\u2067back",
    "hebrew": "\u05e9\u05dc\u05d5\u05dd",
    "long": "long_name." * 30,
}
HEBREW = NAMES["hebrew"]


def named(name: str) -> Graph:
    """A graph in which model, blocks, modules, weights, values and inputs bear a name."""
    graph = gpt2_graph(3, model=name)

    def rename(path: str) -> str:
        return f"{path}.{name}" if path else path

    def tied(weight: Weight) -> Weight:
        return replace(weight, name=rename(weight.name), tied_to=rename(weight.tied_to))

    def value(tensor: TensorInfo | None) -> TensorInfo | None:
        return tensor and replace(tensor, name=f"{name}{tensor.name}")

    return replace(
        graph,
        inputs=tuple(value(tensor) for tensor in graph.inputs),
        blocks=tuple(replace(b, path=rename(b.path), label=f"{name}.{k}") for k, b in enumerate(graph.blocks)),
        modules=tuple(replace(call, path=rename(call.path)) for call in graph.modules),
        weights=tuple(tied(weight) for weight in graph.weights),
        ops=tuple(
            replace(
                op,
                name=f"{name}{op.name}",
                module=rename(op.module),
                weights=tuple(map(rename, op.weights)),
                output=value(op.output),
            )
            for op in graph.ops
        ),
    )


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return NAMES[request.param]


def check_page(page: Page) -> None:
    """No element came of a name, and the texts stay where they belong."""
    assert page.locator("img, b, i, body script:not([type]), .pl-explorer script").count() == 0
    check_layout(page)


@pytest.mark.browser
@pytest.mark.parametrize("hardware", [None, "h100-80gb"], ids=["sizes", "times"])
def test_in_the_widget(open_live, name: str, hardware: str | None) -> None:
    live = open_live(named(name), num_stages=3, hardware=hardware, ran=True)
    page = live.page
    assert texts(page, ".pl-name") == [printable(name)]
    assert page.locator(".pl-name").get_attribute("title") == printable(name)
    for index in range(2):
        handles(page).nth(index).focus()
        check_page(page)
    assert page.title() == " ".join(f"{printable(name)} in 3 stages".split())


@pytest.mark.browser
def test_in_a_comparison(new_page, tmp_path: Path, name: str) -> None:
    graph = named(name)
    plans = {name: uniform(graph, num_stages=3), "other": uniform(graph, num_stages=2)}
    ComparisonView(side_by_side(plans, hardware="h100-80gb")).save(tmp_path / "compare.html")
    for width in (1400, 600):
        page = new_page(width)
        page.goto((tmp_path / "compare.html").as_uri())
        page.wait_for_selector("[data-ready='1']")
        check_page(page)
        assert printable(name) in (page.locator(".pl-comparison").text_content() or "")


# Texts with Hebrew in them: where each Latin letter or digit outside of it is drawn, line by line.
_ORDER = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.querySelector(".pl-explorer"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!/[\\u0590-\\u05ff]/.test(node.data) || node.parentElement instanceof SVGElement) continue;
    if (!node.parentElement.checkVisibility()) continue;
    const range = document.createRange();
    const lefts = [...node.data].flatMap((letter, at) => {
      if (!/[A-Za-z0-9]/.test(letter)) return [];
      range.setStart(node, at);
      range.setEnd(node, at + 1);
      const { left, top } = range.getBoundingClientRect();
      return [[Math.round(top), left]];
    });
    found.push([node.data, lefts]);
  }
  return found;
}"""


@pytest.mark.browser
def test_hebrew_turns_nothing_around_but_itself(open_live) -> None:
    page = open_live(named(HEBREW), num_stages=3, hardware="h100-80gb").page
    handles(page).first.focus()
    found = page.evaluate(_ORDER)
    assert len(found) > 1
    for text, places in found:
        assert places == sorted(places), text


def test_in_pictures_of_stages(name: str) -> None:
    for detail in ("stage", "block"):
        graph = stage_graph(uniform(named(name), num_stages=3), detail=detail)
        for svg in [draw(graph.picture), *([graph.to_svg()] if shutil.which("dot") else [])]:
            root = ElementTree.fromstring(svg)
            words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
            assert any(printable(name)[:20] in text.replace("\u2068", "") for text in words)
            assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
                *("svg", "defs", "marker", "path", "rect", "text", "g", "polygon", "title", "polyline", "ellipse")
            }
        assert all(line.isprintable() for line in repr(graph).replace("\u2068", "").replace("\u2069", "").split("\n"))


def test_in_figures(name: str) -> None:
    plan = uniform(named(name), num_stages=3)
    report = made_up_report(plan)
    compared = side_by_side({name: plan, "other": uniform(plan.graph, num_stages=2)}, hardware="h100-80gb")
    pictures = (explorer_figure(plan), explorer_figure(plan, report=report))
    for figure in (stage_sizes(plan), timeline(report.timeline), compare(compared), *pictures):
        figure.canvas.draw()
        plt.close(figure)


def test_in_a_notebook_without_widgets(name: str) -> None:
    plan = replace(uniform(named(name), num_stages=3), hardware=PRESETS["h100-80gb"])
    explorer = Explorer(plan, num_microbatches=8, runner=Runner())
    report = explorer.run()
    for value in (explorer, explorer.plan, report):
        assert all(line.isprintable() for line in repr(value).replace("\u00a0", " ").split("\n"))
    bundle = explorer._repr_mimebundle_()
    assert bundle is not None
    assert all(line.isprintable() for line in bundle[0]["text/plain"].split("\n"))
