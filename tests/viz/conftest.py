"""A browser for the explorer's tests, and pages to open in it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, watch
from graphs import gpt2_graph
from live_page import LivePage
from node import Node, started
from playwright.sync_api import Browser, Page
from runs import Runner

from pipelab.graph import Graph
from pipelab.hardware import HardwareLike
from pipelab.policies import uniform
from pipelab.viz.explorer import Explorer

OpenPage = Callable[..., Page]
OpenLive = Callable[..., LivePage]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """One node process for the tests of a module."""
    with started() as node:
        yield node


@pytest.fixture
def open_page(open_live: OpenLive) -> OpenPage:
    """Opens the saved page of an explorer."""
    return partial(open_live, live=False)


@pytest.fixture
def open_live(browser: Browser, tmp_path: Path) -> Iterator[OpenLive]:
    """Opens the page of an explorer; it must raise nothing and ask the network for nothing."""
    opened: list[tuple[Page, list[str]]] = []

    def open_it(
        graph: Graph | None = None, *, num_stages: int = 4, ran: bool = False, width: int = 900, theme: str = "light",
        hardware: HardwareLike = None, live: bool = True,
    ) -> Any:  # fmt: skip
        plan = replace(uniform(graph or gpt2_graph(), num_stages=num_stages), hardware=hardware)
        explorer = Explorer(plan, num_microbatches=min(8, plan.graph.batch_size), runner=Runner())
        if ran:
            explorer.run()
        path = tmp_path / f"{len(opened)}.html"
        explorer.save(path)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
        opened.append((page, watch(page)))
        page.goto(path.as_uri())
        page.wait_for_selector("[data-ready='1']")
        return LivePage(page, explorer) if live else page

    yield open_it
    for page, found in opened:
        page.close()
        assert found == []
