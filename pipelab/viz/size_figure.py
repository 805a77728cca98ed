"""`stage_sizes`: what each stage keeps in memory and what it sends, as bars."""

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pipelab.costs import Costs, default_microbatches, rows_of
from pipelab.graph import Graph
from pipelab.hardware import devices_of
from pipelab.plan import Plan, check_plan, shorten
from pipelab.plan_parts import Stage
from pipelab.units import format_bytes, format_count, format_seconds, plural
from pipelab.viz.figures import axes_for, plain
from pipelab.viz.palette import EDGE, TEXT, stage_colour

_SHARE = 0.84  # of a row, that its bars take
_DWARFED = 10.0  # times the model's own: what is needed, mostly the device's own, would leave nothing to see
_NEAR = 1.5  # times what is needed: a capacity beyond that is told, not drawn
_MAX_LABEL = 32
_SENT: dict[str, Any] = {"facecolor": "none", "edgecolor": EDGE, "hatch": "////"}
_NEEDED: dict[str, Any] = {"facecolor": "white", "edgecolor": TEXT, "linewidth": 1.0}
_BEYOND: dict[str, Any] = {**_NEEDED, "hatch": "xxxxxx"}


@dataclass(frozen=True)
class _Memory:
    """What a stage needs of its device for one micro-batch, and what the device holds."""

    needed: float
    held: float

    @property
    def text(self) -> str:
        excess = ": too much" if self.needed > self.held else ""
        return f"{format_bytes(self.needed)} of {format_bytes(self.held)}{excess}"


def stage_sizes(plan: Plan, *, ax: Axes | None = None) -> Figure:
    """Per stage: bytes of its weights, of its activations at their peak, and of what it sends on.

    Activations and what is sent are those of the traced batch, all at once; micro-batches take their share. Where the
    plan has hardware or the model was measured, also what a stage needs of its device's memory, hatched beyond what
    that holds, for a micro-batch of the size a run has when nobody says; in words where it would dwarf the rest.

    Args:
        plan: The plan to draw.
        ax: Where to draw; None for a new figure.

    Returns:
        The figure.

    Raises:
        SplitError: It is no plan.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4))).eval()
        >>> plan = pipelab.uniform(pipelab.trace(model, torch.zeros(2, 16)), num_stages=2)
        >>> len(pipelab.viz.stage_sizes(plan).axes)
        1
    """
    check_plan(plan)
    stages, memories = plan.stages, _memories(plan)
    drawn = memories if _are_to_scale(stages, memories) else []
    num_lanes = 4 if drawn else 3
    height_in = 1.3 + 0.24 * num_lanes * len(stages)
    figure, ax = axes_for(ax, 9, height_in)
    sent = [*(boundary.num_bytes for boundary in plan.boundaries), None]
    for stage in stages:
        pitch = _SHARE / num_lanes
        middles = [stage.index + (lane - (num_lanes - 1) / 2) * pitch for lane in range(num_lanes)]
        colour, held = stage_colour(stage.index), stage.param_bytes + stage.buffer_bytes + stage.cache_bytes
        _bar(ax, middles[0], pitch, held, color=colour)
        _bar(ax, middles[1], pitch, stage.activation_bytes, color=colour, alpha=0.5)
        if drawn:
            _memory_bar(ax, middles[2], pitch, drawn[stage.index])
        if (num_bytes := sent[stage.index]) is not None:
            _bar(ax, middles[-1], pitch, num_bytes, **_SENT)
    marked = _bottleneck(stages)
    needs = [f"needs {memory.text}\n" if not drawn else "" for memory in memories] or [""] * len(stages)
    labels = [_label(stage, stage.index == marked, needs[stage.index]) for stage in stages]
    ax.set_yticks(range(len(stages)), labels, fontsize=9)
    ax.get_yticklabels()[marked].set_fontweight("bold")
    ax.set_ylim(len(stages) - 0.5, -0.5)
    ax.xaxis.set_major_formatter(lambda num_bytes, _: format_bytes(num_bytes))
    ax.locator_params(axis="x", nbins=5)
    ax.margins(x=0.35 if drawn else 0.12)
    title = f"{_short(plan.graph.model)} in {plural(plan.num_stages, 'stage')}, {plan.policy}\n{plan.verdict}"
    ax.set_title(title.replace("$", r"\$"), fontsize=10, loc="left")
    ax.legend(
        handles=_legend(plan, drawn), fontsize=8, ncols=3, frameon=False, loc="upper left",
        bbox_to_anchor=(0, -0.35 / height_in),
    )  # fmt: skip
    plain(ax)
    return figure


