"""What the browser half of a comparison needs: every figure it tells, as the Comparison has it."""

from typing import Any

from pipelab.comparison import Comparison
from pipelab.contenders import Contender
from pipelab.names import printable
from pipelab.plan import shorten
from pipelab.viz.explorer_state import report_state, timeline_state


def comparison_state(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain JSON; see `graph_state` for its model."""
    return {
        "verdict": comparison.verdict,
        "about": _about(comparison),
        "objective": comparison.objective,
        "best": comparison.best.name,
        "refusals": list(comparison.refusals),
        "notes": list(comparison.notes[:2]),
        "places": [round(place, 9) for place in comparison.places],
        "entries": [_entry_state(entry) for entry in comparison.entries],
    }


def _about(comparison: Comparison) -> str:
    """The batch, what times rest on, and how a plan can be below the optimum."""
    about = comparison.title.partition(": ")[2]
    is_below = any(entry.above_text.endswith("below") for entry in comparison.entries)
    inside = "Optimal is the best split between blocks; a plan below it also cuts inside them."
    return f"{about}. {inside}" if is_below else about


def _entry_state(entry: Contender) -> dict[str, Any]:
    return {
        "name": entry.name,
        "policy": printable(policy_words(entry)),
        "cuts": list(entry.plan.cuts),
        "stages": [
            {
                "labels": shorten(stage.labels),
                "params": stage.num_params,
                "work_s": entry.stage_s[stage.index],
                "memory": entry.memory_bytes[stage.index],
                "capacity": entry.capacity_bytes[stage.index],
            }
            for stage in entry.plan.stages
        ],
        "largest": entry.largest,
        "bottleneck": {
            "stage": entry.slowest if entry.slow_link is None else None,
            "text": entry.bottleneck_text,
            "seconds": entry.bottleneck_s,
        },
        "step_s": entry.step_s,
        "idle": entry.predicted.bubble_fraction,
        "fullest": entry.fullest,
        "misfits": list(entry.misfits),
        "sent_bytes": entry.sent_bytes,
        "above": entry.above,
        "above_text": entry.above_text,
        "predicted": timeline_state(entry.predicted),
        "measured": report_state(entry.report) if entry.report else None,
        "measured_text": entry.measured_text,
        "shares_axis": entry.shares_axis,
    }


def policy_words(entry: Contender) -> str:
    """A plan's policy without what its name says already: "PiPPy, greedy"; empty where that is all."""
    name, policy = entry.name, entry.plan.policy
    rest = policy.removeprefix(name) if policy == name or policy.startswith(f"{name} ") else policy
    rest = rest.strip()
    return rest[1:-1] if rest.startswith("(") and rest.endswith(")") else rest
