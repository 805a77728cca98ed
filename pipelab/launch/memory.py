"""Memory without a name, shared by passing its descriptor: nothing to clean up, nothing to guess.

It is taken in full when it is made, so that a machine without memory gives an error and not SIGBUS, and it
does not lie in /dev/shm, which is 64 MB in containers.
"""

import mmap
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipelab.errors import LaunchError
from pipelab.launch.forks import drop_in_forked_children
from pipelab.pieces import Piece
from pipelab.program import ValueSpec
from pipelab.tensor_files import dense
from pipelab.units import format_bytes

ALIGNMENT = 64
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
# Made here: a finalizer may run while a model is traced, and an op of its own would be traced as well.
_NOTHING = torch.empty(0, dtype=torch.uint8)


class Segment:
    """Anonymous memory of this process and of those it passes `descriptor` to.

    Args:
        descriptor: Of the memory; the segment closes it.
        num_bytes: Its size.
        private: Whether writes stay in this process; what nobody writes is shared all the same.

    Attributes:
        descriptor: What another process maps.
        num_bytes: Its size.
        bytes: The memory as a flat uint8 tensor, which keeps it mapped.
        words: The memory as 64-bit integers.
    """

    def __init__(self, descriptor: int, num_bytes: int, *, private: bool = False) -> None:
        self.descriptor = descriptor
        self.num_bytes = num_bytes
        flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
        try:
            mapped = mmap.mmap(descriptor, num_bytes, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except BaseException:
            self.close()
            raise
        self.bytes: Tensor = torch.frombuffer(mapped, dtype=torch.uint8)
        self.words: memoryview[int] = memoryview(mapped)[: num_bytes // 8 * 8].cast("q")
        drop_in_forked_children(self)

    @classmethod
    def create(cls, num_bytes: int, what: str) -> "Segment":
        """New memory, all zeros.

        Args:
            num_bytes: Its size.
            what: What it is for, as the error says it: "the weights".

        Raises:
            LaunchError: There is not so much memory.
        """
        num_bytes = _aligned(max(num_bytes, 1))
        check_room(num_bytes, what)
        make = _memory_file if hasattr(os, "memfd_create") else unlinked_file
        try:
            return cls(make(num_bytes), num_bytes)
        except OSError as error:
            raise LaunchError(_no_memory(num_bytes, what, f"the system refused ({error})")) from error

    def __enter__(self) -> "Segment":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def storage(self, placed: "Placed") -> Tensor:
        """The bytes of one tensor."""
        return self.bytes[placed.offset : placed.offset + placed.spec.num_bytes]

    def close(self) -> None:
        """Close the descriptor. The memory is freed with the last tensor over it, in every process."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a tensor lies in a segment."""

    spec: ValueSpec
    offset: int


def place(specs: Iterable[ValueSpec]) -> tuple[tuple[Placed, ...], int]:
    """Tensors one after another, each aligned, and the bytes they take together."""
    placed, offset = [], 0
    for spec in specs:
        placed.append(Placed(spec, offset))
        offset += _aligned(spec.num_bytes)
    return tuple(placed), offset


class Weights:
    """The weights of a model: copied once into one segment that every rank maps, or for each rank to read from files.

    Args:
        tensors: Each weight in memory by name, on any device.
        pieces: Where the others lie.
        with_room: Whether the segment gets room for those too, for `Runner.gather`.

    Attributes:
        pieces: What each rank reads by itself.
        placed: What lies in the segment, or will.
        segment: The memory.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], pieces: Mapping[str, Piece] | None = None, *, with_room: bool = False
    ) -> None:
        self.pieces = dict(pieces or {})
        specs = [
            ValueSpec(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.stride())
            for name, tensor in tensors.items()
        ]
        if with_room:
            specs += [
                ValueSpec(name, piece.dtype, piece.shape, dense(piece.shape)) for name, piece in self.pieces.items()
            ]
        self.placed, num_bytes = place(specs)
        with ExitStack() as undo:
            self.segment = undo.enter_context(Segment.create(num_bytes, "the weights"))
            for placed in self.placed[: len(tensors)]:
                placed.spec.pack(tensors[placed.spec.name], self.segment.storage(placed))
            undo.pop_all()

    def close(self) -> None:
        """Let go of them; ranks keep what they have mapped."""
        self.segment.close()
        self.segment.bytes = _NOTHING  # a pipeline that is closed may well be kept
        self.segment.words = memoryview(b"").cast("q")


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _memory_file(num_bytes: int) -> int:
    descriptor = os.memfd_create("pipelab", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def unlinked_file(num_bytes: int) -> int:
    """A file without a name, for systems without memfd; written in full, because few of those can reserve."""
    block = bytes(min(num_bytes, 1 << 20))
    with tempfile.TemporaryFile(buffering=0) as file:
        written = 0
        while written < num_bytes:
            written += file.write(block[: num_bytes - written])
        return os.dup(file.fileno())


def check_room(num_bytes: int, what: str) -> None:
    """Check that there is as much memory.

    Args:
        num_bytes: How much.
        what: What it is for, as the error says it: "the weights".

    Raises:
        LaunchError: There is not.
    """
    free_bytes = free_memory_bytes()
    if free_bytes is not None and num_bytes > free_bytes:
        raise LaunchError(_no_memory(num_bytes, what, f"{format_bytes(free_bytes)} of memory is free"))


def free_memory_bytes() -> int | None:
    """Bytes the system can still give; None where it does not say.

    Without this look ahead the system would rather kill a process than refuse.
    """
    if not _MEMINFO.exists():
        return None
    machine = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    free_bytes = int(machine["MemAvailable"].split()[0]) * 1024
    limit = _CGROUP / "memory.max"  # a container's own
    if limit.exists() and (limit_text := limit.read_text().strip()) != "max":
        usage = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        used_bytes = int((_CGROUP / "memory.current").read_text()) - int(usage["inactive_file"])
        free_bytes = min(free_bytes, int(limit_text) - used_bytes)
    return free_bytes


def _no_memory(num_bytes: int, what: str, found: str) -> str:
    return (
        f"{what[0].upper()}{what[1:]} need {format_bytes(num_bytes)} of memory that ranks share, and {found}. "
        "Free some, or use a smaller model or batch."
    )
