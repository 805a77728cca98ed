"""Times and the optimum in the explorer: what its page says equals what the planner and the costs say."""

import random
from dataclasses import replace

import numpy as np
import pytest
import traitlets
from explorer_page import cuts_of, drag, handles, texts, verdict_of
from graphs import gpt2_graph, mlp_graph
from playwright.sync_api import Page
from runs import Runner

from pipelab.costs import Costs, rows_of
from pipelab.errors import InputError, SplitError
from pipelab.graph import Graph
from pipelab.hardware import Hardware, Measurement, remember
from pipelab.plan import Plan
from pipelab.planner import optimal, regret
from pipelab.policies import equal_size, uniform
from pipelab.presets import PRESETS
from pipelab.units import format_seconds
from pipelab.viz.explorer import Explorer
from pipelab.viz.explorer_costs import one_device
from pipelab.viz.explorer_optima import optimal_presets

GRAPH = gpt2_graph()
H100 = PRESETS["h100-80gb"]
# A link as slow as its stages, and one that waits for it.
SLOW = replace(H100, name="slow", link_bytes_per_s=2e10)
SERIAL = replace(SLOW, name="serial", overlap=False)
TIGHT = replace(H100, name="tight", memory_bytes=1.3e9)
# A device whose links and memory never limit.
IDEAL = replace(H100, name="ideal", link_bytes_per_s=1e30, memory_bytes=1e18, link_latency_s=0.0)


def measured(graph: Graph, *rows: int, microbatch_s: float = 1e-3) -> Measurement:
    """A machine on which op k takes k + 1 ms per row, and half as much again while the others compute."""
    alone = np.array([[count * (index + 1) * 1e-3 for index in range(len(graph.ops))] for count in rows])
    return Measurement(
        "this machine", len(graph.ops), rows, alone, 1.5 * alone, 2, microbatch_s, 1e9, 1e9, 1e-3, 2, False, 0, "cpu", 1
    )


def stage_costs(plan: Plan, device: Hardware, num_microbatches: int = 8) -> list[float]:
    """Seconds of each stage for one micro-batch, with its transfers."""
    costs = Costs.of(plan.graph, device, rows_of(plan.graph.batch_size, num_microbatches))
    found = []
    for start, stop in plan.bounds:
        parts = costs.transfer_s[start], costs.time_before[stop] - costs.time_before[start], costs.transfer_s[stop]
        found.append(float(max(parts) if device.overlap else sum(parts)))
    return found


def distance(cost: float, optimum: float) -> str:
    """How far above the optimum, as the page says it."""
    above = 100 * (cost / optimum - 1)
    if abs(above) < 1e-7:
        return "This is optimal."
    if abs(above) <= 0.5:
        return "Optimal within 0.5 %."
    text = f"{abs(above):.1f} %" if abs(above) < 9.95 else f"{abs(above):.0f} %"
    return f"{text} above optimal." if above > 0 else f"{text} below the best split between blocks."


def optimum_of(plan: Plan, objective: str, device: Hardware | None) -> float:
    """The least cost between blocks."""
    question = {"objective": objective, "hardware": device, "num_microbatches": 8}
    best = optimal(plan.graph, num_stages=plan.num_stages, **question)
    return regret(best, **question).optimum


def check_times(page: Page, graph: Graph, device: Hardware) -> None:
    plan = Plan(graph, cuts_of(page))
    costs = stage_costs(plan, device)
    assert texts(page, ".pl-box-time") == [format_seconds(cost) for cost in costs]
    most, mean = max(costs), sum(costs) / len(costs)
    assert verdict_of(page) == (
        f"Stage {costs.index(most)} is the bottleneck: {format_seconds(most)} per micro-batch, the average is "
        f"{format_seconds(mean)}. {distance(most, optimum_of(plan, 'time', device))}"
    )


# --- the optimum for every number of stages ------------------------------------------------------------


@pytest.mark.parametrize("device", [None, H100, SLOW, SERIAL, TIGHT], ids=["params", "h100", "slow", "serial", "tight"])
@pytest.mark.parametrize("graph", [GRAPH, mlp_graph()], ids=["gpt2", "mlp"])
def test_presets_are_what_the_planner_finds(graph: Graph, device: Hardware | None) -> None:
    presets, optima = optimal_presets(graph, device, 8, 20)
    question = {"objective": "time" if device else "params", "hardware": device, "num_microbatches": 8}
    assert (presets[0], optima[0], len(presets), len(optima)) == (None, None, 21, 21)
    for num_stages in range(1, 21):
        preset = presets[num_stages]
        try:
            best = optimal(graph, num_stages=num_stages, **question)
        except SplitError as error:
            assert preset == str(error)
            continue
        assert isinstance(preset, list)
        ours, theirs = (regret(plan, **question) for plan in (best.with_cuts(preset), best))
        assert ours.cost == pytest.approx(theirs.cost)
        assert optima[num_stages] == pytest.approx(theirs.optimum)
        num_bytes = [sum(boundary.num_bytes for boundary in plan.boundaries) for plan in (ours.plan, theirs.plan)]
        assert num_bytes[0] == num_bytes[1]


