"""The timelines: what is predicted is painted live, what was measured lies under it, all of it where its time says."""

import re
from itertools import pairwise
from typing import Any

import pytest
from explorer_page import cuts_of, handles, texts
from graphs import gpt2_graph
from layout import check_layout
from live_page import LivePage
from node import Node

from pipelab.events import COMPUTE, Timeline
from pipelab.plan import Plan
from pipelab.simulator import simulate
from pipelab.units import format_seconds

pytestmark = pytest.mark.browser

GRAPH = gpt2_graph(24, batch=32)
DEVICE = "t4-16gb"
SCHEDULES = [("gpipe", False), ("gpipe", True), ("1f1b", True), ("interleaved_1f1b", True), ("zb_h1", True)]

# Work as drawn, [kind, left, top, right, bottom]; numbers, [text, x, y]; the axis as [x, text].
DRAWN = """(track) => {
  const number = (text) => text.match(/-?[\\d.]+/g).map(Number);
  const works = [...document.querySelectorAll(`${track} .pl-work`)].flatMap((path) => {
    const kind = path.classList[1].at(-1);
    return path.getAttribute("d").split("z").filter(Boolean).map((box) => {
      const [x, y, width, height] = number(box);
      return [kind, x, y, x + width, y + height];
    });
  });
  const numbers = [...document.querySelectorAll(`${track} .pl-on-colour`)].filter((text) => text.textContent);
  const ticks = number(document.querySelector(".pl-axis").getAttribute("d")).filter((_, index) => index % 3 === 0);
  return {
    works,
    numbers: numbers.map((text) => [text.textContent, ...number(text.parentElement.getAttribute("transform"))]),
    ticks: [...document.querySelectorAll(".pl-axis-texts text")].map((text, index) => [ticks[index], text.textContent]),
  };
}"""


def opened(
    open_live: Any, *, schedule: str = "gpipe", train: bool = False, microbatches: int = 8, **how: Any
) -> LivePage:
    live = open_live(how.pop("graph", GRAPH), **{"hardware": DEVICE, **how})
    live.explorer.set_trait("num_microbatches", microbatches)
    live.explorer.set_trait("train", train)
    live.explorer.set_trait("schedule", schedule)
    live.exchange()
    return live


def simulated(live: LivePage) -> Timeline:
    """What Python says of the split on the page."""
    explorer = live.explorer
    ranks = None if explorer.schedule != "interleaved_1f1b" else (len(cuts_of(live.page)) + 1) // 2
    return simulate(
        Plan(explorer.plan.graph, cuts_of(live.page)), schedule=explorer.schedule, hardware=explorer.hardware,
        num_microbatches=explorer.num_microbatches, train=explorer.train, num_ranks=ranks,
    )  # fmt: skip


def per_cent(share: float) -> str:
    return f"{share * 100:.0f}\u00a0%"


def seconds_of(tick: str) -> float:
    amount, _, unit = tick.partition("\u00a0")
    return float(amount) * {"s": 1, "ms": 1e-3, "µs": 1e-6, "": 1}[unit]


def check_places(drawn: dict[str, Any], timeline: Timeline) -> None:
    """Every event that computes is drawn in its rank's row, from its start to its end, with its number on it."""
    ticks = drawn["ticks"]
    scale = (ticks[-1][0] - ticks[0][0]) / seconds_of(ticks[-1][1])
    rows = sorted({box[2] for box in drawn["works"]})
    assert len(rows) == timeline.num_ranks
    events = [event for event in timeline.events if event.kind in COMPUTE]
    left = {(event.rank, round(ticks[0][0] + (event.start_s - timeline.start_s) * scale)): event for event in events}
    found = 0
    for kind, x0, y0, x1, y1 in drawn["works"]:
        near = [left.get((rows.index(y0), round(x0) + shift)) for shift in (0, 1, -1)]
        event = next(event for event in near if event and event.kind == kind)
        assert abs(x1 - x0 - (event.end_s - event.start_s) * scale) < 1.6
        on_it = [text for text, x, y in drawn["numbers"] if x0 < x < x1 and y0 < y < y1]
        assert on_it in ([], [f"{event.microbatch}"], [f"{kind}{event.microbatch}"])
        found += len(on_it)
    assert len(drawn["works"]) == len(events)
    assert found == len(drawn["numbers"]) > 0


