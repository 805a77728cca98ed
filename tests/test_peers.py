"""Other tools' policies against the numbers those tools give, and against what each of them promises."""

from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import pytest
from graphs import GraphWriter, gpt2_graph, mlp_graph
from hypothesis import given
from hypothesis import strategies as st

from pipelab import peers
from pipelab.device_maps import automatic_map, device_of
from pipelab.errors import SplitError
from pipelab.graph import Graph, TensorInfo
from pipelab.partitions import block_partition, even_counts, smallest_maximum, smallest_spread
from pipelab.plan import Plan

Policy = Callable[..., Plan]
POLICIES: list[Policy] = [getattr(peers, name) for name in peers.__all__]
OF_PIECES = [peers.balanced_bytes, peers.deepspeed, peers.torchgpipe]


def blocks_per_stage(plan: Plan) -> list[int]:
    layers = [block for block in plan.graph.blocks if block.path]
    return [sum(start <= block.start < stop for block in layers) for start, stop in plan.bounds]


def sums(weights: list[int], counts: list[int]) -> list[int]:
    edges = [sum(counts[:index]) for index in range(len(counts) + 1)]
    return [sum(weights[start:stop]) for start, stop in pairwise(edges)]


def lightest_heaviest(weights: list[int], num_stages: int) -> int:
    """The smallest possible heaviest stage, by trying all splits."""
    edges = [(0, *cuts, len(weights)) for cuts in combinations(range(1, len(weights)), num_stages - 1)]
    return min(max(sum(weights[start:stop]) for start, stop in pairwise(edge)) for edge in edges)


# --- what all of them promise -------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
@pytest.mark.parametrize("num_stages", [1, 2, 3, 4, 8, 12])
def test_a_peer_cuts_between_blocks(policy: Policy, num_stages: int) -> None:
    plan = policy(gpt2_graph(12), num_stages=num_stages)
    assert plan.policy.startswith(policy.__name__)
    assert all(cut in plan.graph.block_starts for cut in plan.cuts)
    assert plan.num_stages == num_stages or policy is peers.accelerate_auto


@pytest.mark.parametrize("policy", POLICIES[1:], ids=lambda policy: policy.__name__)
def test_too_many_stages_are_refused_with_the_largest_that_works(policy: Policy) -> None:
    with pytest.raises(SplitError, match=rf"{policy.__name__} cannot make 9 stages of MLP.* that works is 4;"):
        policy(mlp_graph(4), num_stages=9)
    assert policy(mlp_graph(4), num_stages=4).num_stages == 4


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
@pytest.mark.parametrize("num_stages", [0, 2.5, True])
def test_a_number_of_stages_is_a_number(policy: Policy, num_stages: Any) -> None:
    with pytest.raises(SplitError, match="num_stages must be"):
        policy(mlp_graph(4), num_stages=num_stages)


# --- layers, evenly -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_layers", "num_stages", "layers"),
    [  # the rest to the stages before the last one, from the back
        (12, 4, [3, 3, 3, 3]),
        (14, 4, [3, 4, 4, 3]),
        (12, 5, [2, 2, 3, 3, 2]),
        (11, 4, [3, 3, 3, 2]),
        (7, 2, [4, 3]),
        (3, 1, [3]),
    ],
)
def test_vllm_gives_the_rest_to_the_middle(num_layers: int, num_stages: int, layers: list[int]) -> None:
    plan = peers.vllm(gpt2_graph(num_layers, hidden=8, vocab=32), num_stages=num_stages)
    assert blocks_per_stage(plan) == layers
    assert plan.stages[0].labels[0] == "embed"
    assert plan.stages[-1].labels[-1] == "head"


@pytest.mark.parametrize(
    ("num_layers", "num_stages", "layers"),
    [  # embedding and head are one layer each: 14 in 4 is 4, 4, 3, 3
        (12, 4, [3, 4, 3, 2]),
        (12, 2, [6, 6]),
        (6, 4, [1, 2, 2, 1]),
        (6, 7, [1, 1, 1, 1, 1, 1, 0]),
        (6, 8, [0, 1, 1, 1, 1, 1, 1, 0]),
        (3, 1, [3]),
    ],
)
def test_torchtitan_counts_embedding_and_head_as_layers(num_layers: int, num_stages: int, layers: list[int]) -> None:
    plan = peers.torchtitan(gpt2_graph(num_layers, hidden=8, vocab=32), num_stages=num_stages)
    assert blocks_per_stage(plan) == layers


