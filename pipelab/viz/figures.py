"""Matplotlib figures that show themselves in a notebook, without the global state of pyplot."""

import io
import warnings
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
