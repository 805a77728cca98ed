"""An explorer and its page without a kernel between them: a test carries what one says to the other."""

import json
import threading
from typing import Any

from browser import Theme
from playwright.sync_api import Page
from traitlets import All

from pipelab.viz.explorer import Explorer

# Draws the explorer of a saved page anew, on a model that a test reads and writes.
_TAKE_OVER = """async (state) => {
  const source = JSON.parse(document.getElementById("pipelab-source").textContent);
  const module = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { default: widget } = await import(module);
  const listeners = new Map();
  const fire = (event, ...args) => (listeners.get(event) ?? []).forEach((listener) => listener(...args));
  const live = { state, changed: {}, sent: [] };
  live.write = (changes) => {
    Object.assign(state, changes);
    for (const name of Object.keys(changes)) fire(`change:${name}`);
  };
  live.hear = (message, buffers) => fire("msg:custom", message, buffers);
  live.take = () => {
    const { changed, sent } = live;
    Object.assign(live, { changed: {}, sent: [] });
    return [changed, sent];
  };
  const set = (name, value) => {
    state[name] = live.changed[name] = value;
    fire(`change:${name}`);
  };
  const on = (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]);
  const off = (event, listener) => listeners.set(event, (listeners.get(event) ?? []).filter((one) => one !== listener));
  const send = (message) => live.sent.push(message);
  const model = { get: (name) => state[name], set, on, off, send, save_changes() {} };
  live.again = (el) => widget.render({ model, el });
  window.live = live;
  const host = document.createElement("div");
  document.getElementById("pipelab-explorer").replaceWith(host);
  host.id = "pipelab-explorer";
  live.again(host);
}"""
_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))"


class LivePage:
    """A page that shows an explorer, live.

    Attributes:
        page: The page.
        explorer: Its Python half.
    """

    def __init__(self, page: Page, explorer: Explorer) -> None:
        self.page, self.explorer = page, explorer
        self._changed: set[str] = set()
        self._said: list[Any] = []
        explorer.observe(lambda change: self._changed.add(change["name"]), All)
        # Its way to the browser is this page.
        explorer.send = lambda content, buffers=None: self._said.append(content)
        page.evaluate(_TAKE_OVER, self._state(explorer.keys))
        page.wait_for_selector("[data-ready='1']")

    def exchange(self) -> None:
        """Carry over what changed on either side, messages too, until nobody says anything more."""
        for _ in range(10):
            changed, sent = self.page.evaluate("() => window.live.take()")
            if changed:
                self.explorer.set_state(changed)
            for message in sent:
                self.explorer._handle_custom_msg(message, [])
            for thread in threading.enumerate():
                if thread.name.startswith("pipelab-explorer"):
                    thread.join(30)
            if not (changed or sent or self._changed or self._said):
                break
            self._tell()
        self.settle()

    def settle(self) -> None:
        """Until the page has laid itself out."""
        self.page.evaluate(_FRAMES)

    def show(self, *, width: int | None = None, theme: Theme | None = None) -> None:
        """Another width of the window or another theme."""
        if width is not None:
            self.page.set_viewport_size({"width": width, "height": 900})
        if theme is not None:
            self.page.emulate_media(color_scheme=theme)
        self.settle()

    def _tell(self) -> None:
        """Bring the page what Python changed and said."""
        changed, said = self._changed, self._said
        self._changed, self._said = set(), []
        self.page.evaluate("(state) => window.live.write(state)", self._state(changed))
        for message in said:
            self.page.evaluate("(message) => window.live.hear(message, [])", message)

    def _state(self, names: Any) -> dict[str, Any]:
        state = self.explorer.get_state([name for name in names if name in self.explorer.keys])
        return {name: value for name, value in state.items() if name not in ("_esm", "_css") and _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
