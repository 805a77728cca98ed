"""What ranks are to run, before any process is touched: the stages, for one way of splitting one size of batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from pipelab.launch import links
from pipelab.launch.memory import Segment, place
from pipelab.launch.messages import BatchEnd
from pipelab.plan import Plan
from pipelab.program import Row, StageTable, ValueSpec
from pipelab.stages import stage_tables, whole_table
from pipelab.tracing import Trace


@dataclass(frozen=True)
class Job:
    """Stages and micro-batches.

    Attributes:
        tables: Per rank, its stage for each size of micro-batch.
        sizes: Rows of each micro-batch.
        batched: Per input, whether micro-batches are rows of it.
        output_batched: The same per output.
    """

    tables: tuple[Mapping[int, StageTable], ...]
    sizes: tuple[int, ...]
    batched: tuple[bool, ...]
    output_batched: tuple[bool, ...]

    @classmethod
    def of_plan(cls, traced: Trace, plan: Plan, sizes: tuple[int, ...]) -> "Job":
        """The stages of a plan."""
        by_size = {size: stage_tables(traced, plan, size) for size in dict.fromkeys(sizes)}
        tables = tuple({size: by_size[size][rank] for size in by_size} for rank in range(plan.num_stages))
        return cls(tables, sizes, traced.batched, traced.output_batched)

    @classmethod
    def unsplit(cls, traced: Trace, batch_size: int) -> "Job":
        """The whole model as one stage, the batch as one micro-batch."""
        tables = ({batch_size: whole_table(traced, batch_size)},)
        return cls(tables, (batch_size,), traced.batched, traced.output_batched)

    @property
    def num_ranks(self) -> int:
        """One per stage."""
        return len(self.tables)

    @cached_property
    def inputs(self) -> BatchEnd:
        """Where the first stage finds each input of the whole batch."""
        batch_size = sum(self.sizes)
        specs = self.tables[0][self.sizes[0]].inputs
        rows = [batch_size if batched else None for batched in self.batched]
        return _batch_end(specs, self.batched, rows)

    @cached_property
    def outputs(self) -> BatchEnd:
        """Where the last stage puts each output of the whole batch."""
        last = self.tables[-1]
        specs = last[self.sizes[0]].outputs
        rows = [
            sum(last[size].outputs[index].shape[0] for size in self.sizes) if batched else None
            for index, batched in enumerate(self.output_batched)
        ]
        return _batch_end(specs, self.output_batched, rows)

    def link_bytes(self, index: int) -> int:
        """Bytes of the link between rank `index` and the next."""
        return links.link_bytes({size: stage.outputs for size, stage in self.tables[index].items()})

    def row(self, rank: int, op: int | None) -> Row | None:
        """The op of a rank's stage that its counters tell of."""
        rows = self.tables[rank][self.sizes[0]].table.rows
        return rows[op] if op is not None and op < len(rows) else None


def _batch_end(specs: Sequence[ValueSpec], batched: tuple[bool, ...], rows: Sequence[int | None]) -> BatchEnd:
    placed, num_bytes = place(links.contiguous(spec, count) for spec, count in zip(specs, rows, strict=True))
    return BatchEnd(placed, batched, num_bytes)


def fill(segment: Segment, end: BatchEnd, tensors: Sequence[Tensor]) -> None:
    """Copy the tensors of a batch into its segment."""
    for placed, tensor in zip(end.placed, tensors, strict=True):
        placed.spec.pack(tensor, segment.storage(placed))


def read(segment: Segment, end: BatchEnd) -> list[Tensor]:
    """The tensors of a batch, copied out of its segment."""
    return [placed.spec.unpack(segment.storage(placed)).clone() for placed in end.placed]
