"""Chromium for the browser tests: found on the machine, never downloaded."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

Theme = Literal["light", "dark"]
expect.set_options(timeout=20_000)  # a slow machine is not a failure

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; skips the tests that want one where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: `apt install chromium` runs the browser tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


def watch(page: Page) -> list[str]:
    """A list that fills with everything a page must not do: errors, dialogs, requests to the network.

    An error whose stack holds only scripts of a Jupyter server is Jupyter's own; a widget's module comes from a blob.
    """
    found: list[str] = []

    def fail(error: Error) -> None:
        places = re.findall(r"\b(?:https?|blob|data|file):\S+", error.stack or "")
        if not places or not all(place.startswith("http://127.0.0.1") for place in places):
            found.append(f"error: {error} {places[:3]}")

    page.on("pageerror", fail)
    page.on("console", lambda message: found.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("dialog", lambda dialog: found.append(f"dialog: {dialog.message}"))

    def check(url: str) -> None:
        if not url.startswith(("file:", "blob:", "data:", "http://127.0.0.1", "ws://127.0.0.1")):
            found.append(f"request: {url}")

    page.on("request", lambda request: check(request.url))
    return found


class Pages:
    """Pages of a browser, each for one test at a time: to make a page takes longer than to use it again."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._free: list[tuple[Page, list[str]]] = []

    def take(self, width: int, theme: Theme) -> tuple[Page, list[str]]:
        """A page as good as new, and the list that fills with what it must not do."""
        if not self._free:
            page = self._browser.new_page()
            self._free.append((page, watch(page)))
        page, found = self._free.pop()
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme, forced_colors="null", reduced_motion="null")
        return page, found

    def give_back(self, page: Page, found: list[str]) -> None:
        """Leave it without a hand on it, and empty."""
        page.goto("about:blank")
        page.mouse.up()
        page.mouse.move(0, 0)
        for key in ("Control", "Shift"):
            page.keyboard.up(key)
        found.clear()
        self._free.append((page, found))
