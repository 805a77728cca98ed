"""What the explorer's page says in rarer states: no kernel, no blocks, very many or very long names."""

import dataclasses

import pytest
from explorer_page import drag, handles, texts
from graphs import gpt2_graph

pytestmark = pytest.mark.browser

GRAPH = gpt2_graph()


def test_a_timeline_has_ticks_in_one_unit(open_page) -> None:
    page = open_page(ran=True)
    ticks = texts(page, ".pl-axis-texts text")
    assert ticks[0] == "0"
    assert len({tick.split()[1] for tick in ticks[1:]}) == 1


def test_the_tip_goes_with_the_mouse_and_stays_with_the_keyboard(open_page) -> None:
    page = open_page()
    drag(page, 0, -60, release=False)
    assert page.locator(".pl-tip").is_visible()
    assert page.locator(".pl-covered").count() == 1
    page.mouse.up()
    page.mouse.move(5, 5)
    assert page.locator(".pl-tip").is_hidden()
    assert page.locator(".pl-covered").count() == 0
    page.keyboard.press("ArrowLeft")
    assert page.locator(".pl-tip").is_visible()
    page.get_by_label("Cut between").hover()
    assert page.locator(".pl-tip").is_hidden()


def test_cancel_is_readable_under_the_mouse(open_page) -> None:
    page = open_page(ran=True)
    run = page.locator(".pl-run")
    run.evaluate("(run) => { run.disabled = false; run.classList.add('pl-cancel'); }")
    run.hover()
    ink, ground = (run.evaluate(f"(run) => getComputedStyle(run).{name}") for name in ("color", "backgroundColor"))
    assert (ink, ground) == ("rgb(0, 0, 0)", "color(srgb 0.95 0.95 0.95)")


@pytest.mark.parametrize("width", [360, 600])
def test_the_tip_is_one_line_above_the_ribbon_whatever_the_names(open_page, width: int) -> None:
    blocks = tuple(dataclasses.replace(block, label=f"a_very_long_module_path.{block.label}") for block in GRAPH.blocks)
    page = open_page(dataclasses.replace(GRAPH, blocks=blocks), num_stages=2, width=width)
    handles(page).first.focus()
    tip, verdict = page.locator(".pl-tip").bounding_box(), page.locator(".pl-verdict").bounding_box()
    assert tip and verdict
    assert tip["height"] < 32
    assert tip["y"] >= verdict["y"] + verdict["height"] - 2


def test_many_blocks_show_every_tenth_number(open_page) -> None:
    page = open_page(gpt2_graph(126, hidden=768, vocab=100), num_stages=8, width=1400)
    shown = texts(page, ".pl-piece text")
    assert {"10", "100"} <= set(shown) or {"h.10", "h.100"} <= set(shown) or {"20", "100"} <= set(shown)
    assert len(shown) < 30


def test_a_model_without_blocks_is_cut_between_what_it_has(open_page) -> None:
    graph = dataclasses.replace(GRAPH, blocks=(dataclasses.replace(GRAPH.blocks[0], stop=len(GRAPH.ops)),))
    page = open_page(graph, num_stages=1)
    assert page.get_by_label("Cut between").input_value() == "module"
    page = open_page(dataclasses.replace(graph, legal=()), num_stages=1)
    assert texts(page, ".pl-hint > span:first-child") == ["There is no place where this model can be cut."]


def test_a_threshold_can_be_typed(open_page) -> None:
    page = open_page()
    page.evaluate("() => { document.querySelector('.pl-threshold').hidden = false; }")
    page.get_by_label("Million parameters per stage").focus()
    page.keyboard.type("41.2")
    assert page.get_by_label("Million parameters per stage").input_value() == "41.2"


WITHOUT_KERNEL = """async () => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const module = URL.createObjectURL(new Blob([read("pipelab-source")], { type: "text/javascript" }));
  const { default: widget } = await import(module);
  const state = { ...read("pipelab-state"), _run_refusal: "" };
  const send = () => { throw new Error("Cannot send"); };
  const model = { get: (name) => state[name], set() {}, on() {}, off() {}, save_changes() {}, send };
  widget.render({ model, el: document.getElementById("pipelab-explorer") });
}"""


def test_run_says_so_when_the_kernel_is_gone(open_page) -> None:
    page = open_page()
    page.evaluate(WITHOUT_KERNEL)
    run = page.get_by_role("button", name="Run")
    run.click()
    assert texts(page, ".pl-refusal") == ["Not connected: dragging works, Run does not. Run the cell again."]
    assert run.is_disabled()
    assert run.text_content() == "Run"
