"""How PiPPy weighs a stage."""

from pipelab.greedy import charges_of
from pipelab.plan import Plan


def charged(plan: Plan) -> list[int]:
    """Elements per stage as PiPPy weighs them: each name once."""
    charges = charges_of(plan.graph)
    stages = [
        {k: v for op in range(start, stop) for k, v in charges.get(op, {}).items()} for start, stop in plan.bounds
    ]
    return [sum(stage.values()) for stage in stages]
