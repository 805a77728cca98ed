"""`timeline`: what each rank did and when, and what was predicted laid over it."""

from dataclasses import dataclass
from statistics import median
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from pipelab.errors import InputError
from pipelab.events import COMPUTE, Event, Timeline
from pipelab.units import format_percent, format_seconds, plural
from pipelab.viz.figures import axes_for, plain
from pipelab.viz.palette import EDGE, KIND_COLOURS, KIND_HATCHES, TEXT, WAIT, stage_colour

_WIDTH = 10.0  # inches
# Rows lie 1 apart: a box, and below it a thin line for what is sent.
_HEIGHT, _MOVES = 0.66, (0.36, 0.46)
_POINTS_PER_CHARACTER = 5.2
_UNITS = ((1.0, "s"), (1e-3, "ms"), (0.0, "µs"))
_KIND_NAMES = {"F": "F forward", "B": "B backward", "I": "I inputs' gradient", "W": "W weights' gradient"}
_MOST_STAGES_IN_LEGEND = 8
_LEGEND_POINTS = 32  # an entry of the legend without its words


@dataclass(frozen=True)
class _View:
    """How seconds become places.

    Attributes:
        unit_s: Seconds of one unit of the axis.
        width_points: Width of the axes on paper.
        span_s: Seconds across it.
    """

    unit_s: float
    width_points: float
    span_s: float

    def box(self, event: Event, origin_s: float, low: float, high: float) -> list[tuple[float, float]]:
        """The corners of an event, from `low` to `high` below the middle of its row."""
        left, right = (event.start_s - origin_s) / self.unit_s, (event.end_s - origin_s) / self.unit_s
        bottom, top = event.rank + low, event.rank + high
        return [(left, bottom), (right, bottom), (right, top), (left, top)]

    def points(self, event: Event) -> float:
        """How wide an event is on paper."""
        return (event.end_s - event.start_s) * self.width_points / max(self.span_s, 1e-12)

    def wrap(self, text: str) -> str:
        """Text in lines as long as the axes are wide."""
        return fill(text, round(self.width_points / _POINTS_PER_CHARACTER))


_FAR_OFF = 2.0  # three times as long: a factor says more than per cent


def timeline(measured: Timeline, predicted: Timeline | None = None, *, ax: Axes | None = None) -> Figure:
    """One row per rank: what it computed, with micro-batch numbers; below it what it sent; shaded where it is idle.

    An inference is coloured by stage. With a backward, colours and hatches tell forward and backward apart.

    Args:
        measured: What to fill the rows with: measured, paced or simulated.
        predicted: Drawn over it as outlines, and compared with it in words.
        ax: Where to draw; None for a new figure.

    Returns:
        The figure.

    Raises:
        InputError: It is no timeline: names what it is.

    Example:
        >>> events = tuple(pipelab.Event(s, s, 0, "F", float(s), s + 1.0) for s in (0, 1))
        >>> figure = pipelab.viz.timeline(pipelab.Timeline(events, num_ranks=2, num_stages=2, num_microbatches=1))
        >>> print(*(label.get_text() for label in figure.axes[0].get_yticklabels()), sep="; ")
        rank 0: stage 0, idle 50...%; rank 1: stage 1, idle 50...%
    """
    for given in (measured, *([] if predicted is None else [predicted])):
        if not isinstance(given, Timeline):
            raise InputError(
                f"A timeline is drawn from pipelab.simulate(plan), or a report's .timeline; this is a "
                f"{type(given).__name__}."
            )
    num_ranks = max(measured.num_ranks, 1)
    figure, ax = axes_for(ax, _WIDTH, 1.3 + num_ranks * (0.28 + 0.72 / max(num_ranks, 4)))
    span_s = max([measured.makespan_s, *([predicted.makespan_s] if predicted else [])])
    unit_s, unit = next((factor or 1e-6, name) for factor, name in _UNITS if span_s >= factor)
    # The layout is not made yet, but what it starts from is near enough.
    view = _View(unit_s, 72 * figure.get_size_inches()[0] * ax.get_position().width, span_s)
    ax.barh(range(measured.num_ranks), measured.makespan_s / unit_s, height=_HEIGHT, color=WAIT, zorder=0)
    _fill(ax, measured, view)
    _number(ax, measured, view)
    if predicted:
        _outline(ax, predicted, view)
    ax.set_xlim(0, max(span_s / unit_s, 1e-9) * 1.005)
    ax.set_ylim(measured.num_ranks - 0.5, -0.5)
    ax.set_yticks(range(measured.num_ranks), [_rank_text(measured, rank) for rank in range(measured.num_ranks)])
    ax.set_xlabel(f"time in {unit}\n{view.wrap(_sentence(measured, predicted))}", fontsize=9.5)
    ranks, batches = plural(measured.num_ranks, "rank"), plural(measured.num_microbatches, "micro-batch")
    rows = _legend(ax, measured, predicted, view)
    source = f"{measured.source}, over {predicted.source}" if predicted else measured.source
    ax.set_title(view.wrap(f"{source}: {ranks}, {batches}"), fontsize=10, loc="left", pad=8 + 15 * rows)
    plain(ax)
    return figure


