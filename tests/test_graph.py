"""The graph: parts sum to the whole, and every cut knows what is alive there."""

import json

import pytest
import zoo
from graphs import gpt2_graph

import pipelab
from pipelab.graph import Graph


@pytest.fixture(scope="module", params=["unet", "tied", "multi_output", "in_place", "gpt2", "t5", "regnet"])
def graph(request: pytest.FixtureRequest) -> Graph:
    model, inputs = zoo.build(request.param)
    return pipelab.trace(model, **inputs).graph


def test_totals_are_the_models(graph: Graph) -> None:
    names = {weight.tied_to for weight in graph.weights if weight.kind == "parameter"}
    assert graph.num_params == sum(graph.weight_by_name[name].num_elements for name in names)
    assert graph.flops == sum(op.flops for op in graph.ops)


def test_num_params_is_torchs() -> None:
    model, inputs = zoo.build("gpt2")
    assert pipelab.trace(model, **inputs).graph.num_params == sum(p.numel() for p in model.parameters())


def test_live_values_at_a_cut_are_made_before_and_read_after(graph: Graph) -> None:
    for point in graph.cut_points:
        alive = graph.values_at(point.position)
        assert [graph.tensor(value) for value in alive] == list(point.tensors)
        assert point.num_bytes == sum(tensor.num_bytes for tensor in point.tensors)
        read_after = {value for op in graph.ops[point.position :] for value in op.args} | set(graph.outputs)
        made_before = set(range(-len(graph.inputs), point.position))
        assert set(alive) == read_after & made_before - {i for i, op in enumerate(graph.ops) if op.output is None}


def test_memory_is_never_less_than_what_crosses_without_views(graph: Graph) -> None:
    assert graph.memory_bytes.min() >= 0
    assert len(graph.memory_bytes) == len(graph.ops)


def test_blocks_cover_all_ops_in_order(graph: Graph) -> None:
    edges = [edge for block in graph.blocks for edge in (block.start, block.stop)]
    assert edges[0] == 0
    assert edges[-1] == len(graph.ops)
    assert edges[1:-1:2] == edges[2::2]
    assert len({block.label for block in graph.blocks}) == len(graph.blocks)


def test_labels_of_cuts_are_unique(graph: Graph) -> None:
    labels = [point.label for point in graph.cut_points]
    assert len(set(labels)) == len(labels)


def test_json_both_ways(graph: Graph) -> None:
    assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph


def test_levels_and_labels_of_gpt2() -> None:
    model, inputs = zoo.build("gpt2")
    points = pipelab.trace(model, **inputs).graph.cut_points
    assert [p.label for p in points if p.level == "block"] == ["before h.0", "before h.1", "before h.2", "before head"]
    labels = {p.label for p in points if p.level == "module"}
    assert {"before h.1.attn", "after h.1.attn", "before h.1.mlp.c_proj", "before lm_head"} <= labels


def test_layer_boundary_of_gpt2_small_carries_hidden_and_mask() -> None:
    """The figures of the published note: 393,216 + 16,384 bytes, and 32,228,179,968 FLOPs at 1 × 128."""
    pytest.importorskip("transformers")
    from transformers import GPT2Config

    graph = pipelab.trace_pretrained(GPT2Config(), batch_size=1, seq_len=128).graph
    assert graph.num_params == 124_439_808
    assert graph.flops == 32_228_179_968
    between = [point for point in graph.cut_points if point.level == "block"]
    assert len(between) == 13
    assert [point.num_bytes for point in between] == [*[409_600] * 12, 393_216]  # the head needs no mask
    assert [str(t).partition(" ")[2] for t in between[3].tensors] == ["(1×1×128×128 bool)", "(1×128×768 float32)"]


def test_repr_says_how_large_it_is() -> None:
    assert repr(gpt2_graph(2)).startswith("Graph(GPT2LMHeadModel: ")
