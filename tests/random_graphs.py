"""Graphs drawn by chance, with skips, tied weights, buffers, views and key-value caches; cuts and devices for them."""

import random
from dataclasses import replace

import numpy as np
from graphs import GraphWriter

from pipelab.graph import Graph, TensorInfo
from pipelab.hardware import Device, Measurement
from pipelab.presets import PRESETS


def random_graph(choose: random.Random, *, most_ops: int = 60) -> Graph:
    """A graph whose every size is drawn."""
    batch, width = choose.randint(1, 12), choose.randint(1, 64)
    inputs = [_tensor(f"x{index}", (batch, width)) for index in range(choose.randint(1, 3))]
    writer = GraphWriter("Random", batch, tuple(inputs))
    start = 0
    for index in range(choose.randint(3, most_ops)):
        _write_op(writer, choose, len(inputs))
        if choose.random() < 0.3:
            writer.block(f"h.{len(writer.blocks)}", f"h.{len(writer.blocks)}", start)
            start = index + 1
    last = len(writer.ops)
    if start < last:
        writer.block("", "head", start)
    outputs = {last - 1, *choose.sample(range(last), choose.randint(0, 1))}
    return _oddly(writer.graph(tuple(sorted(outputs))), choose)


def random_cuts(choose: random.Random, graph: Graph, num_stages: int) -> tuple[int, ...]:
    """Any legal cuts."""
    return tuple(sorted(choose.sample(graph.legal, num_stages - 1)))


def random_measurement(choose: random.Random, graph: Graph) -> Measurement:
    """A machine with any number of cores and slots, whose transfers run beside compute or not."""
    alone = np.array([[choose.uniform(0, 1e-3) for _ in graph.ops] for _ in range(2)]).cumsum(axis=0)
    parallel, slots = choose.choice([None, 1, 2, 3]), choose.choice([None, 1, 2, 5])
    loaded = alone if parallel is None else choose.uniform(1, 2) * alone
    return Measurement(
        "this machine", len(graph.ops), (1, graph.batch_size + 1), alone, loaded, parallel, choose.choice([0.0, 1e-4]),
        1e9, choose.choice([1e6, 1e9]), choose.choice([0.0, 1e-5]), slots, choose.random() < 0.5, 0, "cpu", 1,
    )  # fmt: skip


def random_device(choose: random.Random, graph: Graph) -> Device:
    """A preset, one that waits for its transfers, or a measured machine."""
    preset = PRESETS[choose.choice(list(PRESETS))]
    return choose.choice([preset, replace(preset, overlap=False), random_measurement(choose, graph)])


def _tensor(name: str, shape: tuple[int, ...]) -> TensorInfo:
    count = 4
    for size in shape:
        count *= size
    return TensorInfo(name, shape, "float32", count, batched=True)


def _write_op(writer: GraphWriter, choose: random.Random, num_inputs: int) -> None:
    index, width = len(writer.ops), choose.randint(1, 64)
    values = [*range(-num_inputs, 0), *range(max(0, index - 3), index)]
    skips = choose.sample(range(index), min(index, choose.random() < 0.2))
    args = {choose.choice(values), *skips}
    names = []
    if choose.random() < 0.5:
        tied = choose.choice(list(writer.weights)) if writer.weights and choose.random() < 0.2 else None
        shape = writer.weights[tied].shape if tied else (width, choose.randint(1, 64))
        root = writer.weights[tied].tied_to if tied else None
        kind = writer.weights[tied].kind if tied else choose.choice(["parameter", "parameter", "buffer"])
        names.append(writer.weight(f"w{index}", *shape, tied_to=root, kind=kind))
    elif writer.weights and choose.random() < 0.2:
        names.append(choose.choice(list(writer.weights)))
    target = choose.choice(["addmm", "embedding", "relu"])
    writer.op(target, f"h.{index}", (writer.batch_size, width), tuple(sorted(args)), *names)


def _oddly(graph: Graph, choose: random.Random) -> Graph:
    """Some values are views, some do not grow with the batch; the last input may be a cache; not every cut is legal."""
    ops = list(graph.ops)
    for index, op in enumerate(ops):
        made = [value for value in op.args if value >= 0]
        if made and choose.random() < 0.15:
            ops[index] = replace(op, storage=ops[made[0]].storage)
        if op.output and choose.random() < 0.1:
            ops[index] = replace(ops[index], output=replace(op.output, batched=False))
    caches = (-len(graph.inputs),) if len(graph.inputs) > 1 and choose.random() < 0.5 else ()
    legal = tuple(cut for cut in graph.legal if choose.random() < 0.9) or graph.legal
    return replace(graph, ops=tuple(ops), caches=caches, legal=legal)
