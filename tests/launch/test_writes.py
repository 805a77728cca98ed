"""Models that write in place: to what they are given, and to their buffers. Neither may be seen in the next step."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pipelab
from pipelab.stages import whole_table
from pipelab.writes import leaves_inputs

ROWS, WIDTH = 8, 16  # a micro-batch of two rows is 128 bytes: it may be handed to the first stage where it lies


class Writes(nn.Module):
    """Does one thing to its input, or to its buffers, before a layer."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.register_buffer("index", torch.tensor([1, 3]))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("var", torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        match self.how:
            case "relu_":
                x = x.relu_()
            case "a view":
                x[:, :2].copy_(x[:, 2:4] + 1)
            case "a view of a view":
                x.view(-1)[: x.shape[0]].unsqueeze(0).mul_(3)
            case "an einsum that is a view":
                torch.einsum("ij->ji", x).add_(1)
            case "index_put_":
                x[:, self.index] = 0.5
            case "a list":
                torch._foreach_add_([x], 1.0)
            case "reshaped in place":
                x = x.unsqueeze_(0).squeeze_(0)
            case "a constant":
                x = x + torch.tensor(0.5)
            case "as_strided":
                x = torch.as_strided(x, (x.shape[0], WIDTH), (WIDTH, 1), 0) + x.sin().as_strided(x.shape, (WIDTH, 1), 0)
            case "a counter":
                self.count.add_(1)
                x = x + self.count
            case "a view of a buffer":
                self.mean[:4].add_(x[0, :4])
                x = x + self.mean
            case "running statistics":
                x = x + self.mean + functional.batch_norm(x[:1].expand(2, -1), self.mean, self.var, training=True)[:1]
        return self.layers(x)


TO_INPUT = ["relu_", "a view", "a view of a view", "an einsum that is a view", "index_put_", "a list",
            "reshaped in place"]  # fmt: skip
NOTHING = ["a constant", "as_strided", "nothing"]
TO_BUFFER = ["a counter", "a view of a buffer", "running statistics"]


@pytest.mark.parametrize("how", [*TO_INPUT, *TO_BUFFER, *NOTHING])
@torch.no_grad()
def test_steps_repeat_what_the_model_computes_first(how: str) -> None:
    """A counter of the model went on through all steps, the first of which is for warming up."""
    model = Writes(how).eval()
    batch = torch.randn(ROWS, WIDTH)
    expected = torch.cat([copy.deepcopy(model)(rows.clone()) for rows in batch.split(2)])
    traced = pipelab.trace(model, batch.clone())
    given = batch.clone()
    table = whole_table(traced, 2).table
    assert leaves_inputs(table) == (how in NOTHING)
    assert bool(table.written) == (how in TO_BUFFER)
    with pipelab.start(traced, pipelab.split_at(traced, ["layers.2"]), device="cpu") as pipe:
        for _ in range(2):
            torch.testing.assert_close(pipe.run(given, num_microbatches=4, repeats=2).output, expected)
        for cut in traced.graph.legal[:3]:
            pipe.replan(pipelab.split_at(traced, [cut]))
            torch.testing.assert_close(pipe.run(given, num_microbatches=4, repeats=1).output, expected)
    assert torch.equal(given, batch), "the caller's own tensor is not written to"
