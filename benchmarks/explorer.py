"""Claim: a drag keeps up with the screen, 16.7 ms per frame to 5,000 ops and 33 ms to 10,000; a page opens in a blink.

Peer: the same page at rest. It is the explorer's saved page of a LLaMA without weights in Chromium, on an h100-80gb,
with the predicted timeline drawn live: 200 mouse moves, each in a frame of its own, over all places the divider can
go. Our work is the script that handles a frame in which the split changes, and the style and layout that the browser
then computes; drawing is the browser's and shows in the intervals between frames only.

    python benchmarks/explorer.py [ops ...]
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from machine import machine
from playwright.sync_api import Browser, Page

import pipelab
from pipelab.graph import Graph
from pipelab.plan import Plan
from pipelab.viz.explorer import Explorer

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from browser import chromium

# LLaMA-3-405B but for its number of layers; a layer has 75 ops.
LLAMA = {
    "hidden_size": 16384, "intermediate_size": 53248, "num_attention_heads": 128, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
LAYERS_405B = 126
SIZES = (500, 2000, 5000, 10000)
NUM_MOVES = 200
CASES = [(4, "block"), (4, "op"), (16, "block"), (16, "op")]

# Every animation frame that moves a divider is timed, with the layout it leaves to do; a loop of ours notes each frame.
INSTRUMENT = """() => {
  const ask = window.requestAnimationFrame.bind(window);
  Object.assign(window, { work: [], frames_ms: [], painted: null });
  const places = () => [...document.querySelectorAll("[role=slider]")].map((one) => one.ariaValueNow).join();
  window.requestAnimationFrame = (callback) => ask((now) => {
    const before = places();
    const start = performance.now();
    callback(now);
    document.body.getBoundingClientRect();
    const took = performance.now() - start;
    if (places() !== before) window.work.push(took);
  });
  let before;
  const note = (now) => {
    if (before !== undefined) window.frames_ms.push(now - before);
    before = now;
    const ready = window.painted === null && document.querySelector("[data-ready='1']");
    if (ready) ask(() => { window.painted ??= performance.now(); });
    ask(note);
  };
  ask(note);
  window.nextFrame = () => new Promise((done) => ask(() => ask(done)));
}"""


def graph_of(num_layers: int) -> Graph:
    """A LLaMA without weights."""
    from transformers import LlamaConfig

    config = LlamaConfig(num_hidden_layers=num_layers, **LLAMA)
    return pipelab.trace_pretrained(config, batch_size=32, seq_len=128, dtype="bfloat16").graph


def layers_for(sizes: list[int]) -> list[int]:
    """As many layers as give so many ops."""
    two, three = (len(graph_of(count).ops) for count in (2, 3))
    return [round((size - two) / (three - two)) + 2 for size in sizes]


def plan_of(graph: Graph, num_stages: int) -> Plan:
    """As many blocks in each stage, or ops where there are too few blocks."""
    legal = graph.legal
    blocks = len(graph.blocks) >= num_stages
    cuts = [legal[len(legal) * k // num_stages] for k in range(1, num_stages)]
    return Plan(graph, pipelab.uniform(graph, num_stages=num_stages).cuts if blocks else cuts, hardware="h100-80gb")


def measure(page: Page, level: str) -> tuple[list[float], list[float], list[float]]:
    """Drag the middle divider to and fro; milliseconds of our work, of frames meanwhile and at rest."""
    page.get_by_label("Cut between").select_option(level)
    page.wait_for_timeout(800)
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
    page.keyboard.press("Escape")
    page.mouse.up()
    return work, frames, rest


def opened(browser: Browser, path: Path) -> tuple[Page, float]:
    """The page, and the milliseconds from opening it to the frame with the explorer."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.add_init_script(f"({INSTRUMENT})()")
    page.goto(path.as_uri())
    page.wait_for_function("() => window.painted !== null")
    return page, float(page.evaluate("() => window.painted"))


def _taken(page: Page, name: str) -> list[float]:
    return [float(value) for value in page.evaluate("(name) => window[name].splice(0)", name)]


def case(browser: Browser, graph: Graph, num_stages: int, levels: list[str], path: Path) -> None:
    """The lines of one number of stages."""
    start = time.perf_counter()
    explorer = Explorer(plan_of(graph, num_stages), num_microbatches=32, runner=None)
    built_s = time.perf_counter() - start
    explorer.save(path)
    size = path.stat().st_size / 1e6
    first_ms = []
    for _ in range(3):
        page, painted_ms = opened(browser, path)
        first_ms.append(painted_ms)
        if len(first_ms) < 3:
            page.close()
    for level in levels:
        times = measure(page, level)
        columns = " ".join(f"{median(ms):5.1f} / {_percentile95(ms):5.1f}" for ms in times)
        open_text = f"{built_s:7.2f} {size:6.2f} {median(first_ms):7.0f}"
        print(f"{len(graph.ops):6,} {num_stages:6} {level:>8} {len(times[0]):6} {columns} {open_text}", flush=True)
    page.close()


def main() -> None:
    """Print the table."""
    sizes = [int(text) for text in sys.argv[1:]] or list(SIZES)
    print(machine())
    print(f"{NUM_MOVES} moves, 32 micro-batches; in ms, median / 95th percentile; build in s, page in MB, paint in ms")
    print(f"{'ops':>6} {'stages':>6} {'between':>8} {'frames':>6} {'our work':>13} {'interval':>13} {'at rest':>13} "
          f"{'build':>7} {'page':>6} {'paint':>7}")  # fmt: skip
    counts = layers_for(sizes)
    counts += [] if sys.argv[1:] else [LAYERS_405B]
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        for num_layers in counts:
            graph = graph_of(num_layers)
            for num_stages in dict.fromkeys(stages for stages, _ in CASES):
                levels = [level for stages, level in CASES if stages == num_stages]
                case(browser, graph, num_stages, levels, Path(folder) / "explorer.html")


def _percentile95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


if __name__ == "__main__":
    main()
