"""The ribbon: widths, zoom, dividers at any zoom, and the landscape of the divider in hand."""

import itertools
from typing import Any

import pytest
from explorer_page import cuts_of, drag, handles, texts
from graphs import gpt2_graph, mlp_graph
from layout import check_layout
from node import Node
from playwright.sync_api import Locator, Page

from pipelab.costs import Costs, rows_of
from pipelab.graph import Graph
from pipelab.hardware import Device
from pipelab.plan import Plan
from pipelab.policies import uniform
from pipelab.presets import PRESETS
from pipelab.viz.explorer_costs import cost_state
from pipelab.viz.explorer_state import graph_state

GRAPH = gpt2_graph()
H100 = PRESETS["h100-80gb"]
LEVELS = ["block", "module", "op"]

# --- geometry, in node


def shares(node: Node, graph: Graph, width: float) -> list[float]:
    """Shares of the width before each position, by parameters."""
    body = """const [{ Model }, { sharesBefore }] = await Promise.all(["model.js", "layout.js"].map(load));
    const model = new Model(args[0]);
    return [...sharesBefore(model, args[1], (start, stop) => model.params.between(start, stop))];"""
    found: list[float] = node.run(body, graph_state(graph), width)
    return found


@pytest.mark.parametrize("graph", [GRAPH, mlp_graph(), gpt2_graph(126, hidden=16)], ids=["gpt2", "mlp", "many"])
def test_every_op_has_a_place_and_blocks_are_as_wide_as_their_parameters(node: Node, graph: Graph) -> None:
    before = shares(node, graph, 900)
    assert (before[0], before[-1]) == (0, 1)
    assert all(left < right for left, right in itertools.pairwise(before))
    blocks = [(before[block.stop] - before[block.start], block) for block in graph.blocks]
    sizes = [sum(weight.num_elements for weight in graph.weights_between(b.start, b.stop)) for _, b in blocks]
    floor = min(8 / 900, 0.5 / len(blocks))
    rest = 1 - floor * len(blocks)
    assert [span for span, _ in blocks] == pytest.approx([floor + rest * size / sum(sizes) for size in sizes])


def test_a_place_on_the_strip_and_its_position_are_each_others_inverse(node: Node) -> None:
    body = """const { placeOf } = await load("layout.js");
    return args[0].map((share) => placeOf(args[0], share));"""
    before = shares(node, GRAPH, 900)
    assert node.run(body, before) == pytest.approx(list(range(len(before))), abs=1e-6)


ZOOMS = """const { zoomed, panned, zoomedTo, zoomedByKey, zoomedOn } = await load("zoom.js");"""


@pytest.mark.parametrize("at", [0.0, 0.3, 0.71, 1.0])
def test_zooming_keeps_the_place_under_the_pointer(node: Node, at: float) -> None:
    body = f"""{ZOOMS}
    const zooms = [[0, 1]];
    for (const factor of args[1]) zooms.push(zoomed(zooms.at(-1), factor, args[0]));
    return zooms;"""
    zooms = node.run(body, at, [1.5, 2, 3, 1.1, 0.7, 2, 1e9, 0.5, 1e-9])
    for (from_, to), (next_from, next_to) in itertools.pairwise(zooms):
        assert 0 <= next_from < next_to <= 1
        if next_from > 1e-9 and next_to < 1 - 1e-9 and (from_, to) != (0, 1):
            assert (at - next_from) / (next_to - next_from) == pytest.approx((at - from_) / (to - from_), abs=1e-6)
    assert zooms[-1] == [0, 1]


def test_panning_stays_inside_and_keeps_the_width(node: Node) -> None:
    body = f"""{ZOOMS} return args[0].map((by) => panned([0.4, 0.5], by));"""
    for from_, to in node.run(body, [-100, -0.5, 0, 0.5, 100]):
        assert 0 <= from_ < to <= 1
        assert to - from_ == pytest.approx(0.1)


