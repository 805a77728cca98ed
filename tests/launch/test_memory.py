"""Anonymous memory: what is written in one process is read in another, by descriptor alone."""

import os

import pytest
import torch

from pipelab.errors import LaunchError
from pipelab.launch.links import contiguous
from pipelab.launch.memory import ALIGNMENT, Segment, Weights, place, unlinked_file
from pipelab.program import ValueSpec


def mapped_again(segment: Segment, *, private: bool = False) -> Segment:
    """The same memory as another process maps it."""
    with Segment(os.dup(segment.descriptor), segment.num_bytes, private=private) as other:
        return other


def test_two_mappings_are_the_same_memory() -> None:
    with Segment.create(100, "the test") as segment:
        other = mapped_again(segment)
        segment.bytes[99] = 7
        assert other.bytes[99] == 7
        other.words[0] = -1
        assert segment.words[0] == -1
        assert segment.num_bytes % ALIGNMENT == 0


def test_private_writes_stay() -> None:
    with Segment.create(8, "the test") as segment:
        other = mapped_again(segment, private=True)
        other.bytes.fill_(1)
        assert segment.bytes.sum() == 0


def test_memory_outlives_its_descriptor() -> None:
    segment = Segment.create(8, "the test")
    segment.close()
    segment.close()
    segment.bytes.fill_(3)
    assert segment.bytes[0] == 3


def test_systems_without_memfd_use_a_file_without_a_name() -> None:
    with Segment(unlinked_file(3_000_000), 3_000_000) as segment:
        assert os.fstat(segment.descriptor).st_nlink == 0
        assert os.fstat(segment.descriptor).st_size == 3_000_000
        segment.bytes[-1] = 1


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(LaunchError, match=r"The weights need 1000 TB of memory .* is free"):
        Segment.create(10**15, "the weights")


def test_memory_that_cannot_be_mapped_is_let_go() -> None:
    """Under a limit of address space each start that was refused kept memory as large as the weights."""
    descriptor = unlinked_file(64)
    with pytest.raises(ValueError, match="greater than file size"):
        Segment(descriptor, 1 << 20)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_tensors_are_aligned() -> None:
    specs = [ValueSpec(name, "float32", (size,), (1,)) for name, size in (("a", 1), ("b", 0), ("c", 17))]
    placed, num_bytes = place(specs)
    assert [item.offset for item in placed] == [0, 64, 64]
    assert num_bytes == 64 + 128


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4),
        torch.randn(4, 3).t(),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.randn(1, 4).expand(3, 4),
        torch.tensor(5),
        torch.zeros(0, 2),
        torch.tensor([True, False]),
        torch.randn(4).to(torch.bfloat16),
        torch.randn(4, dtype=torch.complex64),
    ],
    ids=lambda tensor: f"{tuple(tensor.shape)} {tensor.dtype}",
)
def test_weights_keep_values_and_layout(tensor: torch.Tensor) -> None:
    weights = Weights({"first": torch.ones(5), "weight": tensor})
    placed = weights.placed[1]
    found = placed.spec.unpack(weights.segment.storage(placed))
    weights.close()
    assert torch.equal(found, tensor)
    assert found.stride() == tensor.stride()


def test_a_batch_is_laid_without_gaps_or_expansion() -> None:
    spec = ValueSpec("x", "float32", (2, 3), (0, 1))
    assert contiguous(spec, 8) == ValueSpec("x", "float32", (8, 3), (3, 1))
    assert contiguous(spec, None) == ValueSpec("x", "float32", (2, 3), (3, 1))
