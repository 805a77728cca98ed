"""What ranks publish, and how a long step is told from one that hangs."""

import pytest

from pipelab.launch.counters import Counters, Stall, Stopped
from pipelab.launch.memory import Segment


@pytest.fixture
def counters() -> Counters:
    with Segment.create(Counters.num_bytes(2), "the counters") as segment:
        return Counters(segment)


def test_ops_are_counted_and_named(counters: Counters) -> None:
    count = counters.on_op(1)
    assert counters.current_op(1) is None
    counters.enter(1)
    assert counters.current_op(1) == 0
    seen = [counters.progress(1)]
    for index in range(3):
        count(index)
        assert counters.current_op(1) == index + 1
        seen.append(counters.progress(1))
    counters.leave(1)
    assert counters.current_op(1) is None
    counters.enter(1)
    assert counters.current_op(1) == 0
    seen.append(counters.progress(1))
    assert seen == sorted(set(seen)), "progress only grows"
    assert counters.progress(0) == 0


def test_flag_stops_after_the_op(counters: Counters) -> None:
    count = counters.on_op(0)
    counters.stop()
    with pytest.raises(Stopped):
        count(0)
    assert counters.progress(0) > 0
    counters.resume()
    count(1)


def test_no_op_for_long_is_a_stall(counters: Counters) -> None:
    stall = Stall(counters, 2, now_s=100.0)
    assert stall.duration_s(103.0) == 3.0
    counters.on_op(1)(0)
    assert stall.duration_s(104.0) == 0.0
    assert stall.duration_s(110.0) == 6.0


def test_a_rank_that_only_waits_for_time_moves_and_can_be_stopped(counters: Counters) -> None:
    stall = Stall(counters, 2, now_s=0.0)
    counters.go_on(0)
    assert stall.duration_s(100.0) == 0.0
    counters.go_on(0)
    assert stall.duration_s(200.0) == 0.0
    counters.stop()
    with pytest.raises(Stopped):
        counters.go_on(0)


def test_one_long_op_is_no_stall_while_it_computes(counters: Counters) -> None:
    counters.publish_cpu(0)
    stall = Stall(counters, 2, now_s=0.0)
    before_s = counters.cpu_s(0)
    while counters.cpu_s(0) - before_s < 0.06:  # more than a twentieth of a second of computing, in one second
        counters.publish_cpu(0)
    assert stall.duration_s(1.0) == 0.0


def test_waking_up_now_and_then_is_not_computing(counters: Counters) -> None:
    counters.publish_cpu(0)
    stall = Stall(counters, 2, now_s=0.0)
    before_s = counters.cpu_s(0)
    while counters.cpu_s(0) - before_s < 0.02:
        counters.publish_cpu(0)
    assert stall.duration_s(100.0) == 100.0
