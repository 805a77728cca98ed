"""A decode step: equal to transformers' own, over caches that hold what they should and never cross a cut."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn

import pipelab
from pipelab.errors import LaunchError, TraceError
from pipelab.stage_module import StageModule
from pipelab.stages import stage_tables, whole_table

transformers = pytest.importorskip("transformers")
DecodeStep = pytest.importorskip("pipelab.decoding").DecodeStep

CACHE, SOURCE, BATCH, WINDOW = 9, 7, 4, 4
_TINY = {**zoo._LLAMA, "num_hidden_layers": 2}
_SEQ2SEQ = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": zoo.VOCAB, "max_position_embeddings": 32,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip

# Per family: the config class, its settings, and elements of a cache per row, layer and token: 2 x kv_heads x head_dim.
FAMILIES: dict[str, tuple[str, dict[str, Any], int]] = {
    "gpt2": ("GPT2Config", {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 32, "n_positions": 32}, 2 * 2 * 8),
    "opt": ("OPTConfig", {"num_hidden_layers": 2, "hidden_size": 16, "ffn_dim": 32, "num_attention_heads": 2,
                          "vocab_size": 32, "max_position_embeddings": 32, "word_embed_proj_dim": 16}, 2 * 2 * 8),
    "bloom": ("BloomConfig", {"n_layer": 2, "hidden_size": 16, "n_head": 2, "vocab_size": 32}, 2 * 2 * 8),
    "falcon": ("FalconConfig", {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2,
                                "vocab_size": 32}, 2 * 1 * 8),
    "gpt_neo": ("GPTNeoConfig", {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "vocab_size": 32,
                                 "max_position_embeddings": 32, "attention_types": [[["global", "local"], 1]],
                                 "window_size": 4}, 2 * 2 * 8),
    "gpt_neox": ("GPTNeoXConfig", _TINY, 2 * 2 * 8),
    "phi": ("PhiConfig", _TINY, 2 * 1 * 8),
    "llama": ("LlamaConfig", _TINY, 2 * 1 * 8),
    "qwen3": ("Qwen3Config", {**_TINY, "head_dim": 4}, 2 * 1 * 4),
    "mixtral": ("MixtralConfig", {**_TINY, "num_local_experts": 4}, 2 * 1 * 8),
    "mistral": ("MistralConfig", {**_TINY, "sliding_window": WINDOW}, 2 * 1 * 8),
    "llama4": ("Llama4TextConfig", {**_TINY, "head_dim": 8, "intermediate_size_mlp": 32, "num_local_experts": 2,
                                    "attention_chunk_size": WINDOW, "pad_token_id": 0}, 2 * 1 * 8),
    "t5": ("T5Config", {"num_layers": 2, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "vocab_size": 32},
           2 * 2 * 8),
    "bart": ("BartConfig", _SEQ2SEQ, 2 * 2 * 8),
}  # fmt: skip
TOKENS_KEPT = {"mistral": WINDOW, "llama4": WINDOW, "t5": CACHE + 1 + SOURCE, "bart": CACHE + 1 + SOURCE}


@dataclass(frozen=True)
class Case:
    family: str
    model: nn.Module
    folder: Path

    @cached_property
    def decode(self) -> pipelab.Trace:
        return pipelab.trace_pretrained(self.folder, batch_size=BATCH, cache_len=CACHE, seq_len=SOURCE)

    @cached_property
    def whole(self) -> pipelab.Trace:
        return pipelab.trace_pretrained(self.folder, batch_size=BATCH, seq_len=SOURCE)


def build(family: str) -> nn.Module:
    config_class, settings, _ = FAMILIES[family]
    config = getattr(transformers, config_class)(**settings)
    kind = "Seq2SeqLM" if config.is_encoder_decoder else "CausalLM"
    torch.manual_seed(0)
    return getattr(transformers, f"AutoModelFor{kind}").from_config(config).eval()


@pytest.fixture(scope="module", params=list(FAMILIES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model = build(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return Case(request.param, model, folder)


def cached_step(model: Any, rows: int, traced: pipelab.Trace) -> tuple[dict[str, Tensor], Tensor]:
    """What transformers' own prefill leaves in the caches, and the logits of its own next step."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, zoo.VOCAB, (rows, CACHE + 1), generator=generator)
    inputs: dict[str, Tensor] = {"input_ids": ids[:, -1:]}
    first, then = {"input_ids": ids[:, :-1]}, {"input_ids": ids[:, -1:]}
    if model.config.is_encoder_decoder:
        encoded = model.get_encoder()(torch.randint(3, zoo.VOCAB, (rows, SOURCE), generator=generator))
        first, then = ({"decoder_input_ids": given["input_ids"], "encoder_outputs": encoded} for given in (first, then))
        inputs = {"decoder_input_ids": ids[:, -1:], "encoder_hidden_states": encoded[0]}
    past = model(**first, use_cache=True).past_key_values
    for info in traced.graph.inputs[len(inputs) :]:
        *cross, kind, index = info.name.split("_")
        part = getattr(past, "cross_attention_cache" if cross else "self_attention_cache", past)
        kept = getattr(part.layers[int(index)], kind)
        free_slots = info.shape[2] - kept.shape[2]
        inputs[info.name] = torch.nn.functional.pad(kept, (0, 0, 0, free_slots))
    return inputs, model(**then, past_key_values=past, use_cache=True).logits


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3])
def test_a_step_equals_transformers_own(case: Case, rows: int) -> None:
    inputs, expected = cached_step(case.model, rows, case.decode)
    stage = whole_table(case.decode, rows)
    (logits,) = StageModule(stage.table, case.decode.weights())(*case.decode.bind((), inputs))
    # transformers keeps the tokens of a sliding window in another order, and adds them up in that one.
    tolerance = {} if TOKENS_KEPT.get(case.family) == WINDOW else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(logits, expected, **tolerance)


