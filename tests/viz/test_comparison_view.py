"""The comparison's browser half, on the saved page: numbers, cursors, zoom, keys, other people's names."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import Theme
from graphs import gpt2_graph, mlp_graph
from layout import check_contrast, check_layout
from playwright.sync_api import Locator, Page
from runs import made_up_report

import pipelab
from pipelab.comparison import Comparison
from pipelab.hardware import Hardware
from pipelab.names import printable
from pipelab.plan import shorten
from pipelab.policies import split_at, uniform
from pipelab.units import format_bytes, format_count, format_percent, format_seconds, format_whole

pytestmark = pytest.mark.browser

GPT2 = gpt2_graph()
HOSTILE = "<script>document.title='pwned'</script>\"'\n\u202e" + "x" * 300
# Some 40 ms per micro-batch, as the made-up runs take.
SLOW = Hardware("slow", 1e9, {"float32": 1e18}, 1e18, 1e18, 0.0, op_s=1e-3)

OpenPage = Callable[..., Page]


def timed(num_stages: int = 4) -> Comparison:
    return pipelab.compare(GPT2, num_stages=num_stages, hardware="t4-16gb")


@pytest.fixture
def open_saved(new_page: OpenPage, tmp_path: Path) -> OpenPage:
    """Opens the saved page of a comparison."""

    def open_it(comparison: Comparison, *, width: int = 900, theme: Theme = "light") -> Page:
        path = tmp_path / "comparison.html"
        comparison.save(path)
        page = new_page(width, theme)
        page.goto(path.as_uri())
        page.wait_for_selector("[data-ready='1']")
        return page

    return open_it


def rows(page: Page) -> list[Locator]:
    return page.locator(".pl-plan").all()


def figures(row: Locator) -> dict[str, str]:
    """Key of each figure to its text, without the difference."""
    return {
        str(box.get_attribute("data-figure")): (box.locator("dd > span").first.text_content() or "").replace(
            "\u00a0", " "
        )
        for box in row.locator(".pl-figure").all()
    }


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def changes(row: Locator) -> list[str]:
    return [plain(text) for text in row.locator(".pl-change").all_text_contents() if text]


def cursors(page: Page) -> list[float]:
    """Where the cursor stands over each ribbon, from its left edge; none where it is hidden."""
    return page.evaluate(
        """() => [...document.querySelectorAll(".pl-plan-ribbon")].map((ribbon) => {
          const line = ribbon.querySelector(".pl-cursor-line");
          return line.hidden ? null : line.getBoundingClientRect().x - ribbon.getBoundingClientRect().x;
        }).filter((x) => x !== null)"""
    )


def settle(page: Page) -> None:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_its_numbers_are_the_comparisons(open_saved: OpenPage) -> None:
    comparison = timed()
    page = open_saved(comparison)
    assert page.locator(".pl-verdict").inner_text() == comparison.verdict
    for entry, row in zip(comparison.entries, rows(page), strict=True):
        used, held = entry.memory_bytes[entry.fullest], entry.capacity_bytes[entry.fullest]
        assert figures(row) == {
            "bottleneck": format_seconds(entry.bottleneck_s),
            "step": format_seconds(entry.step_s),
            "idle": plain(format_percent(entry.predicted.bubble_fraction)),
            "memory": f"{format_bytes(used)[:-3]} of {format_whole(held)}",
            "sends": format_bytes(entry.sent_bytes),
            "above": plain(f"{entry.above_text} optimal"),
        }
        assert f"bottleneck: {entry.bottleneck_text}" in row.locator("dt").all_text_contents()


def test_without_hardware_it_tells_parameters_first(open_saved: OpenPage) -> None:
    comparison = pipelab.compare(GPT2, num_stages=4)
    page = open_saved(comparison)
    assert [figures(row)["params"] for row in rows(page)] == [
        format_count(entry.regret.cost) for entry in comparison.entries
    ]


def test_the_bars_have_one_scale(open_saved: OpenPage) -> None:
    comparison = timed()
    page = open_saved(comparison)
    most = max(entry.above for entry in comparison.entries)
    for entry, row in zip(comparison.entries, rows(page), strict=True):
        bar = row.locator("[data-figure=above] .pl-bar > div").get_attribute("style")
        assert float(str(bar).split()[1].rstrip("%;")) == pytest.approx(100 * entry.above / most, abs=0.01)


def test_a_chosen_plan_is_what_the_others_are_told_beside(open_saved: OpenPage) -> None:
    comparison = timed()
    page = open_saved(comparison)
    equal, _, best = comparison.entries
    assert changes(rows(page)[2]) == [] and f"+{plain(format_percent(equal.step_s / best.step_s - 1))}" in changes(
        rows(page)[0]
    )
    name = page.get_by_role("button", name="equal_size")
    name.focus()
    page.keyboard.press("Enter")
    assert name.get_attribute("aria-pressed") == "true"
    assert changes(rows(page)[0]) == []
    assert f"−{plain(format_percent(1 - best.step_s / equal.step_s))}" in changes(rows(page)[2])
    assert page.get_by_text("Differences are from equal_size").is_visible()


def test_one_cursor_runs_through_all_ribbons_and_tells_their_stages(open_saved: OpenPage) -> None:
    comparison = timed()
    page = open_saved(comparison)
    page.locator(".pl-plan-ribbon").nth(1).hover(position={"x": 300, "y": 20})
    settle(page)
    assert cursors(page) == pytest.approx([300 - 0.75] * 3, abs=1.1)
    label = page.locator(".pl-place").inner_text()
    block = next(block for block in GPT2.blocks if block.label == label)
    for entry, row in zip(comparison.entries, rows(page), strict=True):
        told = row.locator(".pl-readout").inner_text()
        stage = entry.plan.stages[int(told.split(":")[0].removeprefix("stage "))]
        assert stage.start < block.stop and block.start < stage.stop
        assert told == (
            f"stage {stage.index}: {shorten(stage.labels)} · {format_count(stage.num_params)} parameters · "
            f"{format_seconds(entry.stage_s[stage.index])} · {format_bytes(entry.memory_bytes[stage.index])}"
        )
    page.mouse.move(5, 5)
    settle(page)
    assert cursors(page) == [] and page.locator(".pl-readout").all_inner_texts() == ["", "", ""]


def test_the_cursor_moves_by_keys(open_saved: OpenPage) -> None:
    page = open_saved(timed())
    line = page.get_by_role("slider", name="Place along the model")
    line.press("Home")
    assert line.inner_text() == GPT2.blocks[0].label and len(cursors(page)) == 3
    line.press("ArrowRight")
    line.press("ArrowRight")
    assert line.inner_text() == GPT2.blocks[2].label
    assert f"{GPT2.blocks[2].label}. equal_size: stage 1 · " in str(line.get_attribute("aria-valuetext"))
    line.press("Escape")
    assert cursors(page) == []


def test_all_ribbons_zoom_together_and_the_place_under_the_pointer_stays(open_saved: OpenPage) -> None:
    page = open_saved(timed())
    whole = page.get_by_role("button", name="Whole model")
    assert whole.is_hidden()
    page.locator(".pl-plan-ribbon").first.hover(position={"x": 300, "y": 20})
    settle(page)
    before = page.locator(".pl-place").inner_text()
    page.keyboard.down("Control")
    for _ in range(4):
        page.mouse.wheel(0, -300)
        settle(page)
    page.keyboard.up("Control")
    assert page.locator(".pl-place").inner_text() == before
    shown = [row.locator(".pl-piece").count() for row in rows(page)]
    assert len(set(shown)) == 1
    whole.click()
    assert whole.is_hidden() and page.locator(".pl-plan").first.locator(".pl-piece").count() == len(GPT2.blocks)


def test_keys_zoom_and_bring_the_cursor_into_sight(open_saved: OpenPage) -> None:
    page = open_saved(timed())
    line = page.get_by_role("slider", name="Place along the model")
    for key in ("Home", "+", "+", "+", "End"):
        line.press(key)
    assert page.get_by_role("button", name="Whole model").is_visible()
    assert len(cursors(page)) == 3 and line.inner_text() == GPT2.blocks[-1].label
    line.press("0")
    assert page.get_by_role("button", name="Whole model").is_hidden()


def test_timelines_share_an_axis_and_a_cursor(open_saved: OpenPage) -> None:
    plan = uniform(GPT2, num_stages=3)
    comparison = pipelab.compare(
        {"ran": made_up_report(plan), "other": split_at(GPT2, ["transformer.h.5"])}, hardware=SLOW
    )
    page = open_saved(comparison)
    assert page.locator(".pl-lane:visible").count() == 0
    page.get_by_role("button", name="Timelines").press("Enter")
    captions = page.locator(".pl-lane-caption").all_inner_texts()
    assert [text.split(":")[0] for text in captions] == ["predicted", "measured", "predicted"]
    page.locator(".pl-lane-svg").first.hover(position={"x": 400, "y": 10})
    settle(page)
    lines = page.evaluate(
        "() => [...document.querySelectorAll('.pl-cursor')].map((line) => line.getAttribute('d').split('V')[0])"
    )
    assert len(lines) == 3 and len(set(lines)) == 1 and lines[0].startswith("M400")
    assert page.locator(".pl-time > span").inner_text().endswith(" ms")
    axis = page.get_by_role("slider", name="Time of the step")
    axis.press("End")
    assert axis.get_attribute("aria-valuenow") == axis.get_attribute("aria-valuemax")
    axis.press("Home")
    assert page.locator(".pl-readout").all_inner_texts() == ["1 of 3 ranks compute", "1 of 2 ranks compute"]


def test_a_run_of_another_pace_has_an_axis_of_its_own(open_saved: OpenPage) -> None:
    page = open_saved(pipelab.compare({"ran": made_up_report(uniform(GPT2, num_stages=3))}, hardware="h100-80gb"))
    page.get_by_role("button", name="Timelines").click()
    assert page.locator(".pl-lane-caption").nth(1).inner_text().endswith("on an axis of its own")


def test_what_does_not_fit_is_hatched_and_refusals_are_told(open_saved: OpenPage) -> None:
    tight = pipelab.compare(GPT2, num_stages=4, hardware="t4-16gb", memory_limit_bytes=1.2e9)
    page = open_saved(replace(tight, refused={"mine": "There is no room."}))
    over = [row.locator(".pl-over").count() for row in rows(page)]
    assert over == [len(entry.misfits) for entry in tight.entries]
    assert page.locator(".pl-refused").all_inner_texts() == ["mine makes no plan: There is no room."]


def test_hostile_names_are_text(open_saved: OpenPage) -> None:
    graph = replace(
        mlp_graph(12),
        model=HOSTILE,
        blocks=tuple(replace(b, label=f"{HOSTILE}{b.label}") for b in mlp_graph(12).blocks),
    )
    comparison = pipelab.compare(
        {HOSTILE: uniform(graph, num_stages=3), "b": replace(uniform(graph, num_stages=2), policy=HOSTILE)}
    )
    page = open_saved(comparison)
    assert page.locator(".pl-plan-name").first.text_content() == printable(HOSTILE)
    assert page.title() != "pwned" and page.locator(".pl-comparison script").count() == 0
    page.get_by_role("slider", name="Place along the model").press("End")
    check_layout(page)


def many() -> Comparison:
    plans: dict[str, pipelab.Plan | pipelab.Report] = {
        f"in {count}": uniform(GPT2, num_stages=count) for count in (1, 2, 3, 6, 8, 12)
    }
    plans["a name of a plan that takes a line of its own, or would"] = split_at(
        GPT2, ["transformer.h.5", "transformer.h.11.mlp"]
    )
    return pipelab.compare({**plans, "ran": made_up_report(uniform(GPT2, num_stages=3), num_microbatches=4)})


def sixteen() -> Comparison:
    return pipelab.compare(gpt2_graph(48, hidden=1600), num_stages=16, hardware="a100-40gb")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("make", [timed, many, sixteen])
def test_texts_stay_apart_and_in_their_boxes(open_saved: OpenPage, make: Callable[[], Comparison], theme: str) -> None:
    page = open_saved(make(), theme=theme)
    page.get_by_role("button", name="Timelines").click()
    page.get_by_role("slider", name="Place along the model").press("End")
    for width in (1400, 900, 600):
        page.set_viewport_size({"width": width, "height": 900})
        settle(page)
        check_layout(page)
    check_contrast(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(open_saved: OpenPage, theme: str) -> None:
    page = open_saved(many(), theme=theme)
    for press in ("Help", "Timelines"):
        page.get_by_role("button", name=press).click()
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()


def test_two_on_one_page_do_not_disturb_each_other(open_saved: OpenPage, tmp_path: Path) -> None:
    page = open_saved(timed())
    page.evaluate(
        """async () => {
          const read = (id) => JSON.parse(document.getElementById(id).textContent);
          const module = URL.createObjectURL(new Blob([read("pipelab-source")], { type: "text/javascript" }));
          const { default: widget } = await import(module);
          const state = read("pipelab-state");
          const model = { get: (name) => state[name], set() {}, save_changes() {}, on() {}, off() {} };
          const host = document.body.appendChild(document.createElement("div"));
          widget.render({ model, el: host });
        }"""
    )
    page.get_by_role("button", name="equal_size").first.click()
    page.get_by_role("slider", name="Place along the model").first.press("Home")
    pressed = page.locator(".pl-plan-name[aria-pressed=true]").all_inner_texts()
    assert pressed == ["equal_size", "optimal"] and len(cursors(page)) == 3
    ids = page.evaluate("() => [...document.querySelectorAll('.pl-comparison [id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
