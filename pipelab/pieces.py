"""Weights that lie in files: what a process must know in order to read one by itself, and the reading."""

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipelab.program import Table
from pipelab.stage_module import StageModule
from pipelab.tensor_files import FileTensor

_CHUNK_BYTES = 1 << 24  # what is read between two looks at the counters, and held beside the weight where it is cast

Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """Where one weight lies.

    Attributes:
        dtype: Of the weight; that of the file may be another.
        shape: Of the weight.
        sources: The tensors in files it is made of.
        table: How it is made of them, each of the weight's dtype; None where it is the only one.
    """

    dtype: str
    shape: tuple[int, ...]
    sources: tuple[FileTensor, ...]
    table: Table | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes in files."""
        return sum(source.num_bytes for source in self.sources)

    def read(self, device: torch.device | str, told: Told = lambda num_bytes: None) -> Tensor:
        """The weight.

        Args:
            device: Where it is wanted.
            told: Called with the bytes read after each part; may raise.

        Raises:
            LaunchError: A file was changed or cut short since its header was read.
        """
        dtype = getattr(torch, self.dtype)
        if self.table is None:
            return _read(self.sources[0], dtype, device, told)
        parts = [_read(source, dtype, "cpu", told) for source in self.sources]
        (weight,) = StageModule(self.table, {})(*parts)
        return weight.contiguous().to(device)  # type: ignore[no-any-return]  # a module's call


def _read(source: FileTensor, dtype: torch.dtype, device: torch.device | str, told: Told) -> Tensor:
    is_dense = torch.empty_strided(source.shape, source.strides, device="meta").is_contiguous()
    flat = torch.empty(source.num_elements, dtype=dtype, device=device)
    try:
        with Path(source.path).open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != source.stamp:
                raise source.wrong("cannot be read: the file was changed since its header was read. Start again.")
            _fill(flat, source, file.fileno(), told)
    except OSError as error:
        raise source.wrong(f"cannot be read: {error.strerror}. Run again when it can.") from error
    return flat.view(source.shape) if is_dense else flat.as_strided(source.shape, source.strides).contiguous()


def _fill(flat: Tensor, source: FileTensor, descriptor: int, told: Told) -> None:
    """Read chunk by chunk, straight into the tensor where that is possible."""
    size = source.torch_dtype.itemsize
    is_direct = flat.device.type == "cpu" and flat.dtype == source.torch_dtype
    num_chunk = max(_CHUNK_BYTES // size, 1)
    num_buffer = 1 if is_direct else max(min(num_chunk, flat.numel()), 1)
    # Mapped, not allocated: freed between weights that stay, it would leave holes as large as they are.
    buffer = torch.frombuffer(mmap.mmap(-1, num_buffer * size), dtype=source.torch_dtype)
    for start in range(0, flat.numel(), num_chunk):
        part = flat[start : start + num_chunk]
        into = part if is_direct else buffer[: part.numel()]
        _read_bytes(into.view(torch.uint8), source, descriptor, source.offset + start * size)
        if not is_direct:
            part.copy_(into)
        told(part.numel() * size)


def _read_bytes(into: Tensor, source: FileTensor, descriptor: int, offset: int) -> None:
    memory = memoryview(into.numpy())  # type: ignore[arg-type]  # of bytes
    while memory:
        count = os.preadv(descriptor, [memory], offset)
        if not count:
            raise source.wrong("ends before its last byte: the file was cut short. Start again.")
        memory, offset = memory[count:], offset + count
