"""Timelines at random on a grid of milliseconds: a pipeline's own, and events that mean nothing."""

from hypothesis import strategies as st

from pipelab.events import Event, Kind, Timeline, ordered

GRID_S = 1e-3
_COMPUTE: tuple[Kind, ...] = ("F", "B", "I", "W")


@st.composite
def any_timeline(draw: st.DrawFn) -> Timeline:
    """Each rank computes one thing at a time; it sends, receives and waits whenever."""
    num_ranks = draw(st.integers(1, 4))
    events: list[Event] = []
    for rank in range(num_ranks):
        at = draw(st.integers(0, 5))
        for number in range(draw(st.integers(0, 6))):
            start = at + draw(st.integers(0, 3))
            at = start + draw(st.integers(0, 4))
            events.append(_event(rank, number, draw(st.sampled_from(_COMPUTE)), start, at))
        for number in range(draw(st.integers(0, 6))):
            start = draw(st.integers(0, 30))
            kind: Kind = draw(st.sampled_from(("send", "recv", "wait")))
            events.append(_event(rank, number, kind, start, start + draw(st.integers(0, 9))))
    return Timeline(ordered(events), num_ranks, num_ranks, 6)


@st.composite
def pipeline_timeline(draw: st.DrawFn) -> Timeline:
    """What ranks record: wait, receive, compute, send for each micro-batch; nothing that takes no time."""
    num_ranks, num_microbatches = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    events: list[Event] = []
    free = [0] * num_ranks
    for microbatch in range(num_microbatches):
        arrived = 0
        for rank in range(num_ranks):
            begin = max(arrived, free[rank])
            spans: list[tuple[Kind, int]] = [("wait", begin - free[rank]), ("recv", draw(st.integers(0, 2)))]
            spans += [
                ("F", draw(st.integers(0, 5))),
                ("wait", draw(st.integers(0, 2))),
                ("send", draw(st.integers(0, 2))),
            ]
            at = free[rank]
            for kind, length in spans:
                if length:
                    events.append(_event(rank, microbatch, kind, at, at + length))
                at += length
            free[rank] = arrived = at
    return Timeline(ordered(events), num_ranks, num_ranks, num_microbatches)


def _event(rank: int, microbatch: int, kind: Kind, start: int, end: int) -> Event:
    return Event(rank, rank, microbatch, kind, start * GRID_S, end * GRID_S, 10 if kind in ("send", "recv") else 0)
