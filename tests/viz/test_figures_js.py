"""What a comparison's page tells of its plans, without a browser: differences, stages at a place, ranks at a time."""

from graphs import gpt2_graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node import Node

from pipelab.contenders import SAME
from pipelab.events import COMPUTE
from pipelab.policies import uniform
from pipelab.simulator import simulate
from pipelab.viz.explorer_state import timeline_state

SHARES = st.floats(0.01, 100)
PLAN = uniform(gpt2_graph(), num_stages=4)


def expected(value: float, beside: float) -> str:
    share = value / beside - 1
    if abs(share) < SAME:
        return "same"
    if share >= 2:
        return f"× {value / beside:.1f}"
    percent = f"{100 * abs(share):.{1 if 100 * abs(share) < 9.95 else 0}f}"
    return f"{'−' if share < 0 else '+'}{percent}\u00a0%"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=SHARES, beside=SHARES)
def test_a_difference_is_a_share_with_its_sign(node: Node, value: float, beside: float) -> None:
    told = node.run("return (await load('figures.js')).change(...args)", value, beside)
    assert told == expected(value, beside)


def test_where_there_is_nothing_to_measure_by_nothing_is_told(node: Node) -> None:
    body = "const { change } = await load('figures.js'); return [change(0, 0), change(3, 0)]"
    assert node.run(body) == ["same", ""]


def test_shares_differ_by_points(node: Node) -> None:
    body = "const { points } = await load('figures.js'); return args.map(([a, b]) => points(a, b))"
    pairs = [[0.54, 0.3], [0.3, 0.54], [0.31, 0.3], [0.301, 0.3]]
    assert node.run(body, *pairs) == ["+24 points", "−24 points", "+1 point", "same"]


def test_every_op_lies_in_its_stage(node: Node) -> None:
    body = "const { stageAt } = await load('figures.js'); return args[1].map((op) => stageAt(args[0], op))"
    stages = [stage.index for stage in PLAN.stages for _ in range(stage.start, stage.stop)]
    assert node.run(body, list(PLAN.cuts), list(range(len(stages)))) == stages


def test_ranks_are_counted_while_they_compute(node: Node) -> None:
    timeline = simulate(PLAN, hardware="h100-80gb")
    times = [timeline.makespan_s * step / 7 for step in range(8)]
    body = "const { busyAt } = await load('figures.js'); return args[1].map((time) => busyAt(args[0], time))"
    busy = [
        len({e.rank for e in timeline.events if e.kind in COMPUTE and e.start_s <= time < e.end_s}) for time in times
    ]
    assert node.run(body, timeline_state(timeline), times) == busy
