"""The graph of the explorer: who reads whose values, and where nodes and lines lie."""

import json
from itertools import pairwise

import pytest
from explorer_page import cuts_of, handles, texts
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


# x -> norm -> q, k, v -> attention -> + x: three lanes between norm and attention, x as an arc.
ATTENTION = [(0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (3, 5), (4, 5), (0, 6), (5, 6)]


def test_branches_of_one_value_lie_in_lanes_of_their_own(node) -> None:
    lanes, shapes = node.run(
        """const { lanesOf, shapesOf } = await load("lanes.js");
        const edges = args[0].map(([from, to]) => ({ from, to }));
        const lanes = lanesOf(7, edges);
        return [lanes, shapesOf(edges, lanes)];""",
        ATTENTION,
    )
    assert lanes == [0, 0, 0, 1, 2, 0, 0]
    assert dict(zip(ATTENTION, shapes, strict=True)) == {
        (0, 1): "straight", (1, 2): "straight", (1, 3): "bent", (1, 4): "bent", (2, 5): "straight",
        (3, 5): "bent", (4, 5): "bent", (0, 6): "arc", (5, 6): "straight",
    }  # fmt: skip


def test_what_many_read_is_no_line(node) -> None:
    graph = gpt2_graph()
    found = node.run(
        """const { Flow } = await load("flow.js");
        const { flowBetween } = await load("lanes.js");
        const { edges, reads } = flowBetween(new Flow(args[0]), args[1]);
        return [edges.map(({ from, to }) => [from, to]), reads];""",
        flow_state(graph),
        [{"start": block.start, "stop": block.stop} for block in graph.blocks],
    )
    count = len(graph.blocks)
    mask = 0  # the first op makes it; every layer between embedding and head reads it
    assert found == [[[k, k + 1] for k in range(count - 1)], [[-1], *[[mask]] * (count - 2), []]]


@pytest.mark.parametrize("start", [0, 5, 40])
def test_the_flow_between_pieces_is_that_of_their_ops(node, start: int) -> None:
    graph = gpt2_graph()
    pieces = [{"start": op, "stop": op + 2} for op in range(start, start + 20, 2)]
    edges, reads = node.run(
        """const { Flow } = await load("flow.js");
        const { flowBetween } = await load("lanes.js");
        const { edges, reads } = flowBetween(new Flow(args[0]), args[1]);
        return [edges, reads];""",
        flow_state(graph), pieces,
    )  # fmt: skip
    drawn = {(edge["from"], edge["to"], value) for edge in edges for value in edge["values"]}
    wanted = {
        ((source - start) // 2, (op - start) // 2, source)
        for op in range(start, start + 20)
        for source in graph.ops[op].args
        if source >= start and (source - start) // 2 != (op - start) // 2
    }
    mask = {(0, to, 0) for to, values in enumerate(reads) if 0 in values}
    broadcast = mask if start == 0 else set()
    assert drawn | broadcast == wanted


@pytest.mark.browser
def test_the_graph_opens_blocks_and_closes_them(open_page) -> None:
    page = open_page(width=1400)
    assert page.locator(".pl-graph").is_hidden()
    handles(page).first.press("g")
    assert texts(page, ".pl-node text:nth-child(2)") == [block.label for block in gpt2_graph().blocks]
    sight = page.locator(".pl-graph-sight")
    sight.press("ArrowRight")
    sight.press("ArrowRight")
    assert texts(page, ".pl-graph-story div")[0].startswith("h.0 reads embed: add_3 (1×128×768 float32), 393 kB")
    sight.press("Enter")
    opened = texts(page, ".pl-node text:nth-child(2)")
    assert {"attn.c_attn", "mlp.c_fc", "mlp.c_proj"} <= set(opened)
    assert "h.5" not in opened
    assert texts(page, ".pl-graph-story div")[0].startswith("h.0")
    sight.press("Backspace")
    assert len(texts(page, ".pl-node text:nth-child(2)")) == len(gpt2_graph().blocks)


@pytest.mark.browser
def test_nodes_stand_under_their_pieces_in_the_colours_of_their_stages(open_page) -> None:
    page = open_page(num_stages=3)
    handles(page).first.press("g")
    handles(page).first.press("ArrowLeft")
    shown = page.evaluate(
        """() => {
          const middle = (node) => { const { left, right } = node.getBoundingClientRect(); return (left + right) / 2; };
          const rects = [...document.querySelectorAll(".pl-node rect")];
          const pieces = [...document.querySelectorAll(".pl-piece > rect")];
          return rects.map((rect, k) => [rect.style.fill, Math.abs(middle(rect) - middle(pieces[k]))]);
        }"""
    )
    assert max(apart for _, apart in shown) < 2
    stages = [next(k for k, cut in enumerate([*cuts_of(page), 10**9]) if block.start < cut)
              for block in gpt2_graph().blocks]  # fmt: skip
    assert len({fill for fill, _ in shown}) == 3
    assert all((a == b) == (p == q) for (a, p), (b, q) in pairwise(zip([f for f, _ in shown], stages, strict=True)))


@pytest.mark.browser
def test_a_node_under_the_mouse_lights_up_what_it_reads_and_makes(open_page) -> None:
    page = open_page()
    handles(page).first.press("g")
    page.locator(".pl-node rect").nth(3).hover()
    assert page.locator(".pl-node.pl-at text:nth-child(2)").text_content() == "2"
    lit = "".join(path.get_attribute("d") or "" for path in page.locator(".pl-lit path").all())
    assert lit.count("M") == 2
    page.locator(".pl-node rect").nth(3).dblclick()
    assert "attn.c_attn" in texts(page, ".pl-node text:nth-child(2)")
    page.locator(".pl-graph-sight").dblclick(position={"x": 300, "y": 3})
    assert page.locator(".pl-node").count() == 14
