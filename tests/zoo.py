"""Tiny models of every kind pipelab promises to split: plain nets with one trap each, and Hugging Face families."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import pipelab

BATCH, SEQ, VOCAB = 8, 6, 32


class Mlp(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


class InputSkip(nn.Module):
    """The last layer reads the model's input again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.first(x).relu()).relu()
        return self.last(torch.cat([hidden, x], dim=1))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.mid = nn.Conv2d(8, 8, 3, padding=1)
        self.up2, self.up1 = nn.Conv2d(16, 4, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x).relu()
        b = self.down2(nn.functional.max_pool2d(a, 2)).relu()
        c = self.mid(nn.functional.max_pool2d(b, 2)).relu()
        c = self.up2(torch.cat([nn.functional.interpolate(c, scale_factor=2.0), b], dim=1)).relu()
        return self.up1(torch.cat([nn.functional.interpolate(c, scale_factor=2.0), a], dim=1))


class SharedBlock(nn.Module):
    """One block called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = x + self.block(x)
        return self.head(x)


class Tied(nn.Module):
    """Embedding and head are one tensor under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, VOCAB, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x).tanh()
        return self.head(x)


class BatchNormNet(nn.Module):
    """Buffers, one of them an integer counter nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.register_buffer("scale", torch.full((4, 1, 1), 2.0), persistent=False)
        self.head = nn.Linear(4, 2)
        for norm in (self.norm1, self.norm2):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.norm1(self.conv1(x)), inplace=True)
        x = self.norm2(self.conv2(x)) * self.scale
        return self.head(x.mean((2, 3)))


class MultiOutput(nn.Module):
    """Ops that make lists: chunk and topk."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 12), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b, c = self.first(x).chunk(3, dim=1)
        values, indices = torch.topk(torch.cat([a * b, c], dim=1), 6)
        return self.last(values), indices


class InPlace(nn.Module):
    """Writes through views, and reads the written memory under other names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        left = hidden[:, :4]
        flat = hidden.view(-1)
        left.add_(1.0)
        late = self.last(hidden)
        flat.mul_(2.0)
        total = torch.zeros(x.shape[0], 4)
        total += late
        total[:, 0] += hidden[:, 0]
        return total + left


class OneRow(nn.Module):
    """With one row the transposed tensor is contiguous as it is, and the write shows in `hidden`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        turned = hidden.t().contiguous()
        turned.add_(1.0)
        return self.last(hidden) + turned.t()[:, :4]


class WritesOnly(nn.Module):
    """`_foreach_add_` returns nothing: all it does is to write."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        torch._foreach_add_([hidden, hidden[:, 4:]], 1.0)
        return self.last(hidden)


class ReadsAround(nn.Module):
    """`as_strided` reaches, through a view, for memory outside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        rows = torch.as_strided(hidden[:, 2:6].relu_()[:, 1:], (x.shape[0], 4), (8, 1), 0)
        return self.last(hidden.tanh()) + rows


class DictOutput(nn.Module):
    """A dict with a tuple, a constant and None in it; one output is made early."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, *, scale: Tensor) -> dict[str, Any]:
        early = self.first(x)
        late = self.second(early.relu()) * scale
        return {"early": early, "pair": (late, late.flatten()), "none": None, "number": 3}


class PassOn(nn.Module):
    """Between `first` and `last` a stage can hold nothing but views, so it only passes its input on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x.view(x.shape[0], 2, 4).contiguous().view(x.shape[0], 8)
        return self.last(x)


class Marked(nn.Module):
    """Says itself where to cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        pipelab.pipe_split()
        x = self.second(x).relu()
        pipelab.pipe_split()
        return self.third(x)


class Branches(nn.Module):
    """Decides by the values of a tensor: cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + 1 if x.sum() > 0 else x - 1


