"""The explorer in a real JupyterLab: the widget, the kernel and the ranks together."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from browser import chromium, watch
from lab_server import CELL_MS, Lab, Notebook, write_notebook
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.jupyterlab

SETUP = """
import json, torch, pipelab
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 64)
    def forward(self, x):
        return x + torch.relu(self.inner(x))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(12))
    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x

model, x = Net().eval(), torch.randn(8, 64)
traced = pipelab.trace(model, x)
"""
OPS_PER_BLOCK = 3  # linear, relu, add
SHOW = """
values = []
explorer = pipelab.explore(traced, num_stages=4)
explorer.observe(lambda change: values.append(change["new"]), "value")
explorer
"""
TELL = "print(json.dumps([explorer.cuts, explorer.value, len(values)]))"
CHECK = (
    "torch.testing.assert_close(explorer.report.output, model(x)); print(explorer.report.plan.cuts == explorer.cuts)"
)
BUSY = "import time\nstop = time.monotonic() + 3\nwhile time.monotonic() < stop: pass"
LONG = """
class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2048, 2048) for _ in range(8))
    def forward(self, x):
        for layer in self.layers:
            for _ in range(8):
                x = torch.tanh(layer(x))
        return x

slow = pipelab.explore(pipelab.trace(Slow().eval(), torch.randn(64, 2048)), num_stages=2)
slow
"""
MOVE = "explorer.num_stages = 3; print(explorer.plan.cuts == pipelab.uniform(traced, num_stages=3).cuts)"
COMPARE = """
chosen = []
comparison = pipelab.compare(traced, num_stages=4, hardware="t4-16gb")
comparison.view.observe(lambda change: chosen.append(change["new"]), "value")
comparison
"""
CHOSEN = "print(json.dumps(chosen))"
CHOOSE = "comparison.view.value = 'optimal'"
STATE = "print(json.dumps([explorer.cuts, explorer.num_microbatches, explorer.hardware]))"
TIMES = "explorer.hardware = 't4-16gb'"
CLOSE = "[shown.close() for shown in map(globals().get, ['explorer', 'slow']) if shown]"
CELLS = [SETUP, SHOW, TELL, CHECK, BUSY, LONG, MOVE, COMPARE, CHOSEN, CHOOSE, STATE, TIMES, CLOSE]

(
    SETUP_CELL,
    SHOW_CELL,
    TELL_CELL,
    CHECK_CELL,
    BUSY_CELL,
    LONG_CELL,
    MOVE_CELL,
    COMPARE_CELL,
    CHOSEN_CELL,
    CHOOSE_CELL,
    STATE_CELL,
    TIMES_CELL,
    CLOSE_CELL,
) = range(len(CELLS))


@pytest.fixture(scope="module")
def notebook(lab: Lab) -> Iterator[Notebook]:
    """One notebook with an explorer, for all tests of this module; nothing may go to the network."""
    write_notebook(lab.folder("explorer") / "demo.ipynb", CELLS)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        found = watch(page)
        notebook = Notebook.open(page, lab, "explorer/demo.ipynb")
        notebook.run(SETUP_CELL)
        notebook.run(SHOW_CELL)
        expect(explorer_of(page)).to_be_visible(timeout=CELL_MS)
        yield notebook
        notebook.run(CLOSE_CELL)
        page.close()
        assert found == []


@pytest.fixture(autouse=True)
def screenshot(request: pytest.FixtureRequest, notebook: Notebook, tmp_path: Path) -> Iterator[None]:
    """A picture of the page when a test fails."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        notebook.page.screenshot(path=str(tmp_path / "failed.png"))


def explorer_of(page: Page) -> Locator:
    return page.locator(".pl-explorer[data-ready='1']").first


def split(notebook: Notebook, index: int) -> Locator:
    handle = explorer_of(notebook.page).locator("[role=slider]").nth(index)
    handle.scroll_into_view_if_needed()
    return handle


def told(notebook: Notebook) -> tuple[list[int], list[int], int]:
    """What the kernel holds, once it has heard all: ipywidgets sends one change at a time, cells go between."""
    for _ in range(10):
        cuts, value, count = json.loads(notebook.ask(TELL_CELL).splitlines()[-1])
        if value == shown(notebook):
            break
    return cuts, value, count


