"""The explorer as one HTML file: the same module and stylesheet, the state as JSON, and a stand-in for the kernel."""

import html
import json
from collections.abc import Mapping
from typing import Any

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 24px auto; max-width: 1400px; padding: 0 16px; background: Canvas; color: CanvasText; }}
h1 {{ position: absolute; width: 1px; height: 1px; margin: 0; overflow: hidden; clip-path: inset(50%); }}
{css}
@page {{ size: A4 landscape; margin: 10mm; }}
@media print {{ body {{ margin: 0; print-color-adjust: exact; }} }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<div id="pipelab-explorer"></div>
</main>
<script type="application/json" id="pipelab-source">{source}</script>
<script type="application/json" id="pipelab-state">{state}</script>
<script type="module">{host}</script>
</body>
</html>
"""

# What anywidget's model is to the widget, without a kernel: values, listeners, what Python would answer to other
# numbers of micro-batches, and nobody to send to.
_HOST = """
class SavedModel {
  constructor(state) {
    const { num_microbatches, _presets, _costs, _by_microbatches } = state;
    this.answers = { ..._by_microbatches, [num_microbatches]: { _presets, _costs } };
    this.state = { ...state, _by_microbatches: this.answers };
    this.listeners = new Map();
  }
  get(name) { return this.state[name]; }
  set(name, value) {
    this.state[name] = value;
    for (const listener of this.listeners.get(`change:${name}`) ?? []) listener();
    if (name !== "num_microbatches") return;
    const answer = this.answers[value];
    const said = typeof answer === "string" ? JSON.parse(answer) : answer; // read once somebody asks
    for (const [trait, of] of Object.entries(said)) this.set(trait, of);
  }
  on(event, listener) { this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]); }
  off(event, listener) {
    this.listeners.set(event, (this.listeners.get(event) ?? []).filter((known) => known !== listener));
  }
  save_changes() {}
  send() {}
}
const PAPER = 1000;
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const module = URL.createObjectURL(new Blob([read("pipelab-source")], { type: "text/javascript" }));
const { default: widget } = await import(module);
const model = new SavedModel(read("pipelab-state"));
// A sheet of paper is narrower than a window.
addEventListener("beforeprint", () => { document.body.style.zoom = Math.min(1, PAPER / document.body.scrollWidth); });
addEventListener("afterprint", () => { document.body.style.zoom = ""; });
widget.render({ model, el: document.getElementById("pipelab-explorer") });
"""


def html_page(title: str, state: Mapping[str, Any], module: str, css: str) -> str:
    """A page that shows the explorer in this state from a file, without Python and without network.

    Args:
        title: Title of the page.
        state: The traits, by name.
        module: Text of the ES module.
        css: Text of the stylesheet.
    """
    return _PAGE.format(
        title=html.escape(title), css=css, source=_script_json(module), state=_script_json(state), host=_HOST
    )


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever names the model has."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
