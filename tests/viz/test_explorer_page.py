"""The explorer's browser half, on the saved page: dragging, keys, numbers, other people's names."""

import dataclasses
import random

import pytest
from explorer_page import cuts_of, drag, handles, texts, verdict_of
from graphs import gpt2_graph, mlp_graph
from playwright.sync_api import Page

from pipelab.costs import rows_of
from pipelab.graph import Graph
from pipelab.plan import Plan
from pipelab.planner import optimal
from pipelab.policies import equal_size, uniform
from pipelab.simulator import simulate
from pipelab.units import format_bytes, format_count, format_seconds
from pipelab.viz.value_names import value_names

pytestmark = pytest.mark.browser

GRAPH = gpt2_graph()
STARTS = [block.start for block in GRAPH.blocks]


def check_numbers(page: Page, graph: Graph) -> None:
    """Everything the page shows of its split is what the plan says; what crosses, for one of 8 micro-batches."""
    plan = Plan(graph, cuts_of(page))
    rows = rows_of(graph.batch_size, 8)
    crossing, activations = graph.live_bytes_for(rows), graph.memory_bytes_for(rows)
    held = [
        stage.param_bytes + stage.buffer_bytes + graph.cache_bytes_between(start, stop, graph.batch_size)
        + int(activations[start:stop].max())
        for stage, (start, stop) in zip(plan.stages, plan.bounds, strict=True)
    ]  # fmt: skip
    assert texts(page, ".pl-box-params") == [format_count(stage.num_params) for stage in plan.stages]
    assert texts(page, ".pl-box-bytes") == [format_bytes(num_bytes) for num_bytes in held]
    arrows = [text for text in texts(page, ".pl-arrow-labels text") if text != "input"]
    assert arrows == [format_bytes(crossing[cut]) for cut in plan.cuts]
    assert verdict_of(page).startswith(plan.verdict)
    labels = [handle.get_attribute("aria-valuetext") for handle in handles(page).all()]
    assert labels == [boundary.label for boundary in plan.boundaries]
    said = [box.get_attribute("aria-label") or "" for box in page.locator(".pl-box").all()]
    assert [label.partition(": ")[0] for label in said] == [f"Stage {stage.index}" for stage in plan.stages]


def test_it_shows_the_plan(open_page) -> None:
    page = open_page()
    check_numbers(page, GRAPH)
    assert cuts_of(page) == uniform(GRAPH, num_stages=4).cuts
    assert texts(page, ".pl-name") == ["GPT2LMHeadModel"]
    assert texts(page, ".pl-about") == ["124 M parameters · batch 8 × 128 · float32"]
    assert texts(page, ".pl-piece text") == [block.label for block in GRAPH.blocks]


def test_a_divider_is_dragged(open_page) -> None:
    page = open_page()
    before = cuts_of(page)
    drag(page, 0, -60)
    after = cuts_of(page)
    assert after[0] in STARTS
    assert after[0] < before[0]
    assert after[1:] == before[1:]
    check_numbers(page, GRAPH)


def test_a_divider_stops_at_its_neighbours(open_page) -> None:
    page = open_page()
    before = cuts_of(page)
    drag(page, 1, 2000)
    assert cuts_of(page)[1] == STARTS[STARTS.index(before[2]) - 1]
    drag(page, 1, -2000)
    assert cuts_of(page)[1] == STARTS[STARTS.index(before[0]) + 1]


def test_escape_gives_up_a_drag(open_page) -> None:
    page = open_page()
    before = cuts_of(page)
    drag(page, 0, -60, release=False)
    assert cuts_of(page) != before
    page.keyboard.press("Escape")
    assert cuts_of(page) == before
    page.mouse.up()
    assert cuts_of(page) == before


def test_the_divider_in_hand_says_what_crosses(open_page) -> None:
    page = open_page()
    drag(page, 0, 1, release=False)
    cut = Plan(GRAPH, cuts_of(page)).boundaries[0]
    names = value_names(GRAPH)
    rows = [
        dataclasses.replace(tensor, name=names[tensor.name], shape=(1, *tensor.shape[1:])) for tensor in cut.tensors
    ]
    crossing = " + ".join(map(str, rows))
    assert "h.2: add" in crossing
    assert page.locator(".pl-tip").text_content() == (
        f"{cut.label}: {crossing}, {format_bytes(cut.num_bytes // 8)} per micro-batch"
    )


