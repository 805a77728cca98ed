"""A model of many ops, so that a step is long enough to be hit, and what must work again afterwards."""

import threading
from collections.abc import Callable

import torch
from on_devices import assert_close
from torch import Tensor, nn

import pipelab

NUM_STAGES = 3
X = torch.randn(256, 256, generator=torch.Generator().manual_seed(3))
FOREVER = 100_000  # repeats


class Slow(nn.Module):
    """Sixty products, each of its own moment."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(NUM_STAGES))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            for _ in range(20):
                x = layer(x).tanh()
        return x


def trace_slow() -> pipelab.Trace:
    torch.manual_seed(0)
    return pipelab.trace(Slow().eval(), X)


def once_running(pipe: pipelab.Pipeline, act: Callable[[], None]) -> threading.Thread:
    """Do something in another thread after the first measured step."""
    thread = threading.Thread(target=act)
    pipe.on_progress = lambda done, _: thread.start() if done == 1 else None
    return thread


def works(pipe: pipelab.Pipeline, slow: pipelab.Trace) -> bool:
    """Whether all ranks are there, and right with two numbers of rows."""
    pipe.on_progress = None
    for rows in (256, 17):
        with torch.no_grad():
            assert_close([pipe(X[:rows])], [slow._model(X[:rows])], is_exact=False)
    return len(pipe.pids) == NUM_STAGES
