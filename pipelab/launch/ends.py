"""The two ends of a rank's stage, made of the descriptors that came with its `Load`: by the kind of each link."""

import socket
from collections.abc import Mapping
from contextlib import ExitStack

import torch

from pipelab.launch.counters import Counters
from pipelab.launch.devices import PROCESS_GROUPS, LinkKind
from pipelab.launch.gpu_memory import Pinned
from pipelab.launch.host_memory_links import HostMemorySink, HostMemorySource
from pipelab.launch.links import (
    BatchSink,
    BatchSource,
    LinkSink,
    LinkSource,
    Sink,
    Slots,
    Source,
    Specs,
    slots_of,
    slots_on,
)
from pipelab.launch.memory import Segment
from pipelab.launch.messages import BatchEnd, Load
from pipelab.launch.process_group_links import GroupSink, GroupSource, Pair
from pipelab.launch.signals import HAS_SEMAPHORES, SPIN_NS, Semaphores, Signals, Tokens
from pipelab.writes import leaves_inputs


class Ends:
    """Where a stage's values come from and go to.

    Args:
        load: What kinds they are.
        counters: What the rank publishes.
        rest: Descriptors from those of the source on, as `Load` lists them; what is used is taken out.
        device: Where the stage computes.

    Attributes:
        source: Where its values come from.
        sink: Where its results go.
    """

    def __init__(self, load: Load, counters: Counters, rest: list[int], device: torch.device) -> None:
        self._load = load
        self._counters = counters
        self._rest = rest
        self._device = device
        self._is_read_only = all(leaves_inputs(stage.table) for stage in load.tables.values())
        self._open = ExitStack()
        try:
            self.source = self._source({size: stage.inputs for size, stage in load.tables.items()})
            self.sink = self._sink({size: stage.outputs for size, stage in load.tables.items()})
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the neighbours. Nobody may use the values any more."""
        self._open.close()

    def _source(self, specs: Mapping[int, Specs]) -> Source:
        end, sizes = self._load.source, self._load.sizes
        segment = mapped(self._rest, end.num_bytes)
        if isinstance(end, BatchEnd):
            return BatchSource(segment, end, specs, sizes, self._device, is_read_only=self._is_read_only)
        signals = self._signals(segment, is_sender=False)
        if end.kind in PROCESS_GROUPS:
            group = GroupSource(self._pair(end.kind, is_sender=False), self._slots(specs), signals, len(sizes))
            self._open.callback(group.close)
            return group
        shared = slots_of(segment, specs, sizes)
        if end.kind == "shared memory":
            return LinkSource(shared, signals, len(sizes), is_read_only=self._is_read_only)
        self._pin(segment)
        return HostMemorySource(shared, self._slots(specs), signals, len(sizes), self._device)

    def _sink(self, specs: Mapping[int, Specs]) -> Sink:
        end, sizes = self._load.sink, self._load.sizes
        segment = mapped(self._rest, end.num_bytes)
        if isinstance(end, BatchEnd):
            return BatchSink(segment, end, specs, sizes)
        signals = self._signals(segment, is_sender=True)
        if end.kind in PROCESS_GROUPS:
            group = GroupSink(self._pair(end.kind, is_sender=True), self._slots(specs), signals, self._device)
            self._open.callback(group.close)
            return group
        shared = slots_of(segment, specs, sizes)
        if end.kind == "shared memory":
            return LinkSink(shared, signals)
        self._pin(segment)
        return HostMemorySink(shared, self._slots(specs), signals, self._device)

    def _slots(self, specs: Mapping[int, Specs]) -> Slots:
        """Slots of this rank's own, on its device."""
        return slots_on(self._device, specs, self._load.sizes)

    def _signals(self, segment: Segment, *, is_sender: bool) -> Signals:
        end = socket.socket(fileno=self._rest.pop(0))
        spin_ns = SPIN_NS if self._load.has_core else 0
        signals: Signals = (
            Semaphores(segment, end, self._counters, is_sender=is_sender, spin_ns=spin_ns)
            if HAS_SEMAPHORES
            else Tokens(end, self._counters)
        )
        self._open.callback(signals.close)
        return signals

    def _pair(self, kind: LinkKind, *, is_sender: bool) -> Pair:
        pair = Pair(kind, self._rest.pop(0), is_sender=is_sender)
        self._open.callback(pair.close)
        return pair

    def _pin(self, segment: Segment) -> None:
        if self._device.type == "cuda":
            self._open.callback(Pinned(segment.bytes).close)


def mapped(rest: list[int], num_bytes: int) -> Segment:
    """The next segment; mapped, it needs its descriptor no longer."""
    segment = Segment(rest.pop(0), num_bytes)
    segment.close()
    return segment
