"""The graph of the explorer: who reads whose values, and where nodes and lines lie."""

import json
from itertools import pairwise

import pytest
from graphs import gpt2_graph, mlp_graph

from pipelab.graph import Graph
from pipelab.viz.explorer_flow import flow_state

GRAPHS = {"gpt2": gpt2_graph(), "mlp": mlp_graph()}


def reads_of(flow) -> set[tuple[int, int]]:
    """All pairs of a value and an op that reads it."""
    apart = set(flow["apart"])
    chain = {(op - 1, op) for op in range(1, len(flow["kind"])) if op not in apart}
    return chain | set(zip(flow["sources"], flow["targets"], strict=True))


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_the_flow_holds_every_read_once(graph: Graph) -> None:
    flow = flow_state(graph)
    wanted = {(source, op) for op, node in enumerate(graph.ops) for source in node.args}
    assert reads_of(flow) == wanted
    assert len(flow["sources"]) < len(wanted)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_the_flow_says_what_every_op_makes(graph: Graph) -> None:
    flow = json.loads(json.dumps(flow_state(graph)))
    made = [flow["kinds"][kind] for kind in flow["kind"]]
    assert made == [[list(op.output.shape), op.output.dtype, op.output.num_bytes, op.output.batched]
                    for op in graph.ops]  # fmt: skip
    assert [name for name, _ in flow["inputs"]] == [tensor.name for tensor in graph.inputs]
    assert len(flow["kinds"]) < len(graph.ops)


def test_the_flow_of_a_long_model_stays_small() -> None:
    graph = gpt2_graph(126)
    assert all(above < below for above, below in pairwise(flow_state(graph)["apart"]))
    assert len(json.dumps(flow_state(graph))) < 30 * len(graph.ops)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_the_browser_reads_the_flow_back(node, graph: Graph) -> None:
    sources, readers = node.run(
        """const { Flow } = await load("flow.js");
        const flow = new Flow(args[0]);
        const ops = args[0].kind.map((_, op) => op);
        const values = [...args[0].inputs.keys()].map((k) => -1 - k).concat(ops);
        return [ops.map((op) => [...flow.sources(op)]), values.map((value) => [value, [...flow.readers(value)]])];""",
        flow_state(graph),
    )
    assert sources == [sorted(op.args) for op in graph.ops]
    assert dict(map(tuple, readers)) == {
        value: [op for op, node in enumerate(graph.ops) if value in node.args]
        for value in [*range(-len(graph.inputs), 0), *range(len(graph.ops))]
    }


@pytest.mark.parametrize(
    ("shape", "text"), [([8, 128], "2×128 f"), ([12, 8, 4], "12×2×4 f"), ([1024, 768], "256×768 f"), ([], "scalar f")]
)
def test_shapes_are_those_of_a_micro_batch(node, shape, text: str) -> None:
    body = 'const { shapeText } = await load("flow.js"); return args[0].map((kind) => shapeText(kind, 2, 8));'
    kind = {"shape": shape, "dtype": "f", "batched": True}
    assert node.run(body, [kind, {**kind, "batched": False}])[0] == text
