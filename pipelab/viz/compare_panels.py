"""The panels of `compare`: bars, what crosses the cuts, and the timeline of one plan, on axes that all plans share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patheffects import withStroke

from pipelab.comparison import Comparison
from pipelab.contenders import Contender
from pipelab.events import COMPUTE, Event, Timeline
from pipelab.plan_parts import Boundary
from pipelab.units import format_bytes, format_count, format_seconds, format_whole
from pipelab.viz.compare_ribbon import LETTER, SMALL, shortened
from pipelab.viz.figures import literal
from pipelab.viz.palette import EDGE, TEXT, WAIT, stage_colour
from pipelab.viz.value_names import value_names

_BAR = 0.72
# Inches of the first four panels; and of each, the share that the longest bar takes. Its texts take the rest.
_WIDTHS = (1.25, 1.75, 1.95, 2.6)
_PARAMS, _TIME, _MEMORY, _CROSSING = 0.52, 0.42, 0.45, 0.18


@dataclass(frozen=True)
class Panel:
    """One column of the page.

    Attributes:
        title: What it shows of a plan.
        width: Inches.
        limit: The right end of a plan's axis, the same for all.
        draw: Draws one plan.
    """

    title: Callable[[Contender], str]
    width: float
    limit: Callable[[Contender], float]
    draw: Callable[[Axes, Contender], None]


def panels_of(comparison: Comparison, width: float, gap: float) -> tuple[Panel, ...]:
    """The columns, to fill this many inches."""
    entries = comparison.entries
    names = value_names(comparison.graph)
    params = max(stage.num_params for entry in entries for stage in entry.plan.stages)
    seconds = max(max(entry.stage_s) for entry in entries)
    least = min(max(entry.stage_s) for entry in entries)
    sent = max((boundary.num_bytes for entry in entries for boundary in entry.plan.boundaries), default=0)
    span = max((_step_s(entry) for entry in entries if entry.shares_axis), default=comparison.best.step_s)
    held = {capacity for entry in entries for capacity in entry.capacity_bytes}
    of = f" of {format_whole(held.pop())}" if len(held) == 1 else ""
    rest = width - sum(_WIDTHS) - len(_WIDTHS) * gap
    crossing = f"crosses the cut, for a batch of {comparison.graph.batch_size}"

    def step_title(entry: Contender) -> str:
        if entry.shares_axis:
            return f"one step: 0 to {format_seconds(span)}"
        return f"measured, on its own axis: 0 to {format_seconds(_step_s(entry))}"

    def step_limit(entry: Contender) -> float:
        return span if entry.shares_axis else _step_s(entry)

    return (
        _panel("parameters", _WIDTHS[0], params / _PARAMS, _params),
        _panel("time per micro-batch", _WIDTHS[1], seconds / _TIME, lambda ax, entry: _times(ax, entry, least)),
        _panel(f"memory{of}", _WIDTHS[2], memory_scale(comparison) / _MEMORY, _memory),
        _panel(crossing, _WIDTHS[3], sent / _CROSSING, lambda ax, entry: _crossing(ax, entry, names)),
        Panel(step_title, rest, step_limit, lambda ax, entry: _timeline(ax, entry, rest / step_limit(entry))),
    )


def _panel(title: str, width: float, limit: float, draw: Callable[[Axes, Contender], None]) -> Panel:
    return Panel(lambda _: title, width, lambda _: limit or 1.0, draw)


def _step_s(entry: Contender) -> float:
    """The longer of what is drawn: the prediction, or a run with its prediction as outlines."""
    if entry.report is None:
        return entry.step_s
    measured = entry.report.timeline.makespan_s
    return max(measured, entry.step_s) if entry.shares_axis else measured


def memory_scale(comparison: Comparison) -> float:
    """Up to what the largest device holds, where a stage needs a quarter of it; else up to the fullest stage."""
    used = max(max(entry.memory_bytes) for entry in comparison.entries)
    held = max(max(entry.capacity_bytes) for entry in comparison.entries)
    return max(used, held) if used > held / 4 else used


def _bars(ax: Axes, values: Sequence[float], texts: Sequence[str], bold: int, share: float) -> None:
    """A bar per stage in this share of the width, and behind the longest of all plans a column of texts."""
    colours = [stage_colour(index) for index in range(len(values))]
    edges = [TEXT if index == bold else "none" for index in range(len(values))]
    ax.barh(range(len(values)), values, height=_BAR, color=colours, edgecolor=edges, linewidth=1.3)
    for index, text in enumerate(texts):
        ax.text(
            (share + 0.03) * ax.get_xlim()[1], index, literal(text), va="center_baseline", fontsize=SMALL,
            fontweight="bold" if index == bold else "normal",
        )  # fmt: skip


def _params(ax: Axes, entry: Contender) -> None:
    params = [stage.num_params for stage in entry.plan.stages]
    _bars(ax, params, [format_count(count) for count in params], params.index(max(params)), _PARAMS)


def _times(ax: Axes, entry: Contender, least: float) -> None:
    texts = [format_seconds(seconds) for seconds in entry.stage_s]
    texts[entry.slowest] += " slowest" if entry.slow_link is None else ""
    ax.axvline(least, color=EDGE, linewidth=0.8, linestyle=":", zorder=0)
    _bars(ax, entry.stage_s, texts, entry.slowest, _TIME)


def _memory(ax: Axes, entry: Contender) -> None:
    texts = [format_bytes(num_bytes) for num_bytes in entry.memory_bytes]
    for stage in entry.misfits:
        texts[stage] += " too much"
    _bars(ax, entry.memory_bytes, texts, entry.fullest, _MEMORY)
    for stage, (used, held) in enumerate(zip(entry.memory_bytes, entry.capacity_bytes, strict=True)):
        ax.plot([held, held], [stage - 0.5, stage + 0.5], color=TEXT, linewidth=1, linestyle="--", zorder=3)
        if used > held:
            ax.barh(stage, used - held, _BAR, held, color="white", edgecolor=TEXT, hatch="//////", linewidth=0.8)


def _crossing(ax: Axes, entry: Contender, names: dict[str, str]) -> None:
    """Between two rows what goes from one stage to the next."""
    boundaries = entry.plan.boundaries
    rows = [boundary.index + 0.5 for boundary in boundaries]
    sizes = [boundary.num_bytes for boundary in boundaries]
    ax.barh(rows, sizes, height=_BAR, facecolor="white", edgecolor=EDGE, hatch="////", linewidth=0.8)
    for boundary, row in zip(boundaries, rows, strict=True):
        slow = boundary.index == entry.slow_link
        text = _crossing_text(boundary, entry.link_s[boundary.index] if slow else None, names)
        ax.annotate(
            literal(text), (boundary.num_bytes, row), (4, 0), textcoords="offset points", va="center_baseline",
            fontsize=SMALL, fontweight="bold" if slow else "normal",
        )  # fmt: skip


def _crossing_text(boundary: Boundary, slow_s: float | None, names: dict[str, str]) -> str:
    """The cut's number, bytes, the largest value, and how many others; or that it is slower than every stage."""
    start = f"{boundary.index + 1}: {format_bytes(boundary.num_bytes)}"
    if slow_s is not None:
        return f"{start} in {format_seconds(slow_s)}, slowest"
    if not boundary.tensors:
        return start
    letters = int(((1 - _CROSSING) * _WIDTHS[3] - 0.1) / LETTER) + 1
    largest = max(boundary.tensors, key=lambda tensor: tensor.num_bytes)
    end = f" +{len(boundary.tensors) - 1}" if len(boundary.tensors) > 1 else ""
    return f"{start}  {shortened(names.get(largest.name, largest.name), letters - len(start) - len(end))}{end}"


