"""Memory that processes share without a name: nothing to clean up, nothing to guess, no /dev/shm.

A segment is a `memfd` on Linux and an unlinked file elsewhere; it goes when the last process that maps it
does. It is allocated before use, so that a full memory is an error and never a SIGBUS.
"""

import mmap
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelab.errors import LaunchError
from pipelab.program import ValueSpec
from pipelab.units import format_bytes

ALIGNMENT = 64


class Segment:
    """A piece of shared memory.

    Args:
        fd: Its descriptor, which the segment owns from now on.
        num_bytes: Its size.
        private: Writes stay in this process.
    """

    def __init__(self, fd: int, num_bytes: int, *, private: bool = False) -> None:
        self.fd = fd
        self.num_bytes = num_bytes
        self.map = mmap.mmap(fd, num_bytes, flags=mmap.MAP_PRIVATE if private else mmap.MAP_SHARED)

    @classmethod
    def create(cls, num_bytes: int, what: str) -> "Segment":
        """A new segment of zeros.

        Raises:
            LaunchError: There is not enough memory.
        """
        num_bytes = max(num_bytes, ALIGNMENT)
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("pipelab")
        else:
            with tempfile.TemporaryFile(buffering=0) as file:
                fd = os.dup(file.fileno())
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, num_bytes)
            else:
                os.ftruncate(fd, num_bytes)
            return cls(fd, num_bytes)
        except OSError as error:
            os.close(fd)
            raise LaunchError(
                f"There is not enough memory for {what}: {format_bytes(num_bytes)} were asked for ({error}). "
                "Free memory, or use a smaller model or batch."
            ) from error

    def tensor(self) -> Tensor:
        """All its bytes."""
        return torch.frombuffer(self.map, dtype=torch.uint8)

    def integers(self) -> memoryview:
        """All of it as 64-bit integers."""
        return memoryview(self.map).cast("q")

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last tensor over it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in a segment."""

    spec: ValueSpec
    offset: int

    def view(self, storage: Tensor) -> Tensor:
        """The tensor, as a view of the segment's bytes."""
        return self.spec.unpack(storage[self.offset : self.offset + self.spec.num_bytes])

    def write(self, storage: Tensor, value: Tensor) -> None:
        """Copy a value there."""
        self.spec.pack(value, storage[self.offset : self.offset + self.spec.num_bytes])


def spec_of(name: str, tensor: Tensor) -> ValueSpec:
    """How a tensor is stored."""
    return ValueSpec(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.stride())


def lay_out(specs: Iterable[ValueSpec]) -> tuple[tuple[Place, ...], int]:
    """Places one after another, aligned, and the bytes they take together."""
    places, offset = [], 0
    for spec in specs:
        places.append(Place(spec, offset))
        offset += -(-spec.num_bytes // ALIGNMENT) * ALIGNMENT
    return tuple(places), offset


def store(tensors: Mapping[str, Tensor], what: str) -> tuple[Segment, tuple[Place, ...]]:
    """A new segment that holds these tensors."""
    places, num_bytes = lay_out(spec_of(name, tensor) for name, tensor in tensors.items())
    segment = Segment.create(num_bytes, what)
    storage = segment.tensor()
    for place in places:
        place.write(storage, tensors[place.spec.name])
    return segment, places
