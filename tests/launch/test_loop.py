"""The loop of real ranks: thousands of tiny micro-batches, ranks with and without a core of their own."""

import itertools

import pytest
import torch
from torch import Tensor, nn

import pipelab
from pipelab.launch.devices import num_cores

ROWS = 2_000


class Skip(nn.Module):
    """Every cut is crossed by a value that is expanded, and by one that a stage reshapes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4 * num_cores()))

    def forward(self, x: Tensor) -> Tensor:
        shift = x.mean(1, keepdim=True).expand(-1, 4)
        for layer in self.layers:
            x = (layer(x) + shift).unsqueeze_(0).squeeze_(0)
        return x


@pytest.mark.parametrize("num_ranks", [2, 2 * num_cores()], ids=["ranks with cores", "more ranks than cores"])
@torch.no_grad()
def test_thousands_of_micro_batches(num_ranks: int) -> None:
    """A signal that were lost would end the run: nothing moves, and nobody computes."""
    model = Skip().eval()
    batch = torch.randn(ROWS, 4)
    traced = pipelab.trace(model, batch)
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=num_ranks), device="cpu") as pipe:
        pipe.stall_s = 20.0
        report = pipe.run(batch, num_microbatches=ROWS, repeats=2)
        torch.testing.assert_close(report.output, model(batch))
        events = report.timeline.events
        of_rank = [[event for event in events if event.rank == rank] for rank in range(num_ranks)]
        for mine in of_rank:
            assert sum(event.kind == "F" for event in mine) == ROWS
            assert all(a.end_s <= b.start_s + 1e-9 for a, b in itertools.pairwise(mine)), "one at a time"
        half = pipe.run(batch[: ROWS // 2 + 1], num_microbatches=7, repeats=1)  # other shapes, the last ones smaller
        torch.testing.assert_close(half.output, model(batch[: ROWS // 2 + 1]))
