"""The programs of one generation: each kind of step, for each number of rows and length, cut where the plan is cut."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pipelab.errors import SplitError
from pipelab.graph import Graph
from pipelab.launch.ring_job import Borrowed, RingJob
from pipelab.plan import Plan
from pipelab.program import Ref, Row, StageTable, Table, ValueSpec
from pipelab.split_points import resolve
from pipelab.stages import step_tables

if TYPE_CHECKING:
    from pipelab.token_steps import Kind, Lengths, TokenSteps

BEAMS = "beams"  # the program that has each row of a group go on from another row's caches

Phase = Literal["prefill", "decode", "beams"]


class Programs:
    """What ranks run, and the number of each program.

    Args:
        steps: The model's steps.
        plan: Where the model is cut.
        wanted: The kinds of steps, each for the rows of one group.
        group_rows: Rows of each group.
        has_beams: Whether rows go on from other rows.

    Attributes:
        job: What ranks run.
        has_cache: Whether they keep caches from step to step.

    Raises:
        TraceError: A step cannot be traced.
        SplitError: A cut of the plan is no cut of a step.
    """

    def __init__(
        self,
        steps: "TokenSteps",
        plan: Plan,
        wanted: Sequence[tuple["Kind", "Lengths"]],
        group_rows: Sequence[int],
        has_beams: bool,
    ) -> None:
        borrowed = Borrowed(plan.graph)
        programs: list[tuple[StageTable, ...]] = []
        self._numbers: dict[tuple[str, int, int], int] = {}
        for kind, lengths in wanted:
            step = steps.step(kind, lengths.source)
            cuts = step_cuts(plan, step.traced.graph, steps.encoder if kind == "next" else None)
            tables = step_tables(step.traced, cuts, step.shapes(lengths))
            self._numbers[kind, lengths.rows, lengths.new] = len(programs)
            programs.append(borrowed.renamed(step.traced, tables, kind))
            if kind == "next" and has_beams:
                self._numbers[BEAMS, lengths.rows, 0] = len(programs)
                programs.append(tuple(_follow_beams(stage) for stage in tables))
        self.job = RingJob(tuple(programs), tuple(group_rows), borrowed.constants)
        self.has_cache = any(kind == "prompt" for kind, _ in wanted)
        # Without a cache a step is longer than the prompt from the second token on.
        self._shortest = min(lengths.new for kind, lengths in wanted if kind != "next")

    def number(self, kind: str, rows: int, new: int) -> int:
        """The program of a kind of step for this many rows and new tokens."""
        return self._numbers[kind, rows, new]

    def phase(self, number: int) -> Phase:
        """What a program is for."""
        (kind, _, new) = next(key for key, known in self._numbers.items() if known == number)
        if kind == BEAMS:
            return "beams"
        return "prefill" if kind == "prompt" or (kind == "whole" and new == self._shortest) else "decode"


def step_cuts(plan: Plan, graph: Graph, left_out: str | None) -> tuple[int, ...]:
    """The cuts of a plan in another graph of its model.

    Args:
        plan: The plan.
        graph: The other graph.
        left_out: Path of a module at the model's beginning that the other graph does not run; what is cut in it or
            before it is empty there.

    Raises:
        SplitError: A cut has no place there; names the nearest.
    """
    first = 0
    if left_out is not None:
        prefix = f"{left_out}."
        first = 1 + max(index for index, op in enumerate(plan.graph.ops) if f"{op.module}.".startswith(prefix))
    cuts = [0 if at < first else _resolved(graph, name) for at, name in zip(plan.cuts, plan.split_points, strict=True)]
    for (before, after), name in zip(pairwise((0, *cuts)), plan.split_points, strict=True):
        if after < before:
            raise SplitError(
                f"In a step of generation the cut {name!r} lies before the one before it. Cut between blocks to "
                "generate."
            )
    return tuple(cuts)


def _resolved(graph: Graph, name: str) -> int:
    try:
        return resolve(graph, name)
    except SplitError as error:
        raise SplitError(f"A step of generation cannot be cut where this plan is. {error}") from error


def _follow_beams(stage: StageTable) -> StageTable:
    """The stage that has each row go on from the caches of the row that an input names."""
    rows = stage.microbatch_size
    beams = ValueSpec(BEAMS, "int64", (rows,), (1,))
    # What is kept of the encoder's output is the same for all beams of a sequence.
    kept = [spec for spec in stage.kept if not spec.name.startswith("cross_")]
    ops = []
    for spec in kept:
        picked = f"{spec.name}_picked"
        ops.append(Row(picked, "aten.index_select.default", "", (Ref(spec.name), 0, Ref(BEAMS)), {}))
        ops.append(
            Row(f"{spec.name}_now", "aten.copy_.default", "", (Ref(spec.name), Ref(picked)), {}, (picked, spec.name))
        )
    names = (BEAMS, *(spec.name for spec in kept))
    return StageTable(stage.index, rows, Table(names, tuple(ops), (BEAMS,)), (beams,), (beams,), tuple(kept))
