"""Turns a `Load` and its descriptors into a stage that runs: the rank's half of the wiring."""

import socket
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipelab.launch.counters import Counters
from pipelab.launch.links import BatchSink, BatchSource, LinkSink, LinkSource, Sink, Source, Specs, slots_of
from pipelab.launch.loop import Stage
from pipelab.launch.memory import Segment
from pipelab.launch.messages import BatchEnd, Join, Load
from pipelab.launch.signals import HAS_SEMAPHORES, SPIN_NS, Semaphores, Signals, Tokens
from pipelab.stage_module import StageModule


class Loader:
    """Keeps what outlives a stage: the weights.

    Args:
        join: Where they lie.
        descriptor: Of their segment.
    """

    def __init__(self, join: Join, descriptor: int) -> None:
        # Private: what an op writes into a weight must reach neither other ranks nor the next start.
        segment = Segment(descriptor, join.num_bytes, private=True)
        segment.close()
        self._weights = {placed.spec.name: placed.spec.unpack(segment.storage(placed)) for placed in join.weights}
        self._here: dict[str, Tensor] = {}
        self._device = torch.device("cpu")
        self._signals: list[Signals] = []

    def load(self, load: Load, descriptors: Sequence[int]) -> Stage:
        """The stage; the one before is let go."""
        torch.set_num_threads(load.num_threads)
        for signals in self._signals:
            signals.close()
        self._signals = []
        rest = list(descriptors)
        counters = Counters(_mapped(rest, load.counters_bytes))
        inputs = {size: stage.inputs for size, stage in load.tables.items()}
        outputs = {size: stage.outputs for size, stage in load.tables.items()}
        source = self._source(load, inputs, rest, counters)
        sink = self._sink(load, outputs, rest, counters)
        self._move([name for stage in load.tables.values() for name in stage.table.weights], torch.device(load.device))
        modules = {size: StageModule(stage.table, self._here, self._device) for size, stage in load.tables.items()}
        for module in modules.values():
            module.on_op = counters.on_op(load.rank)
        return Stage(load.rank, load.sizes, load.tables, modules, self._device, source, sink, counters)

    def _move(self, names: Sequence[str], device: torch.device) -> None:
        """Have exactly these weights on the device; those that are there stay, the others go."""
        kept = self._here if device == self._device else {}
        self._here = {name: kept[name] for name in names if name in kept}
        self._device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        for name in names:
            if name not in self._here:
                self._here[name] = self._weights[name].to(device)

    def _source(self, load: Load, specs: Mapping[int, Specs], rest: list[int], counters: Counters) -> Source:
        segment = _mapped(rest, load.source.num_bytes)
        if isinstance(load.source, BatchEnd):
            return BatchSource(segment, load.source, specs, load.sizes)
        signals = self._link_signals(load, segment, rest, counters, is_sender=False)
        return LinkSource(slots_of(segment, specs, load.sizes), signals, len(load.sizes))

    def _sink(self, load: Load, specs: Mapping[int, Specs], rest: list[int], counters: Counters) -> Sink:
        segment = _mapped(rest, load.sink.num_bytes)
        if isinstance(load.sink, BatchEnd):
            return BatchSink(segment, load.sink, specs, load.sizes)
        signals = self._link_signals(load, segment, rest, counters, is_sender=True)
        return LinkSink(slots_of(segment, specs, load.sizes), signals)

    def _link_signals(
        self, load: Load, segment: Segment, rest: list[int], counters: Counters, *, is_sender: bool
    ) -> Signals:
        end = socket.socket(fileno=rest.pop(0))
        spin_ns = SPIN_NS if load.has_core else 0
        signals: Signals = (
            Semaphores(segment, end, counters, is_sender=is_sender, spin_ns=spin_ns)
            if HAS_SEMAPHORES
            else Tokens(end, counters)
        )
        self._signals.append(signals)
        return signals


def _mapped(rest: list[int], num_bytes: int) -> Segment:
    """The next segment; mapped, it needs its descriptor no longer."""
    segment = Segment(rest.pop(0), num_bytes)
    segment.close()
    return segment
