"""`timeline`: what each rank did and when, and what was predicted laid over it."""

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from pipelab.events import COMPUTE, Event, Timeline
from pipelab.units import plural
from pipelab.viz.figures import axes_for, plain
from pipelab.viz.palette import EDGE, TEXT, WAIT, stage_colour

_HEIGHT = 0.62
_POINTS_PER_CHARACTER = 5.6
_UNITS = ((1.0, "s"), (1e-3, "ms"), (0.0, "µs"))


def timeline(measured: Timeline, predicted: Timeline | None = None, *, ax: Axes | None = None) -> Figure:
    """One row per rank: its work coloured by stage, with micro-batch numbers; its waits are shaded.

    Args:
        measured: What to fill the rows with: measured, or simulated.
        predicted: Drawn over it as outlines.
        ax: Where to draw; None for a new figure.

    Returns:
        The figure.

    Example:
        >>> events = tuple(pipelab.Event(s, s, 0, "F", float(s), s + 1.0) for s in (0, 1))
        >>> figure = pipelab.viz.timeline(pipelab.Timeline(events, num_ranks=2, num_stages=2, num_microbatches=1))
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['rank 0: stage 0, idle 50%', 'rank 1: stage 1, idle 50%']
    """
    figure, ax = axes_for(ax, 9, 1.3 + 0.46 * max(measured.num_ranks, 1))
    span = max([measured.makespan_s, *([predicted.makespan_s] if predicted else [])])
    scale, unit = next((factor or 1e-6, name) for factor, name in _UNITS if span >= factor)
    ax.barh(range(measured.num_ranks), measured.makespan_s / scale, height=_HEIGHT, color=WAIT, zorder=0)
    _fill(ax, measured, scale)
    _number(ax, measured, scale, 72 * figure.get_size_inches()[0] * 0.8 / max(span, 1e-12))
    if predicted:
        outlines = [_box(event, start, scale) for event, start in _computed(predicted)]
        ax.add_collection(PolyCollection(outlines, facecolors="none", edgecolors=TEXT, linewidths=1.1, zorder=3))
    ax.set_xlim(0, max(span / scale, 1e-9) * 1.005)
    ax.set_ylim(measured.num_ranks - 0.5, -0.5)
    ax.set_yticks(range(measured.num_ranks), [_rank_text(measured, rank) for rank in range(measured.num_ranks)])
    ax.set_xlabel(_axis_text(measured, predicted, unit))
    ranks, batches = plural(measured.num_ranks, "rank"), plural(measured.num_microbatches, "micro-batch")
    ax.set_title(f"{measured.source}: {ranks}, {batches}", fontsize=10, loc="left")
    _legend(ax, measured, predicted)
    plain(ax)
    return figure


def _start(of: Timeline) -> float:
    return min((event.start_s for event in of.events), default=0.0)


def _computed(of: Timeline) -> list[tuple[Event, float]]:
    start = _start(of)
    return [(event, start) for event in of.events if event.kind in COMPUTE]


def _box(event: Event, start_s: float, scale: float, height: float = _HEIGHT) -> list[tuple[float, float]]:
    left, right = (event.start_s - start_s) / scale, (event.end_s - start_s) / scale
    low, high = event.rank - height / 2, event.rank + height / 2
    return [(left, low), (right, low), (right, high), (left, high)]


def _fill(ax: Axes, of: Timeline, scale: float) -> None:
    boxes = [_box(event, start, scale) for event, start in _computed(of)]
    colours = [stage_colour(event.stage) for event, _ in _computed(of)]
    ax.add_collection(PolyCollection(boxes, facecolors=colours, edgecolors="white", linewidths=0.6, zorder=1))
    moves = [_box(event, _start(of), scale, _HEIGHT / 3) for event in of.events if event.kind in ("send", "recv")]
    ax.add_collection(PolyCollection(moves, facecolors=EDGE, edgecolors="none", zorder=2))


def _number(ax: Axes, of: Timeline, scale: float, points_per_s: float) -> None:
    """Micro-batch numbers, where they fit; with the kind in front where there is more than one."""
    several = len({event.kind for event, _ in _computed(of)}) > 1
    for event, start in _computed(of):
        words = f"{event.kind}{event.microbatch}" if several else str(event.microbatch)
        if (event.end_s - event.start_s) * points_per_s > len(words) * _POINTS_PER_CHARACTER + 2:
            middle = ((event.start_s + event.end_s) / 2 - start) / scale
            text = ax.text(middle, event.rank, words, ha="center", va="center", fontsize=8, color=TEXT, zorder=4)
            # An outline of the prediction must not strike a number through.
            text.set_path_effects([withStroke(linewidth=3, foreground=stage_colour(event.stage))])


def _rank_text(of: Timeline, rank: int) -> str:
    stages = sorted({event.stage for event in of.events if event.rank == rank})
    held = f"stage {', '.join(map(str, stages))}" if stages else "nothing"
    idle = 1 - of.rank_busy_s[rank] / of.makespan_s if of.makespan_s else 0.0
    return f"rank {rank}: {held}, idle {idle:.0%}"


def _axis_text(measured: Timeline, predicted: Timeline | None, unit: str) -> str:
    text = f"time in {unit}. Ranks are idle {measured.bubble_fraction:.0%} of the time"
    return f"{text}; predicted {predicted.bubble_fraction:.0%}" if predicted else text


def _legend(ax: Axes, measured: Timeline, predicted: Timeline | None) -> None:
    kinds = {event.kind for event in measured.events}
    handles: Iterable[Patch | None] = (
        Patch(color=WAIT, label="waits"),
        Patch(color=EDGE, label="moves data") if kinds & {"send", "recv"} else None,
        Patch(facecolor="none", edgecolor=TEXT, label=f"predicted ({predicted.source})") if predicted else None,
    )
    ax.legend(
        handles=[handle for handle in handles if handle], fontsize=8, ncols=3, frameon=False,
        loc="lower right", bbox_to_anchor=(1, 1),
    )  # fmt: skip
