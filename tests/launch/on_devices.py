"""The same tests on the CPU and on GPUs: those on GPUs carry the mark `gpu`, and are skipped where torch finds none."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import pipelab
from pipelab.launch.devices import Devices, LinkKind, choose
from pipelab.launch.group import Patience
from pipelab.launch.job import Job
from pipelab.launch.memory import Weights
from pipelab.launch.runner import Runner

# A GPU may round the factors of a product to ten bits; then nothing would tell a wrong output from a right one.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # ranks inherit it
_FOUND = torch.cuda.device_count()


def needs_gpus(count: int) -> list[pytest.MarkDecorator]:
    reason = f"needs {count} CUDA GPU{'s' * (count > 1)}; torch {torch.__version__} finds {_FOUND}"
    return [pytest.mark.gpu, pytest.mark.skipif(count > _FOUND, reason=reason)]


on_devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=needs_gpus(1))])

# Links that CPU ranks of one host have no use for, so that no option asks for them; and what they are there for.
over_links = pytest.mark.parametrize(
    "link",
    [
        "gloo",
        "host memory",
        pytest.param("shared gpu", marks=needs_gpus(1)),
        pytest.param("nccl", marks=needs_gpus(2)),
    ],
)


def devices_of(link: str, num_ranks: int) -> Devices:
    """Ranks with nothing but such links between them."""
    if link == "shared gpu":
        return choose("cuda:0", num_ranks)
    if link == "nccl":
        return Devices(tuple(f"cuda:{rank % 2}" for rank in range(num_ranks)), 1, f"{num_ranks} ranks on 2 GPUs")
    kind: LinkKind = "gloo" if link == "gloo" else "host memory"
    return replace(choose("cpu", num_ranks), links=(kind,) * (num_ranks - 1))


@contextmanager
def running(
    traced: pipelab.Trace, devices: Callable[[int], Devices]
) -> Iterator[Callable[[Job, Sequence[Tensor]], list[Tensor]]]:
    """What runs a job twice on real ranks, and measures nothing; the second step finds what the first one left."""
    weights = Weights(traced.weights())
    runner, patience = Runner(weights), Patience(lambda: False, 60.0)

    def run(job: Job, inputs: Sequence[Tensor]) -> list[Tensor]:
        runner.load(job, devices(job.num_ranks), patience, lambda: None)
        runner.fill(inputs)
        for _ in range(2):
            runner.step(patience)
        return runner.outputs()

    try:
        yield run
    finally:
        runner.close()
        weights.close()


def tensors(output: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def assert_close(outputs: Sequence[Tensor], expected: Sequence[Tensor], *, is_exact: bool) -> None:
    """A GPU adds up in another order than the CPU, whose output is the expected one."""
    assert len(outputs) == len(expected)
    tolerance = {} if is_exact else {"rtol": 1e-3, "atol": 1e-4}
    for got, want in zip(outputs, expected, strict=True):
        torch.testing.assert_close(got, want, **tolerance)
