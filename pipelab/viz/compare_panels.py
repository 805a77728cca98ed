"""The panels of `compare`: bars, ribbon and timeline of one plan, on axes that all plans share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from pipelab.comparison import Comparison, Contender
from pipelab.events import COMPUTE, Event, Timeline
from pipelab.units import format_bytes, format_count, format_seconds
from pipelab.viz.palette import EDGE, TEXT, WAIT, stage_colour
from pipelab.viz.value_names import value_names

SMALL = 7.5
_BAR = 0.72
_STAGES, _CUTS = 0.26, 0.14  # inches of the ribbon, and of a line with the names of cuts
# Of a panel's width, what the longest bar takes; its texts take the rest.
_PARAMS, _TIME, _MEMORY, _CROSSING = 0.52, 0.42, 0.45, 0.18
_LETTER = 0.56 * SMALL / 72  # inches of a letter, on average


@dataclass(frozen=True)
class Panel:
    """One column of the page.

    Attributes:
        title: What it shows.
        width: Inches.
        limit: The right end of the axis that all plans share.
        draw: Draws one plan.
    """

    title: str
    width: float
    limit: float
    draw: Callable[[Axes, Contender], None]


def panels_of(comparison: Comparison, width: float, gap: float) -> tuple[Panel, ...]:
    """The columns, to fill this many inches."""
    entries = comparison.entries
    names = value_names(comparison.graph)
    params = max(stage.num_params for entry in entries for stage in entry.plan.stages)
    seconds = max(max(entry.stage_s) for entry in entries)
    sent = max((boundary.num_bytes for entry in entries for boundary in entry.plan.boundaries), default=0)
    span = max(max(entry.step_s, entry.report.step_s if entry.report else 0.0) for entry in entries)
    least = min(max(entry.stage_s) for entry in entries)
    held = {capacity for entry in entries for capacity in entry.capacity_bytes}
    of = f" of {format_bytes(held.pop())}" if len(held) == 1 else ""

    widths = (1.3, 1.75, 1.95, 2.45)
    letters = int(((1 - _CROSSING) * widths[3] - 0.1) / _LETTER)

    def crossing(ax: Axes, entry: Contender) -> None:
        _crossing(ax, entry, names, letters)

    return (
        Panel("parameters", widths[0], _with_room(params, _PARAMS), _params),
        Panel(
            "time per micro-batch", widths[1], _with_room(seconds, _TIME), lambda ax, entry: _times(ax, entry, least)
        ),
        Panel(f"memory{of}", widths[2], _with_room(_memory_scale(comparison), _MEMORY), _memory),
        Panel(
            f"crosses the cut, for a batch of {comparison.graph.batch_size}",
            widths[3],
            _with_room(sent, _CROSSING),
            crossing,
        ),
        Panel(f"one step: 0 to {format_seconds(span)}", width - sum(widths) - 4 * gap, span or 1.0, _timeline),
    )


def literal(text: str) -> str:
    """Text as it stands: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def ribbon_height(entry: Contender, width: float) -> float:
    """Inches of the ribbon and of the lines that name the cuts."""
    return _STAGES + _CUTS * len(_lines_of_cuts(entry, width)) + 0.06


def draw_ribbon(ax: Axes, entry: Contender, width: float) -> None:
    """The stages over the model's length, and under each cut its name. The axes are in inches."""
    ax.set(xlim=(0, width), ylim=(ribbon_height(entry, width), 0))
    for index, (start, stop) in enumerate(pairwise(entry.edges)):
        left, across = start * width, (stop - start) * width
        slowest = index == entry.slowest
        ax.barh(0, across, _STAGES, left, align="edge", color=stage_colour(index), edgecolor="white", linewidth=1)
        if slowest:
            frame: dict[str, Any] = {"fill": False, "edgecolor": TEXT, "linewidth": 1.3, "zorder": 3, "clip_on": False}
            ax.barh(0, across, _STAGES, left, align="edge", **frame)
        text = f"stage {index}" if across > 9 * _LETTER else str(index)
        if across > len(text) * _LETTER:
            weight = "bold" if slowest else "normal"
            ax.text(left + across / 2, _STAGES / 2, text, ha="center", va="center", fontsize=SMALL, fontweight=weight)
    for number, line in enumerate(_lines_of_cuts(entry, width) if entry.plan.cuts else []):
        top = _STAGES + 0.07 + _CUTS * number
        cuts = [entry.edges[1 + index] * width for index, _ in line]
        middles = spread(cuts, [_width(text) for _, text in line], width)
        for cut, middle, (_, text) in zip(cuts, middles, line, strict=True):
            ax.plot([cut, cut, middle], [_STAGES, _STAGES + 0.03, top], color=EDGE, linewidth=0.8, zorder=1)
            style: dict[str, Any] = {"fontsize": SMALL, "ha": "center", "va": "top", "zorder": 3 - number}
            ax.text(middle, top, literal(text), bbox={"facecolor": "white", "linewidth": 0, "pad": 0.6}, **style)


def _lines_of_cuts(entry: Contender, width: float) -> list[list[tuple[int, str]]]:
    """Boundaries and what to call their cuts: in one line, or every other one in a second line."""
    names = [_cut_name(boundary.label) for boundary in entry.plan.boundaries]
    texts = [f"cut {number}: {name}" for number, name in enumerate(names, 1)]
    if sum(map(_width, texts)) < width:
        return [list(enumerate(texts))]
    letters = int(1.4 * width / len(names) / _LETTER)
    texts = [_shortened(f"{number}: {name}", letters) for number, name in enumerate(names, 1)]
    return [list(enumerate(texts))[line::2] for line in range(2)]


def _width(text: str) -> float:
    return (len(text) + 2) * _LETTER