def test_cache_bytes_follow_the_formula(case: Case) -> None:
    """2 x layers x kv_heads x head_dim x (cache_len + 1) x rows x bytes; cross attention keeps the source as well."""
    graph = case.decode.graph
    per_token = FAMILIES[case.family][2]
    expected = 2 * per_token * TOKENS_KEPT.get(case.family, CACHE + 1) * BATCH * 4
    assert sum(graph.value_bytes(value, BATCH) for value in graph.caches) == expected
    for num_stages in (1, 2):
        stages = pipelab.uniform(case.decode, num_stages=num_stages).stages
        assert sum(stage.cache_bytes for stage in stages) == expected


def test_a_cache_lies_in_one_stage_whatever_the_cut(case: Case) -> None:
    graph = case.decode.graph
    assert set(graph.cache_uses) == set(graph.caches)
    held = {value: value for value in graph.caches}  # what shares memory with a cache
    held.update({index: op.storage for index, op in enumerate(graph.ops) if op.storage in graph.caches})
    first, last = dict.fromkeys(graph.caches, len(graph.ops)), dict.fromkeys(graph.caches, -1)
    for index, op in enumerate(graph.ops):
        for cache in {held[value] for value in op.args if value in held}:
            first[cache], last[cache] = min(first[cache], index), max(last[cache], index)
    for cut in graph.legal:
        assert not [cache for cache in graph.caches if first[cache] < cut <= last[cache]], graph.label_at(cut)
    cached = {graph.inputs[-1 - value].name for value in graph.caches}
    for point in graph.cut_points:
        assert not cached & {tensor.name for tensor in point.tensors}


def test_between_blocks_the_hidden_state_crosses_with_masks_and_positions(case: Case) -> None:
    cut = pipelab.uniform(case.decode, num_stages=2)
    assert {(BATCH, 1, 16)} <= {tensor.shape for tensor in cut.boundaries[0].tensors}
    assert cut.boundaries[0].num_bytes < 1024


@pytest.mark.parametrize("case", ["gpt2", "llama", "mixtral", "t5"], indirect=True, scope="module")
def test_split_points_hold_for_whole_sequences_and_decode_steps(case: Case) -> None:
    plan = pipelab.uniform(case.decode, num_stages=2)
    moved = pipelab.split_at(case.whole, plan.split_points)
    assert moved.split_points == plan.split_points
    assert pipelab.split_at(case.decode, moved.split_points).cuts == plan.cuts
    labels = [block.label for block in case.decode.graph.blocks]
    if not case.model.config.is_encoder_decoder:  # a decode step runs no encoder
        assert labels == [block.label for block in case.whole.graph.blocks]


