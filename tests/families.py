"""Every family of models pipelab is tried on, tiny and with random weights."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

BATCH, SEQ, VOCAB = 4, 6, 32
_DECODER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": VOCAB, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_ENCODER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "vocab_size": VOCAB, "max_position_embeddings": 64,
}  # fmt: skip
_VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}


@dataclass(frozen=True)
class Family:
    """A family of transformers models, as one of them.

    Attributes:
        model: Class of the model.
        config: Class of its config.
        settings: What makes it tiny.
        generates: Whether `generate` is of use with it.
    """

    model: str
    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    generates: bool = False

    def made_config(self) -> Any:
        """The tiny config, which names the class of the model as that of a checkpoint does."""
        logging.getLogger("transformers").setLevel(logging.ERROR)
        import transformers

        settings = {key: value() if callable(value) else value for key, value in self.settings.items()}
        config = getattr(transformers, self.config)(**settings)
        config.architectures = [self.model]
        return config

    def made(self) -> nn.Module:
        """The model with random weights, in evaluation mode."""
        import transformers

        config = self.made_config()
        torch.manual_seed(0)
        return getattr(transformers, self.model)(config).eval()  # type: ignore[no-any-return]  # transformers'


def _decoder(name: str, *also: Mapping[str, Any], **settings: Any) -> Family:
    merged = dict(_DECODER)
    for more in (*also, settings):
        merged |= more
    return Family(f"{name}ForCausalLM", f"{name}Config", merged, generates=True)


def _config(name: str, **settings: Any) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        return getattr(transformers, name)(**settings)

    return make


PRETRAINED: dict[str, Family] = {
    "GPT-2": Family("GPT2LMHeadModel", "GPT2Config",
                    {"n_layer": 3, "n_embd": 16, "n_head": 2, "vocab_size": VOCAB, "n_positions": 64,
                     "bos_token_id": 1, "eos_token_id": 2}, True),
    "OPT": _decoder("OPT", ffn_dim=32, word_embed_proj_dim=16),
    "BLOOM": Family("BloomForCausalLM", "BloomConfig",
                    {"n_layer": 3, "hidden_size": 16, "n_head": 2, "vocab_size": VOCAB}, True),
    "GPT-Neo": Family("GPTNeoForCausalLM", "GPTNeoConfig",
                      {"num_layers": 4, "hidden_size": 16, "num_heads": 2, "vocab_size": VOCAB,
                       "max_position_embeddings": 64, "attention_types": [[["global", "local"], 2]], "window_size": 4,
                       "bos_token_id": 1, "eos_token_id": 2}, True),
    "CodeGen": Family("CodeGenForCausalLM", "CodeGenConfig",
                      {"n_layer": 3, "n_embd": 32, "n_head": 4, "vocab_size": VOCAB, "n_positions": 64,
                       "rotary_dim": 4, "bos_token_id": 1, "eos_token_id": 2}, True),
    "LLaMA": _decoder("Llama"),
    "Mistral": _decoder("Mistral", sliding_window=4),
    "Qwen2": _decoder("Qwen2"),
    "Qwen3": _decoder("Qwen3", head_dim=8),
    "Gemma": _decoder("Gemma", head_dim=8),
    "Gemma 2": _decoder("Gemma2", head_dim=8, sliding_window=4),
    "Gemma 3": Family("Gemma3ForCausalLM", "Gemma3TextConfig", {**_DECODER, "head_dim": 8, "sliding_window": 4}, True),
    "Phi": _decoder("Phi", num_key_value_heads=2),
    "Phi-3": _decoder("Phi3"),
    "Falcon": _decoder("Falcon"),
    "GPT-NeoX": _decoder("GPTNeoX"),
    "Mixtral": _decoder("Mixtral", num_local_experts=4),
    "Qwen3-MoE": _decoder("Qwen3Moe", _EXPERTS, head_dim=8, moe_intermediate_size=16),
    "OLMoE": _decoder("Olmoe", _EXPERTS),
    "Mamba": Family("MambaForCausalLM", "MambaConfig",
                    {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": VOCAB, "state_size": 4,
                     "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}, True),
    "Mamba-2": Family("Mamba2ForCausalLM", "Mamba2Config",
                      {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": VOCAB, "state_size": 4, "num_heads": 4,
                       "head_dim": 8, "n_groups": 1, "chunk_size": 4, "pad_token_id": 0, "bos_token_id": 1,
                       "eos_token_id": 2}, True),
    "RWKV": Family("RwkvForCausalLM", "RwkvConfig",
                   {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": VOCAB, "context_length": 64,
                    "rescale_every": 0,                    "bos_token_id": 1, "eos_token_id": 2}, True),
    "T5": Family("T5ForConditionalGeneration", "T5Config",
                 {"num_layers": 2, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "vocab_size": VOCAB,
                  "decoder_start_token_id": 0}, True),
    "BART": Family("BartForConditionalGeneration", "BartConfig",
                   {"encoder_layers": 2, "decoder_layers": 2, "d_model": 16, "encoder_ffn_dim": 32,
                    "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
                    "vocab_size": VOCAB, "max_position_embeddings": 64}, True),
    "BERT": Family("BertForMaskedLM", "BertConfig", _ENCODER),
    "RoBERTa": Family("RobertaForSequenceClassification", "RobertaConfig", _ENCODER),
    "DistilBERT": Family("DistilBertForMaskedLM", "DistilBertConfig",
                         {"n_layers": 3, "dim": 16, "hidden_dim": 32, "n_heads": 2, "vocab_size": VOCAB,
                          "max_position_embeddings": 64}),
    "ViT": Family("ViTForImageClassification", "ViTConfig", _VISION),
    "Swin": Family("SwinForImageClassification", "SwinConfig",
                   {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2],
                    "window_size": 4}),
    "DETR": Family("DetrForObjectDetection", "DetrConfig",
                   {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
                    "backbone_config": _config("ResNetConfig", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1],
                                               layer_type="basic", out_features=["stage2"]),
                    "num_queries": 4, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32,
                    "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}),
    "CLIP": Family("CLIPModel", "CLIPConfig",
                   {"text_config": {**_ENCODER, "eos_token_id": 2}, "vision_config": _VISION, "projection_dim": 8}),
    "Whisper": Family("WhisperForConditionalGeneration", "WhisperConfig",
                      {"encoder_layers": 2, "decoder_layers": 2, "d_model": 16, "encoder_ffn_dim": 32,
                       "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
                       "vocab_size": VOCAB, "max_source_positions": 12, "max_target_positions": 32,
                       "num_mel_bins": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
                       "decoder_start_token_id": 1, "suppress_tokens": None, "begin_suppress_tokens": None}, True),
    "wav2vec 2.0": Family("Wav2Vec2ForCTC", "Wav2Vec2Config",
                          {**_ENCODER, "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3),
                           "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}),
    "ResNet": Family("ResNetForImageClassification", "ResNetConfig",
                     {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "layer_type": "basic"}),
    "RegNet": Family("RegNetForImageClassification", "RegNetConfig",
                     {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "groups_width": 8}),
    "ConvNeXt": Family("ConvNextForImageClassification", "ConvNextConfig",
                       {"hidden_sizes": [8, 16], "depths": [2, 2], "num_stages": 2, "image_size": 32}),
}  # fmt: skip


class TransformerEncoder(nn.Module):
    """A language model on torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 3)
        self.head = nn.Linear(16, VOCAB)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(SEQ))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(ids), mask=self.mask, is_causal=True))  # type: ignore[no-any-return]