def _memories(plan: Plan) -> list[_Memory]:
    """Per stage; none where no device is known."""
    if not plan.has_times:
        return []
    graph = plan.graph
    rows = _rows(graph, plan.num_stages)
    devices = devices_of(plan.hardware, graph, plan.num_stages)
    return [
        _Memory(Costs.of(graph, device, rows).memory_bytes(*bounds), device.memory_bytes)
        for device, bounds in zip(devices, plan.bounds, strict=True)
    ]


def _are_to_scale(stages: tuple[Stage, ...], memories: list[_Memory]) -> bool:
    own = max(stage.param_bytes + stage.buffer_bytes + stage.cache_bytes + stage.activation_bytes for stage in stages)
    return max((memory.needed for memory in memories), default=0) < _DWARFED * own


def _rows(graph: Graph, num_stages: int) -> int:
    """Of the micro-batches that a run has when nobody says."""
    return rows_of(graph.batch_size, default_microbatches(graph.batch_size, num_stages))


def _bar(ax: Axes, y: float, pitch: float, num_bytes: int, **style: Any) -> None:
    ax.barh(y, num_bytes, height=pitch - 0.02, **style)
    ax.annotate(format_bytes(num_bytes), (num_bytes, y), (4, 0), textcoords="offset points", va="center", fontsize=8)


def _memory_bar(ax: Axes, y: float, pitch: float, memory: _Memory) -> None:
    """What is needed, and a line at what the device holds if it is not far."""
    needed, held = memory.needed, memory.held
    ax.barh(y, needed, height=pitch - 0.02, **_NEEDED)
    if needed > held:
        ax.barh(y, needed - held, pitch - 0.02, held, **_BEYOND)
    near = held < _NEAR * needed
    if near:
        ax.plot([held, held], [y - 0.6 * pitch, y + 0.6 * pitch], color=TEXT, linewidth=1.6)
    end = (max(needed, held) if near else needed, y)
    ax.annotate(memory.text, end, (4, 0), textcoords="offset points", va="center", fontsize=8)


def _bottleneck(stages: tuple[Stage, ...]) -> int:
    """The stage the plan's verdict names: the slowest, or while there are no times the one with most parameters."""
    costs = [stage.num_params if stage.time_s is None else stage.time_s for stage in stages]
    return costs.index(max(costs))


def _short(text: str) -> str:
    return text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 1]}…"


def _label(stage: Stage, marked: bool, needs: str) -> str:
    holds = _short(shorten(stage.labels) or "empty")
    text = f"stage {stage.index}: {holds}\n{needs}{format_count(stage.num_params)} parameters"
    if stage.time_s is not None:
        text += f", {format_seconds(stage.time_s)}{', slowest' if marked else ''}"
    # A dollar sign would start a formula.
    return text.replace("$", r"\$")


def _needed_text(graph: Graph, num_stages: int) -> str:
    rows = plural(_rows(graph, num_stages), "row")
    return f"needed in all: micro-batch of\n{rows}, and the device's own"


def _legend(plan: Plan, memories: list[_Memory]) -> list[Patch]:
    weights = "weights and caches" if plan.graph.caches else "weights"
    handles = [
        Patch(color=EDGE, label=weights),
        Patch(color=EDGE, alpha=0.5, label=f"activations (batch of {plan.graph.batch_size})"),
        Patch(**_SENT, label="sent to the next stage"),
    ]
    if memories:
        handles.append(Patch(**_NEEDED, label=_needed_text(plan.graph, plan.num_stages)))
    if any(memory.needed > memory.held for memory in memories):
        handles.append(Patch(**_BEYOND, label="more than the device holds"))
    return handles
