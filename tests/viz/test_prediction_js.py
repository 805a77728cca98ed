"""What the browser predicts is what `pipelab.simulate` says, event by event."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import gpt2_graph
from hypothesis import given
from hypothesis import strategies as st
from node import Node
from random_graphs import random_cuts, random_device, random_graph

from pipelab.costs import microbatch_rows
from pipelab.errors import InputError
from pipelab.events import Event, Timeline
from pipelab.hardware import Device
from pipelab.plan import Plan
from pipelab.presets import PRESETS
from pipelab.replay import Workload, replay
from pipelab.schedules import Action, schedule_actions
from pipelab.simulator import simulate
from pipelab.viz.explorer_costs import cost_state
from pipelab.viz.explorer_runs import ranks_of
from pipelab.viz.explorer_state import graph_state

SCHEDULES = ["gpipe", "1f1b", "interleaved_1f1b", "zb_h1"]
PREDICT = """
const [{ Model }, { Costs }, { predict }] = await Promise.all(["model.js", "costs.js", "prediction.js"].map(load));
const [data, state, cuts, asked] = args;
return predict(new Costs(new Model(data), state), cuts, asked);
"""
STAGES = """
const [{ Model }, { Costs }] = await Promise.all(["model.js", "costs.js"].map(load));
const [data, state, cuts, options] = args;
const costs = new Costs(new Model(data), state);
const stages = costs.stages(cuts, options);
return [stages, costs.wouldFit(stages)];
"""
seeds = st.integers(0, 2**32).map(random.Random)


def random_question(choose: random.Random) -> tuple[Plan, dict[str, Any]]:
    """A plan, and how `simulate` is asked about it."""
    graph = random_graph(choose)
    num_stages = choose.randint(1, min(8, len(graph.legal) + 1))
    divisors = [ranks for ranks in range(1, num_stages + 1) if num_stages % ranks == 0]
    schedule = choose.choice(SCHEDULES)
    asked = {
        "schedule": schedule,
        "num_microbatches": choose.randint(1, graph.batch_size),
        "train": choose.random() < 0.7,
        "num_ranks": choose.choice([None, *divisors]) if schedule == "interleaved_1f1b" else None,
    }
    return Plan(graph, random_cuts(choose, graph, num_stages)), asked


def predicted(node: Node, plan: Plan, device: Device | None, asked: dict[str, Any]) -> dict[str, Any]:
    """What the browser says."""
    state = cost_state(plan.graph, device, asked["num_microbatches"])
    options = {"schedule": asked["schedule"], "training": asked["train"], "numRanks": asked["num_ranks"]}
    found: dict[str, Any] = node.run(PREDICT, graph_state(plan.graph), state, plan.cuts, options)
    return found


def rows_of_events(events: tuple[Event, ...], num_ranks: int, *left_out: str) -> list[list[list[Any]]]:
    """Events as the browser writes them."""
    rows: list[list[list[Any]]] = [[] for _ in range(num_ranks)]
    for event in events:
        if event.kind not in left_out:
            rows[event.rank].append([event.kind, event.stage, event.microbatch, event.start_s, event.end_s])
    return rows


def check_rows(found: list[list[list[Any]]], expected: list[list[list[Any]]]) -> None:
    assert [[event[:3] for event in row] for row in found] == [[event[:3] for event in row] for row in expected]
    times, wanted = ([event[3:] for row in rows for event in row] for rows in (found, expected))
    assert np.array(times) == pytest.approx(np.array(wanted), rel=1e-9, abs=1e-15)


@given(seeds)
def test_it_is_what_simulate_says(node: Node, choose: random.Random) -> None:
    plan, asked = random_question(choose)
    device = random_device(choose, plan.graph)
    found = predicted(node, plan, device, asked)
    timeline = simulate(plan, hardware=device, **asked)
    check_rows(found["rows"], rows_of_events(timeline.events, timeline.num_ranks, "wait"))
    idle = [1 - busy / timeline.makespan_s if timeline.makespan_s else 0 for busy in timeline.rank_busy_s]
    assert found["makespan_s"] == pytest.approx(timeline.makespan_s, rel=1e-9)
    assert found["idle"] == pytest.approx(timeline.bubble_fraction, rel=1e-9, abs=1e-12)
    assert found["rank_idle"] == pytest.approx(idle, rel=1e-9, abs=1e-12)
    assert found["unit"] == "s"
    assert found["rank_bytes"] == list(timeline.rank_bytes)
    assert found["peak_bytes"] == peaks_of(plan, device, asked)


@given(seeds)
def test_stages_need_what_their_ranks_hold(node: Node, choose: random.Random) -> None:
    plan, asked = random_question(choose)
    device = replace(PRESETS["h100-80gb"], memory_bytes=1e9 + choose.uniform(0, 1e5))
    graph, cuts = plan.graph, plan.cuts
    state = cost_state(graph, device, asked["num_microbatches"])
    options = {"schedule": asked["schedule"], "training": asked["train"], "numRanks": asked["num_ranks"]}
    stages, move = node.run(STAGES, graph_state(graph), state, cuts, options)
    peaks = peaks_of(plan, device, asked)
    assert [stage["needs"] for stage in stages] == [peaks[index % len(peaks)] for index in range(len(stages))]
    if move is not None:
        assert peaks[move["from"]] > device.memory_bytes
        moved = plan.with_cuts([*cuts[: move["cut"]], move["position"], *cuts[move["cut"] + 1 :]])
        after = peaks_of(moved, device, asked)
        assert max(after[move["from"]], after[move["to"]]) <= device.memory_bytes


def peaks_of(plan: Plan, device: Device, asked: dict[str, Any]) -> list[int]:
    """The most each rank holds, by the order of its actions."""
    timeline = simulate(plan, hardware=device, **asked)
    even = (event._replace(start_s=index, end_s=index + 0.5) for index, event in enumerate(timeline.events))
    return list(replace(timeline, events=tuple(even)).peak_memory_bytes)  # also what takes no time is held


@given(seeds)
def test_without_times_flops_stand_in(node: Node, choose: random.Random) -> None:
    plan, asked = random_question(choose)
    found = predicted(node, plan, None, asked)
    rows, num_ranks = microbatch_rows(plan.graph.batch_size, asked["num_microbatches"]), asked["num_ranks"]
    orders = schedule_actions(
        asked["schedule"], num_ranks or plan.num_stages, plan.num_stages, len(rows), asked["train"]
    )
    flops = np.array([plan.graph.flops_for(size) for size in rows], dtype=float) / plan.graph.flops_for(rows[0]).sum()
    forward = np.array([[of_op[start:stop].sum() for of_op in flops] for start, stop in plan.bounds])
    kinds = {"F": forward, "B": 2 * forward, "I": forward, "W": forward}
    events = replay(orders, Workload(kinds, np.zeros_like(forward)))
    check_rows(found["rows"], rows_of_events(events, len(orders), "wait", "send"))
    timeline = Timeline(events, len(orders), plan.num_stages, len(rows))
    assert (found["makespan_s"], found["unit"]) == (pytest.approx(timeline.makespan_s), "share")
    assert found["idle"] == pytest.approx(timeline.bubble_fraction, abs=1e-12)


@pytest.mark.parametrize(("schedule", "num_ranks"), [("interleaved_1f1b", 3), ("1f1b", 2), ("fast", 4)])
def test_a_schedule_that_cannot_be_says_why(node: Node, schedule: str, num_ranks: int) -> None:
    plan = Plan(gpt2_graph(), (14, 25, 36))
    asked = {"schedule": schedule, "num_microbatches": 8, "train": True, "num_ranks": num_ranks}
    with pytest.raises(InputError) as raised:
        simulate(plan, hardware="h100-80gb", **asked)
    assert predicted(node, plan, PRESETS["h100-80gb"], asked) == {"error": str(raised.value)}


def test_ranks_that_wait_for_each_other_say_where(node: Node) -> None:
    orders = [[Action(0, "F", 0), Action(0, "B", 0), Action(0, "F", 1)], [Action(1, "F", 1), Action(1, "F", 0)]]
    with pytest.raises(InputError) as raised:
        replay(orders, Workload({"F": np.ones((2, 2)), "B": np.ones((2, 2))}, np.zeros((1, 2))))
    body = """
      const { replay } = await load("replay.js");
      const times = { alone: [1, 1, 1, 1], loaded: [1, 1, 1, 1], transfer: [0, 0], output: null };
      const limits = { overlap: true, numSlots: null, parallel: null };
      return replay(args[0], { numStages: 2, numMicrobatches: 2, ...times, ...limits });
    """
    actions = [[action._asdict() for action in order] for order in orders]
    assert node.run(body, actions) == {"error": str(raised.value)}


def test_the_browser_deals_stages_to_as_many_ranks(node: Node) -> None:
    asked = [(schedule, count, ranks) for schedule in SCHEDULES for count in range(1, 33) for ranks in (None, 1)]
    body = "const { ranksOf } = await load('schedules.js'); return args[0].map((asked) => ranksOf(...asked));"
    assert node.run(body, asked) == [ranks_of(*each) for each in asked]
