"""`stage_graph`: the stages of a plan as a directed graph, drawn by Graphviz where it is installed."""

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import graphviz

from pipelab.errors import PipelabError
from pipelab.plan import Plan, check_plan
from pipelab.viz.palette import EDGE, TEXT, stage_colour
from pipelab.viz.picture import Box, Link, Picture, block_picture, stage_picture
from pipelab.viz.svg_layout import draw

Detail = Literal["stage", "block"]
_PICTURES = {"stage": stage_picture, "block": block_picture}
# More boxes than this do not fit side by side on a screen.
_MAX_ACROSS = 6
_LINE_STYLE = {"boundary": "solid", "flow": "solid", "skip": "dashed", "tied": "dotted"}


class StageGraph(graphviz.Digraph):  # type: ignore[misc]  # graphviz ships no types
    """A `graphviz.Digraph` that draws itself also where the `dot` program is missing.

    Attributes:
        picture: The boxes and links it shows.
    """

    def __init__(self, picture: Picture, **attributes: Any) -> None:
        super().__init__("pipeline", **attributes)
        self.picture = picture

    def to_svg(self) -> str:
        """The graph as SVG text: laid out by `dot`, or in plain rows where `dot` is not installed."""
        if shutil.which("dot"):
            return str(self.pipe(format="svg", encoding="utf-8"))
        return draw(self.picture)

    def save_svg(self, path: str | Path) -> None:
        """Write the graph as an SVG file."""
        Path(path).write_text(self.to_svg(), encoding="utf-8")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **_: Any) -> dict[str, str]:
        return {"image/svg+xml": self.to_svg(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return "\n".join([self.picture.title, *(", ".join(box.lines) for box in self.picture.boxes)])


def stage_graph(plan: Plan, *, detail: Detail = "stage") -> StageGraph:
    """The stages, the bytes between them, and what ties distant stages together.

    Arrows carry the bytes of each boundary, dashed arcs the values that pass a stage which does not read
    them, dotted ones the weights that two stages both hold. Sizes are of the traced batch.

    Args:
        plan: The plan to draw.
        detail: "stage" for one box per stage, "block" for a box per block inside each stage.

    Returns:
        A `graphviz.Digraph`: `.source` is its DOT text, `.to_svg()` and `.save_svg(path)` its picture.

    Raises:
        PipelabError: `detail` is neither of the two.
        SplitError: It is no plan.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)).eval()
        >>> plan = pipelab.uniform(pipelab.trace(model, torch.zeros(6, 4)), num_stages=2)
        >>> pipelab.viz.stage_graph(plan)
        Sequential in 2 stages (batch of 6)
        stage 0, 0, 40 parameters, 160 B
        stage 1, 1, 18 parameters, 72 B
    """
    if detail not in _PICTURES:
        raise PipelabError(f"detail must be 'stage' or 'block'; it is {detail!r}.")
    check_plan(plan)
    return _digraph(_PICTURES[detail](plan))


def _digraph(picture: Picture) -> StageGraph:
    across = len(picture.boxes) <= _MAX_ACROSS
    font = {"fontname": "Courier", "fontsize": "9"}
    graph = StageGraph(
        picture,
        graph_attr={"rankdir": "LR" if across else "TB", "bgcolor": "transparent", "nodesep": "0.2",
                    "ranksep": "0.12" if across else "0.25",
                    "label": _escaped(picture.title), "labelloc": "t", "labeljust": "l", "fontcolor": EDGE, **font},
        node_attr={"shape": "box", "style": "filled,rounded", "color": "transparent", "fontcolor": TEXT, **font},
        edge_attr={"color": EDGE, "fontcolor": EDGE, "arrowsize": "0.7", **font},
    )  # fmt: skip
    ends = {"shape": "plaintext", "style": "", "fontcolor": EDGE}
    graph.node("inputs", _escaped(picture.inputs), **ends)
    rows = [] if across or not picture.headings else _rows(picture.boxes)
    for stage in dict.fromkeys(box.stage for box in picture.boxes):
        _add_stage(graph, picture, stage, [row for row in rows if picture.boxes[row[0]].stage == stage])
    graph.node("outputs", "outputs", **ends)
    for above, below in pairwise(rows):  # rows begin one under the other
        graph.edge(f"box{above[0]}", f"box{below[0]}", style="invis", weight="100")
    for link in picture.links:
        _add_link(graph, link, len(picture.boxes), in_row=across)
    return graph


def _rows(boxes: Sequence[Box]) -> list[list[int]]:
    """Boxes that stand side by side: at most `_MAX_ACROSS` of one stage."""
    rows: list[list[int]] = []
    for index, box in enumerate(boxes):
        if not rows or len(rows[-1]) == _MAX_ACROSS or boxes[rows[-1][0]].stage != box.stage:
            rows.append([])
        rows[-1].append(index)
    return rows


def _add_stage(graph: StageGraph, picture: Picture, stage: int, rows: Sequence[Sequence[int]]) -> None:
    """The boxes of a stage, in a frame where it has a heading."""
    frame = graph
    if picture.headings:
        frame = graphviz.Digraph(f"cluster_{stage}")
        frame.attr(label=_escaped(picture.headings[stage]), labeljust="r")  # arrows come in at the left
        frame.attr(color=stage_colour(stage), style="rounded", penwidth="2")
    for index, box in enumerate(picture.boxes):
        if box.stage == stage:
            label = _escaped("\n".join(box.lines))
            frame.node(f"box{index}", label, id=f"box{index}", fillcolor=stage_colour(stage))
    for row in rows:
        with frame.subgraph() as side_by_side:
            side_by_side.attr(rank="same")
            for index in row:
                side_by_side.node(f"box{index}")
    if picture.headings:
        graph.subgraph(frame)


def _add_link(graph: StageGraph, link: Link, num_boxes: int, *, in_row: bool) -> None:
    names = ["inputs" if i < 0 else "outputs" if i == num_boxes else f"box{i}" for i in (link.source, link.target)]
    attributes = {"style": _LINE_STYLE[link.kind]}
    label = "label"
    if link.kind in ("skip", "tied"):
        attributes["constraint"] = "false"
        if in_row:
            label = "xlabel"  # a plain label would push the boxes apart
    if link.kind == "tied":
        attributes["dir"] = "none"
    if link.label:
        attributes[label] = _escaped(f" {link.label} ")
    graph.edge(*names, **attributes)


def _escaped(text: str) -> str:
    """Text that DOT shows as it is: no escapes, no HTML, no entities."""
    plain: str = graphviz.nohtml(graphviz.escape(text.replace("&", "&amp;")).replace("\n", "\\n"))
    return plain
