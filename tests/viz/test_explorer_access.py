"""Everybody can use the explorer's page: no violation that axe-core knows, forced colours, reduced motion."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from graphs import gpt2_graph
from live_page import LivePage
from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def check(page: Page) -> None:
    """All of axe-core's rules, also those it calls best practice."""
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


STATES: dict[str, Callable[[LivePage], None]] = {
    "open": lambda live: None,
    "help": lambda live: live.page.get_by_label("Help").click(),
    "menu": lambda live: live.page.get_by_label("More", exact=True).click(),
    "graph": lambda live: live.page.get_by_role("button", name="Graph").click(),
    "training": lambda live: setattr(live.explorer, "train", True),
    "threshold": lambda live: live.page.get_by_role("button", name="Threshold").click(),
    "a divider": lambda live: live.page.locator("[role=slider]").first.press("ArrowLeft"),
    "a stage": lambda live: live.page.locator(".pl-box").first.press("Enter"),
    "run": lambda live: live.explorer.run(),
    "16 stages": lambda live: setattr(live.explorer, "num_stages", 16),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("hardware", [None, "h100-80gb"], ids=["sizes", "times"])
def test_axe_finds_nothing(open_live, hardware: str | None, theme: str) -> None:
    live = open_live(gpt2_graph(24), hardware=hardware, theme=theme)
    for change in STATES.values():
        change(live)
        live.exchange()
        check(live.page)


# Texts with the colour of the plate that forced colours lay under them, and frames that only forced colours show.
_HIDDEN = """() => {
  const probe = document.body.appendChild(document.createElement("span"));
  probe.style.color = "Canvas";
  const canvas = getComputedStyle(probe).color;
  probe.remove();
  return [...document.querySelectorAll(".pl-explorer *")].filter((node) => {
    const style = getComputedStyle(node);
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    const framed = style.outlineStyle !== "none" && !node.matches(":focus-visible");
    const plate = text && style.forcedColorAdjust !== "none" && style.color === canvas;
    return node.checkVisibility() && (framed || (plate && !(node instanceof SVGElement)));
  }).map((node) => node.className.baseVal ?? node.className);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_forced_colours_hide_no_text(open_live, theme: str) -> None:
    live = open_live(gpt2_graph(24), hardware="h100-80gb", theme=theme, ran=True)
    live.page.emulate_media(forced_colors="active")
    for change in STATES.values():
        change(live)
        live.exchange()
        live.page.locator("[role=slider]").first.focus()
        assert live.page.evaluate(_HIDDEN) == []