@pytest.mark.parametrize(("schedule", "train"), SCHEDULES)
def test_the_prediction_is_what_simulate_says(open_live, schedule: str, train: bool) -> None:
    live = opened(open_live, schedule=schedule, train=train, width=1400)
    for key in ("ArrowLeft", "ArrowLeft", "End"):
        handles(live.page).nth(1).press(key)
        live.exchange()
        timeline = simulated(live)
        head = f"step {format_seconds(timeline.makespan_s)}, idle {per_cent(timeline.bubble_fraction)}"
        shared = ", 4 stages on 2 ranks" if timeline.num_ranks == 2 else ""
        names = {"gpipe": "GPipe", "1f1b": "1F1B", "interleaved_1f1b": "interleaved 1F1B", "zb_h1": "ZB-H1"}
        work = f", {names[schedule]} training" if train else ""
        assert texts(live.page, ".pl-timeline-title") == [f"Predicted{work}: {head}, 8 micro-batches{shared}"]
        idle = [per_cent(1 - busy / timeline.makespan_s) for busy in timeline.rank_busy_s]
        assert texts(live.page, ".pl-idles text") == [f"idle {share}" for share in idle]
        label = live.page.locator(".pl-timeline-svg").get_attribute("aria-label") or ""
        assert label.startswith(f"Predicted{work}: {head}")
        assert label.endswith(f"Rank {timeline.num_ranks - 1} idle {idle[-1]}.")
        check_places(live.page.evaluate(DRAWN, ".pl-predicted"), timeline)


def test_without_times_flops_stand_in(open_live) -> None:
    live = opened(open_live, hardware=None)
    assert texts(live.page, ".pl-timeline-title")[0].startswith("Predicted from FLOPs on equal devices: idle ")
    ticks = texts(live.page, ".pl-axis-texts text")
    assert (ticks[0], ticks[-1]) == ("0", "100\u00a0%")


def test_a_shorter_step_is_drawn_shorter(open_live) -> None:
    page = opened(open_live, num_stages=2).page
    handle = handles(page).first
    handle.press("Home")
    ends = []
    for _ in range(12):
        handle.press("ArrowRight")
        ends.append(
            (texts(page, ".pl-axis-texts text"), max(box[3] for box in page.evaluate(DRAWN, ".pl-predicted")["works"]))
        )
    same = [(a[1], b[1]) for a, b in pairwise(ends) if a[0] == b[0]]
    assert len(same) >= 6
    assert all(after < before for before, after in same)


def test_what_was_measured_lies_under_its_prediction(open_live) -> None:
    live = opened(open_live, hardware=None, graph=gpt2_graph())
    live.explorer.run()
    live.exchange()
    report = live.explorer.report
    assert report.predicted
    above = report.step_s / report.predicted.makespan_s - 1
    (words,) = texts(live.page, ".pl-timeline-result")
    sign = "+" if above >= 0 else "−"
    steps = f"{format_seconds(report.step_s)}, {format_seconds(report.predicted.makespan_s)} predicted for it"
    difference = f"step {steps} ({sign}{per_cent(abs(above))}), idle {per_cent(report.bubble_fraction)}: "
    assert words.startswith(f"Measured on this machine: {difference}")
    drawn = {name: live.page.evaluate(DRAWN, f".pl-{name}")["works"] for name in ("predicted", "measured")}
    rows = {name: sorted({(box[2], box[4]) for box in boxes}) for name, boxes in drawn.items()}
    assert len(rows["measured"]) == report.timeline.num_ranks
    for over, under in zip(rows["predicted"], rows["measured"], strict=True):
        assert over[1] <= under[0]
        assert under[1] - under[0] < over[1] - over[0]
    for over, under in zip(rows["predicted"][1:], rows["measured"], strict=False):
        assert under[1] <= over[0]


