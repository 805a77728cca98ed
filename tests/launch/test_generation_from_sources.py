"""`generate` of encoder-decoders that hear or see: transformers' tokens, one for one."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from generators import VOCAB
from test_generation import between_blocks
from torch import Tensor

import pipelab
from pipelab.errors import InputError, TraceError

transformers = pytest.importorskip("transformers")

MEL, PLACES, ROWS = 8, 12, 3
_TIMES = VOCAB - 14  # the first token that is a time
LONG = 60  # frames of a row that takes several rounds of 2 * PLACES


def unlike(model: Any, scale: float) -> Any:
    """The model with weights whose tokens are not all the same."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, scale / weight.shape[-1] ** 0.5)
    return model.eval()


def whisper() -> Any:
    """A Whisper with languages, tasks and times, and fewer layers in the encoder than in the decoder."""
    logging.getLogger("transformers").setLevel(logging.CRITICAL)
    end, start, english, german, transcribe, translate, before, no_times = range(_TIMES - 8, _TIMES)
    config = transformers.WhisperConfig(
        encoder_layers=1, decoder_layers=2, d_model=16, encoder_ffn_dim=32, decoder_ffn_dim=32,
        encoder_attention_heads=2, decoder_attention_heads=2, vocab_size=VOCAB, max_source_positions=PLACES,
        max_target_positions=48, num_mel_bins=MEL, pad_token_id=end, bos_token_id=end, eos_token_id=end,
        decoder_start_token_id=start,
    )  # fmt: skip
    model = unlike(transformers.WhisperForConditionalGeneration(config), 3.0)
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=end, pad_token_id=end, decoder_start_token_id=start, prev_sot_token_id=before,
        lang_to_id={"<|en|>": english, "<|de|>": german}, no_timestamps_token_id=no_times, is_multilingual=True,
        task_to_id={"transcribe": transcribe, "translate": translate}, max_initial_timestamp_index=4,
        suppress_tokens=[1, 7], begin_suppress_tokens=[5, end],
    )  # fmt: skip
    return model


def reader() -> Any:
    """A model that reads images, whose encoder is wider than its decoder."""
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sees = transformers.ViTConfig(**sizes, image_size=16, patch_size=8)
    writes = transformers.GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=VOCAB, n_positions=64,
                                     bos_token_id=1, eos_token_id=None)  # fmt: skip
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(sees, writes)
    model = unlike(transformers.VisionEncoderDecoderModel(config), 2.0)
    settings = model.generation_config
    settings.decoder_start_token_id, settings.pad_token_id, settings.eos_token_id = 1, 0, None
    return model


def heard(frames: int, rows: int = ROWS) -> Tensor:
    return torch.randn(rows, MEL, frames, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def model() -> Any:
    return whisper()


@pytest.fixture(scope="module")
def traced(model: Any) -> pipelab.Trace:
    return pipelab.trace(model, input_features=heard(2 * PLACES), decoder_input_ids=torch.zeros(ROWS, 4).long())


@pytest.fixture(scope="module")
def pipe(traced: pipelab.Trace) -> Iterator[pipelab.Pipeline]:
    with pipelab.start(traced, between_blocks(traced, 2), device="cpu") as started:
        yield started


def both(pipe: pipelab.Pipeline, model: Any, **call: Any) -> tuple[Any, Any]:
    """What the ranks and what the model itself makes of it, from the same seed."""
    call = {"max_new_tokens": 9, **call}
    results = []
    for generate in (pipe.generate, model.generate):
        torch.manual_seed(7)
        results.append(generate(**call))
        call.pop("num_microbatches", None)
    return results[0], results[1]


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"language": "en", "task": "translate"},
    "languages that it finds itself": {},
    "with times": {"language": "de", "return_timestamps": True},
    "in one group, after a prompt": {"language": "en", "prompt_ids": torch.tensor([_TIMES - 2, 5, 6]),
                                     "num_microbatches": 1},
    "beams": {"language": ["en", "de", "en"], "num_beams": 2},
    "hotter and hotter": {"language": "en", "temperature": (0.0, 0.7), "compression_ratio_threshold": 0.5,
                          "logprob_threshold": -1.0},
    "without a cache": {"language": "en", "use_cache": False},
}  # fmt: skip


