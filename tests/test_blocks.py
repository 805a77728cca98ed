"""The pieces people cut around, found whatever holds the layers."""

import pytest
import torch
from torch import Tensor, nn

import pipelab


def feed_forward() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))


class Pairs(nn.Module):
    """Each layer is a list of two modules that is never called itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 8)
        self.layers = nn.ModuleList(nn.ModuleList([nn.Linear(8, 8), feed_forward()]) for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for first, second in self.layers:
            x = first(x) + x
            x = second(x) + x
        return self.head(x)


class Crossed(nn.Module):
    """Elements whose parts take turns: none of them is one piece of the program."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([feed_forward(), feed_forward()]) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for turn in range(2):
            for layer in self.layers:
                x = layer[turn](x)
        return x


class Named(nn.Module):
    """Layers in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: feed_forward() for name in "abc"})
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts.values():
            x = x + part(x)
        return self.head(x)


class Mixing(nn.Module):
    """A layer of one kind."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = feed_forward()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Gating(Mixing):
    """A layer of another kind."""


class Hybrid(nn.Module):
    """Layers of two kinds take turns, as in Jamba, which was one block; its short stem is no list of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ModuleList([Gating(), nn.Sequential(nn.Linear(8, 8))])
        self.layers = nn.ModuleList([Mixing(), Gating(), Mixing()])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.stem, *self.layers):
            x = layer(x)
        return x


class Staged(nn.Module):
    """A list of lists of layers, as in PVT, whose blocks were its whole stages."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleList(nn.ModuleList(Mixing() for _ in range(count)) for count in (2, 1))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.block:
            for layer in stage:
                x = layer(x)
        return x


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        (Pairs(), ["embed", "layers.0", "layers.1", "layers.2", "head"]),
        (Crossed(), ["layers.0.0", "layers.1.0", "layers.0.1", "layers.1.1"]),
        (Named(), ["parts.a", "parts.b", "parts.c", "head"]),
        (Hybrid(), ["embed", "layers.0", "layers.1", "layers.2"]),
        (Staged(), ["block.0.0", "block.0.1", "block.1.0"]),
    ],
)
def test_layers_in_lists_and_dicts_that_are_not_called_are_blocks(model: nn.Module, labels: list[str]) -> None:
    graph = pipelab.trace(model.eval(), torch.zeros(2, 8)).graph
    assert [block.label for block in graph.blocks] == labels
    assert [block.stop for block in graph.blocks[:-1]] == [block.start for block in graph.blocks[1:]]


def test_such_a_layer_is_a_place_to_cut() -> None:
    traced = pipelab.trace(Pairs().eval(), torch.zeros(2, 8))
    plan = pipelab.split_at(traced, ["layers.2"])
    assert plan.split_points == ("layers.2",)
    assert [stage.labels for stage in plan.stages] == [("embed", "layers.0", "layers.1"), ("layers.2", "head")]