def test_measured_events_are_where_their_times_say(open_live) -> None:
    live = opened(open_live, graph=gpt2_graph(), ran=True, width=1400)
    events = [event for event in live.explorer.report.timeline.events if event.kind == "F"]
    works = live.page.evaluate(DRAWN, ".pl-measured")["works"]
    left, right = min(box[1] for box in works), max(box[3] for box in works) + 1
    scale = (right - left) / max(event.end_s for event in events)
    in_rows = sorted(works, key=lambda box: (box[2], box[1]))
    for box, event in zip(in_rows, sorted(events, key=lambda event: (event.rank, event.start_s)), strict=True):
        assert abs(box[1] - left - event.start_s * scale) < 1
        assert abs(box[3] + 1 - left - event.end_s * scale) < 1


def test_what_was_measured_for_something_else_is_pale_and_says_so(open_live) -> None:
    live = opened(open_live, ran=True, graph=gpt2_graph())
    page = live.page

    def faded() -> tuple[bool, list[str]]:
        return page.locator(".pl-faded .pl-measured").count() == 1, texts(page, ".pl-stale")

    assert faded() == (False, [])
    handles(page).first.press("ArrowLeft")
    assert faded() == (True, ["measured for the previous split"])
    handles(page).first.press("ArrowRight")
    assert faded() == (False, [])
    page.get_by_label("Fewer micro-batches").click()
    live.exchange()
    assert faded() == (True, ["measured with 8 micro-batches"])


def test_one_micro_batch_stands_out_and_its_way_is_told(open_live) -> None:
    live = opened(open_live, num_stages=3)
    page = live.page
    handles(page).first.press("m")
    page.get_by_label("Next micro-batch").click()
    timeline = simulated(live)
    first, *_, last = [event for event in timeline.events if (event.kind, event.microbatch) == ("F", 1)]
    (words,) = texts(page, ".pl-step-words")
    assert words.startswith("micro-batch 1: stage 0 from ")
    told = [float(number) for number in re.findall(r"(?:from|to) ([\d.]+)", words)]
    assert told == sorted(told)
    assert told[0] == pytest.approx(first.start_s * 1e3, abs=0.06)
    assert told[-1] == pytest.approx(last.end_s * 1e3, abs=0.06)
    boxes = page.evaluate("() => document.querySelectorAll('.pl-predicted .pl-work.pl-lit').length")
    assert boxes == 3
    assert set(texts(page, ".pl-on-colour.pl-lit")) == {"1"}
    lines = page.locator(".pl-predicted .pl-way").get_attribute("d") or ""
    assert lines.count("L") == 2  # from stage to stage to stage
    page.keyboard.press("ArrowRight")
    assert texts(page, ".pl-step-words")[0].startswith("micro-batch 2: ")
    page.keyboard.press("Escape")
    assert page.locator(".pl-steps").is_hidden()
    assert page.locator(".pl-stepping").count() == 0


def test_the_pointer_asks_and_a_click_follows(open_live) -> None:
    live = opened(open_live)
    page = live.page
    box = page.locator(".pl-timeline-svg").bounding_box()
    assert box
    _, x0, y0, x1, y1 = page.evaluate(DRAWN, ".pl-predicted")["works"][0]
    page.mouse.move(box["x"] + (x0 + x1) / 2, box["y"] + (y0 + y1) / 2)
    event = simulated(live).events[0]
    tip = page.locator(".pl-timeline-tip")
    text = tip.text_content() or ""
    assert text.startswith("rank 0, stage 0, micro-batch 0, forward: ")
    assert text.endswith(f"({format_seconds(event.end_s - event.start_s)})")
    page.mouse.move(box["x"] + box["width"] - 100, box["y"] + (y0 + y1) / 2)
    assert (tip.text_content() or "").startswith("rank 0 waits: ")
    assert page.locator(".pl-cursor:not([visibility])").count() == 1
    page.mouse.click(box["x"] + (x0 + x1) / 2, box["y"] + (y0 + y1) / 2)
    assert texts(page, ".pl-step-words")[0].startswith("micro-batch 0: ")
    page.mouse.move(5, 5)
    assert tip.is_hidden()
    assert page.locator(".pl-cursor:not([visibility])").count() == 0