def test_a_model_without_embedding_and_head_has_only_layers_to_share() -> None:
    assert blocks_per_stage(peers.torchtitan(mlp_graph(6), num_stages=4)) == [2, 2, 1, 1]


# --- weights, balanced --------------------------------------------------------------------------------

weights_and_stages = st.lists(st.integers(1, 9), min_size=1, max_size=9).flatmap(
    lambda weights: st.tuples(st.just(weights), st.integers(1, len(weights)))
)


@given(weights_and_stages)
def test_a_partition_takes_everything_and_leaves_no_stage_empty(case: tuple[list[int], int]) -> None:
    weights, num_stages = case
    for partition in (smallest_maximum, smallest_spread, block_partition):
        counts = partition(weights, num_stages)
        assert (len(counts), sum(counts), min(counts) > 0) == (num_stages, len(weights), True)


@given(weights_and_stages)
def test_the_smallest_maximum_is_the_smallest(case: tuple[list[int], int]) -> None:
    weights, num_stages = case
    assert max(sums(weights, smallest_maximum(weights, num_stages))) == lightest_heaviest(weights, num_stages)


@given(weights_and_stages)
def test_a_block_partition_differs_by_at_most_one_item(case: tuple[list[int], int]) -> None:
    weights, num_stages = case
    above_least = [weight - min(weights) for weight in weights]
    loads = sums(above_least, block_partition(weights, num_stages))
    assert max(loads) - min(loads) <= max(above_least)


def test_the_smallest_spread_may_miss_the_smallest_maximum() -> None:
    # 1 | 4 | 2 2 has the same spread and a lighter heaviest stage, 4.
    weights = [1, 4, 2, 2]
    assert sums(weights, smallest_spread(weights, 3)) == [5, 2, 2]
    assert lightest_heaviest(weights, 3) == 4


def test_equal_blocks_between_a_large_embedding_and_head_weigh_nothing_to_torchgpipe() -> None:
    assert block_partition([38, *[7] * 12, 38], 4) == [3, 3, 3, 5]


def test_even_counts_spare_the_last_stage_first() -> None:
    assert even_counts(10, 4) == [3, 3, 2, 2]
    assert even_counts(10, 4, spare_last=True) == [2, 3, 3, 2]


@pytest.mark.parametrize("policy", OF_PIECES, ids=lambda policy: policy.__name__)
def test_a_tied_head_counts_again_unless_by_hand(policy: Policy) -> None:
    # GPT-2 in millions: embedding 39.4, twelve blocks of 7.1, a head of 38.6 that is the embedding's tensor.
    plan = policy(gpt2_graph(12), num_stages=2)
    assert (
        blocks_per_stage(plan) == {"balanced_bytes": [3, 9], "deepspeed": [6, 6], "torchgpipe": [6, 6]}[policy.__name__]
    )


# --- accelerate ---------------------------------------------------------------------------------------

# Blocks per device by accelerate 1.15.0: get_balanced_memory and infer_auto_device_map with the model's
# _no_split_modules (transformers 5.23), n devices of 10 TB, models on meta in bfloat16.
ACCELERATE: dict[str, dict[int, list[int]]] = {
    "gpt2": {2: [3, 9], 4: [0, 0, 5, 7], 8: [0] * 7 + [12]},
    "gpt2-xl": {4: [10, 13, 13, 12], 8: [3, 7, 7, 7, 7, 7, 7, 3], 16: [0, *[4] * 12, 0, 0, 0]},
    "bert-large": {2: [12, 12], 4: [6, 9, 9, 0], 8: [2, 6, 6, 6, 4, 0, 0, 0], 16: [1, 4, 4, 4, 4, 4, 3, *[0] * 9]},
    "llama-7b": {2: [16, 16], 4: [7, 9, 9, 7], 8: [3, 5, 5, 5, 5, 5, 4, 0], 16: [1, *[3] * 10, 1, 0, 0, 0, 0]},
    "t5-3b": {2: [26, 22], 4: [13, 14, 11, 10], 8: [6, 8, 8, 6, 6, 6, 6, 2], 16: [2, *[4] * 6, *[3] * 7, 1, 0]},
}


