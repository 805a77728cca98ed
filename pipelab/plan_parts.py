"""The parts of a plan, with their figures: stages, and the boundaries between them."""

from dataclasses import dataclass

from pipelab.graph import Graph, TensorInfo


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage holds. Sizes are of the traced batch.

    Attributes:
        index: Its place in the pipeline, from 0.
        start: Its first op.
        stop: The op after its last.
        num_params: Elements of the parameters it reads; a tied one counts once per stage.
        param_bytes: Their bytes.
        buffer_bytes: Bytes of the buffers and constants it reads.
        cache_bytes: Bytes of the key-value caches it keeps, in a decode step.
        flops: Floating-point operations.
        activation_bytes: Most bytes of values in memory at once while it runs.
        modules: The blocks it runs, wholly or in part, and outside blocks the modules.
        labels: The same for people: "embed", "h.0".
        time_s: Seconds it computes, by `Plan.hardware` or as measured while the other stages compute; None while
            there is neither.
    """

    index: int
    start: int
    stop: int
    num_params: int
    param_bytes: int
    buffer_bytes: int
    cache_bytes: int
    flops: int
    activation_bytes: int
    modules: tuple[str, ...]
    labels: tuple[str, ...]
    time_s: float | None = None


@dataclass(frozen=True, slots=True)
class Boundary:
    """What crosses from stage `index` to the next, for the traced batch.

    Attributes:
        index: The stage before it.
        position: The cut.
        label: Where the cut is.
        num_bytes: Bytes on the wire.
        tensors: The values that cross.
    """

    index: int
    position: int
    label: str
    num_bytes: int
    tensors: tuple[TensorInfo, ...]


def stage_of(graph: Graph, index: int, start: int, stop: int) -> Stage:
    """The ops from `start` to `stop`."""
    weights = graph.weights_between(start, stop)
    parameters = [weight for weight in weights if weight.kind == "parameter"]
    modules, labels = _modules(graph, start, stop)
    return Stage(
        index=index,
        start=start,
        stop=stop,
        num_params=sum(weight.num_elements for weight in parameters),
        param_bytes=sum(weight.num_bytes for weight in parameters),
        buffer_bytes=sum(weight.num_bytes for weight in weights if weight.kind != "parameter"),
        cache_bytes=graph.cache_bytes_between(start, stop, graph.batch_size),
        flops=int(graph.flops_before[stop] - graph.flops_before[start]),
        activation_bytes=int(graph.memory_bytes[start:stop].max()) if stop > start else 0,
        modules=modules,
        labels=labels,
    )


def _modules(graph: Graph, start: int, stop: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    modules: dict[str, None] = {}
    labels: dict[str, None] = {}
    for block in graph.blocks_between(start, stop):
        first, last = max(block.start, start), min(block.stop, stop)
        labels[block.label] = None
        inside = [block.path] if block.path else [op.module for op in graph.ops[first:last] if op.module]
        modules.update(dict.fromkeys(inside))
    return tuple(modules), tuple(labels)


def boundary_of(graph: Graph, index: int, cut: int) -> Boundary:
    """What crosses a cut."""
    point = graph.cut_point_at.get(cut)
    if point is None:  # the empty last stage: the outputs pass through
        values = [graph.tensor(value) for value in graph.outputs]
        tensors = tuple(tensor for tensor in values if tensor is not None)
        return Boundary(index, cut, "after the last op", sum(t.num_bytes for t in tensors), tensors)
    return Boundary(index, cut, point.label, point.num_bytes, point.tensors)
