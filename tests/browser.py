"""Chromium for the browser tests: found on the machine, never downloaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

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
    """A list that fills with everything a page must not do: errors, dialogs, requests to the network."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("console", lambda message: found.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("dialog", lambda dialog: found.append(f"dialog: {dialog.message}"))

    def check(url: str) -> None:
        if not url.startswith(("file:", "blob:", "data:", "http://127.0.0.1", "ws://127.0.0.1")):
            found.append(f"request: {url}")

    page.on("request", lambda request: check(request.url))
    return found
