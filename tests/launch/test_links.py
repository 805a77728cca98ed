"""Two ranks' ends of a link in one process: slots, signals, and what an abandoned step leaves behind."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch

from pipelab.launch.counters import Counters, Stopped
from pipelab.launch.links import (
    NUM_SLOTS,
    BatchSink,
    BatchSource,
    LinkSink,
    LinkSource,
    contiguous,
    link_bytes,
    slots_of,
)  # fmt: skip
from pipelab.launch.memory import Segment, place
from pipelab.launch.messages import BatchEnd
from pipelab.launch.signals import HAS_SEMAPHORES, Semaphores, Signals, Tokens
from pipelab.program import ValueSpec

SIZES = (2, 2, 1)
SPECS = {size: (ValueSpec("x", "float32", (size, 3), (3, 1)),) for size in (2, 1)}


@pytest.fixture
def counters() -> Counters:
    with Segment.create(Counters.num_bytes(1), "the counters") as segment:
        return Counters(segment)


@dataclass
class Link:
    """Both ends of a link, in one process."""

    sink: LinkSink
    source: LinkSource
    sending: Signals
    receiving: Signals


def tie(how: str, counters: Counters, sizes: tuple[int, ...], *, spin_ns: int = 0) -> Link:
    with Segment.create(link_bytes(SPECS), "the links") as segment:
        ends = socket.socketpair()
        signals: list[Signals] = [
            Semaphores(segment, end, counters, is_sender=is_sender, spin_ns=spin_ns)
            if how == "semaphores"
            else Tokens(end, counters)
            for end, is_sender in zip(ends, (True, False), strict=True)
        ]
        sink = LinkSink(slots_of(segment, SPECS, sizes), signals[0])
        return Link(sink, LinkSource(slots_of(segment, SPECS, sizes), signals[1], len(sizes)), *signals)


@pytest.fixture(params=[*(["semaphores"] if HAS_SEMAPHORES else []), "tokens"])
def link(request: pytest.FixtureRequest, counters: Counters) -> Iterator[Link]:
    link = tie(request.param, counters, SIZES)
    yield link
    link.sending.close()
    link.receiving.close()


def send(sink: LinkSink, step: int, microbatch: int) -> torch.Tensor:
    value = torch.full((SIZES[microbatch], 3), 10.0 * step + microbatch)
    sink.wait(step, microbatch)
    sink.put(step, microbatch, [value])
    return value


def received(source: LinkSource, step: int, microbatch: int) -> torch.Tensor:
    source.wait(step, microbatch)
    (value,) = source.take(microbatch)
    value = value.clone()
    source.release(step, microbatch)
    return value


def test_more_micro_batches_than_slots(link: Link) -> None:
    sink, source = link.sink, link.source
    assert len(SIZES) > NUM_SLOTS
    for step in (1, 2):
        expected = [send(sink, step, 0), send(sink, step, 1)]
        found = [received(source, step, 0)]
        expected.append(send(sink, step, 2))  # into the slot that is free again
        found += [received(source, step, 1), received(source, step, 2)]
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_abandoned_step_leaves_no_residue(link: Link) -> None:
    sink, source = link.sink, link.source
    send(sink, 1, 0)
    send(sink, 1, 1)
    received(source, 1, 0)  # "free" of step 1 is under way to the sender, "full" of step 1 to the receiver
    expected = [send(sink, 2, 0), send(sink, 2, 1)]
    assert torch.equal(received(source, 2, 0), expected[0])
    expected.append(send(sink, 2, 2))
    assert torch.equal(received(source, 2, 1), expected[1])
    assert torch.equal(received(source, 2, 2), expected[2])


def test_steps_given_up_again_and_again_leave_no_residue(link: Link) -> None:
    for step in range(1, 9):
        send(link.sink, step, 0)
        if step % 2:
            send(link.sink, step, 1)
        if step % 3 == 0:
            received(link.source, step, 0)
    expected = [send(link.sink, 9, 0), send(link.sink, 9, 1)]
    found = [received(link.source, 9, 0)]
    expected.append(send(link.sink, 9, 2))
    found += [received(link.source, 9, 1), received(link.source, 9, 2)]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_flag_ends_a_wait(link: Link, counters: Counters) -> None:
    counters.stop()
    with pytest.raises(Stopped):
        link.source.wait(1, 0)


def test_flag_ends_a_wait_that_sleeps(link: Link, counters: Counters) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(link.source.wait, 1, 0)
        assert not waiting.done()
        counters.stop()
        with pytest.raises(Stopped):
            waiting.result(timeout=30)


def test_dead_neighbour_ends_a_wait(link: Link) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(link.source.wait, 1, 0)
        link.sending.close()
        with pytest.raises(Stopped):
            waiting.result(timeout=30)


def test_what_a_neighbour_sent_before_he_died_is_received(link: Link) -> None:
    expected = send(link.sink, 1, 0)
    link.sending.close()
    link.source.wait(1, 0)
    assert torch.equal(link.source.take(0)[0], expected)
    with pytest.raises(Stopped):
        link.source.wait(1, 1)


@pytest.mark.skipif(not HAS_SEMAPHORES, reason="this system has no semaphores in shared memory")
@pytest.mark.parametrize("spin_ns", [0, 20_000])
def test_no_signal_is_lost_in_thousands(counters: Counters, spin_ns: int) -> None:
    sizes = (1,) * 2_000
    link = tie("semaphores", counters, sizes, spin_ns=spin_ns)
    one = torch.zeros(1, 3)

    def receive(step: int) -> list[float]:
        found = []
        for microbatch in range(len(sizes)):
            link.source.wait(step, microbatch)
            found.append(link.source.take(microbatch)[0][0, 0].item())
            link.source.release(step, microbatch)
        return found

    with ThreadPoolExecutor(1) as pool:
        for step in (1, 2):
            receiving = pool.submit(receive, step)
            for microbatch in range(len(sizes)):
                link.sink.wait(step, microbatch)
                link.sink.put(step, microbatch, [one + microbatch])
            assert receiving.result(timeout=60) == list(range(len(sizes)))


def test_a_value_reshaped_in_place_leaves_the_slot_as_it_was(link: Link) -> None:
    for step in (1, 2):
        expected = send(link.sink, step, 0)
        link.source.wait(step, 0)
        (value,) = link.source.take(0)
        assert value.shape == expected.shape
        value.unsqueeze_(0)


def batch_end(spec: ValueSpec, rows: int, *, batched: bool) -> BatchEnd:
    placed, num_bytes = place([contiguous(spec, rows if batched else None)])
    return BatchEnd(placed, (batched,), num_bytes)


def test_first_stage_gets_copies_of_the_rows() -> None:
    end = batch_end(SPECS[2][0], 5, batched=True)
    with Segment.create(end.num_bytes, "the inputs") as segment:
        whole = end.placed[0].spec.unpack(segment.storage(end.placed[0]))
        whole.copy_(torch.arange(15.0).view(5, 3))
        source = BatchSource(segment, end, SPECS, SIZES)
        for _ in range(2):  # a write in place does not spoil the next step
            (last,) = source.take(2)
            assert torch.equal(last, torch.tensor([[12.0, 13.0, 14.0]]))
            last.zero_()


def test_last_stage_writes_rows_of_the_merged_output() -> None:
    specs = {size: (ValueSpec("y", "float32", (2 * size,), (1,)),) for size in (2, 1)}  # two rows per row
    end = batch_end(specs[2][0], 10, batched=True)
    with Segment.create(end.num_bytes, "the outputs") as segment:
        sink = BatchSink(segment, end, specs, SIZES)
        for microbatch, size in enumerate(SIZES):
            sink.put(1, microbatch, [torch.full((2 * size,), float(microbatch))])
        merged = end.placed[0].spec.unpack(segment.storage(end.placed[0]))
        assert merged.tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 2