@pytest.mark.parametrize(
    ("key", "blocks"), [("ArrowRight", 1), ("ArrowUp", 1), ("ArrowLeft", -1), ("ArrowDown", -1), ("PageDown", -2)]
)
def test_keys_move_a_divider(open_page, key: str, blocks: int) -> None:
    page = open_page()
    at = STARTS.index(cuts_of(page)[1])
    handles(page).nth(1).press(key)
    assert STARTS.index(cuts_of(page)[1]) == at + blocks
    check_numbers(page, GRAPH)


def test_home_and_end_go_as_far_as_the_neighbours_let(open_page) -> None:
    page = open_page()
    first, _, last = (STARTS.index(cut) for cut in cuts_of(page))
    handle = handles(page).nth(1)
    for key, block, limit in (("Home", first + 1, "aria-valuemin"), ("End", last - 1, "aria-valuemax")):
        handle.press(key)
        assert cuts_of(page)[1] == STARTS[block] == int(handle.get_attribute(limit) or -1)
        handle.press(key)
        assert cuts_of(page)[1] == STARTS[block]


def test_between_ops_an_arrow_is_one_op_and_shift_a_block(open_page) -> None:
    page = open_page()
    page.get_by_label("Cut between").select_option("op")
    before = cuts_of(page)[0]
    handle = handles(page).first
    handle.press("ArrowRight")
    assert cuts_of(page)[0] == before + 1
    handle.press("Shift+ArrowLeft")
    assert cuts_of(page)[0] == before
    handle.press("PageUp")
    assert cuts_of(page)[0] == before + 5
    handle.press("Shift+ArrowRight")
    assert cuts_of(page)[0] == STARTS[STARTS.index(before) + 1]
    check_numbers(page, GRAPH)


@pytest.mark.parametrize("graph", [GRAPH, mlp_graph(), gpt2_graph(3, extra_ops=30)], ids=["gpt2", "mlp", "long"])
def test_the_numbers_equal_the_plan_after_random_moves(open_page, graph: Graph) -> None:
    page = open_page(graph, num_stages=3)
    choose = random.Random(0)
    for _ in range(25):
        page.get_by_label("Cut between").select_option(choose.choice(["block", "op"]))
        if choose.random() < 0.4:
            drag(page, choose.randrange(2), choose.uniform(-300, 300))
        else:
            handles(page).nth(choose.randrange(2)).press(choose.choice(["ArrowLeft", "ArrowRight", "PageUp", "Home"]))
        check_numbers(page, graph)


def test_policies_and_steppers_split_anew(open_page) -> None:
    page = open_page()
    page.get_by_role("button", name="Equal size").click()
    assert cuts_of(page) == equal_size(GRAPH, num_stages=4).cuts
    assert page.get_by_role("button", name="Equal size").get_attribute("aria-pressed") == "true"
    page.get_by_label("Fewer stages").click()
    assert cuts_of(page) == equal_size(GRAPH, num_stages=3).cuts
    page.get_by_role("button", name="Uniform").click()
    page.get_by_label("More stages").click()
    assert cuts_of(page) == uniform(GRAPH, num_stages=4).cuts
    check_numbers(page, GRAPH)


def test_micro_batches_move_on_a_saved_page(open_page) -> None:
    """A saved page kept the number it was saved with: nobody could be shown there what micro-batches are for."""
    graph, device = gpt2_graph(batch=12), "t4-16gb"
    page = open_page(graph, hardware=device)  # in 8 micro-batches, which do not divide 12
    less, more = page.get_by_label("Fewer micro-batches"), page.get_by_label("More micro-batches")
    handles(page).first.press("ArrowLeft")
    for button, numbers in ((less, (6, 4, 3, 2, 1)), (more, (2, 3, 4, 6, 8, 12)), (less, (8,))):
        for number in numbers:
            button.click()
            costs = {"num_microbatches": number, "hardware": device}
            timeline = simulate(Plan(graph, cuts_of(page)), **costs)
            (head,) = texts(page, ".pl-timeline-title")
            assert head.startswith(f"Predicted: step {format_seconds(timeline.makespan_s)}, idle ")
            assert page.get_by_label("Micro-batches", exact=True).locator("output").text_content() == f"{number}"
        assert button.is_disabled() == (number in (1, 12))
    page.get_by_role("button", name="Optimal", exact=True).click()
    assert cuts_of(page) == optimal(graph, num_stages=4, objective="time", **costs).cuts


