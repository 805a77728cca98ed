"""A notebook that was run, saved and opened again without its kernel: pictures stand where widgets were."""

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from browser import chromium
from lab_server import CELL_MS, Lab, Notebook, write_notebook
from nbconvert import HTMLExporter
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.jupyterlab

SETUP = """
import pipelab
from graphs import gpt2_graph
from pipelab.policies import uniform
from pipelab.viz.explorer import Explorer
from runs import Runner
"""
SHOW = "Explorer(uniform(gpt2_graph(), num_stages=4), num_microbatches=8, runner=Runner())"
COMPARE = "pipelab.compare(gpt2_graph(), num_stages=3)"
BOX = f"import ipywidgets\nipywidgets.HBox([{SHOW}, {SHOW}])"
CELLS = [SETUP, SHOW, COMPARE, BOX]
SETUP_CELL, SHOW_CELL, COMPARE_CELL, BOX_CELL = range(len(CELLS))
ERROR = "Error displaying widget"


@pytest.fixture(scope="module")
def root(lab: Lab) -> Path:
    folder = lab.folder("saved")
    write_notebook(folder / "demo.ipynb", CELLS)
    return folder


@pytest.fixture(scope="module")
def page(lab: Lab, root: Path) -> Iterator[Page]:
    """A page with a notebook in which an explorer ran and plans were compared; it was saved, and its kernel is gone."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        notebook = Notebook.open(page, lab, "saved/demo.ipynb")
        notebook.run(SETUP_CELL)
        notebook.run(SHOW_CELL)
        expect(live(page)).to_be_visible(timeout=CELL_MS)
        expect(picture(page)).to_be_hidden()
        before = str(picture(page).get_attribute("src"))
        live(page).get_by_role("button", name="Run").click()
        expect(picture(page)).not_to_have_attribute("src", before, timeout=CELL_MS)
        notebook.run(COMPARE_CELL)
        expect(live(page, 1)).to_be_visible(timeout=CELL_MS)
        expect(picture(page, 1)).to_be_hidden()
        notebook.run(BOX_CELL)
        expect(live(page, 3)).to_be_visible(timeout=CELL_MS)
        expect(picture(page, 3)).to_be_hidden()
        notebook.command("docmanager:save")
        notebook.command("notebook:shutdown-kernel")
        yield page
        page.close()


@pytest.fixture(autouse=True)
def screenshot(request: pytest.FixtureRequest, page: Page, tmp_path: Path) -> Iterator[None]:
    """A picture of the page when a test fails."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        page.screenshot(path=str(tmp_path / "failed.png"))


def live(page: Page, index: int = 0) -> Locator:
    return page.locator(".pl-explorer[data-ready='1']").nth(index)


def picture(page: Page, index: int = 0) -> Locator:
    return page.locator("img[src^='data:image/png']").nth(index)


def drawn(page: Page) -> int:
    """How wide the picture is on the screen, once it is loaded."""
    return int(picture(page).evaluate("async (image) => { await image.decode(); return image.clientWidth; }"))


def test_it_is_there_without_the_kernel_and_gives_way_to_a_new_explorer(page: Page, lab: Lab) -> None:
    notebook = Notebook.open(page, lab, "saved/demo.ipynb")
    errors = page.get_by_text(ERROR)
    expect(errors).to_have_count(3, timeout=CELL_MS)
    for index in range(3):
        expect(errors.nth(index)).to_be_hidden()
    for index in range(4):  # the box has two
        picture(page, index).scroll_into_view_if_needed()
        expect(picture(page, index)).to_be_visible()
    assert drawn(page) == 960
    notebook.run(SETUP_CELL)
    notebook.run(SHOW_CELL)
    expect(live(page)).to_be_visible(timeout=CELL_MS)
    expect(picture(page)).to_be_hidden()
    expect(picture(page, 1)).to_be_visible()


def test_it_is_there_in_a_notebook_nobody_trusts(page: Page, lab: Lab, root: Path) -> None:
    notebook = nbformat.read(root / "demo.ipynb", as_version=4)
    notebook.cells[SHOW_CELL].source += "  # sent by somebody"
    nbformat.write(notebook, root / "sent.ipynb")
    Notebook.open(page, lab, "saved/sent.ipynb")
    expect(picture(page)).to_be_visible(timeout=CELL_MS)
    assert drawn(page) > 900
    expect(page.get_by_text(ERROR)).to_have_count(0)


def test_it_is_there_once_in_a_page_made_of_the_notebook(page: Page, root: Path, tmp_path: Path) -> None:
    text, _ = HTMLExporter().from_filename(str(root / "demo.ipynb"))
    (tmp_path / "demo.html").write_text(text)
    browser = page.context.browser
    assert browser is not None
    made = browser.new_page()
    made.route("http*://**", lambda route: route.abort())
    made.goto((tmp_path / "demo.html").as_uri())
    expect(picture(made)).to_be_visible()
    assert drawn(made) > 800
    made.close()