def test_every_run_can_be_drawn_again(open_live) -> None:
    live = opened(open_live, graph=gpt2_graph(), num_stages=3)
    runs = live.page.get_by_label("Run that is drawn")
    for num_stages in (3, 2):
        live.explorer.num_stages = num_stages
        live.explorer.run()
        live.exchange()
    first, second = live.explorer.reports
    options = [f"run {k} of 2: {format_seconds(report.step_s)}" for k, report in ((1, first), (2, second))]
    assert texts(live.page, ".pl-timeline option") == [*options, "not drawn"]
    assert runs.input_value() == "1"
    runs.select_option("0")
    live.exchange()
    assert f"step {format_seconds(first.step_s)}" in texts(live.page, ".pl-timeline-result")[0]
    assert runs.input_value() == "0"


def test_a_run_can_be_put_away(open_live, tmp_path) -> None:
    """The thin rows of an old run stood under every later split: nothing took them away."""
    live = opened(open_live, ran=True)
    page = live.page
    runs, rows = page.get_by_label("Run that is drawn"), page.locator(".pl-measured:not([visibility])")
    assert texts(page, ".pl-timeline option") == ["drawn", "not drawn"]
    live.explorer.save(tmp_path / "saved.html")

    def put_away() -> None:
        runs.select_option("not drawn")
        live.exchange()
        assert rows.count() == 0
        assert texts(page, ".pl-timeline-result") == ["Measured:"]

    put_away()
    assert live.explorer._shown_report is None  # so that no picture has it either
    runs.select_option("drawn")
    live.exchange()
    assert rows.count() == 1
    page.goto((tmp_path / "saved.html").as_uri())  # without a kernel as well
    live.exchange = live.settle
    put_away()
    runs.select_option("drawn")
    assert rows.count() == 1
    assert texts(page, ".pl-timeline-result")[0].startswith("Measured on this machine: step ")


@pytest.mark.parametrize("width", [360, 600, 900, 1400])
def test_texts_stay_apart(open_live, width: int) -> None:
    live = opened(open_live, width=width, microbatches=16)
    live.explorer.run()
    for num_stages in (2, 4, 8, 16):
        for schedule, train in SCHEDULES[::2]:
            live.explorer.set_trait("num_stages", num_stages)
            live.explorer.set_trait("train", train)
            live.explorer.set_trait("schedule", schedule)
            live.exchange()
            check_layout(live.page, ".pl-timeline")
            picture = live.page.locator(".pl-timeline-svg").bounding_box()
            assert picture
            assert picture["height"] <= 310


WORDS = """
const [{ stepWords, measuredWords, staleWords }, { timeUnit, inUnit }, { eventAt }] =
  await Promise.all(["timeline_words.js", "axis.js", "track.js"].map(load));
const [what, ...given] = args;
const times = { unit: timeUnit(0.04), end_s: 0.04 };
if (what === "step") return stepWords(given[0], given[1], times);
if (what === "measured") return measuredWords(...given);
if (what === "at") return eventAt(...given);
if (what === "unit") return given.map((end_s) => timeUnit(end_s).name);
"""
TWO_STAGES = {
    "rows": [
        [["F", 0, 0, 0.0, 0.01], ["send", 0, 0, 0.01, 0.012], ["F", 0, 1, 0.012, 0.02], ["send", 0, 1, 0.02, 0.022]],
        [["F", 1, 0, 0.012, 0.025], ["F", 1, 1, 0.025, 0.04]],
    ],
    "makespan_s": 0.04,
}


