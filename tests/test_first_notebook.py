"""The first notebook in a real JupyterLab: Run All as a newcomer does, then a drag and the Run button."""

import shutil
from pathlib import Path

import pytest
from browser import chromium, watch
from lab_server import Lab, Notebook
from playwright.sync_api import expect

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "01_first_pipeline.ipynb"
RUN_MS = 180_000


@pytest.mark.jupyterlab
@pytest.mark.slow
def test_run_all_then_drag_and_run(lab: Lab) -> None:
    shutil.copy(NOTEBOOK, lab.folder("first"))
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        found = watch(page)
        Notebook.open(page, lab, f"first/{NOTEBOOK.name}").run_all(RUN_MS)
        explorer = page.locator(".pl-explorer[data-ready='1']").first
        explorer.scroll_into_view_if_needed()
        expect(explorer).to_contain_text("Measured", timeout=RUN_MS)
        divider = explorer.locator("[role=slider]").first
        before = divider.get_attribute("aria-valuenow")
        divider.focus()
        page.keyboard.press("ArrowRight")
        assert divider.get_attribute("aria-valuenow") != before
        expect(explorer).to_contain_text("previous split")
        run = explorer.get_by_role("button", name="Run", exact=True)
        run.click()
        expect(explorer).not_to_contain_text("previous split", timeout=RUN_MS)
        expect(explorer.locator(".pl-verdict")).to_contain_text("per step")
        assert found == []