def test_speech_becomes_transformers_own_tokens(pipe: pipelab.Pipeline, model: Any, traced: pipelab.Trace) -> None:
    pipe.replan(between_blocks(traced, 3))
    for way, settings in WAYS.items():
        ours, expected = both(pipe, model, input_features=heard(2 * PLACES), **settings)
        assert torch.equal(ours, expected), way


def test_long_speech_takes_rounds_of_fewer_and_fewer_rows(
    pipe: pipelab.Pipeline, model: Any, traced: pipelab.Trace
) -> None:
    pipe.replan(between_blocks(traced, 2))
    mask = torch.ones(ROWS, LONG, dtype=torch.int64)
    mask[0, LONG // 3 :] = 0
    call = {"input_features": heard(LONG), "attention_mask": mask, "return_timestamps": True}
    ours, expected = both(pipe, model, **call, language="en", condition_on_prev_tokens=True)
    assert torch.equal(ours, expected)
    report = pipe.last_generation
    assert report is not None and report.decode is not None and report.token_s is not None
    assert report.num_new_tokens > 9, "more than one round"
    assert report.group_rows == (2, 1)
    assert report.prefill.num_tokens > ROWS * 3
    assert 0 < report.token_s < report.decode.seconds


def test_a_cut_inside_a_block_and_a_result_with_scores(
    pipe: pipelab.Pipeline, model: Any, traced: pipelab.Trace
) -> None:
    """The ranks' stand-in for caches lay in the result, where Whisper took it apart."""
    name = "model.decoder.layers.1.fc1"
    pipe.replan(pipelab.split_at(traced, [name]))
    told = {"return_dict_in_generate": True, "output_scores": True}
    ours, expected = both(pipe, model, input_features=heard(2 * PLACES), language="en", **told)
    assert torch.equal(ours.sequences, expected.sequences)
    torch.testing.assert_close(ours.scores, expected.scores, rtol=1e-3, atol=1e-4)
    assert "past_key_values" not in ours


def test_what_is_no_speech_is_refused_before_a_rank_is_touched(pipe: pipelab.Pipeline) -> None:
    pids = pipe.pids
    for wrong in (None, heard(24).half(), heard(24)[0, 0], torch.zeros(2, 5, dtype=torch.int64)):
        with pytest.raises(InputError, match=r"generates from input_features, a tensor of torch.float32"):
            pipe.generate(wrong)
    with pytest.raises(TraceError, match=r"cannot be called with rows of shape \(9, 24\)"):
        pipe.generate(torch.zeros(2, 9, 24), language="en")
    with pytest.raises(InputError, match=r"shape \(3, \.\.\.\) as the input"):
        pipe.generate(heard(24), attention_mask=torch.ones(2, 24))
    for name, value in (("return_token_timestamps", True), ("no_speech_threshold", 0.6)):
        with pytest.raises(InputError, match=f"does not take {name}"):
            pipe.generate(heard(24), language="en", **{name: value})
    assert pipe.pids == pids


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_images_become_transformers_own_tokens(tmp_path: Path) -> None:
    """Of a checkpoint, whose config names a picture's size in the encoder's part."""
    model = reader()
    model.save_pretrained(tmp_path)
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    traced = pipelab.trace_pretrained(tmp_path, batch_size=2, seq_len=4)
    with pipelab.start(traced, between_blocks(traced, 2), device="cpu") as pipe:
        for num_stages in (2, 3):
            pipe.replan(between_blocks(traced, num_stages))
            for settings in ({}, {"do_sample": True, "num_microbatches": 2}, {"num_beams": 3}):
                ours, expected = both(pipe, model, pixel_values=images, **settings)
                assert torch.equal(ours, expected), settings
        assert len(set(expected.flatten().tolist())) > 3