# --- the page ----------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("device", [H100, SLOW, SERIAL, IDEAL], ids=["h100", "slow", "serial", "ideal"])
def test_times_equal_the_planners_after_random_moves(open_page, device: Hardware) -> None:
    page = open_page(GRAPH, num_stages=3, hardware=device)
    choose = random.Random(1)
    for _ in range(15):
        check_times(page, GRAPH, device)
        page.get_by_label("Cut between").select_option(choose.choice(["block", "op"]))
        if choose.random() < 0.4:
            drag(page, choose.randrange(2), choose.uniform(-300, 300))
        else:
            handles(page).nth(choose.randrange(2)).press(choose.choice(["ArrowLeft", "ArrowRight", "PageUp", "Home"]))


@pytest.mark.browser
def test_without_times_the_distance_is_that_of_parameters(open_page) -> None:
    page = open_page()
    assert texts(page, ".pl-box-time") == []
    assert texts(page, ".pl-rests > span") == [
        "No hardware is named: sizes are compared, and the timeline goes by FLOPs."
    ]
    for policy in (uniform, equal_size):
        plan = policy(GRAPH, num_stages=4)
        most = max(stage.num_params for stage in plan.stages)
        assert verdict_of(page) == f"{plan.verdict} {distance(most, optimum_of(plan, 'params', None))}"
        page.get_by_role("button", name="Equal size").click()
    assert texts(page, ".pl-box-mark") == ["▲ largest"]


@pytest.mark.browser
def test_the_optimum_is_shown_and_undone(open_page) -> None:
    page = open_page(hardware="h100-80gb")
    before = cuts_of(page)
    action = page.locator(".pl-action")
    assert action.text_content() == "Show optimal"
    action.click()
    assert cuts_of(page) == optimal(GRAPH, num_stages=4, objective="time", hardware=H100, num_microbatches=8).cuts
    assert page.get_by_role("button", name="Optimal", exact=True).get_attribute("aria-pressed") == "true"
    assert verdict_of(page).endswith("This is optimal.")
    assert action.text_content() == "Undo"
    action.click()
    assert (cuts_of(page), action.text_content()) == (before, "Show optimal")
    action.click()
    handles(page).nth(1).press("ArrowLeft")
    assert action.text_content() == "Show optimal"


@pytest.mark.browser
def test_the_optimal_button_follows_the_number_of_stages(open_page) -> None:
    page = open_page(hardware="h100-80gb")
    page.get_by_role("button", name="Optimal", exact=True).click()
    assert page.locator(".pl-action").is_hidden()
    for num_stages, button in ((5, "More stages"), (4, "Fewer stages")):
        page.get_by_label(button).click()
        best = optimal(GRAPH, num_stages=num_stages, objective="time", hardware=H100, num_microbatches=8)
        assert cuts_of(page) == best.cuts


@pytest.mark.browser
def test_it_says_once_what_times_rest_on(open_page) -> None:
    page = open_page(hardware="h100-80gb")
    assert texts(page, ".pl-rests > span") == [
        "Times: h100-80gb, by its data sheet; per micro-batch of 1 row, transfers included."
    ]
    label = page.locator(".pl-box").last.get_attribute("aria-label") or ""
    assert "per micro-batch; the bottleneck" in label
    page.get_by_label("Fewer micro-batches").click()
    assert texts(page, ".pl-rests > span") == [
        "Times: h100-80gb, by its data sheet; per micro-batch of 2 rows, transfers included."
    ]
    assert texts(page, ".pl-box-mark") == ["▲ slowest"]


def odd_graph() -> Graph:
    """Layers whose biases are buffers, and whose input is a key-value cache of the first."""
    graph = mlp_graph()
    weights = (replace(weight, kind="buffer") if len(weight.shape) == 1 else weight for weight in graph.weights)
    return replace(graph, weights=tuple(weights), caches=(-1,))


@pytest.mark.browser
@pytest.mark.parametrize("graph", [GRAPH, odd_graph()], ids=["gpt2", "odd"])
def test_memory_is_that_of_the_costs(open_page, graph: Graph) -> None:
    plan = uniform(graph, num_stages=4)
    needed = [Costs.of(graph, H100, 1).memory_bytes(*bounds) for bounds in plan.bounds]
    for limit in (min(needed), max(needed), max(needed) - 1):
        page = open_page(graph, hardware=replace(H100, memory_bytes=limit))
        marked = page.evaluate(
            "() => [...document.querySelectorAll('.pl-box')].map((box) => box.matches('.pl-too-large'))"
        )
        assert marked == [num_bytes > limit for num_bytes in needed]


