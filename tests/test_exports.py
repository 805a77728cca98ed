"""Plans in other systems' words: what they would place is what the plan holds, or the refusal names the cut."""

import copy
import re
from functools import cache
from typing import Any

import pytest
import torch
from graphs import GraphWriter, gpt2_graph, mlp_graph
from torch import nn
from zoo import HUGGING_FACE, build

import pipelab
from pipelab.errors import SplitError
from pipelab.exports import export
from pipelab.graph import Graph, TensorInfo
from pipelab.plan import Plan
from pipelab.policies import split_at, uniform


def at(graph: Graph, *names: str) -> Plan:
    return split_at(graph, names)


def unrolled(layout: str) -> list[str]:
    """A Megatron-LM layout, one string of layers per stage: E and L once, t for each layer."""
    return re.sub(r"(.)\*(\d+)", lambda match: match[1] * int(match[2]), layout).split("|")


def place(device_map: dict[str, Any], name: str) -> list[int]:
    """The devices of a tensor, by every entry that covers it."""
    return [device for key, device in device_map.items() if f"{name}.".startswith(f"{key}.")]


# --- launch lines -------------------------------------------------------------------------------------


def test_vllm_gets_the_layers_per_stage() -> None:
    plan = at(gpt2_graph(12), "transformer.h.2", "transformer.h.7")
    line = 'VLLM_PP_LAYER_PARTITION="2,5,5" vllm serve MODEL --pipeline-parallel-size 3'
    assert plan.export("vllm") == export(plan, "vllm") == line


def test_megatron_gets_a_layout() -> None:
    plan = at(gpt2_graph(12), "transformer.h.1", "transformer.h.7")
    line = '--pipeline-model-parallel-size 3 --pipeline-model-parallel-layout "Et|t*6|t*5L"'
    assert export(plan, "megatron") == line


@pytest.mark.parametrize("num_stages", [1, 2, 5, 12])
def test_a_megatron_layout_holds_each_layer_once(num_stages: int) -> None:
    line = export(uniform(gpt2_graph(12), num_stages=num_stages), "megatron")
    assert isinstance(line, str)
    stages = unrolled(line.split('"')[1])
    assert len(stages) == num_stages
    assert "".join(stages) == f"E{'t' * 12}L"


def test_megatron_takes_stages_of_embedding_or_head_alone_and_vllm_refuses_them() -> None:
    graph = gpt2_graph(4)
    plan = at(graph, "transformer.h.0", "transformer.h.2", "transformer.ln_f")
    assert unrolled(str(export(plan, "megatron")).split('"')[1]) == ["E", "tt", "tt", "L"]
    with pytest.raises(SplitError, match=r"stage 0 \(embed\) holds no layer.*cut 1 \(before h.0"):
        export(plan, "vllm")
    with pytest.raises(SplitError, match=r"stage 1 \(head\) holds no layer.*cut 1 \(before head"):
        export(at(graph, "transformer.ln_f"), "vllm")


@cache
def traced(name: str) -> tuple[nn.Module, pipelab.Trace]:
    """A model of the zoo and its trace, made once for all tests of this module, which only look at it."""
    model, inputs = build(name)
    return model, pipelab.trace(model, **inputs)


@pytest.mark.parametrize("system", ["vllm", "megatron"])
def test_a_model_of_two_lists_of_layers_is_refused(system: str) -> None:
    plan = uniform(traced("t5")[1], num_stages=2)
    with pytest.raises(SplitError, match=r"2 lists of layers \(encoder.block, decoder.block\).*device_map"):
        export(plan, system)


@pytest.mark.parametrize("name", ["unet", "shared_block"])
@pytest.mark.parametrize("system", ["vllm", "megatron"])
def test_a_model_whose_blocks_are_no_numbered_layers_is_refused(name: str, system: str) -> None:
    graph = traced(name)[1].graph
    with pytest.raises(SplitError, match=r"it shares out the layers of one list, and \w+ has no list of layers"):
        export(Plan(graph, (graph.blocks[-1].start,)), system)


def test_a_layer_that_runs_twice_counts_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for index in (0, 0, 1, 2):
                x = self.layers[index](x)
            return x

    plan = pipelab.split_at(pipelab.trace(Twice().eval(), torch.zeros(2, 4)), ["layers.2"])
    assert str(export(plan, "vllm")).startswith('VLLM_PP_LAYER_PARTITION="2,1"')


# --- device maps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", HUGGING_FACE)
@pytest.mark.parametrize("num_stages", [1, 2])
def test_a_device_map_covers_every_tensor_once_and_each_block_in_its_stage(family: str, num_stages: int) -> None:
    model, trace = traced(family)
    plan = uniform(trace, num_stages=num_stages)
    device_map = export(plan, "device_map")
    assert isinstance(device_map, dict)
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    on: dict[int, set[int]] = {}
    for name, tensor in tensors.items():
        devices = place(device_map, name)
        assert len(devices) == 1, f"{name} lies on {devices}"
        on.setdefault(id(tensor), set()).update(devices)
    assert all(len(devices) == 1 for devices in on.values()), "a tied tensor lies on two devices"
    for block in plan.graph.blocks:
        if block.path:
            stage = next(i for i, (start, stop) in enumerate(plan.bounds) if start <= block.start < stop)
            assert device_map[block.path] == stage


