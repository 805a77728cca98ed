"""Draws a picture as SVG without Graphviz: boxes in rows, links past a box as brackets under their row.

inputs ─8 kB→ [ stage 0 ] ─3 MB→ [ stage 1 ] ─3 MB→ [ stage 2 ] ─206 MB→ outputs
                   └────────── tied: wte = lm_head ──────┘
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from pipelab.viz.palette import EDGE, TEXT, stage_colour
from pipelab.viz.picture import Box, Link, Picture

# Widths are computed, not measured: a monospaced font at 11 px is 6.7 px wide or less.
_FONT = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', Courier, monospace"
_SIZE, _CHAR, _LINE, _PAD = 11, 6.7, 15, 8
_MARGIN, _LANE, _MIN_GAP, _MAX_ROW = 10, 20, 26, 1060
_SHIFT = 20  # how far a label may give way to a line that crosses its beginning


def draw(picture: Picture) -> str:
    """The picture as one SVG text."""
    placed = _place(picture)
    parts, y, width = [_text(_MARGIN, 20, picture.title, "start", bold=True)], 34.0, len(picture.title) * _CHAR
    for row in placed:
        drawn, right, y = _draw_row(picture, row, y)
        parts += drawn
        width = max(width, right)
    label = escape(f"{picture.title}: " + ". ".join(", ".join(box.lines) for box in picture.boxes))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" width="{width + _MARGIN:.0f}" '
        f'height="{y:.0f}" viewBox="0 0 {width + _MARGIN:.0f} {y:.0f}" font-family="{_FONT}" font-size="{_SIZE}">\n'
        '<defs><marker id="pipelab-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8Z" fill="{EDGE}"/></marker></defs>\n' + "\n".join(parts) + "\n</svg>\n"
    )


# --- where things go ------------------------------------------------------------------------------------


@dataclass
class _Row:
    """Boxes side by side: their indices, left edges and widths, and what is written above them."""

    heading: str = ""
    boxes: list[int] = field(default_factory=list)
    left: dict[int, float] = field(default_factory=dict)
    width: dict[int, float] = field(default_factory=dict)
    right: float = _MARGIN

    def centre(self, box: int) -> float:
        return self.left[box] + self.width[box] / 2


def _place(picture: Picture) -> list[_Row]:
    """Rows of boxes: a new one for each stage with a heading, and where the last one is full."""
    gap = {link.source: _gap(link.label) for link in _steps(picture)}
    headings = [heading.replace("\n", " · ") for heading in picture.headings]
    rows = [_Row(headings[0] if headings else "")]
    ends = len(picture.inputs) * _CHAR
    rows[0].left[-1], rows[0].width[-1] = _MARGIN, ends
    rows[0].right = _MARGIN + ends + gap[-1] + 6
    for index, box in enumerate(picture.boxes):
        row, width = rows[-1], _box_width(box)
        new_stage = bool(picture.headings and row.boxes and picture.boxes[row.boxes[-1]].stage != box.stage)
        if row.boxes and (new_stage or row.right + width > _MAX_ROW):
            row = _Row(headings[box.stage] if new_stage else "", right=_MARGIN + _MIN_GAP)
            rows.append(row)
        row.boxes.append(index)
        row.left[index], row.width[index] = row.right, width
        row.right += width + gap.get(index, _MIN_GAP / 2)
    last, outputs = rows[-1], len(picture.boxes)
    last.left[outputs], last.width[outputs] = last.right + 6, len("outputs") * _CHAR
    last.right += last.width[outputs] + 6
    return rows


def _steps(picture: Picture) -> list[Link]:
    """The arrows from each box to the next."""
    return [link for link in picture.links if link.target == link.source + 1 and link.kind != "tied"]


def _gap(label: str) -> float:
    return max(_MIN_GAP, len(label) * _CHAR + 22)


def _box_width(box: Box) -> float:
    return max(len(line) for line in box.lines) * _CHAR + 2 * _PAD


def _label_left(first: float, last: float, label: str, crossing: Sequence[float] = ()) -> float:
    """Where a label begins: near the middle of its line, clear of lines that cross; after a line too short for it."""
    width = len(label) * _CHAR
    if width + 12 > last - first:
        left = last + 7
        for x in sorted(crossing):
            left = x + 7 if left - 4 < x < left + _SHIFT else left
        return left
    middle = (first + last - width) / 2
    places = [middle, *(x + 4 for x in crossing), *(x - width - 4 for x in crossing)]
    clear = [
        place
        for place in places
        if first + 4 <= place <= last - width - 4 and not any(place - 3 < x < place + width + 3 for x in crossing)
    ]
    return min(clear, key=lambda place: abs(place - middle), default=middle)


def _lanes(arcs: Sequence[tuple[float, float]], labels: Sequence[str]) -> list[int]:
    """A lane for each arc, so that neither lines nor labels in one lane meet; short arcs nearest to the boxes."""
    taken: list[list[tuple[float, float]]] = []
    lanes = [0] * len(arcs)
    for index in sorted(range(len(arcs)), key=lambda i: arcs[i][1] - arcs[i][0]):
        first, last = arcs[index]
        span = (first - 4, max(last, _label_left(first, last, labels[index]) + len(labels[index]) * _CHAR) + _SHIFT)
        lane = 0
        while lane < len(taken) and any(span[0] < b and a < span[1] for a, b in taken[lane]):
            lane += 1
        if lane == len(taken):
            taken.append([])
        taken[lane].append(span)
        lanes[index] = lane
    return lanes


# --- what is drawn --------------------------------------------------------------------------------------


def _draw_row(picture: Picture, row: _Row, top: float) -> tuple[list[str], float, float]:
    """The parts of a row, its right edge, and where the next row begins."""
    parts, right = [], row.right
    if row.heading:
        parts.append(_text(_MARGIN, top + 10, row.heading, "start"))
        right = max(right, _MARGIN + len(row.heading) * _CHAR)
        top += 20
    height = max(len(picture.boxes[index].lines) for index in row.boxes) * _LINE + 2 * _PAD
    middle = top + height / 2
    for index in row.boxes:
        parts += _box(picture.boxes[index], row.left[index], top, row.width[index], height)
    for index, words in ((-1, picture.inputs), (len(picture.boxes), "outputs")):
        if index in row.left:
            parts.append(_text(row.centre(index), middle + 4, words, "middle"))
    steps = {link.source: link for link in _steps(picture)}
    parts += _arrows(picture, row, steps, middle)
    under, reach, depth = _brackets(picture, row, top + height)
    return parts + under, max(right, reach), top + height + depth + 18


def _box(box: Box, left: float, top: float, width: float, height: float) -> list[str]:
    fill = stage_colour(box.stage)
    first = top + (height - len(box.lines) * _LINE) / 2 + _LINE - 4
    rect = f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" fill="{fill}"/>'
    lines = [
        _text(left + width / 2, first + number * _LINE, line, "middle", bold=number == 0, fill=TEXT)
        for number, line in enumerate(box.lines)
    ]
    return [rect, *lines]


def _arrows(picture: Picture, row: _Row, steps: dict[int, Link], y: float) -> list[str]:
    """The arrow after each box, and the stub before a row that goes on from the one above."""
    parts = []
    first = row.boxes[0]
    if first > 0 and first - 1 in steps:
        parts.append(_line(f"M{_MARGIN:.1f} {y:.1f}H{row.left[first] - 1:.1f}", "flow", head=True))
    for index, left in row.left.items():
        if link := steps.get(index):
            start = left + row.width[index] + (6 if index < 0 else 2)
            end = row.left.get(index + 1, start + _gap(link.label)) - (6 if index + 1 == len(picture.boxes) else 2)
            parts.append(_line(f"M{start:.1f} {y:.1f}H{end:.1f}", link.kind, head=True))
            parts.append(_text((start + end) / 2, y - 5, link.label, "middle"))
    return parts


def _brackets(picture: Picture, row: _Row, bottom: float) -> tuple[list[str], float, float]:
    """The links past a box that touch or pass this row; their right edge, and the depth they take."""
    first, last = min(row.left), max(row.left)
    links = [
        link
        for link in picture.links
        if (link.kind == "tied" or link.target > link.source + 1) and link.source <= last and link.target >= first
    ]
    if not links:
        return [], 0.0, 0.0
    ends = _risers(row, links)
    # In a row it only passes a link is a line: its text stands where it begins and ends.
    labels = [link.label if link.source in row.left or link.target in row.left else "" for link in links]
    lanes = _lanes(ends, labels)
    parts, reach = [], 0.0
    for link, label, (start, stop), lane in zip(links, labels, ends, lanes, strict=True):
        y = bottom + 16 + lane * _LANE
        down = f"M{start:.1f} {bottom + 2:.1f}V{y:.1f}" if link.source in row.left else f"M{start:.1f} {y:.1f}"
        up = f"V{bottom + 3:.1f}" if link.target in row.left else ""
        parts.append(_line(f"{down}H{stop:.1f}{up}", link.kind, head=bool(up) and link.kind == "skip"))
        deeper = [x for other, pair in zip(lanes, ends, strict=True) if other > lane for x in pair]
        left = _label_left(start, stop, label, deeper)
        parts.append(_text(left, y - 4 if left < stop else y, label, "start"))
        reach = max(reach, left + len(label) * _CHAR, stop)
    return parts, reach, 16 + max(lanes) * _LANE + 6.0


def _risers(row: _Row, links: Sequence[Link]) -> list[tuple[float, float]]:
    """Where each link leaves and meets the row; several at one box stand side by side, left-going ones left."""
    at: dict[int, list[tuple[int, int]]] = {}
    for number, link in enumerate(links):
        at.setdefault(link.source, []).append((link.target, number))
        at.setdefault(link.target, []).append((link.source, number))
    places: dict[tuple[int, int], float] = {}
    for box, others in at.items():
        if box in row.left:
            step = min(12.0, row.width[box] / (len(others) + 1))
            # To the right the far ones go outside, so that their lines, which lie deeper, do not cross.
            ranked = sorted(others, key=lambda other: (other[0] > box, -other[0], other[1]))
            for rank, (_, number) in enumerate(ranked):
                places[box, number] = row.centre(box) + (rank - (len(others) - 1) / 2) * step
    left, right = float(_MARGIN), max(row.left[box] + row.width[box] for box in row.left) + _MIN_GAP / 2
    return [
        (places.get((link.source, number), left), places.get((link.target, number), right))
        for number, link in enumerate(links)
    ]


def _line(path: str, kind: str, *, head: bool) -> str:
    dash = {"skip": ' stroke-dasharray="5 3"', "tied": ' stroke-dasharray="1.5 3"'}.get(kind, "")
    marker = ' marker-end="url(#pipelab-head)"' if head else ""
    return f'<path d="{path}" fill="none" stroke="{EDGE}" stroke-width="1.4"{dash}{marker}/>'


def _text(x: float, y: float, words: str, anchor: str, *, bold: bool = False, fill: str = EDGE) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"{weight}>{escape(words)}</text>'