def test_zooming_to_a_piece_twice_shows_all_again(node: Node) -> None:
    body = f"""{ZOOMS} const once = zoomedTo([0, 1], args[0]); return [once, zoomedTo(once, args[0])];"""
    (from_, to), again = node.run(body, [0.2, 0.25])
    assert from_ < 0.2 < 0.25 < to
    assert to - from_ < 0.06
    assert again == [0, 1]


LANDSCAPE = """
const files = ["model.js", "costs.js", "landscape.js"];
const [{ Model }, { Costs }, { landscape, placesOf }] = await Promise.all(files.map(load));
const [data, state, cuts, index, level] = args;
const costs = new Costs(new Model(data), state);
const places = placesOf(costs.model, level, cuts, index);
const { values, bytes } = landscape(costs, cuts, index, places);
return [places, [...values], [...bytes]];
"""


def bottleneck(plan: Plan, device: Device | None) -> float:
    """What the dearest stage of a plan costs: parameters, or seconds of a micro-batch."""
    if device is None:
        return max(stage.num_params for stage in plan.stages)
    costs = Costs.of(plan.graph, device, rows_of(plan.graph.batch_size, 8))
    parts = [
        (costs.transfer_s[start], costs.time_before[stop] - costs.time_before[start], costs.transfer_s[stop])
        for start, stop in plan.bounds
    ]
    return float(max(max(part) if device.overlap else sum(part) for part in parts))


