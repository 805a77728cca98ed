"""Claim: two commands bring a newcomer from a clone to a dragged and measured pipeline; the wheel works alone.

Clones this repository, runs `make lab`, opens the printed address in Chromium, runs the first notebook, drags a
divider and presses Run; then installs the wheel into an empty environment and drags in the page its explorer
saves; then runs `make test`. Prints how long each took.

    python benchmarks/fresh_machine.py [--picture FILE] [--no-test]
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import machine
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import chromium  # noqa: E402  the tests' own browser

WHEEL_SCRIPT = """
import torch, pipelab
model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(8))).eval()
x = torch.randn(8, 64)
explorer = pipelab.explore(pipelab.trace(model, x), num_stages=4)
report = explorer.run()
torch.testing.assert_close(report.output, model(x))
explorer.save("split.html")
explorer.close()
"""


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{what:70} {time.perf_counter() - start:7.1f} s", flush=True)


def run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)


@contextmanager
def make_lab(clone: Path) -> Iterator[str]:
    """`make lab` as a newcomer runs it; yields the address it prints."""
    environment = {**os.environ, "BROWSER": "true"}
    server = subprocess.Popen(
        ["make", "lab"], cwd=clone, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S*\?token=\w+", line):
                yield found[0]
                break
        else:
            raise RuntimeError("make lab printed no address")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def drag(page: Page) -> None:
    """Drag the first divider, and see the kernel's or the page's own figures follow."""
    handle = page.locator(".pl-explorer [role=slider]").first
    handle.scroll_into_view_if_needed()
    before = handle.get_attribute("aria-valuenow")
    box = handle.locator(".pl-grip").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y, steps=40)
    page.mouse.up()
    assert handle.get_attribute("aria-valuenow") != before, "the divider did not move"


def use_notebook(address: str, picture: Path | None) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1180, "height": 1000}, device_scale_factor=2)
        page.goto(address)
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=120_000)
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=120_000)
        with timed("  Run All of notebooks/01_first_pipeline.ipynb"):
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_text("Run All Cells", exact=True).first.click()
            page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='busy']", timeout=60_000)
            page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=300_000)
        explorer = page.locator(".pl-explorer[data-ready='1']").first
        explorer.scroll_into_view_if_needed()
        drag(page)
        with timed("  Run pressed after a drag, until the timeline of the new split is there"):
            button = explorer.get_by_role("button", name="Run", exact=True)
            button.click()
            explorer.get_by_role("button", name="Cancel").wait_for(timeout=20_000)
            button.wait_for(timeout=300_000)
        assert "previous split" not in explorer.inner_text()
        if picture:
            explorer.screenshot(path=str(picture))


def use_wheel(clone: Path, folder: Path) -> None:
    with timed("wheel: build, and install into an empty environment"):
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(folder), str(clone), cwd=folder)
        run(sys.executable, "-m", "venv", str(folder / "empty"), cwd=folder)
        python = str(folder / "empty" / "bin" / "python")
        (wheel,) = folder.glob("pipelab-*.whl")
        run(python, "-m", "pip", "install", "-c", str(clone / "constraints.txt"), str(wheel), cwd=folder)
    with timed("  trace, explore, run on 4 ranks, save the page"):
        run(python, "-c", WHEEL_SCRIPT, cwd=folder)
    with timed("  drag in the saved page"), chromium() as browser:
        page = browser.new_page()
        page.goto((folder / "split.html").as_uri())
        page.wait_for_selector(".pl-explorer[data-ready='1']")
        drag(page)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--no-test", action="store_true")
    options = parser.parse_args()
    picture = options.picture.resolve() if options.picture else None
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clone = folder / "pipelab"
        run("git", "clone", str(ROOT), str(clone), cwd=folder)
        start = time.perf_counter()
        with make_lab(clone) as address:
            print(
                f"{'make lab, from a fresh clone until the address is printed':70} {time.perf_counter() - start:7.1f} s"
            )
            use_notebook(address, picture)
        use_wheel(clone, folder)
        if not options.no_test:
            with timed("make test, after make lab"):
                run("make", "test", cwd=clone)


if __name__ == "__main__":
    main()
