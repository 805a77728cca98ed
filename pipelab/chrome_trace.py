"""A timeline in the format that Perfetto and chrome://tracing open: one process per rank, arrows for what is sent.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from typing import Any

from pipelab.events import COMPUTE, Event, Timeline

_WORDS = {
    "F": "forward", "B": "backward", "I": "backward, inputs", "W": "backward, weights",
    "send": "send", "recv": "receive",
}  # fmt: skip
# Slices of one thread must not overlap, and a rank may compute, send on and send back at once.
_COMPUTES, _SENDS_ON, _SENDS_BACK, _RECEIVES = range(4)
_THREADS = ("computes", "sends on", "sends back", "receives")
_Key = tuple[int, int, str]  # stage, micro-batch, what


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """The timeline as a JSON-ready dict of trace events, in microseconds from its start."""
    slices: list[tuple[Event, int]] = []
    sent: set[tuple[int, int]] = set()
    for event in timeline.events:
        if event.kind == "wait":  # a gap says the same
            continue
        back = event.kind == "send" and _is_back(event, timeline, sent)
        slices.append((event, _thread(event, back)))
    events = [_slice(event, thread, timeline.start_s) for event, thread in slices]
    used = sorted({(event.rank, thread) for event, thread in slices})
    return {
        "traceEvents": [*_names(timeline, used), *events, *_arrows(slices, timeline)],
        "displayTimeUnit": "ms",
        "otherData": {"source": timeline.source},
    }


def _is_back(event: Event, timeline: Timeline, sent: set[tuple[int, int]]) -> bool:
    """Whether a gradient is sent: what a stage sends second of a micro-batch, and all that the last one sends."""
    key = event.stage, event.microbatch
    back = timeline.has_backward and (key in sent or event.stage == timeline.num_stages - 1)
    sent.add(key)
    return back


def _thread(event: Event, back: bool) -> int:
    if event.kind in COMPUTE:
        return _COMPUTES
    if event.kind == "recv":
        return _RECEIVES
    return _SENDS_BACK if back else _SENDS_ON


def _slice(event: Event, thread: int, start_s: float) -> dict[str, Any]:
    about = {"stage": event.stage, "micro-batch": event.microbatch}
    return {
        "name": f"{event.stage}{event.kind}{event.microbatch}" if event.kind in COMPUTE else _WORDS[event.kind],
        "cat": _WORDS[event.kind],
        "ph": "X",
        "ts": _us(event.start_s - start_s),
        "dur": round(_us(event.end_s - start_s) - _us(event.start_s - start_s), 3),
        "pid": event.rank,
        "tid": thread,
        "args": {**about, "bytes": event.num_bytes} if event.num_bytes else about,
    }


def _us(seconds: float) -> float:
    """Microseconds, in whole nanoseconds: readers round to those, and slices that touch must not overlap then."""
    return round(seconds * 1e9) / 1e3


def _names(timeline: Timeline, used: list[tuple[int, int]]) -> list[dict[str, Any]]:
    ranks = [
        {"name": "process_name", "ph": "M", "pid": rank, "tid": 0, "args": {"name": f"rank {rank}"}}
        for rank in range(timeline.num_ranks)
    ]
    order = [
        {"name": "process_sort_index", "ph": "M", "pid": rank, "tid": 0, "args": {"sort_index": rank}}
        for rank in range(timeline.num_ranks)
    ]
    threads = [
        {"name": "thread_name", "ph": "M", "pid": rank, "tid": thread, "args": {"name": _THREADS[thread]}}
        for rank, thread in used
    ]
    return [*ranks, *order, *threads]


def _arrows(slices: list[tuple[Event, int]], timeline: Timeline) -> list[dict[str, Any]]:
    """From each send to where it is received, or where that was not recorded to what is computed with it."""
    taken: dict[_Key, tuple[Event, int]] = {}
    for event, thread in slices:
        if event.kind != "send":
            what = {"B": "back", "I": "back", "F": "on", "recv": "recv"}.get(event.kind, "")
            taken.setdefault((event.stage, event.microbatch, what), (event, thread))
    arrows: list[dict[str, Any]] = []
    for event, thread in slices:
        if event.kind != "send":
            continue
        stage, what = (event.stage - 1, "back") if thread == _SENDS_BACK else (event.stage + 1, "on")
        key = stage, event.microbatch
        target = (taken.get((*key, "recv")) if what == "on" else None) or taken.get((*key, what))
        if target is not None:
            number = len(arrows)
            arrows.append(_end("s", event, thread, _us(event.start_s - timeline.start_s), number))
            arrows.append(_end("f", *target, _us(target[0].start_s - timeline.start_s), number))
    return arrows


def _end(phase: str, event: Event, thread: int, time_us: float, number: int) -> dict[str, Any]:
    return {
        "name": "boundary", "cat": "transfer", "ph": phase, "bp": "e", "id": number, "ts": time_us,
        "pid": event.rank, "tid": thread,
    }  # fmt: skip
