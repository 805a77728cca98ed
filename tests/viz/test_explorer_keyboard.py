"""The explorer by keyboard alone: everything is reached in a sensible order, with a focus one sees."""

from typing import Any

import pytest
from explorer_page import cuts_of, verdict_of
from graphs import gpt2_graph
from live_page import LivePage
from playwright.sync_api import Page

from pipelab.planner import optimal
from pipelab.report_words import outcome

pytestmark = pytest.mark.browser

GRAPH = gpt2_graph()
# The panes from top to bottom, as Tab must meet them.
PANES = (".pl-title", ".pl-help, .pl-menu", ".pl-verdict", ".pl-hint", ".pl-ribbon", ".pl-stages", ".pl-links-pane",
         ".pl-graph", ".pl-timeline", ".pl-controls", ".pl-threshold", ".pl-rests")  # fmt: skip

# The element with the focus: a number of its own, its pane, and what to call it.
_FOCUSED = """(panes) => {
  const at = document.activeElement;
  if (!at.closest(".pl-explorer")) return null;
  at.dataset.met ??= `${document.querySelectorAll("[data-met]").length}`;
  const pane = panes.findIndex((selector) => at.closest(selector));
  return [at.dataset.met, pane, at.ariaLabel || at.textContent || at.tagName];
}"""
_TO_THE_TOP = "() => { document.body.tabIndex = -1; document.body.focus(); }"
_REACHABLE = """() => [...document.querySelectorAll(".pl-explorer :is(button, select, input, summary, [tabindex='0'])")]
  .filter((node) => !node.disabled && node.checkVisibility({ visibilityProperty: true })).length"""


def tabbed(page: Page) -> list[Any]:
    """What Tab meets, from the beginning of the page to its end."""
    page.evaluate(_TO_THE_TOP)
    page.keyboard.press("Tab")
    found: list[Any] = []
    while (at := page.evaluate(_FOCUSED, PANES)) is not None:
        found.append(at)
        page.keyboard.press("Tab")
    return found


def go_to(page: Page, name: str) -> None:
    """Press Tab until the element of this name has the focus."""
    page.evaluate(_TO_THE_TOP)
    for _ in range(60):
        page.keyboard.press("Tab")
        at = page.evaluate(_FOCUSED, PANES)
        if at is not None and name in at[2]:
            return
    raise AssertionError(f"Tab does not reach {name!r}")


def test_tab_meets_everything_from_top_to_bottom(open_live) -> None:
    live = open_live(GRAPH, hardware="h100-80gb", ran=True)
    live.page.get_by_label("Help").click()
    live.page.get_by_label("More", exact=True).click()
    live.exchange()
    found = tabbed(live.page)
    assert len({number for number, _, _ in found}) == len(found) == live.page.evaluate(_REACHABLE)
    panes = [pane for _, pane, _ in found]
    assert panes == sorted(panes)
    assert -1 not in panes
    assert all(name for _, _, name in found)


@pytest.mark.parametrize("forced", ["none", "active"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_focus_is_seen_on_everything(open_live, theme: str, forced: str) -> None:
    live = open_live(GRAPH, hardware="h100-80gb", ran=True, theme=theme)
    page = live.page
    page.emulate_media(forced_colors=forced, reduced_motion="reduce")
    page.add_style_tag(content="* { transition: none !important; } .pl-tip, .pl-card { display: none !important; }")
    page.keyboard.press("Tab")
    unseen = []
    while page.evaluate(_FOCUSED, PANES) is not None:
        name = page.evaluate(_FOCUSED, PANES)[2]
        at = page.locator("*:focus")
        box = at.bounding_box()
        assert box
        around = {"x": box["x"] - 4, "y": box["y"] - 4, "width": box["width"] + 8, "height": box["height"] + 8}
        if "pl-handle" in (at.get_attribute("class") or ""):
            around |= {"x": box["x"] - 12, "width": box["width"] + 24}
        seen = page.screenshot(clip=around)
        at.evaluate("(node) => { node.blur(); node.dataset.last = '1'; }")
        if page.screenshot(clip=around) == seen:
            unseen.append(name)
        page.locator("[data-last]").evaluate("(node) => { delete node.dataset.last; node.focus(); }")
        page.keyboard.press("Tab")
    assert unseen == []


def test_from_opening_to_a_report(open_live) -> None:
    """A better split than the first, and how it runs, without a mouse."""
    live: LivePage = open_live(GRAPH, hardware="h100-80gb")
    page = live.page
    before = cuts_of(page)
    go_to(page, "Split 1 between stage 0 and 1")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "Home"):
        page.keyboard.press(key)
        live.exchange()
        assert live.explorer.value == cuts_of(page)
    assert cuts_of(page) != before
    go_to(page, "Optimal")
    page.keyboard.press("Enter")
    live.exchange()
    best = optimal(GRAPH, num_stages=4, objective="time", hardware="h100-80gb", num_microbatches=8)
    assert live.explorer.value == cuts_of(page) == best.cuts
    go_to(page, "Run")
    page.keyboard.press("Space")
    live.exchange()
    assert live.explorer.report is not None
    assert live.explorer.report.plan.cuts == best.cuts
    assert verdict_of(page) == outcome(live.explorer.report).replace("\u00a0", " ")
    assert page.locator(".pl-timeline").is_visible()
    page.keyboard.press("Control+z")
    live.exchange()
    assert live.explorer.value == cuts_of(page) != best.cuts


def test_letters_do_what_the_help_says(open_live) -> None:
    live: LivePage = open_live(GRAPH, hardware="h100-80gb")
    page = live.page
    go_to(page, "Split 2")
    page.keyboard.press("p")
    assert page.evaluate(_FOCUSED, PANES)[2].startswith("Split 2")
    page.keyboard.press("o")
    live.exchange()
    assert live.explorer.value[1] == cuts_of(page)[1]
    page.keyboard.press("a")
    live.exchange()
    assert live.explorer.num_stages == 5 == page.locator(".pl-box").count()
    page.keyboard.press("?")
    assert page.locator(".pl-help").is_visible()
    page.keyboard.press("Escape")
    assert page.locator(".pl-help").is_hidden()
    page.keyboard.press("r")
    live.exchange()
    assert live.explorer.report is not None


def test_it_opens_and_moves_without_motion(open_live) -> None:
    page = open_live(GRAPH, hardware="h100-80gb").page
    page.emulate_media(reduced_motion="reduce")
    moving = """() => [...document.querySelectorAll(".pl-explorer, .pl-explorer *")].filter((node) => {
      const { animationName, transitionDuration, transitionProperty } = getComputedStyle(node);
      const moves = /all|transform|width|height|left|top/.test(transitionProperty);
      return animationName !== "none" || (moves && parseFloat(transitionDuration) > 0.01);
    }).map((node) => node.className.baseVal ?? node.className)"""
    assert page.evaluate(moving) == []
