"""`simulate`: a plan's own times, bytes and memory go into the replay, and the result says what it rests on."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from graphs import gpt2_graph, mlp_graph
from hypothesis import given
from hypothesis import strategies as st

from pipelab.costs import Costs
from pipelab.errors import InputError
from pipelab.events import Timeline
from pipelab.hardware import Hardware, Measurement
from pipelab.plan import Plan
from pipelab.policies import uniform
from pipelab.presets import PRESETS
from pipelab.simulator import simulate

# An op takes 1 s, a transfer 1 ms, nearly.
DEVICE = Hardware("mine", 1e9, {"float32": 1e9}, 1e9, 1e9, 1e-3, op_s=1.0, reserve_bytes=1000, overlap=True)
SERIAL = replace(DEVICE, name="serial", overlap=False)


def measured(num_ops: int, *, parallel: int | None, num_slots: int | None = 2, rows=(1, 2, 4, 8)) -> Measurement:
    """Every op takes 1 s alone and 2 s loaded, whatever the rows; nothing else takes time."""
    alone = np.ones((len(rows), num_ops))
    return Measurement(
        name="this machine", num_ops=num_ops, rows=rows, alone_s=alone, loaded_s=2 * alone, parallel=parallel,
        microbatch_s=0.0, memory_bytes=1e9, link_bytes_per_s=1e30, link_latency_s=0.0, num_slots=num_slots,
        overlap=False, reserve_bytes=0, device="cpu", num_threads=1,
    )  # fmt: skip


def spans(timeline: Timeline, kind: str, rank: int) -> list[tuple[float, float]]:
    return [(event.start_s, event.end_s) for event in timeline.events if (event.kind, event.rank) == (kind, rank)]


@pytest.mark.parametrize("train", [False, True])
def test_it_is_the_closed_form_of_the_costs_of_the_plan(train: bool) -> None:
    plan = uniform(gpt2_graph(), num_stages=4)
    timeline = simulate(plan, num_microbatches=4, hardware="h100-80gb", train=train)
    costs = Costs.of(plan.graph, PRESETS["h100-80gb"], 2)
    c = [costs.time_before[stop] - costs.time_before[start] for start, stop in plan.bounds]
    x = [costs.transfer_s[cut] for cut in plan.cuts]
    if train:
        assert max(x) < min(c)  # so that links never queue
        assert timeline.makespan_s == pytest.approx(3 * (sum(c) + 3 * max(c)) + 2 * sum(x))
    else:
        assert timeline.makespan_s == pytest.approx(sum(c) + sum(x) + 3 * max(c + x))


def test_sizes_of_micro_batches_are_those_of_tensor_split() -> None:
    plan = uniform(mlp_graph(4, 512, batch=8), num_stages=2)
    device = replace(DEVICE, flops_per_s={"float32": 1.0}, op_s=0.0)
    first = [end - start for start, end in spans(simulate(plan, num_microbatches=5, hardware=device), "F", 0)]
    assert first == pytest.approx([2 * first[-1]] * 3 + [first[-1]] * 2)  # 2, 2, 2, 1, 1 rows


def test_transfers_beside_compute_or_not() -> None:
    plan = uniform(mlp_graph(2, 16), num_stages=2)
    slow = {"link_latency_s": 10.0, "link_bytes_per_s": 1e30}
    beside = simulate(plan, num_microbatches=2, hardware=replace(DEVICE, **slow))
    serial = simulate(plan, num_microbatches=2, hardware=replace(SERIAL, **slow))
    (first, second), (_, later) = spans(beside, "F", 0), spans(serial, "F", 0)
    assert second[0] == first[1]
    assert later[0] == pytest.approx(first[1] + 10)
    assert [event.num_bytes for event in beside.events if event.kind == "send"] == [4 * 16 * 4] * 2


def test_ranks_that_send_themselves_copy_the_outputs_too() -> None:
    plan = uniform(mlp_graph(2, 16), num_stages=2)
    slow = {"link_latency_s": 0.0, "link_bytes_per_s": 32.0}  # a micro-batch of 4 rows of 64 bytes takes 8 s
    timeline = simulate(plan, num_microbatches=2, hardware=replace(SERIAL, **slow))
    assert [round(end - start) for start, end in spans(timeline, "send", 1)] == [8, 8]
    assert spans(simulate(plan, num_microbatches=2, hardware=replace(DEVICE, **slow)), "send", 1) == []


def test_the_slowest_link_and_the_devices_of_each_stage_count() -> None:
    plan = uniform(mlp_graph(2, 16), num_stages=2)
    timeline = simulate(plan, num_microbatches=1, hardware=[DEVICE, replace(DEVICE, name="slow", op_s=5.0)])
    durations = [spans(timeline, "F", rank)[0] for rank in (0, 1)]
    assert [round(end - start) for start, end in durations] == [1, 5]
    assert timeline.source == "simulated, mine and slow, GPipe inference"


def test_ranks_that_share_cores_compete() -> None:
    # Two ranks on a machine for two: alone an op takes 1 s, beside another 2.
    plan = uniform(mlp_graph(2, 16), num_stages=2)
    timeline = simulate(plan, num_microbatches=2, hardware=measured(2, parallel=2))
    assert spans(timeline, "F", 0) == [(0, 1), (1, 3)]
    assert spans(timeline, "F", 1) == [(1, 3), (3, 4)]


def test_links_of_this_machine_hold_two_microbatches() -> None:
    # Stage 1 has 5 of 6 ops: rank 0 has results for micro-batch 2 at 3, and a place for them at 6.
    plan = Plan(mlp_graph(6, 16), (1,))
    timeline = simulate(plan, num_microbatches=4, hardware=measured(6, parallel=None))
    assert spans(timeline, "wait", 0) == [(3, 6), (7, 11)]


def test_an_empty_last_stage_is_left_out() -> None:
    graph = mlp_graph(4, 16)
    plan = Plan(graph, (2, 4))
    assert simulate(plan, hardware=DEVICE).num_ranks == 2


def test_microbatches_are_twice_the_stages_if_there_are_rows() -> None:
    assert simulate(uniform(mlp_graph(4, batch=64), num_stages=4), hardware=DEVICE).num_microbatches == 8
    assert simulate(uniform(mlp_graph(4, batch=3), num_stages=4), hardware=DEVICE).num_microbatches == 3


def test_fewer_ranks_than_stages_hold_several_each() -> None:
    plan = uniform(mlp_graph(8, 16), num_stages=8)
    timeline = simulate(plan, schedule="interleaved_1f1b", num_ranks=4, num_microbatches=8, hardware=DEVICE, train=True)
    assert (timeline.num_ranks, timeline.num_stages) == (4, 8)
    assert {event.stage for event in timeline.events if event.rank == 1} == {1, 5}
    assert timeline.source == "simulated, mine, interleaved 1F1B training"
    assert timeline.bubble_fraction == pytest.approx(3 / (2 * 8 + 3), abs=2e-2)  # transfers of 1 ms besides


def test_hardware_is_the_plans_unless_another_is_named() -> None:
    plan = replace(uniform(mlp_graph(4, 16), num_stages=2), hardware="a100-80gb")
    assert simulate(plan).source == "simulated, a100-80gb, GPipe inference"
    assert simulate(plan, hardware="h100-80gb").source == "simulated, h100-80gb, GPipe inference"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_microbatches": 9}, "A batch of 8 rows cannot be split into 9 micro-batches: choose 1 to 8"),
        ({"num_microbatches": 0}, "num_microbatches must be a whole number, 1 or more; it is 0"),
        ({"num_microbatches": 1.5}, "must be a whole number, 1 or more; it is 1.5"),
        ({"schedule": "fill"}, "no schedule 'fill'"),
        ({"schedule": "1f1b", "num_ranks": 2}, "'1f1b' has one stage per rank"),
        ({"schedule": "interleaved_1f1b", "num_ranks": 3}, "cannot be dealt evenly to 3 ranks"),
        ({"hardware": "tpu"}, "'tpu'"),
    ],
)
def test_what_cannot_be_simulated_is_refused(asked: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(uniform(mlp_graph(4, 16), num_stages=4), **{"hardware": DEVICE, **asked})


# --- memory ---------------------------------------------------------------------------------------------------


def test_memory_without_training_is_weights_reserve_and_one_microbatch() -> None:
    plan = uniform(gpt2_graph(), num_stages=4)
    timeline = simulate(plan, num_microbatches=4, hardware=DEVICE)
    costs = Costs.of(plan.graph, DEVICE, 2)
    assert timeline.peak_memory_bytes == tuple(int(costs.memory_bytes(*bounds)) for bounds in plan.bounds)


@given(st.integers(1, 6), st.integers(1, 8))
def test_memory_in_training_is_what_is_in_flight(num_stages: int, num_microbatches: int) -> None:
    width, batch = 16, 8
    plan = uniform(mlp_graph(6, width, batch=batch), num_stages=num_stages)
    rows = -(-batch // num_microbatches)
    for schedule, in_flight in (
        ("gpipe", [num_microbatches] * num_stages),
        ("1f1b", [min(num_microbatches, num_stages - rank) for rank in range(num_stages)]),
    ):
        timeline = simulate(plan, schedule=schedule, num_microbatches=num_microbatches, hardware=DEVICE, train=True)
        # Weights and their gradients; what every layer made for each micro-batch in flight.
        expected = [
            1000 + 2 * stage.param_bytes + count * (stage.stop - stage.start) * rows * width * 4
            for stage, count in zip(plan.stages, in_flight, strict=True)
        ]
        assert timeline.peak_memory_bytes == tuple(expected)


def test_memory_over_time_rises_and_falls_with_what_is_in_flight() -> None:
    plan = uniform(mlp_graph(2, 16), num_stages=2)
    timeline = simulate(plan, num_microbatches=2, hardware=DEVICE, train=True)
    (weights,), (activation, _) = {timeline.rank_bytes[1]}, timeline.microbatch_bytes
    steps = [num_bytes for _, num_bytes in timeline.memory_over_time(1)]
    assert steps == [weights, weights + activation, weights + 2 * activation, weights + activation, weights]


def test_a_timeline_survives_pickling() -> None:
    timeline = simulate(uniform(mlp_graph(4, 16), num_stages=2), hardware=DEVICE)
    assert pickle.loads(pickle.dumps(timeline)) == timeline
