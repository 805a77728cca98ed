"""Figures of plans and timelines, and the explorer's widget. They draw data and start nothing.

Each name is loaded on first use: a stage graph needs no matplotlib, a timeline no graphviz.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelab.viz.compare_figure import compare as compare
    from pipelab.viz.graph_figure import stage_graph as stage_graph
    from pipelab.viz.size_figure import stage_sizes as stage_sizes
    from pipelab.viz.timeline_figure import timeline as timeline

_HOME = {
    "compare": "compare_figure",
    "stage_graph": "graph_figure",
    "stage_sizes": "size_figure",
    "timeline": "timeline_figure",
}

__all__ = ["compare", "stage_graph", "stage_sizes", "timeline"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pipelab.viz' has no attribute {name!r}")
    value = getattr(import_module(f"pipelab.viz.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
