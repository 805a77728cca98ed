"""An explorer of GPT-2 in four stages without a page, and what it tells."""

from typing import Any

from graphs import gpt2_graph

from pipelab.plan import Plan
from pipelab.viz.explorer import Explorer

GRAPH = gpt2_graph()
STARTS = {block.label: block.start for block in GRAPH.blocks}
CUTS = (STARTS["h.3"], STARTS["h.6"], STARTS["h.9"])
OTHER = (STARTS["h.2"], STARTS["h.6"], STARTS["h.9"])


def make(runner: Any = None, **kwargs: Any) -> Explorer:
    return Explorer(Plan(GRAPH, CUTS), num_microbatches=8, runner=runner, refusal="" if runner else "Off.", **kwargs)


def changes(explorer: Explorer, *names: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    explorer.observe(lambda change: found.append((change["name"], change["new"])), list(names))
    return found
