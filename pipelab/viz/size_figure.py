"""`stage_sizes`: what each stage keeps in memory and what it sends, as bars."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pipelab.plan import Plan, shorten
from pipelab.units import format_bytes, format_count, plural
from pipelab.viz.figures import axes_for, plain
from pipelab.viz.palette import EDGE, stage_colour

_BAR = 0.26
_MAX_LABEL = 32


def stage_sizes(plan: Plan, *, ax: Axes | None = None) -> Figure:
    """Per stage: bytes of its weights, of its activations at their peak, and of what it sends on.

    Activations and what is sent are those of the traced batch, all at once; micro-batches take their share.

    Args:
        plan: The plan to draw.
        ax: Where to draw; None for a new figure.

    Returns:
        The figure.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4))).eval()
        >>> plan = pipelab.uniform(pipelab.trace(model, torch.zeros(2, 16)), num_stages=2)
        >>> len(pipelab.viz.stage_sizes(plan).axes)
        1
    """
    stages = plan.stages
    height_in = 1.1 + 0.72 * len(stages)
    figure, ax = axes_for(ax, 9, height_in)
    sent = [*(boundary.num_bytes for boundary in plan.boundaries), 0]
    for stage in stages:
        colour = stage_colour(stage.index)
        bars: list[tuple[int, dict[str, Any]]] = [
            (stage.param_bytes + stage.buffer_bytes, {"color": colour}),
            (stage.activation_bytes, {"color": colour, "alpha": 0.5}),
            (sent[stage.index], {"facecolor": "none", "edgecolor": EDGE, "hatch": "////"}),
        ]
        for number, (num_bytes, style) in enumerate(bars[: 2 if stage.index == len(stages) - 1 else 3]):
            y = stage.index + (number - 1) * (_BAR + 0.02)
            ax.barh(y, num_bytes, height=_BAR, **style)
            ax.annotate(
                format_bytes(num_bytes), (num_bytes, y), (4, 0), textcoords="offset points", va="center", fontsize=8
            )
    ax.set_yticks(range(len(stages)), [_label(plan, index) for index in range(len(stages))], fontsize=9)
    ax.set_ylim(len(stages) - 0.5, -0.5)
    ax.xaxis.set_major_formatter(lambda num_bytes, _: format_bytes(num_bytes))
    ax.margins(x=0.12)
    ax.set_title(f"{plan.graph.model} in {plural(plan.num_stages, 'stage')}, {plan.policy}", fontsize=10, loc="left")
    ax.legend(
        handles=[
            Patch(color=EDGE, label="weights"),
            Patch(color=EDGE, alpha=0.5, label=f"activations (batch of {plan.graph.batch_size})"),
            Patch(facecolor="none", edgecolor=EDGE, hatch="////", label="sent to the next stage"),
        ],
        fontsize=8, ncols=3, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.35 / height_in),
    )  # fmt: skip
    plain(ax)
    return figure


def _label(plan: Plan, index: int) -> str:
    stage = plan.stages[index]
    holds = shorten(stage.labels) or "empty"
    holds = holds if len(holds) <= _MAX_LABEL else f"{holds[: _MAX_LABEL - 1]}…"
    # A dollar sign would start a formula.
    text = f"stage {index}: {holds}\n{format_count(stage.num_params)} parameters"
    return text.replace("$", r"\$")
