"""Whether a graph from a file can be: nothing is read before it is made, and all sizes are sizes."""

from itertools import pairwise

from pipelab.arguments import shown
from pipelab.graph import Graph


def problem_of(graph: Graph) -> str:
    """What contradicts itself in a graph, in words; empty if nothing does."""
    num_ops, num_inputs = len(graph.ops), len(graph.inputs)
    values = range(-num_inputs, num_ops)
    names = {weight.name for weight in graph.weights}
    tensors = [*graph.inputs, *(op.output for op in graph.ops if op.output)]
    sizes = [graph.batch_size - 1, num_ops - 1]
    sizes += [size for tensor in tensors for size in (tensor.num_bytes, *tensor.shape)]
    sizes += [size for weight in graph.weights for size in (weight.num_elements, weight.num_bytes, *weight.shape)]
    sizes += [number for op in graph.ops for number in (op.flops, op.call, op.ordinal)]
    if min(sizes) < 0:
        return "a size in it is below 0"
    for index, op in enumerate(graph.ops):
        if not all(-num_inputs <= value < index for value in op.args):
            return f"op {shown(op.name)} reads a value that is not made before it"
        if op.storage is not None and not -num_inputs <= op.storage <= index:
            return f"op {shown(op.name)} writes into memory that is not there before it"
        if not names.issuperset(op.weights):
            return f"op {shown(op.name)} reads a weight that is not listed"
    if not names.issuperset(weight.tied_to for weight in graph.weights):
        return "a weight is tied to one that is not listed"
    if not all(value in values for value in (*graph.outputs, *graph.caches)):
        return "it returns, or keeps, a value that is not there"
    spans = [(piece.start, piece.stop) for pieces in (graph.modules, graph.blocks) for piece in pieces]
    if not all(0 <= start <= stop <= num_ops for start, stop in spans):
        return "a module or block lies outside its ops"
    edges = [block.start for block in graph.blocks] + [num_ops]
    if edges[0] or any(block.stop != edge for block, edge in zip(graph.blocks, edges[1:], strict=True)):
        return "its blocks do not cover its ops"
    legal = (0, *graph.legal, num_ops)
    if any(a >= b for a, b in pairwise(legal)) or not set(graph.marks) <= set(graph.legal):
        return "its cuts do not ascend from its first op to its last"
    return ""