def sized_graph(modules: list[tuple[str, str, int]], ties: dict[str, str]) -> Graph:
    """A graph of which only the sizes matter: modules by path, class and number of elements, and tied tensors."""
    writer = GraphWriter("Sized", 1, (TensorInfo("x", (1,), "float32", 4),))
    value, start = -1, 0
    for path, class_name, num_elements in modules:
        names = [writer.weight(f"{path}.weight", num_elements, tied_to=ties.get(f"{path}.weight"))]
        is_block = path.rpartition(".")[2].isdigit()
        if is_block and start < len(writer.ops):
            writer.block("", f"before {path}", start)
        begin, value = len(writer.ops), writer.op("linear", path, (1,), (value,), *names)
        writer.module(path, class_name, begin)
        if is_block:
            writer.block(path, path, begin)
            start = len(writer.ops)
    writer.block("", "head", start)
    return writer.graph((value,))


def large_graph(name: str) -> Graph:
    """The models of the table above; sizes are those of transformers' modules."""
    match name:
        case "gpt2":
            return gpt2_graph(12)
        case "gpt2-xl":
            return gpt2_graph(48, hidden=1600)
        case "bert-large":
            layers = [(f"bert.encoder.layer.{index}", "BertLayer", 12_596_224) for index in range(24)]
            embeddings, head = ("bert.embeddings", "BertEmbeddings", 31_782_912), ("cls", "BertOnlyMLMHead", 1_082_170)
            return sized_graph([embeddings, *layers, head], {})
        case "llama-7b":
            layers = [(f"model.layers.{index}", "LlamaDecoderLayer", 202_383_360) for index in range(32)]
            outer = [(path, "", 131_072_000) for path in ("model.embed_tokens", "lm_head")]
            return sized_graph([outer[0], *layers, ("model.norm", "LlamaRMSNorm", 4096), outer[1]], {})
        case _:
            encoder = [(f"encoder.block.{index}", "T5Block", 50_333_696) for index in range(24)]
            decoder = [(f"decoder.block.{index}", "T5Block", 67_111_936) for index in range(24)]
            tables = [
                (path, "Embedding", 32_899_072)
                for path in ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
            ]
            ties = {f"{path}.weight": "shared.weight" for path, _, _ in tables}
            return sized_graph([*tables[:2], *encoder, tables[2], *decoder, tables[3]], ties)


@pytest.mark.parametrize("name", ACCELERATE)
def test_the_map_is_the_one_accelerate_makes(name: str) -> None:
    graph = large_graph(name)
    for num_devices, expected in ACCELERATE[name].items():
        placed = automatic_map(graph, num_devices)
        devices = [device_of(placed, block.path) for block in graph.blocks if block.path]
        assert [devices.count(device) for device in range(num_devices)] == expected


def test_accelerate_may_use_fewer_devices_and_the_policy_says_so() -> None:
    plan = peers.accelerate_auto(gpt2_graph(48, hidden=1600), num_stages=16)
    assert plan.num_stages == 13  # device 0 holds the embedding alone, the last three nothing
    assert plan.policy == 'accelerate_auto (accelerate, device_map="auto", uses 13 of 16)'
    assert blocks_per_stage(plan) == [0, *[4] * 12]
    assert "uses" not in peers.accelerate_auto(gpt2_graph(48, hidden=1600), num_stages=8).policy


def test_a_tied_head_lies_with_the_embedding_on_the_map_but_last_in_the_plan() -> None:
    graph = gpt2_graph(12)
    placed = automatic_map(graph, 4)
    assert device_of(placed, "lm_head.weight") == device_of(placed, "transformer.wte.weight")
    assert peers.accelerate_auto(graph, num_stages=4).stages[-1].labels[-1] == "head"


@given(num_layers=st.integers(1, 8), num_devices=st.integers(1, 8), vocab=st.integers(8, 4000))
def test_the_map_places_every_tensor(num_layers: int, num_devices: int, vocab: int) -> None:
    graph = gpt2_graph(num_layers, hidden=16, vocab=vocab)
    placed = automatic_map(graph, num_devices)
    assert {device_of(placed, weight.name) for weight in graph.weights} <= set(range(num_devices))
