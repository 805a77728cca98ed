"""Inputs a transformers model can be traced with: random tokens, pixels or sounds, of the sizes its config names."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import TraceError

_IMAGE_SIZE = 224  # of models that take any
# What else a model of several kinds of input takes, by what transformers calls the kind.
_OF_KIND = {"text": "input_ids", "image": "pixel_values"}


def example_inputs(model: nn.Module, batch_size: int, seq_len: int) -> dict[str, Tensor]:
    """Real inputs of the right kind.

    Args:
        model: A transformers model.
        batch_size: Rows.
        seq_len: Tokens per row, or frames of sound; fewer beside images, where the model has no places for so many.

    Raises:
        TraceError: What the model takes is not known.
    """
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    dtype = next(model.parameters()).dtype
    found: dict[str, Tensor] = {}
    for name in _names(model):
        shape = _shape(config, name, seq_len)
        if shape is None:
            raise TraceError(
                f"pipelab does not know what inputs a {type(model).__name__} takes ({name!r}). Build the model "
                "yourself, on the meta device if it is large, and call pipelab.trace(model, ...) with its inputs."
            )
        if name.endswith("input_ids"):
            words = _of_text(config, name).vocab_size
            found[name] = torch.randint(0, words, (batch_size, *shape), generator=generator)
        else:
            found[name] = torch.randn(batch_size, *shape, generator=generator).to(dtype)
    return found


def _names(model: nn.Module) -> Iterator[str]:
    """The arguments of `forward` it needs: its main input, and those of other kinds it looks at beside it."""
    config: Any = model.config
    parameters = inspect.signature(model.forward).parameters
    main = str(getattr(model, "main_input_name", "input_ids"))
    yield main
    kinds = getattr(model, "input_modalities", ())
    # A language model that sees runs on text alone; with an image, placeholders in the text would be needed.
    sees = any(hasattr(config, name) for name in ("image_token_id", "image_token_index"))
    for kind in () if isinstance(kinds, str) or sees else kinds:
        name = _OF_KIND.get(kind, main)
        if name != main and name in parameters:
            yield name
    if config.is_encoder_decoder and "decoder_input_ids" in parameters:
        yield "decoder_input_ids"


def _shape(config: Any, name: str, seq_len: int) -> tuple[int, ...] | None:
    """The shape of one row; None if it is not known."""
    if name.endswith("input_ids"):
        text = _of_text(config, name)
        if not hasattr(text, "vocab_size"):
            return None
        places = getattr(text, "max_position_embeddings", seq_len) if hasattr(config, "vision_config") else seq_len
        return (min(seq_len, places),)
    if name == "pixel_values":
        return _image(config)
    if name == "input_features":
        return _features(config, seq_len)
    if name == "input_values":
        return _sound(config, seq_len)
    if name == "past_values" and hasattr(config, "num_input_channels"):
        return config.context_length, config.num_input_channels
    return None


def _of_text(config: Any, name: str) -> Any:
    """The config of the part that reads these tokens, where there are several."""
    given = [getattr(config, part, None) for part in ("text_encoder", "decoder")]
    if None in given:
        return config.get_text_config()
    return given[name.startswith("decoder")]


def _image(config: Any) -> tuple[int, ...]:
    parts = [getattr(config, part, None) for part in ("vision_config", "backbone_config", "encoder")]
    vision: Any = next((part for part in parts if hasattr(part, "image_size")), config)
    size = getattr(vision, "image_size", None) or _IMAGE_SIZE
    height, width = (size, size) if isinstance(size, int) else size
    frames = (vision.num_frames,) if hasattr(vision, "num_frames") else ()
    return *frames, getattr(vision, "num_channels", 3), height, width


def _features(config: Any, seq_len: int) -> tuple[int, ...] | None:
    """Features of sound: Whisper wants all the time it has places for, others any."""
    if hasattr(config, "max_source_positions") and hasattr(config, "num_mel_bins"):
        return config.num_mel_bins, 2 * config.max_source_positions
    for name in ("feature_projection_input_dim", "input_feat_per_channel"):
        if hasattr(config, name):
            return seq_len, getattr(config, name)
    return None


def _sound(config: Any, seq_len: int) -> tuple[int, ...] | None:
    """As many samples as the convolutions make `seq_len` frames of, or a spectrogram."""
    if hasattr(config, "conv_kernel") and hasattr(config, "conv_stride"):
        samples = seq_len
        for kernel, stride in reversed(list(zip(config.conv_kernel, config.conv_stride, strict=True))):
            samples = (samples - 1) * stride + kernel
        return (samples,)
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):
        return config.max_length, config.num_mel_bins
    return None
