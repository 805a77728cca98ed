"""The whole batch at both ends of the pipeline, in memory that the ranks share."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelab.launch.memory import Place, Segment, lay_out, spec_of
from pipelab.program import StageTable, ValueSpec
from pipelab.tracing import Trace

# Micro-batch sizes and input shapes: what a loaded batch was made for.
Key = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class Batch:
    """The whole batch at one end of the pipeline.

    Attributes:
        segment: Its memory.
        places: Where each tensor lies.
        batched: Per tensor, whether micro-batches are slices of it.
    """

    segment: Segment
    places: tuple[Place, ...]
    batched: tuple[bool, ...]


class LoadedBatch:
    """The batch in memory that the ranks share.

    Args:
        key: Micro-batch sizes and input shapes it was made for.
        sizes: Rows of each micro-batch.
        inputs: The inputs.
        outputs: The outputs.
    """

    def __init__(self, key: Key, sizes: tuple[int, ...], inputs: Batch, outputs: Batch) -> None:
        self.key = key
        self.sizes = sizes
        self.inputs = inputs
        self.outputs = outputs
        for batch in (inputs, outputs):
            weakref.finalize(self, batch.segment.close)

    @classmethod
    def make(
        cls,
        traced: Trace,
        key: Key,
        sizes: tuple[int, ...],
        tables: dict[int, tuple[StageTable, ...]],
        inputs: Sequence[Tensor],
    ) -> "LoadedBatch":
        """Room for these inputs and the outputs they give."""
        going_in = [spec_of(info.name, tensor) for info, tensor in zip(traced.graph.inputs, inputs, strict=True)]
        parts = [tables[size][-1].outputs for size in sizes]
        coming_out = [
            _whole_spec([part[index] for part in parts], batched) for index, batched in enumerate(traced.output_batched)
        ]
        return cls(key, sizes, _batch(going_in, traced.batched), _batch(coming_out, traced.output_batched))

    def fill(self, inputs: Sequence[Tensor]) -> None:
        """Put inputs in place."""
        storage = self.inputs.segment.tensor()
        for place, tensor in zip(self.inputs.places, inputs, strict=True):
            place.write(storage, tensor)

    def read(self) -> list[Tensor]:
        """The outputs, copied out."""
        storage = self.outputs.segment.tensor()
        return [place.view(storage).clone() for place in self.outputs.places]


def _whole_spec(parts: Sequence[ValueSpec], batched: bool) -> ValueSpec:
    """The whole of which the parts are slices, without gaps."""
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:]) if batched else parts[0].shape
    return ValueSpec(parts[0].name, parts[0].dtype, shape, torch.empty(shape, device="meta").stride())


def _batch(specs: Sequence[ValueSpec], batched: tuple[bool, ...]) -> Batch:
    places: tuple[Place, ...]
    places, num_bytes = lay_out(specs)
    return Batch(Segment.create(num_bytes, "the batch"), places, batched)
