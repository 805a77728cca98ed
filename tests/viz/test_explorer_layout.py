"""No text overlaps another, leaves its box or is tiny: every width, number of stages and theme."""

from dataclasses import replace

import pytest
from graphs import gpt2_graph

from pipelab.hardware import Hardware
from pipelab.presets import PRESETS

pytestmark = pytest.mark.browser

# Each piece of visible text with its rectangle, its font size, and the rectangle it must stay in.
TEXTS = """() => {
  const root = document.querySelector(".pl-explorer");
  const found = [];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || parent.closest("title, option, [hidden]") || !parent.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    const inPicture = parent instanceof SVGElement;
    const rects = inPicture ? [parent.getBoundingClientRect()] : [...range.getClientRects()];
    const holder = parent.closest("button, .pl-box, output, .pl-piece, .pl-tip") ?? root;
    const around = holder.getBoundingClientRect();
    const size = parseFloat(getComputedStyle(parent).fontSize);
    for (const { left, right, top, bottom } of rects) {
      const box = [around.left, around.right, around.top, around.bottom];
      found.push({ text, size, rect: [left, right, top, bottom], box });
    }
  }
  return found;
}"""

LUMINANCE = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour, under) => {
    canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (channels) => {
    const [r, g, b] = channels.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const css = (channels) => `rgb(${channels.join(",")})`;
  const found = [];
  for (const node of document.querySelectorAll(".pl-explorer *")) {
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!text || !node.checkVisibility()) continue;
    if (node.closest("title, option, :disabled, .pl-piece, .pl-on-colour")) continue;
    let under = [255, 255, 255];
    const above = [];
    for (let at = node; at; at = at.parentElement) above.unshift(getComputedStyle(at).backgroundColor);
    for (const colour of above) under = rgb(colour, css(under));
    const style = getComputedStyle(node);
    const ink = rgb(node instanceof SVGElement ? style.fill : style.color, css(under));
    const [low, high] = [light(ink), light(under)].sort((a, b) => a - b);
    found.push([node.textContent, (high + 0.05) / (low + 0.05)]);
  }
  return found;
}"""


def overlap(a: list[float], b: list[float]) -> float:
    """How deep two rectangles (left, right, top, bottom) lie in each other, in pixels."""
    return min(min(a[1], b[1]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[2], b[2]))


def check_texts(page) -> None:
    found = page.evaluate(TEXTS)
    assert len(found) > 10
    for item in found:
        left, right, top, bottom = item["rect"]
        box_left, box_right, box_top, box_bottom = item["box"]
        inside = left >= box_left - 0.5 and right <= box_right + 0.5 and top >= box_top - 1 and bottom <= box_bottom + 1
        assert inside, f"{item['text']!r} leaves its box: {item}"
        assert item["size"] >= 11, item
    for index, first in enumerate(found):
        for second in found[index + 1 :]:
            depth = overlap(first["rect"], second["rect"])
            # Line boxes of neighbours may touch; letters do not start there.
            assert depth <= 2, f"{first['text']!r} overlaps {second['text']!r} by {depth} px"


# Stages of many blocks, or of the embedding or the head, do not fit.
TIGHT = replace(PRESETS["t4-16gb"], name="tight", memory_bytes=1.15e9)


@pytest.mark.parametrize("hardware", [None, TIGHT], ids=["sizes", "times"])
@pytest.mark.parametrize("width", [600, 900, 1400])
def test_texts_stay_apart_and_in_their_boxes(open_page, width: int, hardware: Hardware | None) -> None:
    page = open_page(gpt2_graph(24), num_stages=2, ran=True, width=width, hardware=hardware)
    for num_stages in range(2, 17):
        assert page.locator("[role=slider]").count() == num_stages - 1
        check_texts(page)
        page.get_by_label("More stages").click()


@pytest.mark.parametrize("num_stages", [2, 5, 9, 16])
@pytest.mark.parametrize("width", [600, 1400])
def test_a_measured_timeline_fits(open_page, width: int, num_stages: int) -> None:
    page = open_page(gpt2_graph(24), num_stages=num_stages, ran=True, width=width)
    check_texts(page)


@pytest.mark.parametrize("width", [600, 900])
def test_help_fits(open_page, width: int) -> None:
    page = open_page(width=width)
    page.get_by_label("Help").click()
    check_texts(page)
    page.get_by_label("Help").click()
    assert page.locator(".pl-help").is_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(open_page, theme: str) -> None:
    page = open_page(ran=True, theme=theme, hardware=TIGHT)
    page.get_by_label("Help").click()
    page.locator("[role=slider]").first.press("ArrowLeft")
    assert page.locator(".pl-too-large").count() == 2
    found = page.evaluate(LUMINANCE)
    assert len(found) > 30
    assert {text: round(ratio, 2) for text, ratio in found if ratio < 4.5} == {}
