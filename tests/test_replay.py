"""The event core equals the closed forms and tables of the literature, and pictures drawn by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_tables import torch_orders

from pipelab.errors import InputError
from pipelab.events import COMPUTE, Event, Timeline
from pipelab.replay import Workload, replay
from pipelab.schedules import Action, Order, schedule_actions

SECONDS = st.integers(0, 20).map(lambda eighths: eighths / 8)  # exact in binary: times can be compared with ==
STAGES = st.lists(st.integers(1, 20).map(lambda eighths: eighths / 8), min_size=1, max_size=8)
MICROBATCHES = st.integers(1, 20)


def workload(stages_s, num_microbatches: int, *, backward: float = 2.0, transfer_s=0.0, **how) -> Workload:
    """Each stage takes its time for each micro-batch; the parts of a backward are halves of it."""
    forward_s = np.repeat(np.asarray(stages_s, dtype=float)[:, None], num_microbatches, axis=1)
    boundaries = np.broadcast_to(np.asarray(transfer_s, dtype=float), (len(stages_s) - 1,))
    return Workload(
        {"F": forward_s, "B": backward * forward_s, "I": backward / 2 * forward_s, "W": backward / 2 * forward_s},
        np.repeat(boundaries[:, None], num_microbatches, axis=1),
        **how,
    )


def run(orders: tuple[Order, ...], work: Workload) -> Timeline:
    stages, microbatches = work.compute_s["F"].shape
    return Timeline(replay(orders, work), len(orders), stages, microbatches, "simulated")


def simulated(name: str, stages_s, num_microbatches: int, *, train: bool = True, per_rank: int = 1, **how) -> Timeline:
    num_stages = len(stages_s)
    orders = schedule_actions(name, num_stages // per_rank, num_stages, num_microbatches, train)
    return run(orders, workload(stages_s, num_microbatches, **how))


def spans(timeline: Timeline, kind: str, rank: int) -> list[tuple[float, float]]:
    return [(event.start_s, event.end_s) for event in timeline.events if (event.kind, event.rank) == (kind, rank)]


# --- closed forms ---------------------------------------------------------------------------------------------


@given(STAGES, MICROBATCHES)
def test_forward_only_is_the_sum_and_the_slowest_for_each_further_microbatch(c: list[float], m: int) -> None:
    assert simulated("gpipe", c, m, train=False).makespan_s == sum(c) + (m - 1) * max(c)


@given(st.lists(st.tuples(STAGES.map(lambda c: c[0]), SECONDS), min_size=1, max_size=8), MICROBATCHES)
def test_forward_only_with_links_that_carry_one_transfer_at_a_time(pairs: list[tuple[float, float]], m: int) -> None:
    c, x = [stage for stage, _ in pairs], [link for _, link in pairs][1:]
    expected = sum(c) + sum(x) + (m - 1) * max(c + x)
    assert simulated("gpipe", c, m, train=False, transfer_s=x).makespan_s == expected


@given(st.lists(st.tuples(STAGES.map(lambda c: c[0]), SECONDS), min_size=1, max_size=8), MICROBATCHES)
def test_forward_only_with_senders_that_are_busy_sending(pairs: list[tuple[float, float]], m: int) -> None:
    # A flow shop whose stages take what they compute and what they send.
    c, x = [stage for stage, _ in pairs], [link for _, link in pairs][1:]
    both = [stage + link for stage, link in zip(c, [*x, 0.0], strict=True)]
    timeline = simulated("gpipe", c, m, train=False, transfer_s=x, overlap=False)
    assert timeline.makespan_s == sum(both) + (m - 1) * max(both)


@given(STAGES, MICROBATCHES, st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_gpipe_training_is_the_forward_once_more_for_each_part(c: list[float], m: int, k: float) -> None:
    assert simulated("gpipe", c, m, backward=k).makespan_s == (1 + k) * (sum(c) + (m - 1) * max(c))


@given(STAGES, MICROBATCHES, st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_1f1b_is_never_slower_than_gpipe(c: list[float], m: int, k: float) -> None:
    assert simulated("1f1b", c, m, backward=k).makespan_s <= simulated("gpipe", c, m, backward=k).makespan_s


@given(st.integers(1, 10), MICROBATCHES, st.sampled_from(["gpipe", "1f1b"]))
def test_equal_stages(p: int, m: int, name: str) -> None:
    timeline = simulated(name, [1.0] * p, m)
    assert timeline.makespan_s == (m + p - 1) * 3
    assert timeline.bubble_fraction == pytest.approx((p - 1) / (m + p - 1))
    assert timeline.overhead_fraction == pytest.approx((p - 1) / m)


@given(st.integers(2, 8), st.integers(1, 5), SECONDS)
def test_1f1b_pays_for_a_delay_in_every_round_and_gpipe_once(p: int, rounds: int, x: float) -> None:
    # The formulas are for links that never queue; up to x = tF one transfer at a time is the same.
    m, x = p * rounds, min(x, 1.0)
    compute = (m + p - 1) * 3
    assert simulated("gpipe", [1.0] * p, m, transfer_s=x).makespan_s == compute + 2 * (p - 1) * x
    late = 2 * (p - 1) * m // p + 2 * (p - 2)
    assert simulated("1f1b", [1.0] * p, m, transfer_s=x).makespan_s == pytest.approx(compute + x * late)


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
def test_interleaving_divides_the_bubble(p: int, v: int, rounds: int) -> None:
    m = p * rounds
    for train in (False, True):
        timeline = simulated("interleaved_1f1b", [1 / 4] * (p * v), m, train=train, per_rank=v)
        assert timeline.bubble_fraction == pytest.approx((p - 1) / (v * m + p - 1))


@given(st.integers(1, 8), st.integers(0, 12), *[st.integers(1, 12).map(lambda fourths: fourths / 4)] * 3)
def test_zb_h1_leaves_the_bubble_of_the_paper(p: int, more: int, f: float, i: float, w: float) -> None:
    # (p - 1) (tF + tI - tW) is reached where W is no longer than F and I, and is a bound elsewhere.
    m = p + more
    one = np.ones((p, m))
    work = Workload({"F": f * one, "I": i * one, "W": w * one}, np.zeros((p - 1, m)))
    makespan_s = run(schedule_actions("zb_h1", p, p, m, True), work).makespan_s
    expected = m * (f + i + w) + (p - 1) * (f + i - w)
    assert makespan_s == expected if w <= min(f, i) else makespan_s >= expected


# --- tables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "m", "one_f_one_b", "interleaved", "interleaved_zb", "zbv"),
    [
        (4, 4, 0.4286, 0.2727, 0.1111, 0.2000),
        (4, 8, 0.2727, 0.1579, 0.0588, 0.0588),
        (4, 32, 0.0857, 0.0448, 0.0154, 0.0154),
        (8, 16, 0.3043, 0.1795, 0.0680, 0.0680),
    ],
)
def test_idle_shares_of_all_schedules(
    p: int, m: int, one_f_one_b: float, interleaved: float, interleaved_zb: float, zbv: float
) -> None:
    def idle(orders: tuple[Order, ...], num_stages: int) -> float:
        return round(run(orders, workload([1.0] * num_stages, m)).bubble_fraction, 4)

    assert idle(schedule_actions("1f1b", p, p, m, True), p) == one_f_one_b
    assert idle(schedule_actions("interleaved_1f1b", p, 2 * p, m, True), 2 * p) == interleaved
    # Not ours, but the core replays whatever order it is given: here torch's, whose stages may lie in a V.
    assert idle(torch_orders("InterleavedZeroBubble", p, m, 2), 2 * p) == interleaved_zb
    assert idle(torch_orders("ZBVZeroBubble", p, m, 2), 2 * p) == zbv


@pytest.mark.parametrize(
    ("x", "one_f_one_b", "gpipe"), [(0, 0.158, 0.158), (0.1, 0.197, 0.167), (0.5, 0.324, 0.200), (1, 0.435, 0.238)]
)
def test_idle_shares_when_communication_bound(x: float, one_f_one_b: float, gpipe: float) -> None:
    for name, expected in (("1f1b", one_f_one_b), ("gpipe", gpipe)):
        assert simulated(name, [1.0] * 4, 16, transfer_s=x).bubble_fraction == pytest.approx(expected, abs=5e-4)


def test_unequal_stages_of_the_lesson() -> None:
    uneven = [1, 1, 1, 2]
    forward, both = simulated("gpipe", uneven, 16, train=False), simulated("gpipe", uneven, 16)
    assert (forward.makespan_s, both.makespan_s) == (35, 105)
    assert forward.bubble_fraction == pytest.approx(0.429, abs=5e-4)
    assert simulated("gpipe", uneven, 100_000 // 8, train=False).bubble_fraction == pytest.approx(0.375, abs=5e-4)


def test_best_number_of_microbatches_of_the_lesson() -> None:
    # A batch of 32; a micro-batch takes 1 and 1 per row: more are not always better.
    seconds = [simulated("gpipe", [1 + 32 / m] * 4, m, train=False).makespan_s for m in (4, 8, 16, 32)]
    assert seconds == [63, 55, 57, 70]


# --- pictures by hand -----------------------------------------------------------------------------------------


def test_a_rank_that_waits_for_input_has_wait_events() -> None:
    timeline = simulated("gpipe", [2.0, 1.0], 2, train=False)
    assert spans(timeline, "wait", 1) == [(0, 2), (3, 4)]
    assert spans(timeline, "F", 1) == [(2, 3), (4, 5)]
    assert spans(timeline, "wait", 0) == []


def test_a_transfer_beside_compute_holds_up_nobody() -> None:
    timeline = simulated("gpipe", [1.0, 1.0], 3, train=False, transfer_s=2.0)
    assert spans(timeline, "F", 0) == [(0, 1), (1, 2), (2, 3)]
    assert spans(timeline, "send", 0) == [(1, 3), (3, 5), (5, 7)]  # one at a time
    assert spans(timeline, "F", 1) == [(3, 4), (5, 6), (7, 8)]


def test_gradients_do_not_wait_for_activations_on_the_same_link() -> None:
    timeline = simulated("gpipe", [1.0, 1.0], 1, transfer_s=3.0)
    assert (spans(timeline, "send", 0), spans(timeline, "send", 1)) == ([(1, 4)], [(7, 10)])
    assert timeline.makespan_s == 12


def test_a_sender_that_is_busy_sending_computes_later() -> None:
    timeline = simulated("gpipe", [1.0, 1.0], 3, train=False, transfer_s=2.0, overlap=False)
    assert spans(timeline, "F", 0) == [(0, 1), (3, 4), (6, 7)]
    assert spans(timeline, "send", 0) == [(1, 3), (4, 6), (7, 9)]
    assert spans(timeline, "F", 1) == [(3, 4), (6, 7), (9, 10)]


def test_a_sender_waits_for_a_place_in_the_link() -> None:
    # Two places: micro-batch 2 is computed, and waits until rank 1 is through with micro-batch 0.
    timeline = simulated("gpipe", [1.0, 10.0], 5, train=False, num_slots=2, overlap=False)
    assert spans(timeline, "F", 0) == [(0, 1), (1, 2), (2, 3), (11, 12), (21, 22)]
    assert spans(timeline, "wait", 0) == [(3, 11), (12, 21), (22, 31)]


def test_a_place_is_free_when_the_receiver_has_sent_on_its_result() -> None:
    timeline = simulated("gpipe", [1.0, 1.0, 1.0], 2, train=False, transfer_s=[0.0, 4.0], num_slots=1, overlap=False)
    assert spans(timeline, "send", 1)[0] == (2, 6)
    assert spans(timeline, "send", 0) == [(1, 1), (6, 6)]


def test_who_gives_outputs_away_is_busy_with_it() -> None:
    timeline = simulated("gpipe", [1.0, 1.0], 2, train=False, output_s=np.array([2.0, 3.0]), num_slots=1, overlap=False)
    assert spans(timeline, "F", 1) == [(1, 2), (4, 5)]
    assert spans(timeline, "send", 1) == [(2, 4), (5, 8)]
    assert spans(timeline, "wait", 0) == [(2, 4)]  # the place in the link is free when the output is away


def test_stages_on_one_rank_send_nothing() -> None:
    timeline = simulated("interleaved_1f1b", [1.0] * 4, 2, per_rank=4, transfer_s=5.0, num_slots=1)
    assert {event.kind for event in timeline.events} == {"F", "B"}
    assert timeline.bubble_fraction == 0


def test_sends_tell_their_bytes() -> None:
    how = workload([1.0, 1.0], 2, transfer_bytes=np.array([[30, 20]]))
    events = replay(schedule_actions("gpipe", 2, 2, 2, True), how)
    assert [(e.rank, e.num_bytes) for e in events if e.kind == "send"] == [(0, 30), (0, 20), (1, 30), (1, 20)]


def test_an_order_that_cannot_be_finished_says_where_ranks_stand() -> None:
    orders = ((Action(1, "F", 0), Action(0, "F", 0)),)
    with pytest.raises(InputError, match="rank 0 at 1F0"):
        replay(orders, workload([1.0, 1.0], 1))


# --- ranks that share cores -----------------------------------------------------------------------------------


def test_two_ranks_on_one_core_share_its_time() -> None:
    timeline = simulated("gpipe", [1.0, 1.0], 2, train=False, parallel=1)
    assert spans(timeline, "F", 0) == [(0, 1), (1, 3)]
    assert spans(timeline, "F", 1) == [(1, 3), (3, 4)]


def test_three_ranks_on_two_cores() -> None:
    # From 2 to 5 three compute at 2/3 each; before and after, at most two.
    timeline = simulated("gpipe", [1.0, 1.0, 1.0], 4, train=False, parallel=2)
    ends = [[end for _, end in spans(timeline, "F", rank)] for rank in range(3)]
    assert np.array(ends) == pytest.approx(np.array([[1, 2, 3.5, 5], [2, 3.5, 5, 6], [3.5, 5, 6, 7]]))


def test_a_loaded_machine_is_slower_by_how_many_compute() -> None:
    # Alone 1 s, with all three computing 3 s: with two 2 s.
    alone = workload([1.0, 1.0, 1.0], 2)
    loaded = Workload(alone.compute_s, alone.transfer_s, parallel=3, loaded_s={"F": 3 * alone.compute_s["F"]})
    timeline = run(schedule_actions("gpipe", 3, 3, 2, False), loaded)
    assert [spans(timeline, "F", rank) for rank in range(3)] == [[(0, 1), (1, 3)], [(1, 3), (3, 5)], [(3, 5), (5, 6)]]


def test_who_sends_needs_a_core_too() -> None:
    # Rank 0 sends micro-batch 1 from 2.5 on, while rank 1 computes micro-batch 0.
    timeline = simulated("gpipe", [1.0, 1.0], 2, train=False, transfer_s=0.5, parallel=1, overlap=False)
    assert timeline.makespan_s == pytest.approx(5.0)  # one core, never idle: 4 forwards and 2 sends
    assert timeline.busy_s > 4


@given(STAGES, MICROBATCHES, st.sampled_from(["gpipe", "1f1b", "zb_h1"]), SECONDS)
@settings(max_examples=50)
def test_one_core_is_never_idle_and_does_everything(c: list[float], m: int, name: str, x: float) -> None:
    timeline = simulated(name, c, m, parallel=1, transfer_s=x, overlap=False, num_slots=2)
    assert timeline.makespan_s == pytest.approx(3 * m * sum(c) + 2 * m * x * (len(c) - 1))


@given(STAGES, MICROBATCHES, st.integers(1, 8), SECONDS)
@settings(max_examples=50)
def test_shared_cores_are_no_faster_than_work_and_order_allow(c: list[float], m: int, cores: int, x: float) -> None:
    own = simulated("1f1b", c, m, transfer_s=x)
    shared = simulated("1f1b", c, m, transfer_s=x, parallel=cores)
    assert shared.makespan_s >= max(own.makespan_s, 3 * m * sum(c) / cores) * (1 - 1e-9)
    if cores >= len(c):
        assert shared.makespan_s == pytest.approx(own.makespan_s)


# --- what holds for any of them -------------------------------------------------------------------------------


@given(
    c=STAGES, m=MICROBATCHES, x=SECONDS, train=st.booleans(), overlap=st.booleans(),
    name=st.sampled_from(["gpipe", "1f1b", "zb_h1", "interleaved_1f1b"]),
    slots=st.sampled_from([None, 1, 2, 3]), cores=st.sampled_from([None, 1, 2, 4]), per_rank=st.sampled_from([1, 2, 3]),
)  # fmt: skip
def test_every_event_follows_those_it_needs(
    c: list[float], m: int, x: float, train: bool, overlap: bool, name: str, slots: int | None, cores: int | None,
    per_rank: int,
) -> None:  # fmt: skip
    per_rank = per_rank if name == "interleaved_1f1b" else 1
    stages_s = c * per_rank
    timeline = simulated(
        name, stages_s, m, train=train, per_rank=per_rank,
        transfer_s=x, overlap=overlap, num_slots=slots, parallel=cores,
    )  # fmt: skip
    computed = {(e.stage, e.kind, e.microbatch): e for e in timeline.events if e.kind in COMPUTE}
    assert len(computed) == len(stages_s) * m * (1 if not train else 3 if name == "zb_h1" else 2)
    for rank in range(len(c)):
        assert_one_after_the_other([e for e in timeline.events if e.rank == rank and (e.kind != "send" or not overlap)])
    for (stage, kind, microbatch), event in computed.items():
        for earlier, apart_s in needed(computed, stage, kind, microbatch, x, len(stages_s)):
            assert event.start_s >= earlier.end_s + (apart_s if earlier.rank != event.rank else 0.0) - 1e-9


def needed(computed, stage: int, kind: str, microbatch: int, x: float, num_stages: int):
    """The events one waits for, and the seconds of the transfer between."""
    if kind == "F" and stage:
        yield computed[stage - 1, "F", microbatch], x
    if kind in "BI":
        yield computed[stage, "F", microbatch], 0.0
        if stage < num_stages - 1:
            yield computed[stage + 1, kind, microbatch], x
    if kind == "W":
        yield computed[stage, "I", microbatch], 0.0


def assert_one_after_the_other(events: list[Event]) -> None:
    times = sorted((event.start_s, event.end_s) for event in events)
    assert not times or times[0][0] == 0  # what a rank waits for at the start is an event as well
    assert all(later[0] >= earlier[1] - 1e-9 for earlier, later in pairwise(times))
