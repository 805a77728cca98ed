"""What families of models take, where their layers are, and which cannot run: a selection of docs/support.py."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import PRETRAINED
from other_families import OTHERS
from torch import Tensor, nn

import pipelab
from pipelab.configs import on_meta
from pipelab.errors import TraceError
from pipelab.example_inputs import example_inputs
from pipelab.recomputed import left_out, recomputed

pytest.importorskip("transformers")

# Of each: the inputs with the shape of a row, and the blocks.
_SHAPES = {
    "CLIP": {"input_ids": (6,), "pixel_values": (3, 16, 16)},
    "Whisper": {"input_features": (8, 24), "decoder_input_ids": (6,)},
    "wav2vec 2.0": {"input_values": (70,)},
    "Swin": {"pixel_values": (3, 32, 32)},
}
_LAYERS = {
    "CLIP": [*(f"vision_model.encoder.layers.{k}" for k in range(3)), "mid",
             *(f"text_model.encoder.layers.{k}" for k in range(3))],
    "Whisper": ["model.encoder.layers.0", "model.encoder.layers.1", "mid", "model.decoder.layers.0",
                "model.decoder.layers.1"],
    "wav2vec 2.0": ["layers.0", "layers.1", "layers.2"],
    "Swin": ["layers.0.blocks.0", "layers.0.blocks.1", "layers.0.downsample", "layers.1.blocks.0",
             "layers.1.blocks.1"],
}  # fmt: skip


@pytest.mark.parametrize("name", _SHAPES)
def test_inputs_and_layers_of_a_family_are_known(name: str) -> None:
    traced = pipelab.trace_pretrained(PRETRAINED[name].made_config(), batch_size=2, seq_len=6)
    assert {name: tuple(value.shape[1:]) for name, value in traced.kwargs.items()} == _SHAPES[name]
    assert [block.label for block in traced.graph.blocks] == ["embed", *_LAYERS[name], "head"]


@pytest.mark.parametrize("name", ["nn.TransformerEncoder", "LSTM language model", "MLP-Mixer"])
def test_layers_of_plain_torch_models_are_known(name: str) -> None:
    make, inputs = OTHERS[name]
    traced = pipelab.trace(make().eval(), **inputs())
    assert [block.label.partition(".")[2] for block in traced.graph.blocks[1:-1]][-3:] in (
        ["0", "1", "2"],
        ["layers.0", "layers.1", "layers.2"],
    )


@pytest.mark.parametrize("name", ["DETR", "CLIP", "Whisper", "BERT", "ViT", "wav2vec 2.0", "GPT-2"])
def test_a_bare_config_is_the_model_people_use(name: str) -> None:
    """DETR was its bare backbone, CLIP half of it, BERT a decoder."""
    config = PRETRAINED[name].made_config()
    config.architectures = None
    assert type(on_meta(config, None)).__name__ == PRETRAINED[name].model


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("Marian", "model.encoder.embed_positions.weight"),
        ("Falcon-H1", "model.layers.1.mamba.mup_vector"),
        ("Gemma 3n", "model.per_layer_projection_scale"),
        ("LLaVA", "model.language_model.rotary_emb.inv_freq"),
    ],
)
def test_what_a_checkpoint_leaves_out_is_computed_by_whichever_class_does(name: str, weight: str) -> None:
    """A parameter, a buffer set up by a module around its own, and one set up by a part that is a model itself."""
    model = PRETRAINED[name].made()
    [found] = recomputed(on_meta(PRETRAINED[name].made_config(), None), [weight]).values()
    known = dict((*model.named_parameters(), *model.named_buffers()))
    assert torch.equal(found, known[weight])
    assert left_out(model, weight) == (name == "Marian")


@pytest.mark.parametrize(
    ("name", "shape"), [("TrOCR", (3, 16, 16)), ("Mask2Former", (3, 64, 64)), ("PatchTST", (32, 2))]
)
def test_sizes_are_those_of_the_part_that_has_them(name: str, shape: tuple[int, ...]) -> None:
    """TrOCR and ViTPose were given 224 pixels, and refused them."""
    model = on_meta(PRETRAINED[name].made_config(), None)
    assert tuple(next(iter(example_inputs(model, 2, 6).values())).shape[1:]) == shape


def test_a_model_that_sees_counts_text_in_one_dimension() -> None:
    """Qwen2-VL counts in three, and generate said in a ValueError that its positions were not as they were traced."""
    from pipelab.stand_in import _Twin

    model = PRETRAINED["Qwen2-VL"].made()
    model.__class__ = type("Twin", (_Twin, type(model)), {})
    ids = torch.ones(2, 3, dtype=torch.int64)
    positions = model._prepare_position_ids_for_generation(ids, {"attention_mask": ids})  # type: ignore[operator]
    assert positions.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_the_page_on_support_has_a_row_for_each_family() -> None:
    page = Path(__file__).parent.parent / "docs" / "support.md"
    rows = [line.split("|")[1].strip() for line in page.read_text().splitlines() if line.startswith("| ")]
    assert rows == ["family", *PRETRAINED, *OTHERS]


class Residual(nn.Module):
    """Two convolutions, and a way around them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


class Detector(nn.Module):
    """Residual layers, and a head that is a short list of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Residual() for _ in range(3))
        self.boxes = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for part in (*self.layers, *self.boxes):
            x = part(x)
        return x


def test_neither_the_inside_of_a_residual_layer_nor_a_small_head_is_layers() -> None:
    """DETR's blocks were the convolutions within its backbone's layers and the linears of its box predictor."""
    graph = pipelab.trace(Detector().eval(), torch.zeros(4, 8)).graph
    assert [block.label for block in graph.blocks] == ["layers.0", "layers.1", "layers.2", "head"]


def test_a_model_that_writes_to_its_parameters_is_refused() -> None:
    """RWKV divides its weights in its first forward; each micro-batch divided them again."""
    config = PRETRAINED["RWKV"].made_config()
    config.rescale_every = 2
    with pytest.raises(TraceError, match=r"writes to its parameter 'rwkv\.blocks.*rescale_every=0"):
        pipelab.trace_pretrained(config, batch_size=2, seq_len=2)


@pytest.mark.parametrize(("name", "num_layers"), [("RWKV", 2), ("Mamba-2", 1)])
def test_a_model_that_counts_its_tokens_is_refused_by_generate(name: str, num_layers: int) -> None:
    """It was said that the run was stopped, or that another number of rows should be chosen."""
    from pipelab.token_steps import TokenSteps

    small = replace(PRETRAINED[name], settings={**PRETRAINED[name].settings, "num_hidden_layers": num_layers})
    with pytest.raises(TraceError, match="depends on the number of tokens"):
        TokenSteps(small.made()).step("whole", ())
