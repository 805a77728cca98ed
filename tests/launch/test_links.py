"""Two ranks' ends of a link in one process: slots, tokens, and what an abandoned step leaves behind."""

import socket
from collections.abc import Iterator

import pytest
import torch

from pipelab.launch.counters import Counters, Stopped
from pipelab.launch.links import NUM_SLOTS, BatchSink, BatchSource, LinkSink, LinkSource, Slots, Tokens, contiguous
from pipelab.launch.memory import Segment, place
from pipelab.launch.messages import BatchEnd
from pipelab.program import ValueSpec

SIZES = (2, 2, 1)
SPECS = {size: (ValueSpec("x", "float32", (size, 3), (3, 1)),) for size in (2, 1)}


@pytest.fixture
def counters() -> Counters:
    with Segment.create(Counters.num_bytes(1), "the counters") as segment:
        return Counters(segment)


@pytest.fixture
def link(counters: Counters) -> Iterator[tuple[LinkSink, LinkSource, Tokens, Tokens]]:
    memory = torch.zeros(Slots.num_bytes(SPECS), dtype=torch.uint8)
    sending, receiving = (Tokens(end, counters) for end in socket.socketpair())
    sink = LinkSink(Slots(memory, SPECS, SIZES), sending)
    source = LinkSource(Slots(memory, SPECS, SIZES), receiving, len(SIZES))
    yield sink, source, sending, receiving
    sending.close()
    receiving.close()


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


def test_more_micro_batches_than_slots(link: tuple[LinkSink, LinkSource, Tokens, Tokens]) -> None:
    sink, source, *_ = link
    assert len(SIZES) > NUM_SLOTS
    for step in (1, 2):
        expected = [send(sink, step, 0), send(sink, step, 1)]
        found = [received(source, step, 0)]
        expected.append(send(sink, step, 2))  # into the slot that is free again
        found += [received(source, step, 1), received(source, step, 2)]
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_abandoned_step_leaves_no_residue(link: tuple[LinkSink, LinkSource, Tokens, Tokens]) -> None:
    sink, source, *_ = link
    send(sink, 1, 0)
    send(sink, 1, 1)
    received(source, 1, 0)  # "free" of step 1 is under way to the sender, "full" of step 1 to the receiver
    expected = [send(sink, 2, 0), send(sink, 2, 1)]
    assert torch.equal(received(source, 2, 0), expected[0])
    expected.append(send(sink, 2, 2))
    assert torch.equal(received(source, 2, 1), expected[1])
    assert torch.equal(received(source, 2, 2), expected[2])


def test_flag_ends_a_wait(link: tuple[LinkSink, LinkSource, Tokens, Tokens], counters: Counters) -> None:
    counters.stop()
    with pytest.raises(Stopped):
        link[1].wait(1, 0)


def test_dead_neighbour_ends_a_wait_and_a_send(link: tuple[LinkSink, LinkSource, Tokens, Tokens]) -> None:
    _, source, sending, _ = link
    sending.close()
    with pytest.raises(Stopped):
        source.wait(1, 0)
    with pytest.raises(Stopped):
        source.release(1, 0)


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
