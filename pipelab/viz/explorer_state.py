"""What the explorer's browser half needs of a graph: sent once, enough to compute every number it shows."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pipelab.errors import SplitError
from pipelab.events import COMPUTE, Timeline
from pipelab.graph import Graph
from pipelab.plan import Plan
from pipelab.policies import equal_size, uniform
from pipelab.report import Report
from pipelab.report_words import remarks, spread, where
from pipelab.units import format_count
from pipelab.viz.explorer_program import program_state
from pipelab.viz.value_names import tail

Policy = Callable[..., Plan]
POLICIES: dict[str, Policy] = {"uniform": uniform, "equal_size": equal_size}
# More stages than this can be set from code; the buttons end here.
MAX_PRESET_STAGES = 32


def graph_state(graph: Graph) -> dict[str, Any]:
    """The graph as plain JSON: its ops and modules, parameters by the ops that read them, and legal cuts."""
    return {
        "model": graph.model,
        "about": about(graph),
        "num_ops": len(graph.ops),
        "batch_size": graph.batch_size,
        "weights": _weights(graph),
        "cuts": {"positions": list(graph.legal)},
        **program_state(graph),
    }


def about(graph: Graph) -> str:
    """Parameters, batch and dtype of the model in a few words."""
    dtypes: Counter[str] = Counter()
    for weight in graph.distinct_weights:
        dtypes[weight.dtype] += weight.num_elements if weight.kind == "parameter" else 0
    parts = [f"{format_count(graph.num_params)} parameters"]
    if graph.inputs:
        parts.append(f"batch {' × '.join(map(str, graph.inputs[0].shape)) or 'of one number'}")
    if graph.num_params:
        parts.append(dtypes.most_common(1)[0][0])
    return " · ".join(parts)


def preset_state(graph: Graph) -> dict[str, list[list[int] | str | None]]:
    """For each policy and number of stages the cuts, or the sentence of its refusal.

    They make the buttons work while the kernel is busy, and in a saved page.
    """
    most = min(MAX_PRESET_STAGES, len(graph.legal) + 1)
    return {name: [None, *(_preset(policy, graph, n) for n in range(1, most + 1))] for name, policy in POLICIES.items()}


def _preset(policy: Policy, graph: Graph, num_stages: int) -> list[int] | str:
    try:
        return list(policy(graph, num_stages=num_stages).without_empty_stage().cuts)
    except SplitError as error:
        return str(error)


def report_state(report: Report) -> dict[str, Any]:
    """A report as the browser draws it: its timeline, and the prediction as outlines."""
    predicted = report.predicted
    return {
        **timeline_state(report.timeline),
        "cuts": list(report.plan.cuts),
        "step_s": report.step_s,
        "spread": spread(report),
        "remarks": " ".join(remarks(report)),
        "where": where(report),
        "idle": report.bubble_fraction,
        "predicted": {"makespan_s": predicted.makespan_s, "rows": _outlines(predicted)} if predicted else None,
    }


def timeline_state(timeline: Timeline) -> dict[str, Any]:
    """A timeline as the browser draws it: one row of events per rank, from time 0."""
    start, total = timeline.start_s, timeline.makespan_s
    rows: list[list[list[Any]]] = [[] for _ in range(timeline.num_ranks)]
    for event in timeline.events:
        if event.kind != "wait":  # the row's ground is the wait
            rows[event.rank].append(
                [event.kind, event.stage, event.microbatch, event.start_s - start, event.end_s - start]
            )
    return {
        "num_microbatches": timeline.num_microbatches,
        "source": timeline.source,
        "makespan_s": total,
        "idle": timeline.bubble_fraction,
        "rank_idle": [1 - busy / total if total else 0.0 for busy in timeline.rank_busy_s],
        "rows": rows,
    }


def _outlines(timeline: Timeline) -> list[list[list[float]]]:
    """Per rank, when it computes."""
    start = min((event.start_s for event in timeline.events), default=0.0)
    computed = [event for event in timeline.events if event.kind in COMPUTE]
    return [
        [[event.start_s - start, event.end_s - start] for event in computed if event.rank == rank]
        for rank in range(timeline.num_ranks)
    ]


def _weights(graph: Graph) -> list[list[Any]]:
    """Each distinct parameter: the ops that read it, elements, bytes, and its names if it is used twice."""
    names: dict[str, list[str]] = {}
    for weight in graph.weights:
        names.setdefault(weight.tied_to, []).append(graph.short(weight.name).removesuffix(".weight"))
    rows: list[list[Any]] = []
    for name, uses in graph.weight_uses.items():
        weight = graph.weight_by_name[name]
        if weight.kind == "parameter":
            label = " = ".join(tail(text) for text in names[name]) if len(uses) > 1 else ""
            rows.append([list(uses), weight.num_elements, weight.num_bytes, label])
    return rows


def largest_that_works(presets: Sequence[list[int] | str | None], num_stages: int) -> int:
    """The largest number of stages up to `num_stages` for which a policy has cuts; 1 always has."""
    return max((n for n, cuts in enumerate(presets[: num_stages + 1]) if isinstance(cuts, list)), default=1)
