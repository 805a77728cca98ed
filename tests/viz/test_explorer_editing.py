"""The split under the hand: there and back, pins, a divider more or less, the kept split, keys, the menu."""

import json
from dataclasses import replace

import pytest
from explorer_page import cuts_of, drag, handles, texts, verdict_of
from graphs import gpt2_graph
from playwright.sync_api import Page, expect

from pipelab.errors import PipelabError
from pipelab.hardware import devices_of
from pipelab.plan import Plan
from pipelab.planner import optimal
from pipelab.policies import uniform

pytestmark = pytest.mark.browser

GRAPH = gpt2_graph()
STARTS = [block.start for block in GRAPH.blocks]


def icon(page: Page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def test_every_change_can_be_undone_and_done_again(open_page) -> None:
    page = open_page()
    seen = [cuts_of(page)]
    drag(page, 0, -80)
    seen.append(cuts_of(page))
    icon(page, "Equal size").click()
    seen.append(cuts_of(page))
    page.get_by_label("Fewer stages").click()
    seen.append(cuts_of(page))
    assert len(set(seen)) == 4
    for before in reversed(seen[:-1]):
        page.keyboard.press("Control+z")
        assert cuts_of(page) == before
    page.keyboard.press("Control+z")
    assert cuts_of(page) == seen[0]
    for after in seen[1:]:
        page.keyboard.press("Control+y")
        assert cuts_of(page) == after
    icon(page, "Undo").click()
    assert cuts_of(page) == seen[-2]
    handles(page).first.press("Delete")
    expect(icon(page, "Redo")).to_be_disabled()


def test_a_new_explorer_has_nothing_to_undo(open_page) -> None:
    page = open_page()
    expect(icon(page, "Undo")).to_be_hidden()
    handles(page).first.press("ArrowLeft")
    expect(icon(page, "Undo")).to_be_enabled()


def test_a_pinned_divider_stays_where_it_is(open_page) -> None:
    page = open_page()
    before = cuts_of(page)
    handles(page).nth(1).press("p")
    assert "pinned" in (handles(page).nth(1).get_attribute("aria-valuetext") or "")
    drag(page, 1, 90)
    handles(page).nth(1).press("ArrowRight")
    handles(page).nth(1).press("Home")
    assert cuts_of(page) == before
    handles(page).nth(1).press("p")
    handles(page).nth(1).press("ArrowRight")
    assert cuts_of(page) != before


@pytest.mark.parametrize("pin", [1, 5, 11])
def test_optimal_goes_around_the_pins(open_live, pin: int) -> None:
    live = open_live()
    live.explorer.cuts = (STARTS[pin], *(start for start in STARTS[12:14] if start > STARTS[pin]))
    live.exchange()
    handles(live.page).first.press("p")
    stages = len(live.explorer.cuts) + 1
    icon(live.page, "Optimal").click()
    live.exchange()
    assert STARTS[pin] in live.explorer.cuts
    best = optimal(GRAPH, num_stages=stages, pins=[STARTS[pin]])
    largest = max(stage.num_params for stage in live.explorer.plan.stages)
    assert largest == max(stage.num_params for stage in best.stages)
    assert cuts_of(live.page) == live.explorer.cuts


def test_a_divider_is_taken_away_and_added_where_it_helps(open_page) -> None:
    page = open_page()
    before = cuts_of(page)
    handles(page).nth(1).press("Delete")
    assert cuts_of(page) == (before[0], before[2])
    page.keyboard.press("a")
    after = cuts_of(page)
    assert len(after) == 3
    fewer = Plan(GRAPH, (before[0], before[2]))
    added = [Plan(GRAPH, tuple(sorted({*fewer.cuts, start}))) for start in STARTS[1:] if start not in fewer.cuts]
    dearest = max(fewer.stages, key=lambda stage: stage.num_params)
    halves = [plan for plan in added if dearest.index in [k for k in range(3) if plan.cuts[k] not in fewer.cuts]]
    best = min(max(s.num_params for s in plan.stages[dearest.index : dearest.index + 2]) for plan in halves)
    assert max(s.num_params for s in Plan(GRAPH, after).stages[dearest.index : dearest.index + 2]) == best


def test_the_kept_split_is_compared_with_and_drawn(open_page) -> None:
    page = open_page()
    handles(page).first.focus()
    page.keyboard.press("k")
    before = cuts_of(page)
    assert page.locator(".pl-kept path").count() == 0  # nothing differs yet
    kept = max(stage.num_params for stage in Plan(GRAPH, cuts_of(page)).stages)
    icon(page, "Optimal").click()
    drawn = (page.locator(".pl-kept path").get_attribute("d") or "").count("M")
    assert drawn == len(set(before) - set(cuts_of(page))) > 0
    now = max(stage.num_params for stage in Plan(GRAPH, cuts_of(page)).stages)
    assert verdict_of(page).endswith(f"{100 * (1 - now / kept):.0f} % below the kept split.")
    page.keyboard.press("Control+z")
    page.keyboard.press("k")  # the kept split once more gives it up
    icon(page, "Optimal").click()
    assert page.locator(".pl-kept path").count() == 0


def test_question_mark_lists_the_keys_and_escape_closes_it(open_page) -> None:
    page = open_page()
    handles(page).first.focus()
    page.keyboard.press("?")
    expect(page.locator(".pl-help")).to_be_visible()
    assert {"W", "G", "M", "K", "Delete"} <= set(texts(page, ".pl-help dt"))
    page.keyboard.press("Escape")
    expect(page.locator(".pl-help")).to_be_hidden()


def test_letters_typed_into_a_field_are_no_keys(open_live) -> None:
    live = open_live()
    icon(live.page, "Threshold…").click()
    before = cuts_of(live.page)
    live.page.get_by_label("Million parameters per stage").press("o")
    live.page.get_by_label("Million parameters per stage").press("k")
    assert cuts_of(live.page) == before
    icon(live.page, "Optimal").click()
    assert live.page.locator(".pl-kept path").count() == 0


def test_the_menu_changes_hardware_and_work(open_live) -> None:
    live = open_live(hardware="h100-80gb")
    icon(live.page, "More").click()
    live.page.get_by_label("Hardware", exact=True).select_option("a100-80gb")
    live.exchange()
    assert live.explorer.hardware == "a100-80gb"
    assert "a100-80gb" in texts(live.page, ".pl-rests")[0]
    icon(live.page, "Training").click()
    live.page.get_by_label("Schedule", exact=True).select_option("1f1b")
    live.exchange()
    assert (live.explorer.train, live.explorer.schedule) == (True, "1f1b")
    assert live.explorer.plan.cuts == uniform(GRAPH, num_stages=4).cuts


@pytest.mark.parametrize("system", ["vLLM", "Megatron-LM", "accelerate", "torch"])
def test_a_launch_line_stands_on_the_screen(open_live, system: str) -> None:
    live = open_live()
    icon(live.page, "More").click()
    icon(live.page, system).click()
    live.exchange()
    code = live.page.locator(".pl-code")
    expect(code).to_be_visible()
    name = {"vLLM": "vllm", "Megatron-LM": "megatron", "accelerate": "device_map", "torch": "torch"}[system]
    try:
        wanted = live.explorer.plan.export(name)
    except PipelabError as error:
        wanted = str(error)
    said = code.text_content() or ""
    if isinstance(wanted, dict):
        assert json.loads(said.removeprefix("device_map = ")) == wanted
    else:
        assert said.strip() == wanted.strip()


def test_between_ops_the_optimum_is_the_kernels_to_know(open_live) -> None:
    live = open_live()
    icon(live.page, "Optimal").click()
    assert verdict_of(live.page).endswith("This is optimal.")
    live.page.get_by_label("Cut between").select_option("op")
    assert verdict_of(live.page).endswith("As good as the best split between blocks.")
    live.page.locator(".pl-action").click()
    live.exchange()
    best = optimal(GRAPH, num_stages=4, granularity="op")
    assert max(s.num_params for s in live.explorer.plan.stages) == max(s.num_params for s in best.stages)
    assert live.page.locator(".pl-action").text_content() != "Show optimal"  # now it is known


def test_an_answer_is_forgotten_when_the_question_changes(open_live) -> None:
    """Only cuts were compared: on other hardware, another level or without its pins a split was still "optimal"."""
    live = open_live(hardware="h100-80gb")
    page = live.page
    optimal_button = icon(page, "Optimal")

    def ask() -> None:
        optimal_button.click()
        live.exchange()
        expect(optimal_button).to_have_attribute("aria-pressed", "true")

    page.get_by_label("Cut between").select_option("op")
    ask()
    page.get_by_label("Cut between").select_option("module")
    expect(optimal_button).to_have_attribute("aria-pressed", "false")
    ask()
    handles(page).first.press("p")
    expect(optimal_button).to_have_attribute("aria-pressed", "false")
    ask()
    live.explorer.num_microbatches = 2
    live.exchange()
    expect(optimal_button).to_have_attribute("aria-pressed", "false")
    ask()
    live.explorer.hardware = "a100-80gb"
    live.exchange()
    expect(optimal_button).to_have_attribute("aria-pressed", "false")


def test_a_saved_page_does_not_optimise_over_pins(open_page) -> None:
    """It showed the optimum without pins, and the pinned divider was elsewhere."""
    page = open_page()
    handles(page).first.press("ArrowLeft")
    handles(page).first.press("p")
    before = cuts_of(page)
    icon(page, "Optimal").click()
    assert cuts_of(page) == before
    assert "unpin" in verdict_of(page)


def test_more_stages_are_offered_where_these_do_not_fit(open_live) -> None:
    small = replace(devices_of("h100-80gb", GRAPH, 1)[0], memory_bytes=1.22e9)
    live = open_live(num_stages=2, hardware=small)
    assert "need more than" in verdict_of(live.page)
    offered = live.page.locator(".pl-action").text_content() or ""
    assert offered.startswith("Use ") and offered.endswith(" stages")
    live.page.locator(".pl-action").click()
    live.exchange()
    assert live.explorer.num_stages == int(offered.split()[1])
    assert live.page.locator(".pl-too-large").count() == 0


def test_what_is_open_is_left_with_escape_and_the_way_back_is_by_keyboard(open_live) -> None:
    live = open_live()
    icon(live.page, "Threshold…").click()
    live.page.keyboard.press("Escape")
    expect(live.page.get_by_label("Million parameters per stage")).to_be_hidden()
    live.page.locator(".pl-action").click()  # "Show optimal" is "Undo" then
    after = cuts_of(live.page)
    live.page.keyboard.press("Control+z")
    assert cuts_of(live.page) != after
