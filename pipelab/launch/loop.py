"""One step of one rank: receive, compute, send, for every micro-batch in order (fill-drain).

wait   until the input is there            recv   take it up
F      compute                             wait   until the output slot is free
send   copy the output into it             then give the input slot back: values may be views of it
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelab.events import Event, Kind
from pipelab.launch.links import Link
from pipelab.launch.messages import Edge
from pipelab.program import StageModule, StageTable, ValueSpec


class WholeBatch:
    """The end of the pipeline: the model's inputs or outputs, of which a micro-batch is a slice.

    Args:
        edge: Where the tensors lie.
        storage: The segment's bytes.
        sizes: Rows of each micro-batch.
    """

    def __init__(self, edge: Edge, storage: Tensor, sizes: Sequence[int]) -> None:
        self._wholes = [place.view(storage) for place in edge.whole]
        self._batched = edge.batched
        self._sizes = sizes

    def read(self, specs: Sequence[ValueSpec], microbatch: int) -> list[Tensor]:
        """A micro-batch of the inputs, copied: an op that writes to its input must not spoil the next step."""
        values = []
        for part, spec in zip(self._parts(microbatch), specs, strict=True):
            buffer = torch.empty(spec.num_bytes, dtype=torch.uint8)
            spec.pack(part, buffer)
            values.append(spec.unpack(buffer))
        return values

    def write(self, values: Sequence[Tensor], microbatch: int) -> None:
        """Put a micro-batch of the outputs at its place, so that nothing is left to merge."""
        for part, value in zip(self._parts(microbatch), values, strict=True):
            part.copy_(value)

    def _parts(self, microbatch: int) -> list[Tensor]:
        parts = []
        for whole, batched in zip(self._wholes, self._batched, strict=True):
            if batched:  # a dimension of 8 rows may hold 3 elements per row
                per_row = whole.shape[0] // sum(self._sizes)
                start, rows = sum(self._sizes[:microbatch]), self._sizes[microbatch]
                parts.append(whole.narrow(0, start * per_row, rows * per_row))
            else:
                parts.append(whole)
        return parts


@dataclass
class Stage:
    """A loaded stage.

    Attributes:
        rank: The rank that holds it.
        tables: Its table for each micro-batch size.
        modules: Its module for each micro-batch size.
        sizes: Rows of each micro-batch.
        before: Where values come from.
        after: Where values go.
        device: Where it runs.
    """

    rank: int
    tables: dict[int, StageTable]
    modules: dict[int, StageModule]
    sizes: tuple[int, ...]
    before: Link | WholeBatch
    after: Link | WholeBatch
    device: torch.device

    def run(self, step: int) -> tuple[Event, ...]:
        """Run every micro-batch once; returns what happened."""
        recorder = _Recorder(self.rank)
        for microbatch, size in enumerate(self.sizes):
            recorder.microbatch = microbatch
            self._microbatch(step, microbatch, self.tables[size], self.modules[size], recorder)
        return tuple(recorder.events)

    def _microbatch(
        self, step: int, microbatch: int, table: StageTable, module: StageModule, recorder: "_Recorder"
    ) -> None:
        if isinstance(self.before, Link):
            arrived = self.before.receive(table.inputs, step, microbatch)
            recorder.record("wait")
        else:
            arrived = self.before.read(table.inputs, microbatch)
        values = [value.to(self.device) for value in arrived]
        recorder.record("recv", sum(spec.num_bytes for spec in table.inputs))
        outputs = module(*values)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        recorder.record("F")
        if isinstance(self.after, Link):
            self.after.wait_free(step, microbatch)
            recorder.record("wait")
            self.after.send(outputs, table.outputs, step, microbatch)
        else:
            self.after.write(outputs, microbatch)
        recorder.record("send", sum(spec.num_bytes for spec in table.outputs))
        if isinstance(self.before, Link):
            self.before.release(step, microbatch)

    def close(self) -> None:
        """Give the links back."""
        for end in (self.before, self.after):
            if isinstance(end, Link):
                end.close()


class _Recorder:
    """Events back to back on the machine's monotonic clock, which all its processes share."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.microbatch = 0
        self.events: list[Event] = []
        self._last_ns = time.monotonic_ns()

    def record(self, kind: Kind, num_bytes: int = 0) -> None:
        """Everything since the last event was this."""
        now_ns = time.monotonic_ns()
        start_s, end_s = self._last_ns / 1e9, now_ns / 1e9
        self.events.append(Event(self.rank, self.rank, self.microbatch, kind, start_s, end_s, num_bytes))
        self._last_ns = now_ns