@pytest.mark.parametrize("device", [None, H100], ids=["params", "time"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_landscape_is_the_bottleneck_at_every_place(node: Node, level: str, device: Device | None) -> None:
    plan = uniform(GRAPH, num_stages=4)
    for index, cut in enumerate(plan.cuts):
        state: Any = cost_state(GRAPH, device, 8)
        places, values, crossing = node.run(LANDSCAPE, graph_state(GRAPH), state, plan.cuts, index, level)
        edges = (0, *plan.cuts, len(GRAPH.ops))
        allowed = LEVELS[: LEVELS.index(level) + 1]
        inside = [point for point in GRAPH.cut_points if edges[index] < point.position < edges[index + 2]]
        assert places == [point.position for point in inside if point.level in allowed]
        assert cut in places
        moved = [tuple(place if other == cut else other for other in plan.cuts) for place in places]
        assert values == pytest.approx([bottleneck(plan.with_cuts(cuts), device) for cuts in moved])
        assert crossing == [GRAPH.live_bytes_for(1)[place] for place in places]


def test_of_many_places_each_column_keeps_the_best(node: Node) -> None:
    body = """const { binned } = await load("landscape.js"); return binned(args[0], args[1], 300);"""
    xs = [index / 10 for index in range(5000)]
    values = [(index * 7919) % 5000 for index in range(5000)]
    columns = node.run(body, xs, values)
    assert len(columns) <= 301
    assert [value for _, value in columns[:300]] == [min(values[at : at + 10]) for at in range(0, 3000, 10)]


# --- on the page


def settle(page: Page) -> None:
    """Wait until what was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def names(page: Page) -> list[str]:
    """What stands on the pieces."""
    return texts(page, ".pl-piece text")


def hover(page: Page, share: float, y: float = 30) -> None:
    """Put the pointer over the ribbon."""
    box = page.locator(".pl-ribbon").bounding_box()
    assert box
    page.mouse.move(box["x"] + share * box["width"], box["y"] + y)


def left_of(handle: Locator) -> float:
    """Where a divider is, in pixels."""
    box = handle.bounding_box()
    assert box
    return box["x"]


def zoom(page: Page, share: float, notches: int) -> None:
    """Zoom with the wheel at a place; out for a negative number."""
    hover(page, share)
    page.keyboard.down("Control")
    for _ in range(abs(notches)):
        page.mouse.wheel(0, -100 if notches > 0 else 100)
        settle(page)
    page.keyboard.up("Control")


@pytest.mark.browser
def test_the_wheel_zooms_into_modules_and_ops_and_back(open_page) -> None:
    page = open_page(gpt2_graph(extra_ops=5), width=1400)
    blocks = names(page)
    zoom(page, 0.4, 7)
    act = page.locator(".pl-piece text", has_text="mlp.act").first
    box, ribbon = act.bounding_box(), page.locator(".pl-ribbon").bounding_box()
    assert box
    assert ribbon
    zoom(page, (box["x"] + 5 - ribbon["x"]) / ribbon["width"], 10)
    assert "gelu" in names(page)
    zoom(page, 0.4, -25)
    assert names(page) == blocks


@pytest.mark.browser
def test_a_plain_wheel_scrolls_the_page(open_page) -> None:
    page = open_page()
    page.evaluate("() => { document.body.style.height = '3000px'; }")
    blocks = names(page)
    hover(page, 0.4)
    page.mouse.wheel(0, 200)
    page.wait_for_function("() => window.scrollY > 0")
    assert names(page) == blocks


@pytest.mark.browser
def test_a_double_click_zooms_to_a_piece_and_back(open_page) -> None:
    page = open_page(width=1400)
    blocks = names(page)
    for is_all in (False, True):
        page.get_by_text("h.3", exact=True).locator("..").locator("rect").dblclick(position={"x": 30, "y": 5})
        settle(page)
        assert (names(page) == blocks) is is_all
        assert "h.3" in names(page)
        assert ("h.7" in names(page)) is is_all


@pytest.mark.browser
def test_keys_zoom_and_pan_the_ribbon(open_page) -> None:
    page = open_page(width=1400)
    blocks = names(page)
    ground = page.locator(".pl-ribbon-ground")
    ground.focus()
    for _ in range(4):
        page.keyboard.press("+")
    left = names(page)
    assert left != blocks
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    assert names(page)[-1] == "lm_head" or "head" in names(page)
    page.keyboard.press("0")
    assert names(page) == blocks
    assert page.locator(".pl-overview").is_hidden()


@pytest.mark.browser
def test_a_divider_goes_to_the_op_under_the_pointer_at_any_zoom(open_page) -> None:
    page = open_page(width=1400)
    page.get_by_label("Cut between").select_option("op")
    handle = handles(page).nth(1)
    for _ in range(3):
        handle.focus()
        for _ in range(2):
            page.keyboard.press("+")
        for dx in (150, -90):
            wanted = left_of(handle) + dx
            drag(page, 1, dx)
            reached = abs(left_of(handle) - wanted)
            for keys in (["ArrowRight"], ["ArrowLeft", "ArrowLeft"]):  # no other place is nearer
                for key in keys:
                    handle.press(key)
                assert abs(left_of(handle) - wanted) > reached - 1


@pytest.mark.browser
def test_a_divider_out_of_sight_is_an_arrow_that_leads_to_it(open_page) -> None:
    page = open_page(width=1400)
    zoom(page, 0.02, 8)
    last = handles(page).last
    assert "pl-right-of" in (last.get_attribute("class") or "")
    last.focus()
    settle(page)
    for _ in range(3):
        assert "pl-right-of" not in (last.get_attribute("class") or "")
        page.keyboard.press("+")
    cut = cuts_of(page)[-1]
    page.keyboard.press("ArrowRight")
    assert cuts_of(page)[-1] > cut


@pytest.mark.browser
def test_a_divider_dragged_past_the_edge_takes_the_ribbon_along(open_page) -> None:
    page = open_page(gpt2_graph(24), width=900, num_stages=2)
    before = cuts_of(page)[0]
    handles(page).first.focus()
    for _ in range(4):
        page.keyboard.press("+")
    drag(page, 0, 600, release=False)
    reached = cuts_of(page)[0]
    assert reached > before
    page.wait_for_function(f"() => document.querySelector('[role=slider]').ariaValueNow > {reached}")
    page.mouse.up()


@pytest.mark.browser
def test_two_fingers_zoom_and_one_drags_a_divider(open_page) -> None:
    page = open_page(width=900)
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        settle(page)

    blocks = names(page)
    box = page.locator(".pl-ribbon").bounding_box()
    assert box
    y = box["y"] + 35
    fingers("touchStart", (300, y), (400, y))
    for by in range(0, 120, 20):
        fingers("touchMove", (300 - by, y), (400 + by, y))
    fingers("touchEnd")
    assert names(page) != blocks
    assert page.locator(".pl-overview").is_visible()
    page.locator(".pl-ribbon-ground").press("0")

    at = handles(page).first.locator(".pl-grip").bounding_box()
    before = cuts_of(page)[0]
    assert at
    fingers("touchStart", (at["x"] + 5, at["y"] + 5))
    for by in range(0, 90, 10):
        fingers("touchMove", (at["x"] + 5 - by, at["y"] + 5))
    fingers("touchEnd")
    assert cuts_of(page)[0] < before


@pytest.mark.browser
def test_a_pinned_divider_says_so(open_page) -> None:
    page = open_page()
    handles(page).nth(1).press("p")
    label = Plan(GRAPH, cuts_of(page)).boundaries[1].label
    assert handles(page).nth(1).get_attribute("aria-valuetext") == f"{label}, pinned"
    assert page.locator(".pl-pinned").count() == 1


@pytest.mark.browser
def test_the_kept_split_stays_as_dashed_lines(open_page) -> None:
    page = open_page()
    page.locator(".pl-explorer").press("k")
    assert texts(page, ".pl-kept text") == []
    handles(page).nth(1).press("ArrowRight")
    handles(page).nth(1).press("ArrowRight")
    assert texts(page, ".pl-kept text") == ["kept"]


@pytest.mark.browser
def test_a_click_on_the_lower_edge_adds_a_divider(open_page) -> None:
    page = open_page()
    before = cuts_of(page)
    hover(page, 0.3)
    assert page.locator(".pl-adder").is_hidden()
    hover(page, 0.3, 60)
    assert page.locator(".pl-adder").is_visible()
    page.mouse.down()
    page.mouse.up()
    assert len(cuts_of(page)) == len(before) + 1
    assert set(before) < set(cuts_of(page))


@pytest.mark.browser
def test_the_landscape_is_there_for_the_divider_in_hand_only(open_page) -> None:
    page = open_page(hardware="h100-80gb")
    terrain = page.locator(".pl-terrain")
    box = handles(page).nth(1).locator(".pl-grip").bounding_box()
    assert box
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    assert terrain.is_hidden()
    drag(page, 2, -40, release=False)
    assert terrain.is_visible()
    drawn = page.locator(".pl-terrain-bars").get_attribute("d")
    page.mouse.move(box["x"] + 60, box["y"] + 20)
    settle(page)
    assert page.locator(".pl-terrain-bars").get_attribute("d") == drawn
    page.mouse.up()
    handles(page).nth(1).focus()
    assert page.locator(".pl-terrain-bars").get_attribute("d") != drawn


@pytest.mark.browser
def test_pieces_are_as_wide_as_asked(open_page) -> None:
    page = open_page(hardware="h100-80gb")
    widths = []
    for by in ("params", "flops", "time"):
        page.get_by_label("Width by").select_option(by)
        spans = page.locator(".pl-piece rect").evaluate_all("(all) => all.map((rect) => rect.width.baseVal.value)")
        assert sum(spans) == pytest.approx(page.locator(".pl-strip").evaluate("(strip) => strip.width.baseVal.value"))
        widths.append(spans)
    assert widths[0][0] > 3 * widths[1][0]  # an embedding has many parameters, and costs next to nothing
    assert widths[2][0] < widths[0][0]


@pytest.mark.browser
@pytest.mark.parametrize("width", [600, 1400])
def test_texts_stay_apart_at_any_zoom(open_page, width: int) -> None:
    page = open_page(gpt2_graph(24), width=width, hardware="h100-80gb")
    for index in range(3):
        page.get_by_label("Cut between").select_option(LEVELS[index])
        handles(page).nth(index).focus()
        for _ in range(7):
            page.keyboard.press("+")
            check_layout(page)
        page.keyboard.press("0")
