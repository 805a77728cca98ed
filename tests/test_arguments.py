"""Whatever is passed to whatever argument: a right answer, or a `PipelabError` in words."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import chain
from typing import Any

import pytest
from graphs import gpt2_graph, mlp_graph
from hostile import ANY, VALUES, endless, told
from hypothesis import given

import pipelab
from pipelab import Hardware, PipelabError, Plan
from pipelab.arguments import shown

GRAPH = gpt2_graph(3, hidden=8, vocab=32, batch=6, length=4)
PLAN = pipelab.uniform(GRAPH, num_stages=2)
PLANNER = ("objective", "granularity", "hardware", "memory_limit_bytes", "num_microbatches")
DEVICE = {"name": "mine", "memory_bytes": 8e9, "flops_per_s": {"float32": 1e12}, "memory_bytes_per_s": 1e11,
          "link_bytes_per_s": 1e10, "link_latency_s": 1e-5}  # fmt: skip


def use_plan(plan: Plan) -> None:
    """Everything a plan tells, and that its file gives it back."""
    assert repr(plan)
    assert sum(stage.flops for stage in plan.stages) == plan.graph.flops
    assert all(a < b for a, b in zip(plan.cuts, plan.cuts[1:], strict=False))
    if not plan.has_empty_stage:
        assert Plan.from_json(plan.to_json(), plan.graph) == plan


def use(result: object) -> None:
    if isinstance(result, Plan):
        use_plan(result)
    elif result is not None:
        assert repr(result)


def simulated(**arguments: Any) -> None:
    timeline = pipelab.simulate(PLAN, **arguments)
    assert math.isfinite(timeline.makespan_s)
    assert 0 <= timeline.bubble_fraction < 1


def on_hardware(**arguments: Any) -> None:
    device = Hardware(**{**DEVICE, **arguments})
    simulated(hardware=device)
    use(PLAN.with_hardware(device))
    use(pipelab.optimal(GRAPH, num_stages=2, objective="time", hardware=device))
    use(pipelab.regret(PLAN, hardware=device))
    use(pipelab.compare({"mine": PLAN}, hardware=device))


def of(call: Callable[..., Any], *names: str, **rest: Any) -> list[Callable[[Any], Any]]:
    """The call with one argument left open, for each of these names."""
    return [lambda value, name=name: call(**{**rest, name: value}) for name in names]


CALLS: dict[str, list[Callable[[Any], Any]]] = {
    "equal_size": [lambda v: pipelab.equal_size(GRAPH, num_stages=v), lambda v: pipelab.equal_size(v, num_stages=2)],
    "uniform": [lambda v: pipelab.uniform(GRAPH, num_stages=v), lambda v: pipelab.uniform(v, num_stages=2)],
    "threshold": of(lambda **a: pipelab.threshold(GRAPH, **a), "num_stages", "max_params"),
    "split_at": [lambda v: pipelab.split_at(GRAPH, v), lambda v: pipelab.split_at(GRAPH, [v]),
                 lambda v: pipelab.split_at(GRAPH, [1, v]), lambda v: pipelab.split_at(GRAPH, {"transformer.h.1": v}),
                 lambda v: pipelab.split_at(v, [1])],
    "optimal": of(lambda **a: pipelab.optimal(GRAPH, **a), "num_stages", "pins", *PLANNER, num_stages=2),
    "optimal by time": of(lambda **a: pipelab.optimal(GRAPH, **a), "num_stages", *PLANNER[2:], num_stages=2,
                          objective="time"),
    "regret": [*of(lambda **a: pipelab.regret(PLAN, **a), *PLANNER), lambda v: pipelab.regret(v)],
    "landscape": [*of(lambda **a: pipelab.landscape(PLAN, **a), *PLANNER), lambda v: pipelab.landscape(v)],
    "frontier": of(lambda **a: pipelab.frontier(GRAPH, **a), "num_stages", *PLANNER[1:], num_stages=(1, 2)),
    "optimal_mix": [lambda v: pipelab.optimal_mix(v, num_stages=2),
                    lambda v: pipelab.optimal_mix([(GRAPH, v)], num_stages=2),
                    lambda v: pipelab.optimal_mix([(GRAPH, 1)], num_stages=v)],
    "simulate": of(simulated, "schedule", "num_microbatches", "hardware", "train", "num_ranks"),
    "simulate interleaved": of(simulated, "num_microbatches", "train", "num_ranks", schedule="interleaved_1f1b"),
    "compare": [*of(lambda **a: pipelab.compare(GRAPH, **a), "num_stages", *PLANNER[2:], num_stages=2),
                lambda v: pipelab.compare(v), lambda v: pipelab.compare({"mine": v}),
                lambda v: pipelab.compare([PLAN, v])],
    "with_cuts": [lambda v: PLAN.with_cuts(v), lambda v: PLAN.with_cuts([v])],
    "with_hardware": [lambda v: PLAN.with_hardware(v), lambda v: PLAN.with_hardware([v, v])],
    "export": [lambda v: PLAN.export(v)],
    "Plan": of(Plan, "graph", "cuts", "policy", "hardware", graph=GRAPH, cuts=(3,)),
    "Plan.from_json": [lambda v: Plan.from_json(v, GRAPH), lambda v: Plan.from_json(PLAN.to_json(), v),
                       *of(lambda **a: Plan.from_json({**PLAN.to_json(), **a}, GRAPH), *PLAN.to_json())],
    "Plan.load": [lambda v: None if isinstance(v, int) else Plan.load(v, GRAPH)],
    "Hardware": [*of(on_hardware, *(field.name for field in fields(Hardware))),
                 lambda v: on_hardware(flops_per_s={"float32": v})],
    "peers": [lambda v: pipelab.peers.vllm(GRAPH, num_stages=v),
              lambda v: pipelab.peers.torchgpipe(GRAPH, num_stages=v),
              lambda v: pipelab.peers.accelerate_auto(GRAPH, num_stages=v)],
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_any_value_is_answered_or_refused_in_words(name: str) -> None:
    """Found so: 200 ways to a TypeError, ValueError, OverflowError or MemoryError, and a limit that never ended."""
    for call in CALLS[name]:
        for value in VALUES:
            use(told(lambda call=call, value=value: call(value)))


@given(ANY)
def test_any_list_of_cuts_is_answered_or_refused(value: object) -> None:
    use(told(lambda: pipelab.split_at(GRAPH, value)))
    use(told(lambda: Plan(GRAPH, value)))


@pytest.mark.parametrize("call", [PLAN.with_cuts, lambda v: pipelab.split_at(GRAPH, v),
                                  lambda v: pipelab.optimal(GRAPH, num_stages=2, pins=v),
                                  lambda v: pipelab.optimal(GRAPH, num_stages=2, memory_limit_bytes=v),
                                  lambda v: pipelab.frontier(GRAPH, num_stages=v)])  # fmt: skip
def test_a_list_without_end_is_refused(call: Callable[[Iterator[int]], object]) -> None:
    """It filled the memory."""
    with pytest.raises(PipelabError, match=r"more than|ascend"):
        call(endless())


def test_no_limit_of_memory_can_be_compared() -> None:
    """Infinity became an integer: OverflowError; and nothing to hold, a division by zero."""
    assert pipelab.compare(mlp_graph(4), num_stages=2, memory_limit_bytes=math.inf).entries
    assert pipelab.compare({"mine": PLAN}, memory_limit_bytes=0).entries[0].misfits == (0, 1)


def test_a_report_of_a_larger_batch_can_be_compared() -> None:
    """More micro-batches than the traced batch has rows were divided all the same, those asked for by hand too."""
    with pytest.raises(PipelabError, match="cannot be split into 7 micro-batches: choose 1 to 6"):
        pipelab.compare({"mine": PLAN}, num_microbatches=7)


def test_a_value_is_shown_on_one_short_line() -> None:
    for value in chain(VALUES, [" \n ".join("ab")]):
        assert len(shown(value)) <= 80
        assert "\n" not in shown(value)
