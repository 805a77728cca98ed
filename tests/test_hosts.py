"""The explorer where it lives: in Notebook 7, among widgets, with a model that fails, after a kernel's restart."""

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from browser import chromium, watch
from explorer_page import cuts_of, drag, handles
from lab_server import CELL_MS, Lab, Notebook, write_notebook
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.jupyterlab

MADE_UP = """
import ipywidgets, json
from graphs import gpt2_graph
from pipelab.policies import uniform
from pipelab.viz.explorer import Explorer
from runs import Runner

def explorer_of(num_stages):
    return Explorer(uniform(gpt2_graph(), num_stages=num_stages), num_microbatches=4, runner=Runner())
"""
SHOW = "explorer = explorer_of(4)\nexplorer"
TELL = "print(json.dumps([explorer.cuts, explorer.value, explorer.report is not None]))"
AMONG = """
other, slider = explorer_of(3), ipywidgets.IntSlider(4, 1, 8)
ipywidgets.link((other, "num_microbatches"), (slider, "value"))
ipywidgets.jslink((explorer, "num_microbatches"), (slider, "value"))
seen = ipywidgets.interactive_output(lambda cuts: print("cut at", *cuts), {"cuts": other})
ipywidgets.VBox([ipywidgets.HBox([slider, other]), seen])
"""
TELL_BOTH = "print(json.dumps([other.cuts, explorer.cuts, other.num_microbatches, explorer.num_microbatches]))"
REAL = """
import psutil, torch, pipelab

class Late(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(8))
        self.table = torch.nn.Embedding(4, 16)
    def forward(self, x, ids):
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index == 4:
                x = x + self.table(ids)
        return x

ids = torch.full((4,), 99)
real = pipelab.explore(pipelab.trace(Late().eval(), torch.zeros(4, 16), ids), num_stages=4)
real
"""
MEND = "ids.zero_()\nprint('mended')"
PIDS = "print(json.dumps([child.pid for child in psutil.Process().children(recursive=True)]))"
NOTEBOOK_CELLS = [MADE_UP, SHOW, TELL]
LAB_CELLS = [MADE_UP, SHOW, TELL, AMONG, TELL_BOTH, REAL, MEND, PIDS]
MADE_UP_CELL, SHOW_CELL, TELL_CELL, AMONG_CELL, TELL_BOTH_CELL, REAL_CELL, MEND_CELL, PIDS_CELL = range(8)


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[tuple[Browser, Lab]]:
    """A browser, and a server with two notebooks."""
    folder = lab.folder("hosts")
    write_notebook(folder / "notebook.ipynb", NOTEBOOK_CELLS)
    write_notebook(folder / "lab.ipynb", LAB_CELLS)
    with chromium() as browser:
        yield browser, lab


def opened(host: tuple[Browser, Lab], name: str, place: str) -> Iterator[Notebook]:
    """A notebook with an explorer in it; nothing may go to the network."""
    browser, lab = host
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    found = watch(page)
    notebook = Notebook.open(page, lab, f"hosts/{name}", place=place)
    notebook.run(MADE_UP_CELL)
    notebook.run(SHOW_CELL)
    expect(explorer_in(page)).to_be_visible(timeout=CELL_MS)
    yield notebook
    page.close()
    # A kernel that restarts ends its connections.
    assert [what for what in found if "kernel" not in what.lower()] == []


@pytest.fixture(scope="module")
def notebook7(host: tuple[Browser, Lab]) -> Iterator[Notebook]:
    yield from opened(host, "notebook.ipynb", "notebooks")


@pytest.fixture(scope="module")
def notebook(host: tuple[Browser, Lab]) -> Iterator[Notebook]:
    yield from opened(host, "lab.ipynb", "doc/tree")


