"""The ops and modules of a graph as the explorer's browser half reads them: columns of numbers over one list of names.

What can be told from these columns is not sent: labels of cuts, what is alive at them, names of values.
"""

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from pipelab.graph import Graph, Op
from pipelab.names import shown
from pipelab.viz.explorer_flow import flow_state

_NUMBERED = re.compile(r"(.*)_([0-9]+)", re.DOTALL)


class _Names:
    """A list of texts in which each stands once."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}
        self.paths: dict[str, int] = {}
        self.tree: list[list[int]] = []

    def text(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))

    def path(self, path: str) -> int:
        """The number of a module path in the tree of paths: each is its parent and the last part of its name."""
        if not path:
            return -1
        if path not in self.paths:
            parent, _, name = path.rpartition(".")
            entry = [self.path(parent), self.text(name)]
            self.paths[path] = len(self.tree)
            self.tree.append(entry)
        return self.paths[path]


def program_state(graph: Graph) -> dict[str, Any]:
    """Blocks, module calls, ops and values of a graph.

    `tree` holds the module paths; in `runs`, ops in a row of one call of a module are one run inside their block;
    `renamed` lists the ops whose names do not go on counting where the last op of their kind ended ("add", "add_1").
    """
    names = _Names()
    blocks = [[shown(block.label), block.start, block.stop, names.path(block.path)] for block in graph.blocks]
    runs = [
        (names.path(path), call, len(list(ops)))
        for block in graph.blocks
        for (path, call), ops in groupby(graph.ops[block.start : block.stop], _module_call)
    ]
    calls = [(names.path(call.path), call.call, call.start, call.stop) for call in graph.modules]
    kinds = [names.text(op.short_target) for op in graph.ops]
    return {
        "prefix": shown(graph.prefix),
        "blocks": blocks,
        "runs": _columns(("path", "call", "length"), runs),
        "calls": _columns(("path", "call", "start", "stop"), calls),
        "op_kinds": kinds,
        "renamed": _renamed(graph),
        "caches": list(graph.caches),
        "flow": flow_state(graph),
        "tree": names.tree,
        "names": [shown(text) for text in names.texts],
    }


def _module_call(op: Op) -> tuple[str, int]:
    return op.module, op.call


def _columns(names: tuple[str, ...], rows: Iterable[tuple[int, ...]]) -> dict[str, list[int]]:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _renamed(graph: Graph) -> list[list[Any]]:
    counts: dict[str, int] = {}
    renamed: list[list[Any]] = []
    for index, op in enumerate(graph.ops):
        kind = op.short_target
        count = counts.get(kind, -1) + 1
        if op.name != (f"{kind}_{count}" if count else kind):
            renamed.append([index, shown(op.name)])
            numbered = _NUMBERED.fullmatch(op.name)
            count = int(numbered[2]) if numbered and numbered[1] == kind else count
        counts[kind] = count
    return renamed
