"""What figures call a value: where it comes from, and its name there."""

from bisect import bisect_right

from pipelab.graph import Graph
from pipelab.names import isolated, printable

_LENGTH = 28


def value_names(graph: Graph) -> dict[str, str]:
    """For each tensor's own name what figures write: "h.2: add_7" for what `add_7` in block h.2 makes.

    Inputs keep their names. A value of a module inside a block names that module, "h.2.mlp: gelu_1".
    """
    names = {tensor.name: cut_off(tensor.name) for tensor in graph.inputs}
    starts = [block.start for block in graph.blocks]
    for index, op in enumerate(graph.ops):
        if op.output is not None:
            block = graph.blocks[bisect_right(starts, index) - 1]
            inside = block.path and (op.module == block.path or op.module.startswith(f"{block.path}."))
            names[op.output.name] = f"{tail(graph.short(op.module) if inside else block.label)}: {cut_off(op.name)}"
    return names


def cut_off(text: str) -> str:
    """The beginning of a text that is too long for a label."""
    text = printable(text)
    return isolated(text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…")


def tail(text: str) -> str:
    """The end of a path that is too long for a label: there the block and the module stand."""
    text = printable(text)
    return isolated(text if len(text) <= _LENGTH else f"…{text[1 - _LENGTH :]}")
