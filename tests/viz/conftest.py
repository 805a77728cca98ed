"""A browser for the explorer's tests, and pages to open in it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from browser import Pages, Theme, chromium
from graphs import gpt2_graph
from live_page import LivePage
from node import Node, started
from playwright.sync_api import Page
from runs import Runner

from pipelab.graph import Graph
from pipelab.hardware import HardwareLike
from pipelab.policies import uniform
from pipelab.viz.explorer import Explorer

OpenPage = Callable[..., Page]
OpenLive = Callable[..., LivePage]
_HOST = re.compile(r'<script type="module">.*?</script>', re.DOTALL)


# For no longer: Playwright keeps an event loop running, and pictures would wait for it as for a kernel's.
@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    """One Chromium for the tests of a module, and its pages."""
    with chromium() as browser:
        yield Pages(browser)


@pytest.fixture
def new_page(pages: Pages) -> Iterator[OpenPage]:
    """Gives empty pages; they must raise nothing and ask the network for nothing."""
    taken: list[tuple[Page, list[str]]] = []

    def take(width: int = 900, theme: Theme = "light") -> Page:
        taken.append(pages.take(width, theme))
        return taken[-1][0]

    yield take
    found = [what for _, found in taken for what in found]
    for page in taken:
        pages.give_back(*page)
    assert found == []


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
def open_live(new_page: OpenPage, tmp_path: Path) -> OpenLive:
    """Opens the page of an explorer."""
    paths = (tmp_path / f"{number}.html" for number in count())

    def open_it(
        graph: Graph | None = None, *, num_stages: int = 4, ran: bool = False, width: int = 900, theme: Theme = "light",
        hardware: HardwareLike = None, live: bool = True,
    ) -> Any:  # fmt: skip
        plan = replace(uniform(graph or gpt2_graph(), num_stages=num_stages), hardware=hardware)
        explorer = Explorer(plan, num_microbatches=min(8, plan.graph.batch_size), runner=Runner())
        if ran:
            explorer.run()
        path = next(paths)
        explorer.save(path)
        if live:  # the page that was saved need not be drawn before the living one takes its place
            path.write_text(_HOST.sub("", path.read_text("utf-8")), "utf-8")
        page = new_page(width, theme)
        page.goto(path.as_uri())
        if live:
            return LivePage(page, explorer)
        page.wait_for_selector("[data-ready='1']")
        return page

    return open_it