def test_a_decode_step_runs_as_one_stage_in_micro_batches(tmp_path: Path) -> None:
    model = build("llama")
    model.save_pretrained(tmp_path)
    traced = pipelab.trace_pretrained(tmp_path, batch_size=BATCH, cache_len=CACHE)
    with torch.no_grad():
        inputs, expected = cached_step(model, BATCH, traced)
        with pipelab.start(traced, pipelab.uniform(traced, num_stages=1), device="cpu") as pipe:
            report = pipe.run(**inputs, num_microbatches=2, repeats=1)
    torch.testing.assert_close(report.output, expected)
    with pytest.raises(LaunchError, match="one decode step"):
        stage_tables(traced, pipelab.uniform(traced, num_stages=2), BATCH)


def test_the_cache_of_a_config_takes_no_memory() -> None:
    """BLOOM-176B's width and heads, two of its 70 layers."""
    config = transformers.BloomConfig(n_layer=2, hidden_size=14336, n_head=112, vocab_size=250880)
    traced = pipelab.trace_pretrained(config, batch_size=8, cache_len=2048, dtype="bfloat16")
    stage = pipelab.uniform(traced, num_stages=1).stages[0]
    assert stage.cache_bytes == 2 * 2 * 112 * 128 * 2049 * 8 * 2
    assert all(traced.kwargs[name].is_meta for name in traced.kwargs if name != "input_ids")


def test_a_config_is_left_as_it_was() -> None:
    """What attention does in a decode step must not be what it does in whole sequences traced afterwards."""
    config = transformers.LlamaConfig(**_TINY)
    before = (config.to_dict(), config._attn_implementation)
    first = pipelab.trace_pretrained(config, batch_size=2, seq_len=4).graph
    pipelab.trace_pretrained(config, batch_size=2, cache_len=4)
    assert pipelab.trace_pretrained(config, batch_size=2, seq_len=4).graph == first
    assert (config.to_dict(), config._attn_implementation) == before


@pytest.mark.parametrize(
    ("config", "settings", "said"),
    [
        ("BertConfig", {"architectures": ["BertForMaskedLM"]}, "does not generate tokens from a cache"),
        ("MambaConfig", {"state_size": 4}, "does not generate tokens from a cache"),
        ("JambaConfig", {"use_mamba_kernels": False}, r"keeps more than keys and values.*LinearAttentionLayer"),
    ],
)
def test_a_model_without_such_a_cache_is_planned_for_whole_sequences(
    config: str, settings: dict[str, Any], said: str
) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": zoo.VOCAB}
    with pytest.raises(TraceError, match=rf"{said}.*leave cache_len out"):
        pipelab.trace_pretrained(getattr(transformers, config)(**small, **settings), batch_size=2, cache_len=4)


class NeedsMore(transformers.GPT2LMHeadModel):
    def forward(self, input_ids: Tensor, past_key_values: Any, **kwargs: Any) -> Any:
        raise ValueError("an image is missing\nand more")


class Forgets(transformers.GPT2LMHeadModel):
    def forward(self, input_ids: Tensor, past_key_values: Any, **kwargs: Any) -> Any:
        return super().forward(input_ids)


@pytest.mark.parametrize(
    ("model_class", "cache_len", "said"),
    [
        (NeedsMore, 4, r"step of NeedsMore fails \(ValueError: an image is missing\)"),
        (Forgets, 4, "Forgets puts nothing into the cache"),
        (transformers.GPT2LMHeadModel, 0, "at least 1 token; it is 0"),
    ],
)
def test_a_step_that_cannot_be_made_says_why(model_class: Any, cache_len: int, said: str) -> None:
    with torch.device("meta"):
        model = model_class(transformers.GPT2Config(**FAMILIES["gpt2"][1], bos_token_id=0, eos_token_id=0))
    with pytest.raises(TraceError, match=said):
        DecodeStep.of(model.eval(), cache_len, {"input_ids": torch.zeros(2, 1)})
