"""Claim: dragging a divider over a graph of 5,000 ops keeps up with the screen, 16.7 ms per frame.

Peer: the same page at rest. It is the explorer's saved page in Chromium, with 200 mouse moves, each in a frame of
its own, over all places the divider can go. Our work is the script that handles a frame, and the style and layout
that the browser then computes; drawing is the browser's and shows in the intervals between frames only.

    python benchmarks/explorer_drag.py
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

from machine import machine
from playwright.sync_api import Browser, Page

import pipelab
from pipelab.tracing import Trace

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from browser import chromium

NUM_LAYERS = 92
NUM_MOVES = 200
CASES = [(2, "block"), (2, "op"), (4, "op"), (16, "op")]

# Every animation frame the page asks for is timed, then the layout it left to do; a loop of ours notes each frame.
INSTRUMENT = """() => {
  const ask = window.requestAnimationFrame.bind(window);
  window.work = [];
  window.frames_ms = [];
  window.requestAnimationFrame = (callback) => ask((now) => {
    const start = performance.now();
    callback(now);
    document.body.getBoundingClientRect();
    window.work.push(performance.now() - start);
  });
  let before;
  const note = (now) => {
    if (before !== undefined) window.frames_ms.push(now - before);
    before = now;
    ask(note);
  };
  ask(note);
  window.nextFrame = () => new Promise((done) => ask(() => ask(done)));
}"""


def model() -> Trace:
    """A LLaMA of 5,000 ops, without weights."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=NUM_LAYERS, num_attention_heads=4, vocab_size=1000
    )
    return pipelab.trace_pretrained(config, batch_size=8, seq_len=128)


def measure(browser: Browser, path: Path, level: str) -> tuple[list[float], list[float], list[float]]:
    """Drag the middle divider to and fro; milliseconds of our work, of frames meanwhile and at rest."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.add_init_script(f"({INSTRUMENT})()")
    page.goto(path.as_uri())
    page.wait_for_selector("[data-ready='1']")
    page.get_by_label("Cut between").select_option(level)
    page.wait_for_timeout(1000)
    rest = _taken(page, "frames_ms")
    handles = page.locator("[role=slider]")
    at = handles.nth(handles.count() // 2)
    box, ribbon = at.locator(".pl-grip").bounding_box(), page.locator(".pl-ribbon").bounding_box()
    assert box and ribbon
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    _taken(page, "work")
    _taken(page, "frames_ms")
    reach = min(ribbon["width"] * 0.45, ribbon["width"] / (handles.count() + 1))
    for move in range(NUM_MOVES):
        share = abs(move % 100 - 50) / 25 - 1  # 1 to -1 and back
        page.mouse.move(x + reach * share, y + 10)
        page.evaluate("() => window.nextFrame()")
    work, frames = _taken(page, "work"), _taken(page, "frames_ms")
    page.mouse.up()
    page.close()
    return work, frames, rest


def _taken(page: Page, name: str) -> list[float]:
    return [float(value) for value in page.evaluate("(name) => window[name].splice(0)", name)]


def main() -> None:
    """Print the table."""
    traced = model()
    print(machine())
    print(f"{len(traced.graph.ops):,} ops, {len(traced.graph.legal):,} split points, {NUM_MOVES} moves")
    print("in ms, median / 95th percentile")
    print(f"{'stages':>6} {'between':>8} {'frames':>7} {'our work':>13} {'interval':>13} {'at rest':>13}")
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        for num_stages, level in CASES:
            path = Path(folder) / f"{num_stages}.html"
            pipelab.explore(traced, num_stages=num_stages, hardware="h100-80gb").save(path)
            columns = measure(browser, path, level)
            texts = " ".join(f"{median(column):5.1f} / {_percentile95(column):5.1f}" for column in columns)
            print(f"{num_stages:6} {level:>8} {len(columns[0]):7} {texts}")


def _percentile95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


if __name__ == "__main__":
    main()
