"""Matplotlib figures that show themselves in a notebook, without the global state of pyplot."""

import io
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_DPI = 96


class NotebookFigure(Figure):
    """A figure that is shown once, where it is the value of a cell."""

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        buffer = io.BytesIO()
        # Drawn at twice the resolution and shown at the figure's own size: sharp on any screen.
        self.savefig(buffer, format="png", dpi=2 * _DPI)
        width, height = self.get_size_inches()
        return buffer.getvalue(), {"width": round(width * _DPI), "height": round(height * _DPI)}


def written(figure: Figure, kind: Literal["png", "svg"], *, dpi: float = _DPI) -> bytes:
    """A figure as a file: the same figure gives the same bytes, and text in an SVG stays text."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in letters the font lacks is drawn as boxes, and kept as it is in an SVG.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        if kind == "png":
            figure.savefig(buffer, format="png", dpi=dpi)
        else:
            with mpl.rc_context({"svg.hashsalt": "pipelab", "svg.fonttype": "none"}):
                figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def literal(text: str) -> str:
    """Text as it stands, in one line: a dollar sign would start a formula, and a file holds no control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text).replace("$", r"\$")


class Sheet:
    """A figure written from its top: positions are inches from there and from the left.

    Args:
        width: Of the figure.
        height: Of the figure.
        margin: Where lines begin.
    """

    def __init__(self, width: float, height: float, margin: float) -> None:
        self.width, self.height, self._margin = width, height, margin
        self.figure = NotebookFigure(figsize=(width, height))

    def write(self, left: float, top: float, text: str, **style: Any) -> None:
        """Write a text below and to the right of a point."""
        self.figure.text(left / self.width, 1 - top / self.height, literal(text), **{"va": "top", **style})

    def lines(self, lines: Sequence[str], top: float, height: float, **style: Any) -> float:
        """Write lines; returns where they end."""
        for index, line in enumerate(lines):
            self.write(self._margin, top + index * height, line, **style)
        return top + height * len(lines)

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes without a frame and ticks."""
        ax = self.axes(left, top, width, height)
        ax.set(xticks=[], yticks=[])
        return ax

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes without a frame."""
        below = self.height - top - height
        box = (left / self.width, below / self.height, width / self.width, height / self.height)
        ax = self.figure.add_axes(box)
        ax.patch.set_visible(False)
        ax.spines[:].set_visible(False)
        return ax


def axes_for(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """The axes to draw on and their figure: what was passed, or new ones of this size in inches."""
    if ax is not None:
        figure = ax.get_figure(root=True)
        assert figure is not None
        return figure, ax
    new = NotebookFigure(figsize=(width, height), layout="constrained")
    return new, new.add_subplot()


def plain(ax: Axes) -> None:
    """Without the frame that says nothing."""
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