class Lstm(nn.Module):
    """A language model of recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 16)
        self.layers = nn.ModuleList(nn.LSTM(16, 16, batch_first=True) for _ in range(3))
        self.head = nn.Linear(16, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embed(ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden)[0]
        return self.head(hidden)  # type: ignore[no-any-return]


class MixerLayer(nn.Module):
    """Mixes places, then channels."""

    def __init__(self, places: int, channels: int) -> None:
        super().__init__()
        self.places = nn.Sequential(nn.Linear(places, 32), nn.GELU(), nn.Linear(32, places))
        self.channels = nn.Sequential(nn.Linear(channels, 32), nn.GELU(), nn.Linear(32, channels))
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.places(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))  # type: ignore[no-any-return]


class MlpMixer(nn.Module):
    """Images without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.layers = nn.Sequential(*(MixerLayer(4, 16) for _ in range(3)))
        self.head = nn.Linear(16, 8)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.layers(self.patches(image).flatten(2).transpose(1, 2)).mean(1))  # type: ignore[no-any-return]


def diffusion_unet() -> nn.Module:
    """The U-Net of Stable Diffusion, tiny; needs diffusers."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(  # type: ignore[no-any-return]
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, attention_head_dim=4,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


def _ids() -> Tensor:
    return torch.randint(0, VOCAB, (BATCH, SEQ), generator=torch.Generator().manual_seed(1))


def _floats(*shape: int) -> Tensor:
    return torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(2))


# Models that come from elsewhere: how to make one, and what it is called with.
OTHERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]]]] = {
    "Stable Diffusion U-Net": (
        diffusion_unet,
        lambda: {"sample": _floats(4, 8, 8), "timestep": torch.arange(BATCH), "encoder_hidden_states": _floats(6, 8)},
    ),
    "nn.TransformerEncoder": (TransformerEncoder, lambda: {"ids": _ids()}),
    "LSTM language model": (Lstm, lambda: {"ids": _ids()}),
    "MLP-Mixer": (MlpMixer, lambda: {"image": _floats(3, 16, 16)}),
}
