"""The stage boxes: memory against what there is, what many stages read, and the story of a stage or a cut."""

from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from explorer_page import cuts_of, drag, handles, texts
from graphs import GraphWriter, gpt2_graph

from pipelab.costs import Costs
from pipelab.graph import Block, Graph, TensorInfo
from pipelab.plan import Plan
from pipelab.presets import PRESETS
from pipelab.units import format_bytes
from pipelab.viz.explorer_state import graph_state

GRAPH = gpt2_graph()
MEMORY = 1.25e9
SMALL = replace(PRESETS["t4-16gb"], name="small", memory_bytes=MEMORY)

LINKS = """const { Model } = await load("model.js");
const { links, linkText } = await load("links.js");
const model = new Model(args[0]);
const { arcs, broadcasts } = links(model, args[1], model.stages(args[1]), args[0].batch_size);
return [arcs.map(linkText), broadcasts.map(({ brief, from, readers, bytes }) => [brief, from, readers, bytes])];"""


def links_of(node, graph, cuts):
    return node.run(LINKS, graph_state(graph), list(cuts))


def test_what_most_stages_read_is_no_arc(node) -> None:
    arcs, broadcasts = links_of(node, GRAPH, [block.start for block in GRAPH.blocks[3:12:3]])
    assert len(arcs) == 1
    assert arcs[0].startswith("tied: ")
    mask = GRAPH.ops[0].output
    assert broadcasts == [["mask", 0, [1, 2, 3], mask.num_bytes]]


def unet_graph() -> Graph:
    """Five convolutions; the fourth reads the second's output again, the fifth the first's."""
    writer = GraphWriter("UNet", 2, (TensorInfo("x", (2, 4), "float32", 32, batched=True),))
    a = writer.op("conv", "down1", (2, 64), (-1,))
    b = writer.op("conv", "down2", (2, 32), (a,))
    c = writer.op("conv", "mid", (2, 16), (b,))
    d = writer.op("conv", "up2", (2, 32), (b, c))
    e = writer.op("conv", "up1", (2, 64), (a, d))
    for index, op in enumerate(writer.ops):
        writer.blocks.append(Block(op.module, op.module, index, index + 1))
    return writer.graph((e,))


def test_a_skip_over_stages_stays_an_arc(node) -> None:
    arcs, broadcasts = links_of(node, unet_graph(), [1, 2, 3, 4])
    assert arcs == ["skip from down1: conv_0 (2×64 float32), 512 B across 4 boundaries"]
    assert broadcasts == [["down2", 1, [2, 3], 256]]
    arcs, broadcasts = links_of(node, unet_graph(), [2, 4])
    assert arcs == ["skip from down1: conv_0 (2×64 float32), 512 B across 2 boundaries"]
    assert broadcasts == []


@pytest.mark.browser
def test_a_box_fills_up_with_what_its_device_must_hold(open_page) -> None:
    page = open_page(hardware=SMALL)
    for index, (start, stop) in enumerate(Plan(GRAPH, cuts_of(page)).bounds):
        needed = Costs.of(GRAPH, SMALL, 1).memory_bytes(start, stop)
        box = page.locator(".pl-box").nth(index)
        parts = box.locator(".pl-box-fill > span")
        shares = [parts.nth(k).evaluate("(part) => parseFloat(part.style.width)") for k in range(parts.count())]
        assert sum(shares) == pytest.approx(100 * min(1, needed / MEMORY), abs=0.1)
        assert box.evaluate("(node) => node.matches('.pl-too-large')") == (needed > MEMORY)


@pytest.mark.browser
def test_boxes_name_what_many_stages_read(open_page) -> None:
    page = open_page()
    assert page.locator(".pl-box-badge").all_text_contents() == ["", "+ mask", "+ mask", "+ mask"]
    assert page.locator(".pl-link").count() == 1


@pytest.mark.browser
def test_a_box_says_of_which_half_its_blocks_are(open_page) -> None:
    """A stage of T5's decoder held "0-5", beside a badge of many words: so did the one of its encoder."""
    blocks = [replace(block, label=block.label.replace("h.", "decoder.list_of_blocks.")) for block in GRAPH.blocks]
    page = open_page(replace(GRAPH, blocks=tuple(blocks)), num_stages=4, width=1400)
    assert texts(page, ".pl-box-holds")[1:3] == ["decoder.3–5", "decoder.6–8"]


def test_a_box_in_focus_tells_its_whole_story(open_page) -> None:
    page = open_page(hardware=SMALL)
    handles(page).last.focus()
    page.keyboard.press("Tab")
    card = page.locator(".pl-card")
    assert page.evaluate("() => document.activeElement.ariaLabel").startswith("Stage 0: ")
    facts = dict(zip(texts(page, ".pl-card dt"), texts(page, ".pl-card dd"), strict=True))
    assert list(facts) == ["Holds", "Parameters", "Memory", "Computes", "Time", "Device"]
    assert facts["Device"] == "small, by its data sheet"
    crossing = Plan(GRAPH, cuts_of(page)).boundaries[0]
    rows = [row.all_text_contents() for row in (r.locator("td") for r in card.locator("tr").all()) if row.count()]
    sent = {name: (shape, size) for name, shape, size, _ in rows[-2:]}
    assert sent == {
        "h.2: add_33": ("1×128×768 float32", format_bytes(crossing.tensors[1].num_bytes // 8)),
        "embed: le_0": ("1×1×128×128 bool", format_bytes(crossing.tensors[0].num_bytes // 8)),
    }
    described = page.evaluate("() => document.activeElement.getAttribute('aria-describedby')")
    assert card.get_attribute("id") == described
    page.keyboard.press("Escape")
    assert card.is_hidden()


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 600, 1400])
def test_a_card_stays_in_the_widget_and_leaves_the_divider_free(open_page, width: int) -> None:
    page = open_page(width=width, num_stages=5)
    ribbon = page.locator(".pl-ribbon").bounding_box()
    stages = page.locator(".pl-stages").bounding_box()
    for index in range(5):
        page.locator(".pl-box").nth(index).click()
        card = page.locator(".pl-card").bounding_box()
        assert card["x"] >= stages["x"] - 1
        assert card["x"] + card["width"] <= stages["x"] + stages["width"] + 1
        assert card["y"] >= ribbon["y"] + ribbon["height"]
        widget = page.locator(".pl-explorer").bounding_box()
        assert card["y"] + card["height"] <= widget["y"] + widget["height"]
        page.locator(".pl-box").nth(index).click()
    assert page.locator(".pl-card").is_hidden()


@pytest.mark.browser
def test_a_cut_tells_what_crosses_and_for_whom(open_page) -> None:
    page = open_page()
    page.locator(".pl-arrow-labels text").nth(1).click()
    cut = Plan(GRAPH, cuts_of(page)).boundaries[1]
    assert texts(page, ".pl-card strong") == [f"Split 2, {cut.label}"]
    assert texts(page, ".pl-card td:last-child") == ["for stage 2", "for stages 2, 3"]
    drag(page, 0, -40)
    assert page.locator(".pl-card").is_hidden()


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_wrong_with_graph_and_card(open_page, theme: str) -> None:
    page = open_page(theme=theme, hardware=SMALL)
    handles(page).first.press("g")
    page.locator(".pl-box").first.click()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
