"""How good every other place of a cut would be, if the other cuts moved to the best places for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipelab.candidates import Granularity
from pipelab.chain import Chain
from pipelab.errors import SplitError
from pipelab.hardware import HardwareLike
from pipelab.plan import Plan, as_run
from pipelab.planner import problem_of
from pipelab.problem import MemoryLimit, Objective, cost_text
from pipelab.table import format_table
from pipelab.windows import FloatArray

_MOST = 3000  # places: a table of all pairs then takes 72 MB


@dataclass(frozen=True)
class Landscape:
    """The best bottleneck that can be had for every cut at every place.

    Attributes:
        plan: The plan whose cuts are looked at.
        objective: What a bottleneck is: "params", "flops", "time" or "memory".
        positions: The places, by op position, ascending.
        values: Per cut of the plan and place: the least bottleneck with that cut there; infinite where none fits.
        optimum: The least of all: that of the best plan.
        fits: Whether any split fits the memory limits; if none does, the values are those with room for everything.
    """

    plan: Plan = field(repr=False)
    objective: Objective
    positions: tuple[int, ...]
    values: tuple[tuple[float, ...], ...] = field(repr=False)
    optimum: float
    fits: bool

    def at(self, cut: int, position: int) -> float:
        """The least bottleneck with one of the cuts at a place."""
        return self.values[cut][self.positions.index(position)]

    def __repr__(self) -> str:
        label, rows = self.plan.graph.label_at, []
        for index, (cut, values) in enumerate(zip(self.plan.cuts, self.values, strict=True)):
            here, least = self.at(index, cut), min(values)
            best = label(self.positions[values.index(least)])
            text = cost_text(self.objective, here) if np.isfinite(here) else "does not fit"
            rows.append([str(index + 1), label(cut), text, best, cost_text(self.objective, least)])
        return format_table(["cut", "lies", "best with it there", "best place", "then"], rows, left=(0, 1, 3))


def landscape(
    plan: Plan,
    *,
    objective: Objective | None = None,
    granularity: Granularity = "block",
    hardware: HardwareLike = None,
    memory_limit_bytes: MemoryLimit = None,
    num_microbatches: int | None = None,
) -> Landscape:
    """For each cut of a plan and every place it may have: the best bottleneck if it were there.

    The other cuts move freely, so the least value of every cut is the optimum. Time and memory grow with the square
    of the number of places: "block" and "narrow" answer at once.

    Args:
        plan: The plan.
        objective: As for `regret`.
        granularity: The places, as for `optimal`; the plan's own cuts are among them.
        hardware: As for `regret`.
        memory_limit_bytes: As for `regret`.
        num_microbatches: As for `regret`.

    Raises:
        SplitError: The objective or the granularity is unknown, or it has too many places.
        InputError: Hardware, limits or micro-batches do not fit.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(6))).eval()
        >>> plan = pipelab.split_at(pipelab.trace(model, torch.zeros(1, 16)), [1])
        >>> pipelab.landscape(plan).values  # the parameters of five layers, four, three, four, five
        ((1360.0, 1088.0, 816.0, 1088.0, 1360.0),)
    """
    plan = as_run(plan)
    problem = problem_of(
        plan,
        objective=objective,
        granularity=granularity,
        hardware=hardware,
        memory_limit_bytes=memory_limit_bytes,
        num_microbatches=num_microbatches,
    )
    values = through(stage_costs(problem.chain))
    optimum = float(values.min(initial=np.inf))
    fits = bool(np.isfinite(optimum)) or plan.num_stages == 1
    if not fits:
        values = through(stage_costs(problem.without_limits.chain))
        optimum = float(values.min(initial=np.inf))
    return Landscape(
        plan=plan,
        objective=problem.objective,
        positions=problem.positions[1:-1],
        values=tuple(tuple(row) for row in values[:, 1:-1].tolist()),
        optimum=optimum,
        fits=fits,
    )


def stage_costs(chain: Chain) -> list[FloatArray]:
    """Per stage, its costs from every candidate to every other; stages that are alike share one table."""
    if chain.num_segments > _MOST:
        raise SplitError(
            f"Comparing every two of {chain.num_segments - 1:,} places takes too much memory; it is done for up to "
            f'{_MOST:,}. Ask for fewer: granularity="narrow".'
        )
    everywhere = np.arange(chain.num_segments + 1)
    made: dict[int, FloatArray] = {}
    for stage, of in enumerate(chain.stages):
        if id(of) not in made:
            made[id(of)], _ = chain.tables(stage, everywhere, everywhere)
    return [made[id(of)] for of in chain.stages]


def through(costs: Sequence[FloatArray]) -> FloatArray:
    """The least bottleneck of all splits with cut k at candidate b: shape (stages - 1, candidates).

    It is the larger of the best that stages 0..k make of everything before b, and the rest of everything after.
    """
    before, after = [costs[0][0]], [costs[-1][:, -1]]
    for cost in costs[1:-1]:
        before.append(np.maximum(before[-1][:, None], cost).min(axis=0))
    for cost in costs[-2:0:-1]:
        after.append(np.maximum(cost, after[-1][None, :]).min(axis=1))
    if len(costs) == 1:
        return np.empty((0, len(costs[0])))
    least: FloatArray = np.maximum(np.array(before), np.array(after[::-1]))
    return least