def _cut_name(label: str) -> str:
    """Where a cut is, without what all have: "h.6", "in wpe"."""
    where = label.removeprefix("before ")
    return where.split(", ")[0].replace("inside", "in") if where.startswith("inside ") else where


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: max(letters - 1, 1)]}…"


def spread(middles: Sequence[float], widths: Sequence[float], length: float) -> list[float]:
    """Places near `middles`, ascending, for texts of these widths between 0 and `length` so that none overlaps."""
    apart = [(a + b) / 2 for a, b in pairwise(widths)]
    right, left = list(middles), list(middles)
    for index, distance in enumerate(apart):
        right[index + 1] = max(right[index + 1], right[index] + distance)
    for index in reversed(range(len(apart))):
        left[index] = min(left[index], left[index + 1] - apart[index])
    # Both keep the distances, so their mean does; then the ends push back from the margins.
    placed = [(a + b) / 2 for a, b in zip(right, left, strict=True)]
    placed[-1] = min(placed[-1], length - widths[-1] / 2)
    for index in reversed(range(len(apart))):
        placed[index] = min(placed[index], placed[index + 1] - apart[index])
    placed[0] = max(placed[0], widths[0] / 2)
    for index, distance in enumerate(apart):
        placed[index + 1] = max(placed[index + 1], placed[index] + distance)
    return placed


def _with_room(largest: float, share: float) -> float:
    """The end of an axis on which the longest bar takes this share: its figure stands behind it."""
    return largest / share if largest else 1.0


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


def _memory_scale(comparison: Comparison) -> float:
    """Up to what the largest device holds, where a stage needs a quarter of it; else up to the fullest stage."""
    used = max(max(entry.memory_bytes) for entry in comparison.entries)
    held = max(max(entry.capacity_bytes) for entry in comparison.entries)
    return max(used, held) if used > held / 4 else used


def _memory(ax: Axes, entry: Contender) -> None:
    texts = [format_bytes(num_bytes) for num_bytes in entry.memory_bytes]
    for stage in entry.misfits:
        texts[stage] += " too much"
    _bars(ax, entry.memory_bytes, texts, entry.fullest, _MEMORY)
    for stage, (used, held) in enumerate(zip(entry.memory_bytes, entry.capacity_bytes, strict=True)):
        ax.plot([held, held], [stage - 0.5, stage + 0.5], color=TEXT, linewidth=1, linestyle="--", zorder=3)
        if used > held:
            ax.barh(stage, used - held, _BAR, held, color="white", edgecolor=TEXT, hatch="//////", linewidth=0.8)


def _crossing(ax: Axes, entry: Contender, names: dict[str, str], letters: int) -> None:
    """Between two rows what goes from one stage to the next: its bytes, its largest value, how many others."""
    sizes = [boundary.num_bytes for boundary in entry.plan.boundaries]
    middles = [boundary.index + 0.5 for boundary in entry.plan.boundaries]
    ax.barh(middles, sizes, height=_BAR, facecolor="white", edgecolor=EDGE, hatch="////", linewidth=0.8)
    for boundary, middle in zip(entry.plan.boundaries, middles, strict=True):
        largest = max(boundary.tensors, key=lambda tensor: tensor.num_bytes)
        more = len(boundary.tensors) - 1
        start, end = f"{boundary.index + 1}: {format_bytes(boundary.num_bytes)}  ", f" +{more}" if more else ""
        slow = boundary.index == entry.slow_link
        if slow:
            start += f"in {format_seconds(entry.link_s[boundary.index])}, slowest  "
        text = start + _shortened(names.get(largest.name, largest.name), letters - len(start) - len(end)) + end
        place = (boundary.num_bytes, middle)
        ax.annotate(
            literal(text), place, (4, -0.5), textcoords="offset points", va="center_baseline", fontsize=SMALL,
            fontweight="bold" if slow else "normal",
        )  # fmt: skip


def _timeline(ax: Axes, entry: Contender) -> None:
    """What each rank computes: measured where there is a run, with the prediction as outlines."""
    shown = entry.report.timeline if entry.report else entry.predicted
    ax.barh(range(shown.num_ranks), shown.makespan_s, height=_BAR, color=WAIT, zorder=0)
    events = _computed(shown)
    figure = ax.get_figure(root=True)
    assert figure is not None
    inches = ax.get_position().width * figure.get_figwidth() / ax.get_xlim()[1]
    ax.add_collection(
        PolyCollection(
            [_box(event, begin) for event, begin in events], edgecolors="white",
            facecolors=[stage_colour(event.stage) for event, _ in events],
            linewidths=[0.4 if (event.end_s - event.start_s) * inches > _LETTER / 2 else 0 for event, _ in events],
        )
    )  # fmt: skip
    if entry.report:
        outlines = [_box(event, begin) for event, begin in _computed(entry.predicted)]
        ax.add_collection(PolyCollection(outlines, facecolors="none", edgecolors=TEXT, linewidths=0.8))
    label_inches = (len(str(shown.num_microbatches - 1)) + 0.6) * _LETTER
    for event, begin in events:
        if (event.end_s - event.start_s) * inches > label_inches:
            middle = (event.start_s + event.end_s) / 2 - begin
            ax.text(middle, event.rank, str(event.microbatch), ha="center", va="center_baseline", fontsize=6.5)


def _computed(timeline: Timeline) -> list[tuple[Event, float]]:
    begin = min((event.start_s for event in timeline.events), default=0.0)
    return [(event, begin) for event in timeline.events if event.kind in COMPUTE]


def _box(event: Event, begin: float) -> list[tuple[float, float]]:
    left, right = event.start_s - begin, event.end_s - begin
    low, high = event.rank - _BAR / 2, event.rank + _BAR / 2
    return [(left, low), (right, low), (right, high), (left, high)]
