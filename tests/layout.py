"""What must hold of a drawn explorer, whatever it shows: texts apart, in their boxes, large enough, dark enough."""

from typing import Any

from playwright.sync_api import Page

# Each visible text of the widget: HTML by lines, SVG by element, form controls whole. A text ends where an ancestor
# scrolls or elides it; otherwise it must stay in whatever is drawn around it. Layers (menus, tips) lie over others.
_LOOK = """([selector, layers]) => {
  const roots = [...document.querySelectorAll(selector)];
  const found = [];
  const wrong = new Set();
  const say = (what) => wrong.add(what);
  const short = (text) => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
  const cut = (a, b) => ({ left: Math.max(a.left, b.left), right: Math.min(a.right, b.right),
                           top: Math.max(a.top, b.top), bottom: Math.min(a.bottom, b.bottom) });
  const empty = ({ left, right, top, bottom }) => right - left < 1 || bottom - top < 1;
  const leaves = (a, b) => Math.max(b.left - a.left, a.right - b.right, (b.top - a.top) / 2, (a.bottom - b.bottom) / 2);
  const drawn = (style) => parseFloat(style.borderTopWidth) > 0 && style.borderTopStyle !== "none"
    || !/, 0\\)|transparent/.test(style.backgroundColor);
  const clips = (value) => value === "hidden" || value === "clip";

  const place = (rect, node, root, text) => {
    for (let at = node; at && root.contains(at); at = at.parentElement) {
      if (at instanceof SVGElement && !(at instanceof SVGSVGElement)) continue;
      const style = getComputedStyle(at);
      const box = at.getBoundingClientRect();
      if (style.display === "inline" || style.display === "contents") continue;
      if (clips(style.overflowX) && box.width <= 1.5) return null;  // for screen readers only
      const scrolls = [style.overflowX, style.overflowY].some((value) => value === "auto" || value === "scroll");
      const elides = clips(style.overflowX) && (style.textOverflow === "ellipsis" || style.webkitLineClamp !== "none");
      if (scrolls || elides) rect = cut(rect, box);
      if (empty(rect)) return null;
      const holds = at === root || drawn(style) || clips(style.overflowX) || clips(style.overflowY);
      if (holds && leaves(rect, box) > 0.6) {
        say(`${short(text)} leaves ${at.className.baseVal ?? at.className} by ${leaves(rect, box).toFixed(1)} px`);
      }
    }
    return rect;
  };
  const add = (rect, node, root, text) => {
    const placed = empty(rect) ? null : place(rect, node, root, text);
    if (placed) found.push({ text, ...cut(placed, placed), layer: node.closest(layers), node });
  };

  for (const root of roots) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode.parentElement;
      const text = walker.currentNode.textContent.trim();
      if (!text || node.closest("title, desc, option, style")) continue;
      if (!node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      const range = document.createRange();
      range.selectNodeContents(walker.currentNode);
      const rects = node instanceof SVGElement ? [node.getBoundingClientRect()] : [...range.getClientRects()];
      const before = found.length;
      for (const rect of rects) add(rect, node, root, text);
      const size = parseFloat(getComputedStyle(node).fontSize);
      if (found.length > before && size < 11) say(`${short(text)} is ${size} px`);
    }
    for (const control of root.querySelectorAll("select, input:not([type=checkbox], [type=radio])")) {
      if (!control.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      const text = control.selectedOptions?.[0]?.text ?? control.value;
      add(control.getBoundingClientRect(), control, root, text);
      if (parseFloat(getComputedStyle(control).fontSize) < 11) say(`${short(text)} is small`);
      if (control.scrollWidth > control.clientWidth + 1) say(`${short(text)} is cut off`);
    }
    if (root.scrollWidth > root.clientWidth + 1) say(`${root.scrollWidth} px in ${root.clientWidth}`);
  }
  for (const [index, a] of found.entries()) {
    for (const b of found.slice(index + 1)) {
      if (a.layer !== b.layer || a.node === b.node) continue;
      const both = cut(a, b);
      // Line boxes of neighbours may touch: letters do not start there.
      if (both.right - both.left > 1 && both.bottom - both.top > 2) say(`${short(a.text)} overlaps ${short(b.text)}`);
    }
  }
  const sideways = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (sideways > 0) say(`the page scrolls sideways by ${sideways} px`);
  return [found.length, [...wrong]];
}"""
_LAYERS = ".pl-tip, .pl-timeline-tip, .pl-card, .pl-menu, [popover], [role=menu], dialog"

# Contrast of each visible text with what lies under it, as WCAG counts it.
_CONTRAST = """(exempt) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour, under, opacity = 1) => {
    canvas.globalAlpha = 1;
    canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1);
    canvas.globalAlpha = opacity;
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
    if (!text || !node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (node.closest(exempt)) continue;
    let under = [255, 255, 255];
    let opacity = 1;
    const above = [];
    for (let at = node; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      above.unshift(style.backgroundColor);
      opacity *= parseFloat(style.opacity);
    }
    for (const colour of above) under = rgb(colour, css(under));
    const style = getComputedStyle(node);
    const ink = rgb(node instanceof SVGElement ? style.fill : style.color, css(under), opacity);
    const [low, high] = [light(ink), light(under)].sort((a, b) => a - b);
    found.push([node.textContent, (high + 0.05) / (low + 0.05)]);
  }
  return found;
}"""
# What is off, and what stands on a stage's colour: those are checked as a palette.
_EXEMPT = "title, option, :disabled, .pl-piece, .pl-on-colour"


def check_layout(page: Page, selector: str = ".pl-explorer", at_least: int = 10) -> None:
    """No text overlaps another, leaves its box, is cut off or is under 11 px; nothing scrolls sideways.

    Args:
        page: The page.
        selector: The widget in it.
        at_least: Number of texts that must be there.
    """
    count, wrong = page.evaluate(_LOOK, [selector, _LAYERS])
    assert not wrong, "\n".join(wrong)
    assert count >= at_least, count


def check_contrast(page: Page) -> None:
    """Every text of the explorer has the contrast of WCAG AA."""
    found: list[tuple[str, Any]] = page.evaluate(_CONTRAST, _EXEMPT)
    assert len(found) > 10
    low = {text: round(ratio, 2) for text, ratio in found if ratio < 4.5}
    assert not low, low
