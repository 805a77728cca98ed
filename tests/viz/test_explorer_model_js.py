"""The browser's model of a graph: what was not sent, because it follows, equals what pipelab says."""

import dataclasses
import json

import pytest
from graphs import gpt2_graph, mlp_graph
from node import Node

from pipelab.graph import Graph
from pipelab.viz.explorer_state import graph_state
from pipelab.viz.value_names import value_names

LOOK = """
const { Model } = await load("model.js");
const [data, rows] = args;
const model = new Model(data);
return {
  levels: Object.fromEntries(Object.entries(model.byLevel)),
  cuts: model.positions.map((position) => {
    const { label, bytes, alive } = model.cut(position);
    return [position, label, bytes, alive.map((value) => model.tensor(value, rows))];
  }),
  pieces: ["block", "module", "op"].map((level) => model.pieces(level)),
};
"""


def long_names() -> Graph:
    """Ops and modules called anything, some twice."""
    graph = gpt2_graph(3)
    name = "a.very.long.path.of.modules.that.does.not.fit <b>"
    ops = tuple(
        dataclasses.replace(op, module=f"{name}.{op.module}", name=f"{op.short_target}_{7 + 3 * (index // 4)}_{index}")
        for index, op in enumerate(graph.ops)
    )
    calls = tuple(dataclasses.replace(call, call=index % 3) for index, call in enumerate(graph.modules))
    return dataclasses.replace(graph, ops=ops, modules=calls)


def decoding() -> Graph:
    """A cache crosses no cut."""
    graph = gpt2_graph(3)
    cache = dataclasses.replace(graph.inputs[0], name="cache")
    ops = tuple(dataclasses.replace(op, args=(*op.args, -2)) for op in graph.ops)
    return dataclasses.replace(graph, ops=ops, inputs=(*graph.inputs, cache), caches=(-2,))


@pytest.mark.parametrize(
    "graph", [gpt2_graph(), mlp_graph(), long_names(), decoding()], ids=["gpt2", "mlp", "long", "cache"]
)
def test_cuts_are_those_of_the_graph(node: Node, graph: Graph) -> None:
    seen = node.run(LOOK, graph_state(graph), graph.batch_size)
    names = value_names(graph)
    assert seen["cuts"] == [
        [
            point.position,
            point.label,
            point.num_bytes,
            [
                {
                    "name": names[tensor.name],
                    "shape": list(tensor.shape),
                    "dtype": tensor.dtype,
                    "bytes": tensor.num_bytes,
                    "batched": tensor.batched,
                }
                for tensor in point.tensors
            ],
        ]
        for point in graph.cut_points
    ]
    for rank, levels in enumerate((["block"], ["block", "module"], ["block", "module", "op"])):
        level = ("block", "module", "op")[rank]
        assert seen["levels"][level] == [point.position for point in graph.cut_points if point.level in levels]


@pytest.mark.parametrize("graph", [gpt2_graph(), long_names()], ids=["gpt2", "long"])
def test_pieces_of_every_level_cover_the_model_and_nest(node: Node, graph: Graph) -> None:
    blocks, modules, ops = node.run(LOOK, graph_state(graph), 1)["pieces"]
    for pieces in (blocks, modules, ops):
        assert [piece["start"] for piece in pieces[1:]] == [piece["stop"] for piece in pieces[:-1]]
        assert (pieces[0]["start"], pieces[-1]["stop"]) == (0, len(graph.ops))
    assert [piece["label"] for piece in blocks] == [block.label for block in graph.blocks]
    assert [piece["label"] for piece in ops] == [op.short_target for op in graph.ops]
    assert {block.start for block in graph.blocks} <= {piece["start"] for piece in modules}


def test_modules_are_named_inside_their_block_and_its_own_ops_by_kind(node: Node) -> None:
    modules = node.run(LOOK, graph_state(gpt2_graph(1)), 1)["pieces"][1]
    names = [piece["label"] for piece in modules if piece["path"].startswith("h.0")]
    assert names[:6] == ["ln_1", "attn.c_attn", "attn", "attn.c_proj", "add", "ln_2"]


def test_a_value_has_the_rows_of_a_microbatch(node: Node) -> None:
    graph = gpt2_graph()
    for (_, _, _, alive), point in zip(node.run(LOOK, graph_state(graph), 3)["cuts"], graph.cut_points, strict=True):
        assert [tensor["bytes"] for tensor in alive] == [tensor.num_bytes * 3 // 8 for tensor in point.tensors]
        assert [tensor["shape"] for tensor in alive] == [
            [3 if size == 8 else size for size in tensor.shape] for tensor in point.tensors
        ]


def test_ten_thousand_ops_stay_small() -> None:
    graph = gpt2_graph(126, extra_ops=8)
    size = len(json.dumps(graph_state(graph), separators=(",", ":")))
    assert size / len(graph.ops) < 70