def _timeline(ax: Axes, entry: Contender, inches_per_s: float) -> None:
    """What each rank computes: measured where there is a run, with the prediction as outlines."""
    shown = entry.report.timeline if entry.report else entry.predicted
    ax.barh(range(shown.num_ranks), shown.makespan_s, height=_BAR, color=WAIT, zorder=0)
    events = _computed(shown)
    inches = [(event.end_s - event.start_s) * inches_per_s for event, _ in events]
    filled = PolyCollection([_box(event, begin) for event, begin in events])
    filled.set(facecolor=[stage_colour(event.stage) for event, _ in events], edgecolor="white")
    filled.set(linewidth=[0.4 if width > LETTER / 2 else 0 for width in inches])
    ax.add_collection(filled)
    if entry.report and entry.shares_axis:
        outlines = PolyCollection([_box(event, begin) for event, begin in _computed(entry.predicted)])
        outlines.set(facecolor="none", edgecolor=TEXT, linewidth=0.8)
        ax.add_collection(outlines)
    needed = (len(str(shown.num_microbatches - 1)) + 0.6) * LETTER
    for (event, begin), width in zip(events, inches, strict=True):
        if width > needed:
            middle = (event.start_s + event.end_s) / 2 - begin
            text = ax.text(middle, event.rank, str(event.microbatch), ha="center", va="center_baseline", fontsize=6.5)
            if entry.report:  # an outline must not strike the number through
                text.set(zorder=4, path_effects=[withStroke(linewidth=2, foreground=stage_colour(event.stage))])


def _computed(timeline: Timeline) -> list[tuple[Event, float]]:
    begin = min((event.start_s for event in timeline.events), default=0.0)
    return [(event, begin) for event in timeline.events if event.kind in COMPUTE]


def _box(event: Event, begin: float) -> list[tuple[float, float]]:
    left, right = event.start_s - begin, event.end_s - begin
    low, high = event.rank - _BAR / 2, event.rank + _BAR / 2
    return [(left, low), (right, low), (right, high), (left, high)]
