"""FLOPs and parameters: equal to what formulas, torch's own counter and torchinfo say."""

from functools import cache
from typing import Any

import pytest
import torch
import torchinfo
import zoo
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pipelab

transformers = pytest.importorskip("transformers")

BATCH, SEQ, CACHE, LAYERS = 2, 16, 31, 2

# Real widths, two layers each. A meta model takes no memory.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_layer": LAYERS}),
    "llama-3-70b": ("LlamaConfig", {
        "num_hidden_layers": LAYERS, "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64,
        "num_key_value_heads": 8, "vocab_size": 128256,
    }),
    "mixtral-8x7b": ("MixtralConfig", {"num_hidden_layers": LAYERS}),
}  # fmt: skip


def config_of(name: str) -> Any:
    config_class, settings = CONFIGS[name]
    return getattr(transformers, config_class)(**settings)


def multiply_adds_per_token(name: str) -> int:
    """Of the matrix products with weights, by hand: attention, feed-forward, head."""
    config = config_of(name)
    hidden = config.hidden_size
    if name == "gpt2":
        layer = hidden * 3 * hidden + hidden * hidden + 2 * hidden * 4 * hidden
    else:
        narrow = hidden // config.num_attention_heads * config.num_key_value_heads
        feed_forward = 3 * hidden * config.intermediate_size
        if name.startswith("mixtral"):  # two of eight experts, and the router
            feed_forward = 2 * feed_forward + hidden * 8
        layer = 2 * hidden * hidden + 2 * hidden * narrow + feed_forward
    return LAYERS * layer + hidden * config.vocab_size


@cache
def whole(name: str) -> pipelab.Trace:
    return pipelab.trace_pretrained(config_of(name), batch_size=BATCH, seq_len=SEQ, dtype="bfloat16")


@cache
def tiny(name: str) -> pipelab.Trace:
    model, inputs = zoo.build(name)
    return pipelab.trace(model, **inputs)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_whole_sequences_by_formula(name: str) -> None:
    """2 per multiply-add; attention is 4 x rows x tokens² x hidden: the masked half is computed too."""
    attention = LAYERS * 4 * BATCH * SEQ**2 * config_of(name).hidden_size
    assert whole(name).graph.flops == 2 * BATCH * SEQ * multiply_adds_per_token(name) + attention


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_decode_step_by_formula(name: str) -> None:
    """One token per row through all weights, and attention over the cache and itself."""
    traced = pipelab.trace_pretrained(config_of(name), batch_size=BATCH, cache_len=CACHE, dtype="bfloat16")
    attention = LAYERS * 4 * BATCH * (CACHE + 1) * config_of(name).hidden_size
    assert traced.graph.flops == 2 * BATCH * multiply_adds_per_token(name) + attention


def resnet50() -> tuple[nn.Module, int]:
    """The model on the meta device, and its multiply-adds per image of 224 x 224 by the table of its paper."""
    with torch.device("meta"):
        model = transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000)).eval()
    total = 7 * 7 * 3 * 64 * 112**2
    channels = 64
    for width, depth, size in ((64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)):
        for block in range(depth):
            size_in = size * 2 if block == 0 and width > 64 else size
            total += channels * width * size_in**2 + 9 * width**2 * size**2 + width * 4 * width * size**2
            if block == 0:
                total += channels * 4 * width * size**2
            channels = 4 * width
    return model, total + channels * 1000


def test_resnet50_by_its_papers_table_and_by_torchs_counter() -> None:
    model, multiply_adds = resnet50()
    images = torch.zeros(BATCH, 3, 224, 224, device="meta")
    traced = pipelab.trace(model, images)
    assert traced.graph.flops == 2 * BATCH * multiply_adds == counted(model, pixel_values=images)
    assert multiply_adds == pytest.approx(4.1e9, rel=0.01)  # as everybody quotes it


def counted(model: nn.Module, **inputs: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs)
    return int(counter.get_total_flops())


def eager(name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A tiny model that calls what torch's counter has formulas for.

    It has none for the fused attention of the CPU, nor for the grouped product of experts: untold, it counts 0.
    """
    model, inputs = zoo.build(name)
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    if name == "mixtral":
        model.set_experts_implementation("eager")
    return model, inputs


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral", "bloom", "t5", "vit", "unet"])
def test_fused_or_not_torchs_counter_agrees(name: str) -> None:
    model, inputs = eager(name)
    assert tiny(name).graph.flops == counted(model, **inputs)


def test_torchs_counter_agrees_on_a_decode_step() -> None:
    model, inputs = eager("llama")
    traced = pipelab.trace_pretrained(model.config, batch_size=zoo.BATCH, cache_len=zoo.SEQ)
    past = model(**inputs, use_cache=True).past_key_values
    step = {"input_ids": inputs["input_ids"][:, :1], "past_key_values": past}
    assert traced.graph.flops == counted(model, **step)


def test_flops_of_a_micro_batch_add_up() -> None:
    graph = tiny("mixtral").graph
    assert graph.flops_for(zoo.BATCH).sum() == graph.flops
    assert 4 * graph.flops_for(zoo.BATCH // 4).sum() == graph.flops


def torchinfos(model: nn.Module) -> int:
    return int(torchinfo.summary(model, verbose=0).total_params)


@pytest.mark.parametrize("name", ["mlp", "shared_block", "batch_norm", "llama", "mixtral", "vit", "regnet"])
def test_parameters_are_torchinfos(name: str) -> None:
    assert tiny(name).graph.num_params == torchinfos(zoo.build(name)[0])


@pytest.mark.parametrize("name", ["tied", "gpt2", "t5"])
def test_a_tied_parameter_counts_once_and_with_torchinfo_by_each_name(name: str) -> None:
    graph = tiny(name).graph
    again = sum(weight.num_elements for weight in graph.weights if weight.tied_to != weight.name)
    assert again > 0
    assert graph.num_params + again == torchinfos(zoo.build(name)[0])


@pytest.mark.parametrize("name", ["llama-3-70b", "mixtral-8x7b"])
def test_parameters_of_large_models_are_torchinfos(name: str) -> None:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config_of(name))
    assert whole(name).graph.num_params == torchinfos(model)
