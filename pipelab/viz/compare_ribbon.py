"""The ribbon of `compare`: a plan's stages over the model's length, with its cuts by name."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes

from pipelab.contenders import Contender
from pipelab.viz.figures import literal
from pipelab.viz.palette import EDGE, TEXT, stage_colour

SMALL = 7.5
LETTER = 0.56 * SMALL / 72  # inches of a letter, on average
_STAGES, _CUTS = 0.26, 0.14  # inches of the ribbon, and of a line with the names of cuts


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
        text = f"stage {index}" if across > 9 * LETTER else str(index)
        if across > len(text) * LETTER:
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
    letters = int(1.4 * width / len(names) / LETTER)
    texts = [shortened(f"{number}: {name}", letters) for number, name in enumerate(names, 1)]
    return [line for line in (list(enumerate(texts))[0::2], list(enumerate(texts))[1::2]) if line]


def _width(text: str) -> float:
    return (len(text) + 2) * LETTER


def _cut_name(label: str) -> str:
    """Where a cut is, without what all have: "h.6", "in wpe"."""
    where = label.removeprefix("before ")
    return where.split(", ")[0].replace("inside", "in") if where.startswith("inside ") else where


def shortened(text: str, letters: int) -> str:
    """The beginning of a text that is too long."""
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
