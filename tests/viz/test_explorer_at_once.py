"""What meets on an explorer's page: a drag and keys, a run and code that sets the split, questions and late answers."""

import pytest
from explorer_page import cuts_of, drag, handles, texts, verdict_of
from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def button(page: Page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def test_what_runs_can_be_cancelled_where_nothing_may_be_started(open_live) -> None:
    page = open_live().page
    page.evaluate("() => live.write({ _run_state: { phase: 'running', text: 'Step 1', fraction: null } })")
    page.evaluate("() => live.write({ _run_refusal: 'Planning only.', _data: { ...live.state._data } })")
    assert button(page, "Cancel").is_enabled()
    page.evaluate("() => live.write({ _run_state: { phase: 'idle' } })")
    assert button(page, "Run").is_disabled()


def test_a_key_held_down_runs_once(open_live) -> None:
    page = open_live().page
    handles(page).first.focus()
    for _ in range(3):
        page.keyboard.down("r")
    page.keyboard.up("r")
    assert page.evaluate("() => live.sent.map(({ type }) => type)") == ["run"]


@pytest.mark.parametrize("key", ["a", "o", "Control+z"])
def test_keys_wait_while_a_divider_is_in_hand(open_page, key: str) -> None:
    page = open_page()
    handles(page).first.press("ArrowLeft")
    drag(page, 1, -60, release=False)
    before = cuts_of(page)
    page.keyboard.press(key)
    assert cuts_of(page) == before
    page.mouse.up()
    assert cuts_of(page) == before


def test_an_answer_that_comes_during_a_drag_does_not_take_the_divider_away(open_live) -> None:
    live = open_live()
    page = live.page
    handles(page).first.press("p")
    button(page, "Optimal").click()
    drag(page, 1, -60, release=False)
    before = cuts_of(page)
    live.exchange()
    page.mouse.up()
    assert cuts_of(page) == before


def test_a_second_finger_neither_takes_another_divider_nor_ends_the_drag(open_page) -> None:
    page = open_page()
    drag(page, 1, -60, release=False)
    finger = {"pointerId": 99, "pointerType": "touch", "button": 0, "bubbles": True}
    for event in ("pointerdown", "pointerup", "pointercancel"):
        handles(page).nth(2).dispatch_event(event, finger)
    before = cuts_of(page)
    x, y = (page.locator(".pl-ribbon").bounding_box() or {})["x"], 0
    page.mouse.move(x, y, steps=4)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert cuts_of(page)[1] < before[1]
    page.mouse.up()


@pytest.mark.parametrize("order", [("cuts", "value"), ("value", "cuts")])
def test_a_split_set_from_code_ends_what_was_said_of_the_last_run(open_live, order: tuple[str, str]) -> None:
    page = open_live(ran=True).page
    assert "speed of the unsplit model" in verdict_of(page)
    cuts = [cuts_of(page)[0]]
    for name in order:
        page.evaluate("(changes) => live.write(changes)", {name: cuts})
    assert verdict_of(page).startswith("Stage ")
    assert list(cuts_of(page)) == cuts
    page.get_by_label("Undo").click()
    assert page.get_by_label("Undo").is_disabled()


def test_what_ended_is_told_though_the_last_run_was_of_another_split(open_live) -> None:
    """It was hidden: what a machine's measurement ends with, and Python's "The previous split: ..."."""
    live = open_live(ran=True)
    handles(live.page).first.press("ArrowLeft")
    live.exchange()
    live.explorer.set_trait("_run_state", {"phase": "done", "text": "Times are now those of this machine."})
    live.exchange()
    assert verdict_of(live.page) == "Times are now those of this machine."

    def move() -> None:
        live.explorer.num_stages = 2
        live.exchange()

    live.explorer._runner.during = move
    live.explorer.run()
    live.exchange()
    assert verdict_of(live.page).startswith("The previous split: ")


def test_the_kept_split_is_compared_by_what_things_cost_now(open_live) -> None:
    live = open_live()
    handles(live.page).first.press("k")
    live.explorer.hardware = "t4-16gb"
    live.exchange()
    above = int(verdict_of(live.page).rpartition(" % above optimal")[0].rpartition(" ")[2])
    button(live.page, "Optimal").click()
    below = int(verdict_of(live.page).rpartition(" % below the kept split.")[0].rpartition(" ")[2])
    assert below == pytest.approx(100 - 100 / (1 + above / 100), abs=1)


def test_stepping_ends_where_there_is_no_such_micro_batch_any_more(open_live) -> None:
    live = open_live(hardware="t4-16gb")
    handles(live.page).first.focus()
    for _ in range(8):
        live.page.keyboard.press("m")
    assert texts(live.page, ".pl-step-words")[0].startswith("micro-batch 7: stage 0")
    live.explorer.num_microbatches = 2
    live.exchange()
    assert live.page.locator(".pl-steps").is_hidden()


def test_a_threshold_is_applied_once_it_is_answered(open_live) -> None:
    live = open_live()
    button(live.page, "Threshold…").click()
    live.page.wait_for_function("() => live.sent.length")
    live.exchange()
    before = cuts_of(live.page)
    field = live.page.get_by_label("Million parameters per stage")
    field.fill("20")
    field.press("Enter")
    assert cuts_of(live.page) == before
    live.page.wait_for_function("() => live.sent.length")
    live.exchange()
    field.press("Enter")
    assert cuts_of(live.page) != before


def test_a_saved_page_shows_the_run_it_was_saved_with(open_live, tmp_path) -> None:
    live = open_live(ran=True)
    live.explorer.run()
    live.explorer.save(tmp_path / "saved.html")
    runs = live.page.get_by_label("Run that is drawn")
    live.exchange()
    assert runs.locator("option").count() == 3
    live.page.goto((tmp_path / "saved.html").as_uri())
    assert runs.locator("option").all_text_contents() == ["drawn", "not drawn"]


def test_two_views_show_one_split_and_each_its_own_answers(open_live) -> None:
    live = open_live()
    page = live.page
    page.evaluate("() => live.again(document.querySelector('main').appendChild(document.createElement('div')))")
    first, second = page.locator(".pl-explorer").all()
    before = cuts_of(first)
    drag(page, 1, -80, release=False)
    live.exchange()
    assert cuts_of(second) == cuts_of(first) == live.explorer.cuts != before
    page.mouse.move(0, 0, steps=6)
    live.exchange()
    page.mouse.up()
    live.exchange()
    second.get_by_label("Undo").click()  # one step, however long the drag was
    assert cuts_of(second) == cuts_of(first) == before
    assert second.get_by_label("Undo").is_disabled()
    for view in (first, second):
        view.get_by_label("More").first.click()
    first.get_by_role("button", name="vLLM").click()
    live.exchange()
    assert "VLLM" in (first.locator(".pl-code").text_content() or "")
    assert second.locator(".pl-code").is_hidden()


def test_runs_of_another_trace_are_not_offered(open_live) -> None:
    live = open_live(ran=True)
    for _ in range(2):
        live.explorer.run()
    first, second, third = live.explorer._reports
    live.explorer._reports = [first, {**second, "workload": "decode"}, third]
    live.exchange()
    options = live.page.get_by_label("Run that is drawn").locator("option").all()
    assert [option.get_attribute("value") for option in options] == ["0", "2", ""]
    told = [(option.text_content() or "").partition(":")[0] for option in options]
    assert told == ["run 1 of 2", "run 2 of 2", "not drawn"]