@pytest.fixture(autouse=True)
def screenshot(request: pytest.FixtureRequest, host: tuple[Browser, Lab], tmp_path: Path) -> Iterator[None]:
    """Pictures of the pages when a test fails."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        for number, page in enumerate(page for context in host[0].contexts for page in context.pages):
            page.screenshot(path=str(tmp_path / f"failed{number}.png"))


def explorer_in(page: Page, index: int = 0) -> Locator:
    return page.locator(".pl-explorer[data-ready='1']").nth(index)


def shown_in(explorer: Locator) -> list[int]:
    return [int(handle.get_attribute("aria-valuenow") or -1) for handle in explorer.locator("[role=slider]").all()]


def told(notebook: Notebook, index: int) -> list[object]:
    return list(json.loads(notebook.ask(index).splitlines()[-1]))


def told_of(notebook: Notebook, shown: tuple[int, ...]) -> list[object]:
    """What the kernel holds once it has heard of the cuts on the screen: cells run between two of its messages."""
    for _ in range(10):
        cuts, value, has_report = told(notebook, TELL_CELL)
        if cuts == value == list(shown):
            break
    return [cuts, value, has_report]


def test_notebook_7_drags_undoes_and_runs(notebook7: Notebook) -> None:
    page = notebook7.page
    before = cuts_of(page)
    drag(page, 0, 90)
    moved = cuts_of(page)
    assert moved[0] > before[0]
    assert told_of(notebook7, moved)[:2] == [list(moved)] * 2
    handles(page).first.press("Control+z")
    assert cuts_of(page) == before
    assert told_of(notebook7, before)[:2] == [list(before)] * 2
    explorer_in(page).get_by_role("button", name="Run").click()
    expect(explorer_in(page).locator(".pl-verdict")).to_contain_text("per step", timeout=CELL_MS)
    assert told_of(notebook7, before)[2] is True


def test_two_explorers_in_boxes_with_links_do_not_disturb_each_other(notebook: Notebook) -> None:
    notebook.run(AMONG_CELL)
    other = explorer_in(notebook.page, 1)
    expect(other).to_be_visible(timeout=CELL_MS)
    first, _ = told(notebook, TELL_CELL)[:2]
    other.locator("[role=slider]").first.press("ArrowRight")
    shown = shown_in(other)
    expect(notebook.page.get_by_text(f"cut at {shown[0]} {shown[1]}")).to_be_visible(timeout=CELL_MS)
    other.get_by_role("button", name="More micro-batches").click()
    expect(notebook.page.locator(".widget-readout")).to_have_text("5")
    assert told(notebook, TELL_BOTH_CELL) == [shown, first, 5, 5]
    expect(explorer_in(notebook.page).locator("[role=slider]")).to_have_count(3)


def test_a_model_that_fails_says_where_and_can_run_again(notebook: Notebook) -> None:
    notebook.run(REAL_CELL)
    real = notebook.page.locator(".jp-CodeCell").nth(REAL_CELL).locator(".pl-explorer[data-ready='1']")
    expect(real).to_be_visible(timeout=CELL_MS)
    before = shown_in(real)
    real.get_by_role("button", name="Run").click()
    failed = real.locator(".pl-verdict[data-kind=failed]")
    expect(failed).to_contain_text("tage 2 (rank 2) raised IndexError", timeout=CELL_MS)
    real.get_by_text("Details").click()
    expect(real.locator(".pl-details pre")).to_contain_text("Traceback")
    assert notebook.ask(MEND_CELL) == "mended"
    real.get_by_role("button", name="Run").click()
    expect(real.locator(".pl-verdict")).to_contain_text("per step", timeout=CELL_MS)
    assert shown_in(real) == before


def test_a_restarted_kernel_leaves_no_rank_and_a_new_cell_works(notebook: Notebook) -> None:
    page = notebook.page
    processes = [psutil.Process(int(str(pid))) for pid in told(notebook, PIDS_CELL)]
    assert len(processes) > 4  # the ranks of the test before, and their server
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive
    explorer = explorer_in(page)
    explorer.get_by_role("button", name="Run").click()
    expect(explorer).to_contain_text("Not connected: dragging works, Run does not.", timeout=CELL_MS)
    before = shown_in(explorer)
    explorer.locator("[role=slider]").first.press("ArrowRight")
    assert shown_in(explorer)[0] > before[0]
    notebook.run(MADE_UP_CELL)
    notebook.run(SHOW_CELL)
    fresh = page.locator(".jp-CodeCell").nth(SHOW_CELL).locator(".pl-explorer[data-ready='1']")
    expect(fresh).to_have_count(1)
    fresh.get_by_role("button", name="Run").click()
    expect(fresh.locator(".pl-verdict")).to_contain_text("per step", timeout=CELL_MS)
