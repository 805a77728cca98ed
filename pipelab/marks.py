"""`pipe_split()`: a mark in a model's own `forward` that says where to cut."""

import torch
from torch import library

library.define("pipelab::pipe_split", "() -> ()")


@library.impl("pipelab::pipe_split", "BackendSelect")
def _pipe_split() -> None:
    return None


@library.register_fake("pipelab::pipe_split")  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _pipe_split_fake() -> None:
    return None


# Without this the tracer drops an operator that makes nothing.
torch.fx.has_side_effect(torch.ops.pipelab.pipe_split.default)

# torch.distributed.pipelining's own mark is honoured as well.
TARGETS = ("pipelab.pipe_split.default", "pippy._pipe_split.default")


def pipe_split() -> None:
    """Mark a split point in a model's `forward`; it does nothing when the model runs.

    `pipelab.split_at(traced)` without points cuts at the marks.

    Example:
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         x = x + 1
        ...         pipelab.pipe_split()
        ...         return x * 2
        >>> pipelab.split_at(pipelab.trace(Net().eval(), torch.zeros(2, 3))).cuts
        (1,)
    """
    torch.ops.pipelab.pipe_split()