def shown(notebook: Notebook) -> list[int]:
    handles = explorer_of(notebook.page).locator("[role=slider]").all()
    return [int(handle.get_attribute("aria-valuenow") or -1) for handle in handles]


def drag(notebook: Notebook, index: int, dx: float) -> None:
    page = notebook.page
    box = split(notebook, index).locator(".pl-grip").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + 10, steps=60)
    page.mouse.up()


def test_a_drag_reaches_the_kernel(notebook: Notebook) -> None:
    before, _, count = told(notebook)
    drag(notebook, 0, 90)
    cuts, value, after = told(notebook)
    assert cuts == value == shown(notebook)
    assert cuts[0] > before[0]
    assert after == count + 1


def test_arrow_keys_reach_the_kernel(notebook: Notebook) -> None:
    before, _, count = told(notebook)
    split(notebook, 2).press("ArrowLeft")
    split(notebook, 2).press("ArrowLeft")
    cuts, value, after = told(notebook)
    assert cuts == value == shown(notebook)
    assert cuts[2] < before[2]
    assert after == count + 2


def test_d_d_on_a_divider_deletes_no_cell(notebook: Notebook) -> None:
    count = notebook.num_cells
    split(notebook, 1).press("d")
    split(notebook, 1).press("d")
    explorer_of(notebook.page).get_by_role("button", name="Uniform").focus()
    notebook.page.keyboard.press("d")
    notebook.page.keyboard.press("d")
    assert notebook.num_cells == count


def test_dragging_works_while_a_cell_runs(notebook: Notebook) -> None:
    notebook.run(BUSY_CELL, wait=False)
    before = shown(notebook)
    drag(notebook, 1, -90)
    assert shown(notebook) != before
    cuts, value, _ = told(notebook)
    assert cuts == value == shown(notebook)


def test_run_measures_and_the_output_is_the_models(notebook: Notebook) -> None:
    explorer = explorer_of(notebook.page)
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".pl-verdict")).to_contain_text("per step", timeout=CELL_MS)
    expect(explorer.locator(".pl-timeline-head")).to_contain_text("Measured")
    expect(explorer.locator(".pl-timeline-svg")).to_contain_text("rank 3")
    assert notebook.ask(CHECK_CELL) == "True"
    drag(notebook, 0, -60)
    expect(explorer.locator(".pl-stale")).to_have_text("measured for the previous split")
    explorer.get_by_role("button", name="Run").click()
    expect(explorer.locator(".pl-stale")).to_have_text("", timeout=CELL_MS)
    assert notebook.ask(CHECK_CELL) == "True"


def test_from_a_cell_to_a_report_by_keyboard(notebook: Notebook) -> None:
    page, explorer = notebook.page, explorer_of(notebook.page)
    _, _, count = told(notebook)
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowUp")  # from the cell that told to the explorer's
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.getAttribute('data-split')") == "1":
            break
    before = shown(notebook)
    page.keyboard.press("ArrowRight")
    assert shown(notebook) != before
    page.keyboard.press("o")
    expect(explorer.get_by_role("button", name="Optimal", exact=True)).to_have_attribute("aria-pressed", "true")
    best = shown(notebook)
    page.keyboard.press("r")
    expect(explorer.locator(".pl-stale")).to_have_text("", timeout=CELL_MS)  # the run before has a verdict as well
    expect(explorer.locator(".pl-verdict[data-kind=done]")).to_contain_text("per step", timeout=CELL_MS)
    cuts, value, after = told(notebook)
    assert cuts == value == best == shown(notebook)
    assert after >= count + 2
    assert notebook.ask(CHECK_CELL) == "True"


def test_cancel_stops_a_run_and_the_next_one_works(notebook: Notebook) -> None:
    notebook.run(LONG_CELL)
    slow = notebook.page.locator(".pl-explorer[data-ready='1']").nth(1)
    slow.scroll_into_view_if_needed()
    slow.get_by_role("button", name="Run").click()
    expect(slow.locator(".pl-verdict")).to_contain_text("Loading", timeout=CELL_MS)
    slow.get_by_role("button", name="Cancel").click()
    expect(slow.locator(".pl-verdict[data-kind=cancelled]")).to_be_visible(timeout=CELL_MS)
    expect(slow.locator(".pl-timeline-head")).not_to_contain_text("Measured")
    slow.get_by_role("button", name="Run").click()
    expect(slow.locator(".pl-timeline-head")).to_contain_text("Measured", timeout=CELL_MS)


