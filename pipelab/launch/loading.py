"""Turns a `Load` and its descriptors into a stage that runs: the rank's half of the wiring."""

import gc
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from pipelab.launch.counters import Counters
from pipelab.launch.ends import Ends, mapped
from pipelab.launch.loop import Stage
from pipelab.launch.memory import Segment
from pipelab.launch.messages import Join, Load
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
        self._here: dict[str, Tensor] = {}
        self._device = torch.device("cpu")
        self._ends: Ends | None = None
        self.counters: Counters | None = None

    def load(self, load: Load, descriptors: Sequence[int]) -> Stage:
        """The stage; the one before is let go."""
        rest = list(descriptors)
        try:
            return self._stage(load, rest)
        finally:
            for descriptor in rest:  # if it failed half way
                os.close(descriptor)

    def _stage(self, load: Load, rest: list[int]) -> Stage:
        torch.set_num_threads(load.num_threads)
        if self._ends is not None:
            self._ends.close()
            self._ends = None
            gc.collect()  # a stage refers to itself, and would keep its memory and descriptors for a while
        self.counters = counters = Counters(mapped(rest, load.counters_bytes))
        self._move([name for stage in load.tables.values() for name in stage.table.weights], torch.device(load.device))
        self._ends = ends = Ends(load, counters, rest, self._device)
        modules = {size: StageModule(stage.table, self._here, self._device) for size, stage in load.tables.items()}
        for module in modules.values():
            module.on_op = counters.on_op(load.rank)
        return Stage(load.rank, load.sizes, load.tables, modules, self._device, ends.source, ends.sink, counters)

    def _move(self, names: Sequence[str], device: torch.device) -> None:
        """Have exactly these weights on the device; those that are there stay, the others go."""
        kept = self._here if device == self._device else {}
        self._here = {name: kept[name] for name in names if name in kept}
        self._device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.cuda.empty_cache()  # what went may be what another rank on this GPU needs
        for name in names:
            if name not in self._here:
                self._here[name] = self._weights[name].to(device)
