"""The widget of `compare`: plans of one model on the same axes, with one cursor and one zoom for all.

Python holds what is compared and which plan is chosen; `static/comparison.js` draws.
"""

import base64
from pathlib import Path
from typing import Any, Literal

import traitlets

from pipelab.comparison import Comparison
from pipelab.errors import InputError
from pipelab.files import suffix_of, write_bytes
from pipelab.units import plural
from pipelab.viz.comparison_state import comparison_state
from pipelab.viz.explorer_state import graph_state
from pipelab.viz.html_export import html_page
from pipelab.viz.modules import module, stylesheet
from pipelab.viz.palette import STAGE_COLOURS
from pipelab.viz.still import StillWidget, shows_pictures

_MODULE = module("comparison.js")
_STYLES = stylesheet("base.css", "verdict.css", "ribbon.css", "timeline.css", "controls.css", "access.css",
                     "comparison.css")  # fmt: skip
_PAGE_TRAITS = ("value", "_data", "_comparison", "_colours")


class ComparisonView(StillWidget):
    """Plans side by side: an ordinary ipywidget.

    Attributes:
        value: Name of the chosen plan: beside it the others are told as differences. The best one at first.
    """

    _esm = _MODULE
    _css = _STYLES

    value = traitlets.Unicode().tag(sync=True)

    _data = traitlets.Dict().tag(sync=True)
    _comparison = traitlets.Dict().tag(sync=True)
    _colours = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, comparison: Comparison) -> None:
        """The view of what `pipelab.compare` gave."""
        self._of = comparison
        super().__init__(
            value=comparison.best.name,
            _data=graph_state(comparison.graph),
            _comparison=comparison_state(comparison),
            _colours=list(STAGE_COLOURS),
        )

    def __repr__(self) -> str:
        return f"ComparisonView({plural(len(self._of.entries), 'plan')} of {self._of.graph.model})"

    @traitlets.validate("value")
    def _check_value(self, proposal: Any) -> str:
        name, names = proposal["value"], [entry.name for entry in self._of.entries]
        if name not in names:
            raise traitlets.TraitError(f"There is no plan {name!r} here; there are {', '.join(map(repr, names))}.")
        return str(name)

    def save(self, path: str | Path) -> None:
        """Write a page that works in any browser without Python and network (.html), or a picture (.png, .svg).

        Raises:
            InputError: The name ends otherwise.
        """
        match suffix_of(path):
            case ".html":
                content = self._page()
            case ".png":
                content = self._picture("png")
            case ".svg":
                content = self._picture("svg")
            case other:
                ending = other or "a file without an ending"
                raise InputError(f"A comparison is saved as .html, .png or .svg, not as {ending}.")
        write_bytes(path, content, "comparison")

    def _page(self) -> bytes:
        state = {name: getattr(self, name) for name in _PAGE_TRAITS}
        return html_page(f"{self._of.graph.model}: plans side by side", state, _MODULE, _STYLES).encode()

    def _picture(self, kind: Literal["png", "svg"]) -> bytes:
        from pipelab.viz.figures import written

        return written(self._figure(), kind, dpi=192)

    def _figure(self) -> Any:
        from pipelab.viz.compare_figure import compare  # matplotlib, only where a picture is asked for

        return compare(self._of)

    def _repr_png_(self) -> Any:
        return self._figure()._repr_png_()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The widget, and for places that cannot show it a picture and the table."""
        if not shows_pictures():
            return {"text/plain": repr(self._of)}, {}
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        picture, size = self._repr_png_()
        data |= {"text/plain": repr(self._of), "image/png": base64.b64encode(picture).decode("ascii")}
        return data, {**metadata, "image/png": size}