def test_a_way_is_told_with_its_waits(node: Node) -> None:
    told = node.run(WORDS, "step", TWO_STAGES, 1).replace("\u00a0", " ")
    assert told == "micro-batch 1: stage 0 from 12.0 to 20.0 ms, waits 3.0 ms, stage 1 from 25.0 to 40.0 ms"


def test_a_long_way_joins_stages_passed_without_a_wait(node: Node) -> None:
    starts = [0, 1, 2, 3, 6, 7, 8, 9]
    rows = [[["F", stage, 0, start / 1e3, (start + 1) / 1e3]] for stage, start in enumerate(starts)]
    told = node.run(WORDS, "step", {"rows": rows, "makespan_s": 0.01}, 0).replace("\u00a0", " ")
    assert told == "micro-batch 0: stages 0 to 3 from 0.0 to 4.0 ms, waits 2.0 ms, stages 4 to 7 to 10.0 ms"


@pytest.mark.parametrize(
    ("slower", "step_s", "words"),
    [
        (1.0, 1.02, "(+2 %), idle 50 %: as predicted"),
        (1.0, 0.8, "(−20 %), idle 50 %: ranks wait less than predicted"),
        (1.0, 1.2, "(+20 %), idle 50 %: ranks wait more than predicted"),
        (1.3, 1.2, "(+20 %), idle 50 %: rank 1 computes 30 % longer than predicted"),
    ],
)
def test_the_difference_is_told_in_words(node: Node, slower: float, step_s: float, words: str) -> None:
    rows = [[["F", 0, 0, 0.0, 0.5]], [["F", 1, 0, 0.5, 0.5 + 0.5 * slower]]]
    predicted = {"makespan_s": 1.0, "rows": [[[0.0, 0.5]], [[0.5, 1.0]]]}
    report = {"rows": rows, "step_s": step_s, "idle": 0.5, "predicted": predicted}
    told = node.run(WORDS, "measured", report).replace("\u00a0", " ")
    assert told == f"Measured: step {format_seconds(step_s)} {words}"


@pytest.mark.parametrize(
    ("predicted", "apart", "words"),
    [
        (None, False, "Measured: step 1.02 s (1.00 to 1.10), idle 50 %"),
        (1.0, False, "Measured: step 1.02 s (1.00 to 1.10; +2 %), idle 50 %: as predicted"),
        (1.0, True, "Measured on this machine: step 1.02 s (1.00 to 1.10), 1.00 s predicted for it (+2 %), "
                    "idle 50 %: as predicted"),
    ],
)  # fmt: skip
def test_spread_and_what_disturbed_are_told(node: Node, predicted: float | None, apart: bool, words: str) -> None:
    remarks = "4 ranks share 2 cores. Other programs used 0.7 of 2 cores meanwhile: times may be too long."
    report = {"rows": [], "step_s": 1.02, "spread": "1.00 to 1.10", "remarks": remarks, "idle": 0.5}
    report["predicted"] = predicted and {"makespan_s": predicted, "rows": []}
    told = node.run(WORDS, "measured", report, apart).replace("\u00a0", " ")
    assert told == f"{words}. {remarks.rstrip('.')}"


@pytest.mark.parametrize(
    ("rank", "time", "found"),
    [
        (0, 0.005, ["F", 0, 0, 0.0, 0.01]),
        (0, 0.011, ["send", 0, 0, 0.01, 0.012]),
        (1, 0.006, ["wait", None, None, 0, 0.012]),
        (0, 0.03, ["wait", None, None, 0.022, 0.04]),
        (0, 0.05, None),
    ],
)
def test_a_time_finds_its_event(node: Node, rank: int, time: float, found: list[Any] | None) -> None:
    assert node.run(WORDS, "at", TWO_STAGES, rank, time) == found


def test_an_axis_has_the_unit_of_its_end(node: Node) -> None:
    assert node.run(WORDS, "unit", 2.0, 1.0, 0.5, 0.0005, 1e-8) == ["s", "s", "ms", "µs", "µs"]
