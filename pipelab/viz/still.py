"""A picture of a widget below it: hidden while the widget lives, seen where the notebook is read without a kernel."""

import asyncio
import contextlib
import html
import re
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import anywidget
import ipywidgets
import traitlets

REDRAW_S = 1.0  # of quiet after a change
_WIDTH = 960  # pixels, where a picture does not say

# JupyterLab and nbconvert leave the widget's own output empty, or with "model not found", where there is no kernel.
# It keeps its width, by which a widget that is still to come is laid out. A box that lives holds its widgets.
_STILL = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .pipelab-still)\
:not(:has([class*="pl-"], .widget-container, .pipelab-still)) {{
  visibility: hidden; height: 0; min-height: 0; overflow: hidden;
}}
</style>
<img class="pipelab-still pipelab-still-{id}" alt="{alt}" src="data:image/png;base64,{png}" style="width: {width}px; \
max-width: 100%; background: white">"""


class StillWidget(anywidget.AnyWidget):
    """A widget whose cell shows a picture of it when it is opened without a kernel.

    A subclass gives `image/png` and `text/plain` in its `_repr_mimebundle_`.

    Attributes:
        still_follows: The traits after whose changes the picture is drawn anew.
    """

    still_follows: ClassVar[tuple[str, ...]] = ()

    _redrawing: threading.Timer | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _still = traitlets.Unicode().tag(sync=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _let_boxes_leave_pictures()

    @traitlets.default("_still")
    def _make_still(self) -> str:
        return uuid.uuid4().hex

    def _ipython_display_(self, **kwargs: Any) -> None:
        """Two outputs of a cell: the widget, then its picture, which `static/still.js` hides."""
        from IPython.display import display

        bundle = self._bundle() if shows_pictures() else None
        if bundle is None:
            raise NotImplementedError  # IPython then asks for the text
        data, metadata = bundle
        shown = {kind: of for kind, of in data.items() if kind != "image/png"}
        kept = {kind: of for kind, of in metadata.items() if kind in shown}
        display(shown, metadata=kept, raw=True)  # type: ignore[no-untyped-call]  # IPython's
        self._leave_still(data, metadata)

    def _leave_still(self, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Put the picture below what the cell shows, and keep it true."""
        self._put_still(data["text/plain"], data["image/png"], metadata, update=False)
        with contextlib.suppress(RuntimeError):  # no kernel, no loop
            self._loop = asyncio.get_running_loop()
        if self.still_follows:
            self.observe(self._redraw_soon, list(self.still_follows))

    def _bundle(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        return None if self.comm is None else self._repr_mimebundle_()

    def close(self) -> None:
        """Close the widget; its picture stays as it is."""
        if self._redrawing is not None:
            self._redrawing.cancel()
        super().close()

    def _put_still(self, text: str, picture: str, metadata: dict[str, Any], *, update: bool) -> None:
        from IPython.display import display

        width = metadata.get("image/png", {}).get("width", _WIDTH)
        still = _STILL.format(id=re.sub(r"\W", "", self._still), alt=html.escape(text), png=picture, width=width)
        display({"text/html": still}, raw=True, display_id=self._still, update=update)  # type: ignore[no-untyped-call]  # IPython's

    def _redraw_soon(self, _change: Any) -> None:
        """Draw when nothing has changed for a while, between two things the kernel does."""
        if self._redrawing is not None:
            self._redrawing.cancel()
        self._redrawing = threading.Timer(REDRAW_S, self._redraw_between)
        self._redrawing.daemon = True
        self._redrawing.start()

    def _redraw_between(self) -> None:
        """Draw in the kernel's own thread: matplotlib is not made for two, and a change is seen whole or not at all."""
        if self._loop is None:
            self._redraw()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._redraw)

    def _redraw(self) -> None:
        bundle = self._bundle()
        if bundle is not None:
            data, metadata = bundle
            self._put_still(data["text/plain"], data["image/png"], metadata, update=True)


def shows_pictures() -> bool:
    """Whether a picture would be seen: IPython in a terminal shows text."""
    formatter = _formatter()
    return formatter is None or "image/png" in formatter.active_types


def _formatter() -> Any:
    """What IPython shows values with; None where there is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell and shell.display_formatter


def _let_boxes_leave_pictures() -> None:
    """A widget in an `HBox` is never shown by itself, and the box knows nothing of pictures."""
    formatter = _formatter()
    if formatter is not None:
        formatter.ipython_display_formatter.type_printers.setdefault(ipywidgets.Box, _show_box)


def _show_box(box: ipywidgets.Box) -> None:
    """A box, then the pictures of the widgets in it."""
    from IPython.display import display

    inside = [(widget, widget._bundle()) for widget in _inside(box)] if shows_pictures() else []
    shown = box._repr_mimebundle_()
    if not inside or shown is None:
        raise NotImplementedError  # IPython then shows it as ever
    display(shown, raw=True)  # type: ignore[no-untyped-call]  # IPython's
    for widget, bundle in inside:
        if bundle is not None:
            widget._leave_still(*bundle)


def _inside(box: ipywidgets.Box) -> Iterator[StillWidget]:
    """The widgets with pictures in a box, and in the boxes in it."""
    for child in box.children:
        if isinstance(child, StillWidget):
            yield child
        elif isinstance(child, ipywidgets.Box):
            yield from _inside(child)
