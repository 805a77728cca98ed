"""Models from elsewhere than a checkpoint that pipelab is tried on: diffusers, plain torch, text with images."""

from collections.abc import Callable

import torch
from families import BATCH, PRETRAINED, SEQ, VOCAB
from torch import Tensor, nn


class TransformerEncoder(nn.Module):
    """A language model on torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 3)
        self.head = nn.Linear(16, VOCAB)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(SEQ))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(ids), mask=self.mask, is_causal=True))  # type: ignore[no-any-return]  # untyped


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
        return self.head(hidden)  # type: ignore[no-any-return]  # untyped


class MixerLayer(nn.Module):
    """Mixes places, then channels."""

    def __init__(self, places: int, channels: int) -> None:
        super().__init__()
        self.places = nn.Sequential(nn.Linear(places, 32), nn.GELU(), nn.Linear(32, places))
        self.channels = nn.Sequential(nn.Linear(channels, 32), nn.GELU(), nn.Linear(32, channels))
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.places(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))  # type: ignore[no-any-return]  # untyped


class MlpMixer(nn.Module):
    """Images without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.layers = nn.Sequential(*(MixerLayer(4, 16) for _ in range(3)))
        self.head = nn.Linear(16, 8)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.layers(self.patches(image).flatten(2).transpose(1, 2)).mean(1))  # type: ignore[no-any-return]  # untyped


def diffusion_unet() -> nn.Module:
    """The U-Net of Stable Diffusion, tiny; needs diffusers."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(  # type: ignore[no-any-return]  # diffusers leaves it untyped
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, attention_head_dim=4,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


def diffusion_transformer() -> nn.Module:
    """DiT, tiny; needs diffusers."""
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(  # type: ignore[no-any-return]  # diffusers leaves it untyped
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=3, norm_num_groups=4,
        sample_size=8, patch_size=2, num_embeds_ada_norm=10,
    )  # fmt: skip


def stable_diffusion_3() -> nn.Module:
    """The transformer of Stable Diffusion 3, tiny; needs diffusers."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(  # type: ignore[no-any-return]  # diffusers leaves it untyped
        sample_size=8, patch_size=2, in_channels=4, num_layers=3, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=8, out_channels=4,
        pos_embed_max_size=16,
    )  # fmt: skip


def flux() -> nn.Module:
    """The transformer of Flux, tiny; needs diffusers."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(  # type: ignore[no-any-return]  # diffusers leaves it untyped
        patch_size=1, in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=8, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


def image_autoencoder() -> nn.Module:
    """The VAE of Stable Diffusion, tiny; needs diffusers."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(  # type: ignore[no-any-return]  # diffusers leaves it untyped
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, sample_size=16,
    )  # fmt: skip


def _ids() -> Tensor:
    return torch.randint(0, VOCAB, (BATCH, SEQ), generator=torch.Generator().manual_seed(1))


def _floats(*shape: int) -> Tensor:
    return torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(2))


def _prompts() -> dict[str, Tensor]:
    """What text becomes for a diffusion model."""
    timestep = torch.linspace(0, 1, BATCH)
    return {"encoder_hidden_states": _floats(6, 16), "pooled_projections": _floats(8), "timestep": timestep}


def _with_image() -> Tensor:
    """Token ids, of which four stand for the patches of an image."""
    return torch.tensor([1, 5, 5, 5, 5, 7]).repeat(BATCH, 1)


# Models that come from elsewhere: how to make one, and what it is called with.
OTHERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]]]] = {
    "Stable Diffusion U-Net": (
        diffusion_unet,
        lambda: {"sample": _floats(4, 8, 8), "timestep": torch.arange(BATCH), "encoder_hidden_states": _floats(6, 8)},
    ),
    "Stable Diffusion VAE": (image_autoencoder, lambda: {"sample": _floats(3, 16, 16)}),
    "DiT": (
        diffusion_transformer,
        lambda: {
            "hidden_states": _floats(4, 8, 8),
            "timestep": torch.arange(BATCH),
            "class_labels": torch.arange(BATCH),
        },
    ),
    "Stable Diffusion 3": (stable_diffusion_3, lambda: {"hidden_states": _floats(4, 8, 8), **_prompts()}),
    "Flux": (
        flux,
        lambda: {
            "hidden_states": _floats(16, 4),
            **_prompts(),
            "img_ids": torch.zeros(16, 3),
            "txt_ids": torch.zeros(6, 3),
        },
    ),
    "LLaVA with images": (
        PRETRAINED["LLaVA"].made,
        lambda: {"input_ids": _with_image(), "pixel_values": _floats(3, 16, 16)},
    ),
    "nn.TransformerEncoder": (TransformerEncoder, lambda: {"ids": _ids()}),
    "LSTM language model": (Lstm, lambda: {"ids": _ids()}),
    "MLP-Mixer": (MlpMixer, lambda: {"image": _floats(3, 16, 16)}),
}
