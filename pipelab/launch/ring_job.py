"""What ranks are to run in a ring, before any process is touched: programs, groups of rows, what is kept of each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from pipelab.graph import Graph
from pipelab.launch.ring import GroupSlots, Specs
from pipelab.program import Row, StageTable, ValueSpec
from pipelab.tracing import Trace


@dataclass(frozen=True)
class RingJob:
    """Programs and groups.

    Attributes:
        programs: Each kind of step for each number of rows: its stages, by rank.
        group_rows: Rows of each group.
        constants: Tensors the programs read that are no weights of the model.
    """

    programs: tuple[tuple[StageTable, ...], ...]
    group_rows: tuple[int, ...]
    constants: Mapping[str, Tensor]

    @property
    def num_ranks(self) -> int:
        """One per stage."""
        return len(self.programs[0])

    def of_rank(self, rank: int) -> tuple[StageTable, ...]:
        """The rank's stage of each program."""
        return tuple(stages[rank] for stages in self.programs)

    def kept(self, rank: int) -> tuple[tuple[ValueSpec, ...], ...]:
        """Per group, what the rank keeps of it."""
        by_rows: dict[int, dict[str, ValueSpec]] = {rows: {} for rows in self.group_rows}
        for stage in self.of_rank(rank):
            by_rows[stage.microbatch_size].update({spec.name: spec for spec in stage.kept})
        return tuple(tuple(by_rows[rows].values()) for rows in self.group_rows)

    def values_before(self, rank: int) -> list[Specs]:
        """Per program, what a rank is given."""
        return [stage.inputs for stage in self.of_rank(rank)]

    def values_behind(self, rank: int) -> list[Specs]:
        """Per program, what a rank hands on."""
        return [stage.outputs for stage in self.of_rank(rank)]

    def slots_bytes(self, index: int) -> int:
        """Bytes of the slots before rank `index`; behind the last one if it is the number of ranks."""
        specs = self.values_before(index) if index < self.num_ranks else self.values_behind(index - 1)
        return GroupSlots.num_bytes(specs, len(self.group_rows))

    def row(self, rank: int, op: int | None) -> Row | None:
        """The op that a rank's counters tell of: they count through all programs."""
        rows = [row for stage in self.of_rank(rank) for row in stage.table.rows]
        return rows[op] if op is not None and op < len(rows) else None


class Borrowed:
    """Weights that the programs of other traces of a model read, by the names that ranks know.

    Args:
        graph: Of the trace whose weights ranks hold.

    Attributes:
        constants: What the other traces have of their own.
    """

    def __init__(self, graph: Graph) -> None:
        self._known = graph.weight_by_name
        self.constants: dict[str, Tensor] = {}

    def renamed(self, traced: Trace, tables: Iterable[StageTable], prefix: str) -> tuple[StageTable, ...]:
        """Tables of another trace that read the weights that ranks hold.

        Args:
            traced: The other trace.
            tables: Its stages.
            prefix: Tells its own constants from those of others.
        """
        return tuple(self._renamed(traced, table, prefix) for table in tables)

    def _renamed(self, traced: Trace, stage: StageTable, prefix: str) -> StageTable:
        names = [*stage.table.weights, *(stage.table.aliases or {})]
        first = {name: self._name(traced, name, prefix) for name in names}
        weights = tuple(dict.fromkeys(first.values()))
        aliases = {name: known for name, known in first.items() if name != known}
        return replace(stage, table=replace(stage.table, weights=weights, aliases=aliases))

    def _name(self, traced: Trace, name: str, prefix: str) -> str:
        known = self._known.get(name)
        if known is not None and traced.graph.weight_by_name[name].kind != "constant":
            return known.tied_to
        own = f"{prefix}:{name}"
        self.constants[own] = traced.program.weights[name].detach().cpu()
        return own


def rows_of_groups(num_rows: int, num_groups: int) -> Sequence[int]:
    """Rows of each group, as `torch.tensor_split` divides: 8 in 3 is 3, 3, 2."""
    share, rest = divmod(num_rows, num_groups)
    return [share + (index < rest) for index in range(num_groups)]