def test_a_device_map_names_modules_as_large_as_lie_together() -> None:
    graph = gpt2_graph(4, model="Tied")
    assert export(at(graph, "transformer.h.1", "transformer.ln_f"), "device_map") == {
        "transformer.wte": 0,
        "lm_head": 0,  # tied to the embedding
        "transformer.wpe": 0,
        "transformer.h.0": 0,
        "transformer.h.1": 1,
        "transformer.h.2": 1,
        "transformer.h.3": 1,
        "transformer.ln_f": 2,
    }


def test_parameters_of_the_model_itself_are_named_one_by_one() -> None:
    writer = GraphWriter("Bare", 1, (TensorInfo("x", (1, 4), "float32", 16),))
    first = writer.op("mm", "", (1, 4), (-1,), writer.weight("a", 4, 4))
    writer.block("", "one", 0)
    second = writer.op("mm", "", (1, 4), (first,), writer.weight("b", 4, 4))
    writer.block("", "two", second)
    writer.weight("unread", 4)
    assert export(Plan(writer.graph((second,)), (1,)), "device_map") == {"a": 0, "b": 1, "unread": 1}


# --- torch --------------------------------------------------------------------------------------------


class Blocks(nn.Module):
    """Four blocks between an embedding and a head, as torch's own examples are."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4))
        self.head = nn.Linear(8, 32)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def _blocks() -> tuple[nn.Module, dict[str, torch.Tensor], list[str]]:
    return Blocks().eval(), {"ids": torch.zeros(4, 6, dtype=torch.int64)}, ["layers.1", "layers.3", "head"]


def _tied() -> tuple[nn.Module, dict[str, torch.Tensor], list[str]]:
    model, inputs = build("gpt2")
    model.config.use_cache = False
    return model, inputs, ["transformer.h.1", "transformer.ln_f"]


@pytest.mark.parametrize("case", [_blocks, _tied])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, as it copies the graph
def test_torch_makes_the_same_stages_of_the_exported_spec(case: Any) -> None:
    from torch.distributed.pipelining import pipeline

    model, inputs, names = case()
    plan = split_at(pipelab.trace(model, **inputs), names)
    found: dict[str, Any] = {}
    exec(str(export(plan, "torch")), found)
    with torch.no_grad():
        pipe = pipeline(copy.deepcopy(model), mb_args=(), mb_kwargs=inputs, split_spec=found["split_spec"])
    assert pipe.num_stages == plan.num_stages
    first_name = {weight.name: weight.tied_to for weight in plan.graph.weights}
    for index, (start, stop) in enumerate(plan.bounds):
        ours = {weight.name for weight in plan.graph.weights_between(start, stop) if weight.kind == "parameter"}
        theirs = {first_name[name] for name, _ in pipe.get_stage_module(index).named_parameters()}
        assert theirs == ours


def test_torch_cannot_cut_before_a_module_that_runs_more_than_once() -> None:
    plan = pipelab.split_at(pipelab.trace(*_shared()), ["block@1"])
    with pytest.raises(SplitError, match=r"cannot express cut 1 \(.*'block@1'\).*runs once"):
        export(plan, "torch")


# --- refusals -----------------------------------------------------------------------------------------


def _shared() -> tuple[nn.Module, torch.Tensor]:
    model, inputs = build("shared_block")
    return model, inputs["x"]


@pytest.mark.parametrize("system", ["vllm", "megatron", "device_map", "torch"])
def test_a_cut_inside_a_block_is_refused_by_name_with_the_nearest_block(system: str) -> None:
    plan = at(gpt2_graph(4), "transformer.h.1", "transformer.h.2.mlp")
    message = (
        r"cut 2 \(before h.2.mlp, 'transformer.h.2.mlp'\): it is not between blocks.*before h.3 \('transformer.h.3'\)"
    )
    with pytest.raises(SplitError, match=message):
        export(plan, system)


def test_a_block_called_in_two_stages_cannot_be_placed() -> None:
    plan = pipelab.split_at(pipelab.trace(*_shared()), ["block@1"])
    with pytest.raises(SplitError, match=r"block is one module that runs in stages 0, 1"):
        export(plan, "device_map")


def test_an_unknown_system_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SplitError, match="'vllm', 'megatron', 'device_map', 'torch'; 'tgi' is none"):
        export(uniform(mlp_graph(4), num_stages=2), "tgi")


def test_an_empty_last_stage_is_left_out() -> None:
    plan = Plan(mlp_graph(3), (1, 2, 3))
    assert export(plan, "device_map") == {"layers.0": 0, "layers.1": 1, "layers.2": 2}
