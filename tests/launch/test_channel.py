"""Messages and descriptors between two ends."""

import os
import socket
import threading

import pytest

from pipelab.launch.channel import MOST_DESCRIPTORS, Channel, Gone, readable


@pytest.fixture
def ends() -> tuple[Channel, Channel]:
    one, other = socket.socketpair()
    return Channel(one), Channel(other)


def test_messages_arrive_in_order_and_whole(ends: tuple[Channel, Channel]) -> None:
    large = b"x" * 3_000_000  # more than a socket buffers
    thread = threading.Thread(target=lambda: [ends[0].send(message) for message in ("first", large, None)])
    thread.start()
    assert [ends[1].receive() for _ in range(3)] == [("first", []), (large, []), (None, [])]
    thread.join()


def test_descriptors_travel(ends: tuple[Channel, Channel]) -> None:
    reader, writer = os.pipe()
    ends[0].send("take it", [writer])
    os.close(writer)
    message, (received,) = ends[1].receive()
    assert message == "take it"
    os.write(received, b"hello")
    os.close(received)
    assert os.read(reader, 10) == b"hello"
    os.close(reader)


def test_as_many_descriptors_travel_as_the_system_allows(ends: tuple[Channel, Channel]) -> None:
    """A generation in 70 groups ended its last rank: more than 64 were taken for none."""
    reader, writer = os.pipe()
    ends[0].send("take them", [writer] * MOST_DESCRIPTORS)
    os.close(writer)
    _, received = ends[1].receive()
    assert len(received) == MOST_DESCRIPTORS
    for descriptor in (*received, reader):
        os.close(descriptor)


def test_closed_end_is_gone_for_the_other(ends: tuple[Channel, Channel]) -> None:
    assert readable(ends, 0) == []
    ends[0].close()
    assert readable(ends[1:], 0) == [0]
    with pytest.raises(Gone):
        ends[1].receive()
    with pytest.raises(Gone):
        ends[1].send("anybody?")
    with pytest.raises(Gone, match="closed here"):
        readable(ends, 0)


def test_peer_that_stops_in_the_middle_is_gone() -> None:
    one, other = socket.socketpair()
    one.send(b"half a")
    one.close()
    with pytest.raises(Gone):
        Channel(other).receive()
