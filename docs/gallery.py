"""Takes the pictures of `gallery.md`, and writes it: the explorer in several sizes, both themes, most states.

    python docs/gallery.py [name ...]

Runs GPT-2 small (random weights) on four ranks, and traces LLaMA-3-70B without weights; needs Chromium.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from playwright.sync_api import Browser, Page

import pipelab
from pipelab.tracing import Trace
from pipelab.viz.explorer import Explorer

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))
from browser import Theme, chromium  # noqa: E402  the tests' own browser
from live_page import LivePage  # noqa: E402

LLAMA_70B = {
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip


@cache
def gpt2() -> Trace:
    """GPT-2 small, 8 x 128 tokens."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval()
    return pipelab.trace(model, input_ids=torch.randint(0, 50257, (8, 128)))


@cache
def llama() -> Trace:
    """LLaMA-3-70B without weights."""
    from transformers import LlamaConfig

    return pipelab.trace_pretrained(LlamaConfig(**LLAMA_70B), batch_size=32, seq_len=512, dtype="bfloat16")


def nothing(live: LivePage) -> None:
    """As it opens."""


def run(live: LivePage) -> None:
    """After a run on this machine, which was measured before."""
    live.explorer.hardware = pipelab.measure(gpt2())
    live.exchange()  # else the page may hear of the run first, and then that times changed since
    live.explorer.run()


def drag(live: LivePage) -> None:
    """With a divider in hand."""
    page = live.page
    box = page.locator("[role=slider]").nth(1).locator(".pl-grip").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y, steps=5)


def train(live: LivePage) -> None:
    """Training, one forward, one backward."""
    live.explorer.train, live.explorer.schedule = True, "1f1b"


def zoom(live: LivePage) -> None:
    """Zoomed to the modules of a few blocks, a divider in hand."""
    page = live.page
    page.get_by_label("Cut between").select_option("module")
    page.locator("[role=slider]").nth(3).press("ArrowRight")
    for _ in range(12):
        page.keyboard.press("+")


def graph(live: LivePage) -> None:
    """The graph open."""
    live.page.locator(".pl-explorer").press("g")


def step(live: LivePage) -> None:
    """One micro-batch on its way."""
    live.page.locator(".pl-explorer").press("m")
    live.page.locator(".pl-explorer").press("m")


def menu(live: LivePage) -> None:
    """The menu open, with a launch line."""
    live.page.get_by_label("More", exact=True).click()
    live.page.get_by_role("button", name="vLLM").click()


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        text: What it shows.
        trace: Makes the model.
        num_stages: Number of stages.
        width: Of the window.
        theme: "light" or "dark".
        hardware: What times rest on.
        then: What is done before it is taken.
    """

    text: str
    trace: Callable[[], Trace]
    num_stages: int = 4
    width: int = 900
    theme: Theme = "light"
    hardware: str | None = "h100-80gb"
    then: Callable[[LivePage], None] = nothing


PICTURES = {
    "opening": Picture("As it opens: GPT-2 in four stages; no hardware is named, so FLOPs stand in for times.", gpt2,
                       hardware=None),
    "drag": Picture("A divider in hand: how good each other place is, and what would cross there.", gpt2, then=drag),
    "run": Picture("After Run: measured under predicted, and where the time went.", gpt2, hardware=None, then=run),
    "step": Picture("One micro-batch on its way through the stages.", gpt2, then=step, theme="dark"),
    "graph": Picture("The graph: what flows between the blocks of each stage.", gpt2, then=graph),
    "menu": Picture("Everything else: training, hardware, files, launch lines.", gpt2, then=menu),
    "two": Picture("Two stages in a narrow window.", gpt2, 2, 600, "dark"),
    "narrow": Picture("Eight stages in a narrow window.", gpt2, 8, 600),
    "eight": Picture("LLaMA-3-70B in eight stages on H100s.", llama, 8, 1400, "dark"),
    "memory": Picture("Over memory: what does not fit, and by how much.", llama, 8, 1400, hardware="t4-16gb"),
    "training": Picture("Training with 1F1B: gradients and activations in flight count as well.", llama, 8, 1400,
                        then=train),
    "zoomed": Picture("Zoomed to the modules of a few blocks.", llama, 8, 1400, then=zoom),
    "sixteen": Picture("Sixteen stages.", llama, 16, 1400),
}  # fmt: skip
COMPARE = ("compare", "Compared: equal size, threshold and optimal on the same axes.")


def opened(browser: Browser, path: Path, width: int, theme: Theme) -> Page:
    """A saved page."""
    page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=theme)
    page.goto(path.as_uri())
    page.wait_for_selector("[data-ready='1']")
    return page


def take(browser: Browser, folder: Path, name: str, picture: Picture) -> None:
    """Open an explorer, bring it where the picture is to be taken, and take it."""
    explorer = pipelab.explore(picture.trace(), num_stages=picture.num_stages, hardware=picture.hardware)
    assert isinstance(explorer, Explorer)
    explorer.save(folder / "page.html")
    live = LivePage(opened(browser, folder / "page.html", picture.width, picture.theme), explorer)
    picture.then(live)
    live.exchange()
    live.page.wait_for_timeout(600)  # what is told after a moment, and transitions
    live.page.locator(".pl-explorer").screenshot(path=HERE / "gallery" / f"{name}.png")
    live.page.close()
    explorer.close()


def compare(browser: Browser, folder: Path) -> None:
    """The picture of a comparison."""
    pipelab.compare(llama(), num_stages=8, hardware="h100-80gb").save(folder / "compare.html")
    page = opened(browser, folder / "compare.html", 1400, "light")
    page.locator(".pl-comparison").screenshot(path=HERE / "gallery" / f"{COMPARE[0]}.png")
    page.close()


def write() -> None:
    """The page that shows them."""
    texts = [*((name, picture.text) for name, picture in PICTURES.items()), COMPARE]
    shown = "\n\n".join(f"{text}\n\n![{text}](gallery/{name}.png)" for name, text in texts)
    head = "# Gallery\n\nTaken by `python docs/gallery.py`. GPT-2 has random weights and was run on two cores."
    (HERE / "gallery.md").write_text(f"{head}\n\n{shown}\n", encoding="utf-8")


def main() -> None:
    """Take all pictures, or those that are named."""
    wanted = sys.argv[1:] or [*PICTURES, COMPARE[0]]
    (HERE / "gallery").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        for name in wanted:
            if name == COMPARE[0]:
                compare(browser, Path(folder))
            else:
                take(browser, Path(folder), name, PICTURES[name])
            print(name, flush=True)
    write()


if __name__ == "__main__":
    main()
