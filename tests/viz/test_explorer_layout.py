"""No text overlaps another, leaves its box or is tiny: every width, number of stages, theme and state."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from explorer_page import cuts_of, drag
from graphs import gpt2_graph
from layout import check_contrast, check_layout
from live_page import LivePage

from pipelab.graph import Graph
from pipelab.hardware import Hardware
from pipelab.presets import PRESETS

pytestmark = pytest.mark.browser

WIDTHS = (1400, 900, 600)
STAGES = (2, 3, 4, 8, 12, 16)
# Stages of many blocks, or of the embedding or the head, do not fit.
TIGHT = replace(PRESETS["t4-16gb"], name="tight", memory_bytes=1.15e9)
LONG = "a_very_long_name." * 18


def long_names() -> Graph:
    """A graph whose names have 300 characters."""
    graph = gpt2_graph(24, model=LONG[:300])
    blocks = tuple(replace(block, label=f"{LONG[: 298 - len(block.label)]}{block.label}") for block in graph.blocks)
    names = {weight.name: f"{LONG[:240]}{weight.name}" for weight in graph.weights}
    weights = tuple(replace(w, name=names[w.name], tied_to=names[w.tied_to]) for w in graph.weights)
    ops = tuple(replace(op, weights=tuple(names[name] for name in op.weights)) for op in graph.ops)
    return replace(graph, blocks=blocks, weights=weights, ops=ops)


GRAPHS = {"gpt2": gpt2_graph(24), "long": long_names()}


def check(live: LivePage, widths: tuple[int, ...] = WIDTHS) -> None:
    for width in widths:
        live.show(width=width)
        check_layout(live.page)


@pytest.mark.parametrize("hardware", [None, TIGHT], ids=["sizes", "times"])
@pytest.mark.parametrize("name", GRAPHS)
def test_texts_stay_apart_and_in_their_boxes(open_live, name: str, hardware: Hardware | None) -> None:
    live = open_live(GRAPHS[name], num_stages=2, hardware=hardware)
    for num_stages in STAGES:
        live.explorer.num_stages = num_stages
        live.exchange()
        check(live)


@pytest.mark.parametrize("hardware", [None, TIGHT], ids=["sizes", "times"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_measured_timeline_fits(open_live, name: str, hardware: Hardware | None) -> None:
    live = open_live(GRAPHS[name], num_stages=2, hardware=hardware)
    for num_stages in STAGES:
        live.explorer.num_stages = num_stages
        live.explorer.run()
        live.exchange()
        check(live)


def test_a_divider_in_hand_fits(open_live) -> None:
    for name in GRAPHS:
        live = open_live(GRAPHS[name], num_stages=4, hardware=TIGHT)
        for index in range(3):
            live.page.locator("[role=slider]").nth(index).press("ArrowLeft")
            check(live)


OPENED: dict[str, Callable[[LivePage], None]] = {
    "help": lambda live: live.page.get_by_label("Help").click(),
    "menu": lambda live: live.page.get_by_label("More", exact=True).click(),
    "graph": lambda live: live.page.locator(".pl-explorer").press("g"),
    "training": lambda live: setattr(live.explorer, "train", True),
    "step": lambda live: live.page.locator(".pl-explorer").press("m"),
    "threshold": lambda live: live.page.get_by_role("button", name="Threshold").click(),
    "a stage": lambda live: live.page.locator(".pl-box").nth(1).press("Enter"),
    "zoomed": lambda live: live.page.locator(".pl-piece").nth(3).dblclick(),
    "kept": lambda live: live.page.locator(".pl-explorer").press("k"),
}


@pytest.mark.parametrize("what", OPENED)
@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_opened_fits(open_live, name: str, what: str) -> None:
    live = open_live(GRAPHS[name], num_stages=4, hardware=TIGHT, ran=True)
    OPENED[what](live)
    live.exchange()
    check(live)
    live.page.locator("[role=slider]").first.press("ArrowLeft")
    live.exchange()
    check(live)


@pytest.mark.parametrize("selector", [":root", "html"])
def test_it_is_as_large_as_the_font_of_its_host(open_live, selector: str) -> None:
    """11 to 13 px stayed 11 to 13 px on a projector, however large JupyterLab's or the browser's font was set."""
    live = open_live(GRAPHS["gpt2"], num_stages=4, hardware=TIGHT, ran=True, width=1400)
    page = live.page
    before = page.locator(".pl-name").bounding_box()["height"]
    font = "--jp-ui-font-size1: 19.5px" if selector == ":root" else "font-size: 24px"
    page.add_style_tag(content=f"{selector} {{ {font}; }}")
    check(live, (1400, 900))
    assert page.locator(".pl-name").bounding_box()["height"] == pytest.approx(1.5 * before, abs=1)
    starts = [block.start for block in GRAPHS["gpt2"].blocks]
    at, block = starts.index(cuts_of(page)[1]), page.locator(".pl-piece").nth(9).bounding_box()["width"]
    for blocks in (3, -5):  # the divider goes as far as the hand
        drag(page, 1, blocks * block)
        at += blocks
        assert cuts_of(page)[1] == starts[at]
    page.locator(".pl-box").last.press("Enter")
    card, root = (page.locator(name).bounding_box() for name in (".pl-card", ".pl-explorer"))
    assert card["y"] + card["height"] <= root["y"] + root["height"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(open_live, theme: str) -> None:
    live = open_live(hardware=TIGHT, theme=theme, ran=True)
    live.page.get_by_label("Help").click()
    live.page.locator("[role=slider]").first.press("ArrowLeft")
    assert live.page.locator(".pl-too-large").count() == 2
    check_contrast(live.page)


@pytest.mark.parametrize(
    ("style", "what"),
    [
        (".pl-box-params { font-size: 10px !important; }", "is 10 px"),
        (".pl-about { position: absolute; left: 24px; }", "overlaps"),
        (".pl-box { width: 40px !important; }", "leaves pl-box"),
        (".pl-verdict > span { position: absolute; right: 0; }", "leaves pl-explorer"),
        (".pl-title { overflow: hidden; height: 8px; }", "leaves pl-title"),
        ("body { min-width: 2000px; }", "sideways"),
    ],
)
def test_what_is_wrong_is_found(open_live, style: str, what: str) -> None:
    live = open_live()
    live.page.add_style_tag(content=style)
    with pytest.raises(AssertionError, match=what):
        check_layout(live.page)
