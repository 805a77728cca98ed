"""A picture of a widget below it: hidden while the widget lives, seen where the notebook is read without a kernel."""

import asyncio
import contextlib
import html
import re
import sys
import threading
import uuid
from typing import Any, ClassVar

import anywidget
import traitlets

REDRAW_S = 1.0  # of quiet after a change
_WIDTH = 960  # pixels, where a picture does not say

# JupyterLab and nbconvert leave the widget's own output empty, or with "model not found", where there is no kernel.
# It keeps its width, by which a widget that is still to come is laid out.
_STILL = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .pipelab-still):not(:has([class*="pl-"])) {{
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
        picture = data.pop("image/png")
        kept = {name: of for name, of in metadata.items() if name in data}
        display(data, metadata=kept, raw=True)  # type: ignore[no-untyped-call]  # IPython's
        self._put_still(data["text/plain"], picture, metadata, update=False)
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
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is None or "image/png" in shell.display_formatter.active_types
