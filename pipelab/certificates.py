"""Why no split is better: where each stage could end at all, if every stage had to cost less."""

from dataclasses import dataclass, field

import numpy as np

from pipelab.minmax import Optimum
from pipelab.problem import Problem


@dataclass(frozen=True)
class Certificate:
    """The proof that no split keeps a bound. It can be checked without the planner, in a few lines.

    Claim k is: from any end of stage k - 1 (stage 0 starts at op 0), stage k gets to no other candidate than those of
    `reachable[k]` at a cost of at most `bound` within its limit. If all claims hold and the end of the model is not
    among the last stage's ends, no split has a bottleneck of `bound` or less.

    Attributes:
        bound: The refused bottleneck, just below the optimum.
        positions: The candidates, by op position, both ends of the model included.
        reachable: Per stage, the positions where it can end.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4))).eval()
        >>> plan = pipelab.uniform(pipelab.trace(model, torch.zeros(1, 16)), num_stages=2)
        >>> pipelab.regret(plan).certificate.reachable  # with less than 2 layers, each stage gets one layer further
        ((1,), (2,))
    """

    bound: float
    positions: tuple[int, ...] = field(repr=False)
    reachable: tuple[tuple[int, ...], ...]


def certificate_of(problem: Problem, found: Optimum) -> Certificate:
    """The proof, by op positions."""
    reached = tuple(tuple(problem.positions[end] for end in ends) for ends in found.reached)
    missing = problem.num_stages - len(reached)
    return Certificate(found.refused, problem.positions, reached + ((),) * missing)


def why_nothing_is_better(problem: Problem, found: Optimum) -> str:
    """The proof in one sentence."""
    if found.cost <= 0:
        return "Nothing costs less than nothing."
    chain = problem.chain
    alone = np.min([chain.alone(stage) for stage in chain.unlike], axis=0)
    dearest = int(np.argmax(alone))
    if alone[dearest] > found.refused:
        return f"Nothing is better: {problem.holds(dearest, dearest + 1)} alone costs that much."
    if chain.num_stages == 1:
        return "Nothing is better: one stage runs everything."
    ends = [ends[ends < chain.num_segments] for ends in found.reached[: chain.num_stages - 1]]
    stages = sum(len(of_stage) > 0 for of_stage in ends)  # a stage without one has none after it either
    if not stages:
        return "Nothing is better: with less, the first stage could end nowhere."
    farthest = int(ends[stages - 1].max())
    label = problem.graph.label_at(problem.positions[farthest])
    first = "the first stage ends" if stages == 1 else f"the first {stages} stages end"
    rest = "the last one" if stages == chain.num_stages - 1 else "the others"
    return f"Nothing is better: with less, {first} {label} at the latest, and {rest} cannot run what is left."
