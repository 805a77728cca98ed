"""The ribbon and the stage boxes of the explorer's picture. All lengths are inches."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from pipelab.graph import Graph
from pipelab.plan import Plan
from pipelab.viz.compare_ribbon import shortened, spread
from pipelab.viz.figures import literal
from pipelab.viz.palette import EDGE, TEXT, stage_colour

SIZE = 8.25  # points of the smallest text: 11 pixels in a notebook
LETTER = 0.57 * SIZE / 72  # of a letter, on average
RIBBON = 0.5  # height of the pieces, and below them of the dividers' grips
_PIECES, _GRIP = 0.36, 0.45
_LEAST = 0.08  # width of a piece that holds next to nothing
_LINE, _PADDING, _BETWEEN = 0.158, 0.13, 0.13  # of a line in a box, around its lines, between rows of boxes
_WIDEST, _ARROW, _MOST_IN_ROW = 1.9, 0.62, 5


@dataclass(frozen=True)
class Box:
    """What a stage box says.

    Attributes:
        lines: The first in bold, what the stage holds.
        marked: Whether it is the bottleneck.
        over: Whether it needs more than its device holds.
        sent: What crosses to the next stage; empty for the last one.
    """

    lines: tuple[str, ...]
    marked: bool
    over: bool
    sent: str


def piece_edges(graph: Graph, width: float) -> list[float]:
    """Where the ribbon's pieces begin and end: as wide as they hold parameters, as in the widget."""
    sizes = [
        sum(
            weight.num_elements
            for weight in graph.weights_between(block.start, block.stop)
            if weight.kind == "parameter"
        )
        for block in graph.blocks
    ]
    total = sum(sizes)
    floor = min(_LEAST, width / len(sizes) / 2) if total else width / len(sizes)
    rest = (width - floor * len(sizes)) / max(total, 1)
    edges = [0.0]
    for size in sizes:
        edges.append(edges[-1] + floor + rest * size)
    return edges


def places_of(plan: Plan, edges: list[float]) -> list[float]:
    """Where on the ribbon the stages begin and end: evenly between the ops of a block."""

    def place(cut: int) -> float:
        index = next(k for k, block in enumerate(plan.graph.blocks) if cut < block.stop)
        block = plan.graph.blocks[index]
        return edges[index] + (edges[index + 1] - edges[index]) * (cut - block.start) / (block.stop - block.start)

    return [0.0, *(place(cut) for cut in plan.cuts), edges[-1]]


def draw_pieces(ax: Axes, graph: Graph, edges: list[float], places: list[float]) -> None:
    """The model from input to output, its blocks by name, in the colours of the stages, and where it is cut."""
    ax.set(xlim=(0, edges[-1]), ylim=(RIBBON, 0))
    for index, (start, stop) in enumerate(pairwise(places)):
        ax.barh(0, stop - start, _PIECES, start, align="edge", color=stage_colour(index), linewidth=0)
    ax.vlines(edges[1:-1], 0, _PIECES, colors=TEXT, linewidth=0.5, alpha=0.25)
    for name, (left, right) in zip(_names(graph, edges), pairwise(edges), strict=True):
        half = len(name) * LETTER / 2
        middle = (left + right) / 2
        if not any(middle - half < place < middle + half for place in places):
            ax.text(middle, _PIECES / 2, literal(name), ha="center", va="center", fontsize=SIZE, color=TEXT)
    if cuts := places[1:-1]:
        ax.vlines(cuts, 0, _PIECES, colors="white", linewidth=2.5)
        ax.vlines(cuts, 0, _GRIP, colors=TEXT, linewidth=1.0)
        ax.plot(cuts, [_GRIP] * len(cuts), "D", color=TEXT, markersize=4.5, clip_on=False)