@pytest.mark.browser
def test_a_stage_that_does_not_fit_says_so(open_page) -> None:
    plan = uniform(GRAPH, num_stages=4)
    needed = [Costs.of(GRAPH, H100, 1).memory_bytes(*bounds) for bounds in plan.bounds]
    page = open_page(hardware=replace(H100, memory_bytes=max(needed) - 1))
    assert page.locator(".pl-too-large .pl-box-bytes").all_text_contents() == ["needs 1.3 of 1.2 GB"]
    assert needed.index(max(needed)) == 3
    assert verdict_of(page).endswith("Stage 3 needs 1.3 of 1.2 GB: move h.9 to stage 2.")
    page.locator(".pl-action").click()
    assert page.locator(".pl-too-large").count() == 0
    page = open_page(hardware=replace(H100, memory_bytes=1.08e9))
    assert verdict_of(page).endswith("4 stages need more than 1.08 GB.")


@pytest.mark.browser
def test_a_refused_optimum_offers_more_stages(open_page) -> None:
    page = open_page(num_stages=2, hardware=replace(H100, memory_bytes=1.22e9))
    page.get_by_role("button", name="Optimal", exact=True).click()
    assert verdict_of(page).startswith("optimal cannot make 2 stages: With 1.22 GB")
    page.locator(".pl-action").click()
    assert page.locator(".pl-box").count() > 2
    assert page.locator(".pl-too-large").count() == 0


# --- the Python half ---------------------------------------------------------------------------------


def make(graph: Graph = GRAPH, hardware: object = None, num_microbatches: int = 8) -> Explorer:
    plan = replace(uniform(graph, num_stages=4), hardware=hardware)
    return Explorer(plan, num_microbatches=num_microbatches, runner=Runner())


def test_hardware_is_set_from_code() -> None:
    explorer = make()
    assert "time_before" not in explorer._costs
    by_params = explorer._presets["optimal"]
    explorer.hardware = "h100-80gb"
    assert explorer._costs["device"] == "h100-80gb, by its data sheet"
    assert explorer._presets["optimal"] != by_params
    assert explorer.plan.hardware == "h100-80gb"
    assert explorer.plan.stages[0].time_s
    explorer.hardware = None
    assert explorer._presets["optimal"] == by_params
    assert explorer.plan.stages[0].time_s is None


def test_unknown_hardware_says_what_there_is_and_changes_nothing() -> None:
    explorer = make(hardware="h100-80gb")
    with pytest.raises(traitlets.TraitError, match=r"hardware='h1000' is not known. It is one of: .*'h100-80gb'"):
        explorer.hardware = "h1000"
    assert explorer.hardware == "h100-80gb"
    with pytest.raises(InputError, match="hardware='h1000' is not known"):
        make(hardware="h1000")


def test_one_kind_of_device_per_stage_is_one_for_all() -> None:
    explorer = make(hardware=["h100-80gb"] * 4)
    explorer.num_stages = 3
    assert explorer.plan.stages[2].time_s
    with pytest.raises(InputError, match="one kind of device"):
        one_device(["h100-80gb", "a100-80gb"], GRAPH)


def test_other_micro_batches_are_costed_anew() -> None:
    explorer = make(hardware=SERIAL)
    explorer.num_microbatches = 3
    assert (explorer._costs["num_microbatches"], explorer._costs["rows"]) == (3, 3)
    assert explorer._costs["time_before"] == Costs.of(GRAPH, SERIAL, 3).time_before.tolist()
    best = optimal(GRAPH, num_stages=4, objective="time", hardware=SERIAL, num_microbatches=3)
    assert explorer._presets["optimal"][4] == list(best.cuts)


def test_a_measured_model_has_this_machines_times() -> None:
    graph = mlp_graph()
    remember(graph, measured(graph, 1, 8))
    explorer = make(graph)
    # Four stages compute at once; op k takes 1.5 (k + 1) ms, and a micro-batch 1 ms besides.
    assert np.diff(explorer._costs["time_before"]) == pytest.approx([1.5e-3 * (k + 1) for k in range(8)])
    assert (explorer._costs["alone_before"][-1], explorer._costs["fixed_s"]) == (pytest.approx(36e-3), 1e-3)
    assert explorer._presets["optimal"][4] == list(
        optimal(graph, num_stages=4, objective="time", num_microbatches=8).cuts
    )


def test_rows_that_were_not_measured_have_no_times_and_the_reason() -> None:
    graph = mlp_graph()
    remember(graph, measured(graph, 1))
    explorer = make(graph)
    assert "time_before" in explorer._costs
    explorer.num_microbatches = 4
    assert "time_before" not in explorer._costs
    assert explorer._costs["refusal"].startswith("Micro-batches of 2 rows were asked for")
    assert explorer._presets["optimal"][8] == list(optimal(graph, num_stages=8).cuts)
    with pytest.raises((InputError, traitlets.TraitError), match="Micro-batches of 2 rows"):
        explorer.hardware = measured(graph, 1)