def _computed(of: Timeline) -> list[Event]:
    return [event for event in of.events if event.kind in COMPUTE]


def _is_interleaved(of: Timeline) -> bool:
    return of.num_stages > of.num_ranks


def _line_width(events: list[Event], view: _View, most: float) -> float:
    """Lines thinner where boxes are narrow, so that they do not swallow them."""
    return min(most, max(0.15, median(view.points(event) for event in events) / 12)) if events else most


def _fill(ax: Axes, of: Timeline, view: _View) -> None:
    computed = _computed(of)
    width = _line_width(computed, view, 0.7)
    for kind in sorted({event.kind for event in computed}):
        events = [event for event in computed if event.kind == kind]
        boxes = [view.box(event, of.start_s, -_HEIGHT / 2, _HEIGHT / 2) for event in events]
        colours = [_colour(of, event) for event in events]
        hatch = KIND_HATCHES[kind] if of.has_backward else ""
        ax.add_collection(
            PolyCollection(boxes, facecolors=colours, edgecolors="white", linewidths=width, hatch=hatch, zorder=1)
        )
    if of.has_backward and _is_interleaved(of):
        stripes = [view.box(event, of.start_s, -_HEIGHT / 2, -_HEIGHT / 3) for event in computed]
        greys = [_round_colour(of, event.stage // of.num_ranks) for event in computed]
        ax.add_collection(PolyCollection(stripes, facecolors=greys, edgecolors="none", zorder=1.5))
    moves = [view.box(event, of.start_s, *_MOVES) for event in of.events if event.kind in ("send", "recv")]
    # With an edge, so that the shortest is still to be seen.
    ax.add_collection(PolyCollection(moves, facecolors=EDGE, edgecolors=EDGE, linewidths=0.4, zorder=2))


def _colour(of: Timeline, event: Event) -> str:
    return KIND_COLOURS[event.kind] if of.has_backward else stage_colour(event.stage)


def _round_colour(of: Timeline, round_: int) -> str:
    """Stages are dealt to the ranks in rounds: the first is white, the last black."""
    return str(1 - round_ / max(of.num_stages // of.num_ranks - 1, 1))


def _number(ax: Axes, of: Timeline, view: _View) -> None:
    """Micro-batch numbers where the longest fits; with the kind in front if that fits too, everywhere or nowhere."""
    computed = _computed(of)
    digits = len(str(of.num_microbatches - 1))
    kinds = {event.kind for event in computed}
    narrowest = min((median(view.points(e) for e in computed if e.kind == kind) for kind in kinds), default=0.0)
    with_kind = of.has_backward and _fits(digits + 1, narrowest)
    for event in computed:
        words = f"{event.kind}{event.microbatch}" if with_kind else str(event.microbatch)
        if _fits(digits + with_kind, view.points(event)):
            middle = ((event.start_s + event.end_s) / 2 - of.start_s) / view.unit_s
            text = ax.text(middle, event.rank, words, ha="center", va="center", fontsize=8, color=TEXT, zorder=4)
            # Neither hatches nor the outline of the prediction must strike a number through.
            text.set_in_layout(False)
            text.set_path_effects([withStroke(linewidth=2.5, foreground=_colour(of, event))])


def _fits(num_characters: int, points: float) -> bool:
    return points > num_characters * _POINTS_PER_CHARACTER + 2


def _outline(ax: Axes, predicted: Timeline, view: _View) -> None:
    events = _computed(predicted)
    boxes = [view.box(event, predicted.start_s, -_HEIGHT / 2, _HEIGHT / 2) for event in events]
    width = _line_width(events, view, 0.9)
    ax.add_collection(PolyCollection(boxes, facecolors="none", edgecolors=TEXT, linewidths=width, zorder=3))


def _rank_text(of: Timeline, rank: int) -> str:
    stages = sorted({event.stage for event in of.events if event.rank == rank})
    held = f"stage{'s' * (len(stages) > 1)} {', '.join(map(str, stages))}" if stages else "nothing"
    idle = 1 - of.rank_busy_s[rank] / of.makespan_s if of.makespan_s else 0.0
    return f"rank {rank}: {held}, idle {format_percent(idle)}"


def _sentence(measured: Timeline, predicted: Timeline | None) -> str:
    """How long it took, what was predicted, and both bubble figures by their names."""
    how = measured.source.partition(",")[0].capitalize()
    took = f"{how} {format_seconds(measured.makespan_s)}"
    idle = f"Ranks are idle {format_percent(measured.bubble_fraction)} of the time"
    if predicted is None:
        return f"{took}. {idle}; idle over busy time is {format_percent(measured.overhead_fraction)}"
    return f"{took}, {_against(measured, predicted)}. {idle}; predicted {format_percent(predicted.bubble_fraction)}"


def _against(measured: Timeline, predicted: Timeline) -> str:
    expected = f"predicted {format_seconds(predicted.makespan_s)}"
    more = measured.makespan_s / predicted.makespan_s - 1 if predicted.makespan_s else 0.0
    if round(abs(more), 2) == 0:
        return f"as {expected}"
    if more > _FAR_OFF:
        return f"{1 + more:.1f} × the {expected}"
    return f"{format_percent(abs(more))} {'more' if more > 0 else 'less'} than {expected}"


def _legend(ax: Axes, measured: Timeline, predicted: Timeline | None, view: _View) -> int:
    """Draw the legend above the rows; returns its number of lines."""
    kinds = {event.kind for event in measured.events}
    handles = []
    if measured.has_backward:
        handles += [
            Patch(facecolor=KIND_COLOURS[kind], edgecolor="white", hatch=KIND_HATCHES[kind], label=name)
            for kind, name in _KIND_NAMES.items()
            if kind in kinds
        ]
    if _is_interleaved(measured):
        handles += _stage_handles(measured)
    handles.append(Patch(color=WAIT, label="idle"))
    if kinds & {"send", "recv"}:
        handles.append(Patch(color=EDGE, label="moves data"))
    if predicted:
        handles.append(Patch(facecolor="none", edgecolor=TEXT, label="predicted"))
    widths = [_LEGEND_POINTS + 0.85 * _POINTS_PER_CHARACTER * len(str(handle.get_label())) for handle in handles]
    in_one_row = sum(widths) <= view.width_points
    num_columns = len(handles) if in_one_row else max(1, int(view.width_points / max(widths)))
    ax.legend(
        handles=handles, fontsize=8, ncols=num_columns, frameon=False, handlelength=1.6, columnspacing=1.4,
        loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0.2,
    )  # fmt: skip
    return -(-len(handles) // num_columns)


def _stage_handles(of: Timeline) -> list[Patch]:
    """Which stage is which, where a rank has several: by stripe if colours say something else."""
    if of.has_backward:
        return [
            Patch(
                facecolor=_round_colour(of, first // of.num_ranks),
                edgecolor=EDGE,
                label=f"stripe: stages {first}–{last}",
            )
            for first in range(0, of.num_stages, of.num_ranks)
            for last in [first + of.num_ranks - 1]
        ]
    if of.num_stages > _MOST_STAGES_IN_LEGEND:
        return []
    return [Patch(color=stage_colour(stage), label=f"stage {stage}") for stage in range(of.num_stages)]