def _names(graph: Graph, edges: list[float]) -> list[str]:
    """What is written on the pieces: "h.3", or "3" for all of them where one would not fit, or nothing."""
    labels = [block.label for block in graph.blocks]
    rooms = [int((right - left) / LETTER) - 1 for left, right in pairwise(edges)]
    stems = [label.rpartition(".")[0] for label in labels]
    tight = {stem for stem, label, room in zip(stems, labels, rooms, strict=True) if len(label) > room}
    tails = [
        label.rpartition(".")[2] if stem in tight and stem else label for stem, label in zip(stems, labels, strict=True)
    ]
    return [name if len(name) <= room else "" for name, room in zip(tails, rooms, strict=True)]


def boxes_height(boxes: Sequence[Box]) -> float:
    """Height of the stage boxes: in one row under the ribbon, or wrapped."""
    rows = -(-len(boxes) // _columns(len(boxes)))
    return rows * (_box_height(boxes) + _BETWEEN)


def _box_height(boxes: Sequence[Box]) -> float:
    return _PADDING + _LINE * max(len(box.lines) for box in boxes)


def _columns(count: int) -> int:
    """Boxes in a row: all, or rows as equal as can be."""
    rows = -(-count // _MOST_IN_ROW)
    return -(-count // rows)


def draw_boxes(ax: Axes, boxes: Sequence[Box], places: Sequence[float]) -> None:
    """One box per stage, under its piece of the ribbon where one row holds them; on the arrows what crosses.

    Args:
        ax: Where to draw.
        boxes: What they say.
        places: Where on the ribbon the stages begin and end.
    """
    width, columns = places[-1], _columns(len(boxes))
    rows = -(-len(boxes) // columns)
    pitch = width / columns if rows > 1 else (width + _ARROW) / columns
    box, high = min(_WIDEST, pitch - _ARROW), _box_height(boxes)
    lefts = [column * pitch for column in range(columns)]
    if rows == 1:
        # An arrow has its place beside its box; after the last there is none.
        centres = [(a + b + _ARROW) / 2 for a, b in pairwise(places)]
        middles = spread(centres, [box + _ARROW] * columns, width + _ARROW)
        lefts = [middle - (box + _ARROW) / 2 for middle in middles]
    ax.set(xlim=(0, width), ylim=(rows * (high + _BETWEEN), 0))
    for index, what in enumerate(boxes):
        row, column = divmod(index, columns)
        left, top = lefts[column], row * (high + _BETWEEN)
        _box(ax, what, stage_colour(index), (left, top, box, high))
        if what.sent:
            end = lefts[column + 1] if column + 1 < columns else left + box + _ARROW
            _arrow(ax, left + box, end, top + high / 2, what.sent)


def _box(ax: Axes, what: Box, colour: str, place: tuple[float, float, float, float]) -> None:
    left, top, width, height = place
    corner, size = (left + 0.03, top + 0.03), (width - 0.06, height - 0.06)
    style: dict[str, Any] = {"edgecolor": TEXT if what.marked else EDGE, "linewidth": 1.8 if what.marked else 0.6}
    style |= {"boxstyle": "round,pad=0.03", "clip_on": False}
    ax.add_patch(FancyBboxPatch(corner, *size, facecolor=colour, **style))
    if what.over:
        ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=(0, 0, 0, 0.3), linewidth=0, hatch="///"))
    room = int((width - 0.1) / LETTER)
    for number, line in enumerate(what.lines):
        ax.text(
            left + 0.07,
            top + 0.06 + number * _LINE,
            literal(shortened(line, room - (number == 0))),
            va="top",
            fontsize=SIZE,
            color=TEXT,
            fontweight="bold" if number == 0 else "normal",
            bbox={"facecolor": colour, "linewidth": 0, "pad": 1.5} if what.over else None,
        )


def _arrow(ax: Axes, start: float, end: float, y: float, text: str) -> None:
    style = {"arrowstyle": "-|>", "color": EDGE, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
    ax.annotate("", (end, y), (start, y), arrowprops=style, annotation_clip=False)
    ax.text((start + end) / 2, y - 0.05, text, ha="center", va="bottom", fontsize=SIZE)
