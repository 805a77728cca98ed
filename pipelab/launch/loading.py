"""Turns a `Load` or `RingLoad` and its descriptors into a stage that runs: the rank's half of the wiring."""

import gc
import os
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from pipelab.launch.counters import Counters
from pipelab.launch.ends import Ends, mapped
from pipelab.launch.flow import RingEnds, RingStage
from pipelab.launch.loop import Stage
from pipelab.launch.memory import Segment
from pipelab.launch.messages import Gather, Join, Load, RingLoad
from pipelab.stage_module import StageModule


class Loader:
    """Keeps what outlives a stage: the weights.

    Args:
        join: Where they lie.
        descriptor: Of their segment.

    Attributes:
        counters: What this rank publishes, from the first moment of the first `load`.
    """

    def __init__(self, join: Join, descriptor: int) -> None:
        # Private: what an op writes into a weight must reach neither other ranks nor the next start.
        segment = Segment(descriptor, join.num_bytes, private=True)
        segment.close()
        self._weights = {placed.spec.name: placed.spec.unpack(segment.storage(placed)) for placed in join.weights}
        self._pieces = join.pieces
        self._here: dict[str, Tensor] = {}
        self._device = torch.device("cpu")
        self._ends: Ends | RingEnds | None = None
        self._originals: list[tuple[Tensor, Tensor]] = []  # weights that ops write to, and what they were at first
        self.counters: Counters | None = None

    def load(self, load: Load | RingLoad, descriptors: Sequence[int]) -> Stage | RingStage:
        """The stage; the one before is let go."""
        rest = list(descriptors)
        try:
            counters = self._begin(load, rest)
            return self._stage(load, rest, counters) if isinstance(load, Load) else self._ring(load, rest, counters)
        finally:
            for descriptor in rest:  # if it failed half way
                os.close(descriptor)

    def gather(self, wanted: Gather, descriptors: Sequence[int]) -> None:
        """Read weights from files into memory that others map."""
        rest = list(descriptors)
        try:
            self.counters = counters = Counters(mapped(rest, wanted.counters_bytes))
            memory = mapped(rest, wanted.num_bytes)
        finally:
            for descriptor in rest:
                os.close(descriptor)
        pieces = [self._pieces[placed.spec.name] for placed in wanted.placed]
        counters.begin_reading(0, sum(piece.num_bytes for piece in pieces))
        for placed, piece in zip(wanted.placed, pieces, strict=True):
            placed.spec.pack(piece.read("cpu", partial(counters.count_read, 0)), memory.storage(placed))

    def _begin(self, load: Load | RingLoad, rest: list[int]) -> Counters:
        torch.set_num_threads(load.num_threads)
        while self._originals:
            weight, original = self._originals.pop()
            weight.copy_(original)
        if self._ends is not None:
            self._ends.close()
            self._ends = None
            gc.collect()  # a stage refers to itself, and would keep its memory and descriptors for a while
        self.counters = Counters(mapped(rest, load.counters_bytes))
        return self.counters

    def _stage(self, load: Load, rest: list[int], counters: Counters) -> Stage:
        names = dict.fromkeys(name for stage in load.tables.values() for name in stage.table.weights)
        self._move(tuple(names), torch.device(load.device), counters, load.rank)
        self._ends = ends = Ends(load, counters, rest, self._device)
        modules = {size: StageModule(stage.table, self._here, self._device) for size, stage in load.tables.items()}
        for module in modules.values():
            module.on_op = counters.on_op(load.rank)
        written = dict.fromkeys(name for stage in load.tables.values() for name in stage.table.written)
        self._originals = [(self._here[name], self._here[name].clone()) for name in written]
        return Stage(
            load.rank, load.sizes, load.tables, modules, self._device, ends.source, ends.sink, counters, self._originals
        )

    def _ring(self, load: RingLoad, rest: list[int], counters: Counters) -> RingStage:
        self._ends = ends = RingEnds(load, rest)
        names = dict.fromkeys(name for stage in load.programs for name in stage.table.weights)
        wanted = [name for name in names if name not in load.constants]
        self._move(wanted, torch.device(load.device), counters, load.rank)
        here = {**self._here, **{name: tensor.to(self._device) for name, tensor in load.constants.items()}}
        modules = [StageModule(stage.table, here, self._device) for stage in load.programs]
        first_op = 0
        for module in modules:  # counted one after another
            module.on_op = counters.on_op(load.rank, first_op)
            first_op += len(module.table.rows)
        return RingStage(load.rank, load.programs, modules, load.groups, self._device, ends, counters)

    def _move(self, names: Sequence[str], device: torch.device, counters: Counters, rank: int) -> None:
        """Have exactly these weights on the device; those that are there stay, the others go.

        What was read before an error is there for the next load.
        """
        kept = self._here if device == self._device else {}
        self._here = {name: kept[name] for name in names if name in kept}
        self._device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.cuda.empty_cache()  # what went may be what another rank on this GPU needs
        missing = [name for name in names if name not in self._here]
        counters.begin_reading(rank, sum(self._pieces[name].num_bytes for name in missing if name in self._pieces))
        for name in missing:
            piece = self._pieces.get(name)
            told = partial(counters.count_read, rank)
            self._here[name] = piece.read(device, told) if piece else self._weights[name].to(device)