def test_pinned_dividers_stay_while_the_kernel_optimises_the_rest(notebook: Notebook) -> None:
    explorer = explorer_of(notebook.page)
    explorer.get_by_role("button", name="Uniform").click()
    for _ in range(2):
        split(notebook, 0).press("ArrowLeft")
    pinned = shown(notebook)[0]
    split(notebook, 0).press("p")
    explorer.get_by_role("button", name="Optimise around pins").click()
    expect(explorer.get_by_role("button", name="Undo").first).to_be_visible()
    expect(explorer.locator(".pl-action")).to_have_text("Undo")
    after = shown(notebook)
    assert after[0] == pinned
    assert max(right - left for left, right in pairwise([pinned, *after[1:], 12 * OPS_PER_BLOCK])) <= 4 * OPS_PER_BLOCK
    count = notebook.num_cells
    notebook.page.keyboard.press("Control+z")
    assert shown(notebook) != after
    split(notebook, 0).press("Control+y")
    assert shown(notebook) == after
    split(notebook, 0).press("p")
    assert notebook.num_cells == count
    assert json.loads(notebook.ask(STATE_CELL))[0] == after


def test_micro_batches_and_hardware_go_both_ways(notebook: Notebook) -> None:
    explorer = explorer_of(notebook.page)
    notebook.run(TIMES_CELL)
    expect(explorer.locator(".pl-rests")).to_contain_text("t4-16gb")
    expect(explorer.locator(".pl-timeline-title")).to_contain_text("8 micro-batches")
    explorer.get_by_label("Fewer micro-batches").click()
    expect(explorer.locator(".pl-timeline-title")).to_contain_text("7 micro-batches")
    explorer.get_by_role("button", name="More", exact=True).click()
    explorer.get_by_label("Hardware", exact=True).select_option("a100-80gb")
    expect(explorer.locator(".pl-rests")).to_contain_text("a100-80gb")
    assert json.loads(notebook.ask(STATE_CELL))[1:] == [7, "a100-80gb"]
    explorer.get_by_role("button", name="More", exact=True).click()


def test_code_moves_the_dividers(notebook: Notebook) -> None:
    assert notebook.ask(MOVE_CELL) == "True"
    expect(explorer_of(notebook.page).locator("[role=slider]")).to_have_count(2)
    cuts, value, _ = told(notebook)
    assert cuts == value == shown(notebook)


def test_a_threshold_is_answered_by_the_kernel(notebook: Notebook) -> None:
    explorer = explorer_of(notebook.page)
    explorer.get_by_role("button", name="Threshold").click()
    expect(explorer.locator(".pl-answer")).to_have_text("→ 3 stages")
    explorer.get_by_label("Million parameters per stage").press("Control+a")
    notebook.page.keyboard.type("0.0084")  # as a person does
    expect(explorer.locator(".pl-answer")).to_have_text("→ 6 stages")
    explorer.get_by_role("button", name="Apply").click()
    expect(explorer.locator("[role=slider]")).to_have_count(5)
    cuts, value, _ = told(notebook)
    assert cuts == value == shown(notebook)


def test_it_follows_the_dark_theme(notebook: Notebook) -> None:
    ground = "(node) => getComputedStyle(node).backgroundColor"
    light = explorer_of(notebook.page).evaluate(ground)
    notebook.command("apputils:change-theme", {"theme": "JupyterLab Dark"})
    notebook.page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")
    assert explorer_of(notebook.page).evaluate(ground) != light
    notebook.command("apputils:change-theme", {"theme": "JupyterLab Light"})


def test_a_chosen_plan_of_a_comparison_reaches_the_kernel_and_back(notebook: Notebook) -> None:
    notebook.run(COMPARE_CELL)
    view = notebook.page.locator(".pl-comparison[data-ready='1']")
    expect(view).to_be_visible(timeout=CELL_MS)
    cuts = shown(notebook)
    view.get_by_role("button", name="threshold").click()
    expect(view.get_by_text("Differences are from threshold")).to_be_visible()
    heard = (json.loads(notebook.ask(CHOSEN_CELL)) for _ in range(10))  # messages and cells take turns
    assert ["threshold"] in heard
    notebook.run(CHOOSE_CELL)
    expect(view.get_by_text("Differences are from optimal")).to_be_visible()
    assert shown(notebook) == cuts  # the explorer on the same page heard nothing of it