class CondNet(nn.Module):
    """The way out for such a decision: `torch.cond`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.cond(x.abs().sum() > 1e6, lambda y: y + 1, lambda y: y * 2, (x,))
        return self.last(x)


def _ids(*shape: int) -> Tensor:
    return torch.randint(0, VOCAB, shape or (BATCH, SEQ), generator=torch.Generator().manual_seed(1))


def _floats(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


Case = Callable[[], tuple[nn.Module, dict[str, Tensor]]]


def _plain(factory: Callable[[], nn.Module], **inputs: Tensor) -> Case:
    return lambda: (factory(), inputs)


PLAIN: dict[str, Case] = {
    "mlp": _plain(Mlp, input=_floats(BATCH, 4)),
    "input_skip": _plain(InputSkip, x=_floats(BATCH, 4)),
    "unet": _plain(UNet, x=_floats(BATCH, 3, 8, 8)),
    "shared_block": _plain(SharedBlock, x=_floats(BATCH, 8)),
    "tied": _plain(Tied, ids=_ids()),
    "batch_norm": _plain(BatchNormNet, x=_floats(BATCH, 3, 8, 8)),
    "multi_output": _plain(MultiOutput, x=_floats(BATCH, 4)),
    "in_place": _plain(InPlace, x=_floats(BATCH, 4)),
    "one_row": _plain(OneRow, x=_floats(BATCH, 4)),
    "writes_only": _plain(WritesOnly, x=_floats(BATCH, 4)),
    "reads_around": _plain(ReadsAround, x=_floats(BATCH, 4)),
    "dict_output": _plain(DictOutput, x=_floats(BATCH, 4), scale=_floats(4)),
    "pass_on": _plain(PassOn, x=_floats(BATCH, 4)),
    "marked": _plain(Marked, x=_floats(BATCH, 4)),
    "cond": _plain(CondNet, x=_floats(BATCH, 4)),
}


def _hugging_face(config: str, model: str, inputs: dict[str, Tensor], **settings: Any) -> Case:
    def make() -> tuple[nn.Module, dict[str, Tensor]]:
        logging.getLogger("transformers").setLevel(logging.ERROR)
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**settings)), inputs

    return make


_LLAMA = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": VOCAB, "max_position_embeddings": 32,
}  # fmt: skip
_MASK = torch.ones(BATCH, SEQ, dtype=torch.int64)
_MASK[::2, -2:] = 0

HUGGING_FACE: dict[str, Case] = {
    "gpt2": _hugging_face("GPT2Config", "GPT2LMHeadModel", {"input_ids": _ids()},
                          n_layer=3, n_embd=16, n_head=2, vocab_size=VOCAB, n_positions=32),
    "opt": _hugging_face("OPTConfig", "OPTForCausalLM", {"input_ids": _ids(), "attention_mask": _MASK},
                         num_hidden_layers=3, hidden_size=16, ffn_dim=32, num_attention_heads=2, vocab_size=VOCAB,
                         max_position_embeddings=32, word_embed_proj_dim=16),
    "bloom": _hugging_face("BloomConfig", "BloomForCausalLM", {"input_ids": _ids()},
                           n_layer=3, hidden_size=16, n_head=2, vocab_size=VOCAB),
    "gpt_neo": _hugging_face("GPTNeoConfig", "GPTNeoForCausalLM", {"input_ids": _ids()},
                             num_layers=2, hidden_size=16, num_heads=2, vocab_size=VOCAB, max_position_embeddings=32,
                             attention_types=[[["global", "local"], 1]], window_size=4),
    "codegen": _hugging_face("CodeGenConfig", "CodeGenForCausalLM", {"input_ids": _ids()},
                             n_layer=2, n_embd=32, n_head=4, vocab_size=VOCAB, n_positions=32, rotary_dim=4),
    "bert": _hugging_face("BertConfig", "BertForMaskedLM", {"input_ids": _ids(), "attention_mask": _MASK},
                          num_hidden_layers=2, hidden_size=16, intermediate_size=32, num_attention_heads=2,
                          vocab_size=VOCAB, max_position_embeddings=32),
    "t5": _hugging_face("T5Config", "T5ForConditionalGeneration",
                        {"input_ids": _ids(), "decoder_input_ids": _ids(BATCH, 4)},
                        num_layers=2, d_model=16, d_ff=32, d_kv=8, num_heads=2, vocab_size=VOCAB),
    "llama": _hugging_face("LlamaConfig", "LlamaForCausalLM", {"input_ids": _ids(), "attention_mask": _MASK},
                           **_LLAMA),
    "mixtral": _hugging_face("MixtralConfig", "MixtralForCausalLM", {"input_ids": _ids()},
                             **{**_LLAMA, "num_hidden_layers": 2}, num_local_experts=4),
    "vit": _hugging_face("ViTConfig", "ViTForImageClassification", {"pixel_values": _floats(BATCH, 3, 16, 16)},
                         num_hidden_layers=2, hidden_size=16, intermediate_size=32, num_attention_heads=2,
                         image_size=16, patch_size=8),
    "regnet": _hugging_face("RegNetConfig", "RegNetForImageClassification", {"pixel_values": _floats(BATCH, 3, 32, 32)},
                            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], groups_width=8),
}  # fmt: skip

ALL = {**PLAIN, **HUGGING_FACE}


def build(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model in evaluation mode with random weights that do not change from run to run, and a batch for it."""
    torch.manual_seed(0)
    model, inputs = ALL[name]()
    return model.eval(), inputs