def test_a_refusal_stands_in_the_verdict_and_offers_what_works(open_page) -> None:
    graph = mlp_graph(3)
    page = open_page(graph, num_stages=3)
    before = cuts_of(page)
    page.get_by_role("button", name="Uniform").click()
    assert page.get_by_label("More stages").is_disabled()
    page.get_by_label("Fewer stages").click()
    page.get_by_role("button", name="Equal size").click()
    page.get_by_label("More stages").click()
    assert cuts_of(page) == before

    page = open_page(gpt2_graph(12, hidden=64), num_stages=2)
    page.get_by_role("button", name="Equal size").click()
    at = cuts_of(page)
    page.get_by_label("More stages").click()
    while page.locator(".pl-action").is_hidden():
        at = cuts_of(page)
        page.get_by_label("More stages").click()
    assert cuts_of(page) == at
    assert "equal_size cannot make" in (page.locator(".pl-verdict").text_content() or "")
    page.locator(".pl-action").click()
    assert cuts_of(page) == at


def test_a_drag_fades_the_timeline_measured_before(open_page) -> None:
    page = open_page(ran=True)
    assert page.locator(".pl-timeline").get_attribute("class") == "pl-timeline"
    assert len(texts(page, ".pl-timeline-svg .pl-on-colour")) == 4 * 8
    assert texts(page, ".pl-stale") == []
    handles(page).first.press("ArrowLeft")
    assert texts(page, ".pl-stale") == ["measured for the previous split"]
    handles(page).first.press("ArrowRight")
    assert texts(page, ".pl-stale") == []


def test_a_saved_page_says_why_it_cannot_run(open_page) -> None:
    page = open_page()
    assert page.get_by_role("button", name="Run").is_disabled()
    assert texts(page, ".pl-refusal") == ["Saved page: dragging works, Run needs the notebook."]


def test_explorers_side_by_side_share_the_width(open_page) -> None:
    page = open_page(width=1400)
    page.evaluate(SECOND_EXPLORER)
    page.evaluate("""() => {
      const row = document.body.appendChild(document.createElement("div"));
      row.style.display = "flex";
      row.append(document.getElementById("pipelab-explorer"), document.getElementById("second"));
    }""")
    first, second = (page.locator(f"#{name}").bounding_box() for name in ("pipelab-explorer", "second"))
    assert first and second
    assert abs(first["width"] - second["width"]) <= 1
    assert second["x"] + second["width"] <= 1400


SECOND_EXPLORER = """async () => {
  const read = (id) => document.getElementById(id).textContent;
  const module = URL.createObjectURL(new Blob([JSON.parse(read("pipelab-source"))], { type: "text/javascript" }));
  const { default: widget } = await import(module);
  const state = JSON.parse(read("pipelab-state"));
  const model = { get: (name) => state[name], set: (name, value) => { state[name] = value; }, on() {}, off() {},
                  save_changes() {}, send() {} };
  const el = document.body.appendChild(document.createElement("div"));
  el.id = "second";
  window.cleanUp = widget.render({ model, el });
}"""


def test_two_explorers_on_one_page_do_not_disturb_each_other(open_page) -> None:
    page = open_page(ran=True)
    page.evaluate(SECOND_EXPLORER)
    first, second = page.locator("#pipelab-explorer"), page.locator("#second")
    before = second.locator("[role=slider]").first.get_attribute("aria-valuenow")
    first.locator("[role=slider]").first.press("ArrowLeft")
    assert second.locator("[role=slider]").first.get_attribute("aria-valuenow") == before
    second.locator("[role=slider]").last.press("ArrowRight")
    assert first.locator("[role=slider]").last.get_attribute("aria-valuenow") != second.locator(
        "[role=slider]"
    ).last.get_attribute("aria-valuenow")
    ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
    page.evaluate("() => window.cleanUp()")
    first.locator("[role=slider]").first.press("ArrowRight")


def test_every_focusable_element_keeps_its_keys_from_the_notebook(open_page) -> None:
    page = open_page()
    focusable = ".pl-explorer :is(button, select, input, summary, [tabindex])"
    assert page.locator(focusable).count() > 10
    assert page.locator(f"{focusable}:not([data-lm-suppress-shortcuts])").count() == 0


def test_dividers_say_what_they_are(open_page) -> None:
    page = open_page()
    labels = [handle.get_attribute("aria-label") for handle in handles(page).all()]
    assert labels == [f"Split {k} between stage {k - 1} and {k}" for k in (1, 2, 3)]
