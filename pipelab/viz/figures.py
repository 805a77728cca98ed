"""Matplotlib figures that show themselves in a notebook, without the global state of pyplot."""

import io
from typing import Any

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
