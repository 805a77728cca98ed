"""Which op reads which value, as the explorer's graph draws it: columns of ints, sent once."""

from typing import Any

from pipelab.graph import Graph, TensorInfo
from pipelab.names import shown


def flow_state(graph: Graph) -> dict[str, Any]:
    """What every op makes, and who reads it.

    Most ops read the op right before them: only those that do not (`apart`), and what is read otherwise (`sources`
    and `targets`, pair by pair), are listed. A source below 0 is a model input: -1 the first. `kind` says for each
    op what it makes, as an index of `kinds`; None for a list of tensors.
    """
    kinds: dict[tuple[Any, ...], int] = {}

    def kind(tensor: TensorInfo | None) -> int | None:
        return None if tensor is None else kinds.setdefault(_kind(tensor), len(kinds))

    made = [kind(op.output) for op in graph.ops]
    inputs = [[shown(tensor.name), kind(tensor)] for tensor in graph.inputs]
    other = [(source, op) for op, node in enumerate(graph.ops) for source in node.args if source != op - 1 or not op]
    return {
        "kinds": [[list(shape), *rest] for shape, *rest in kinds],
        "kind": made,
        "inputs": inputs,
        "outputs": list(graph.outputs),
        "apart": [op for op, node in enumerate(graph.ops) if op and op - 1 not in node.args],
        "sources": [source for source, _ in other],
        "targets": [target for _, target in other],
    }


def _kind(tensor: TensorInfo) -> tuple[Any, ...]:
    """What a tensor is like: shape, dtype, bytes for the traced batch, and whether those grow with the rows."""
    return tensor.shape, tensor.dtype, tensor.num_bytes, tensor.batched
