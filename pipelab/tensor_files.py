"""Which tensors a file of a checkpoint holds, and where: from its header alone, checked against its size.

`safetensors` begins with a JSON header. `pytorch_model.bin` is an archive with a pickled list, which torch reads onto
the meta device and without running code of its own (`weights_only`).
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from pipelab.errors import LaunchError
from pipelab.units import format_bytes

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "U16": "uint16", "U32": "uint32", "U64": "uint64", "C64": "complex64",
}  # fmt: skip
_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 100_000_000  # the format's own limit
SAVE_AGAIN = "Download or save the checkpoint again."


@dataclass(frozen=True, slots=True)
class FileTensor:
    """One tensor in a file.

    Attributes:
        name: As the file calls it.
        path: The file.
        offset: Of its first byte.
        dtype: "float32", ...
        shape: Its sizes.
        strides: In elements.
        stamp: Size and time of the file, by which a later change shows.
    """

    name: str
    path: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    stamp: tuple[int, int]

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's own."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def num_elements(self) -> int:
        """Elements from its first to its last in the file."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    @property
    def num_bytes(self) -> int:
        """Bytes of them."""
        return self.num_elements * self.torch_dtype.itemsize

    def wrong(self, what: str) -> LaunchError:
        """An error that names the file and the tensor."""
        return LaunchError(f"{self.path}: tensor {self.name!r} {what}")


def tensors_of(path: Path) -> list[FileTensor]:
    """The tensors of one file.

    Raises:
        LaunchError: It cannot be read, is cut short or no such file; names it, and the tensor where there is one.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise LaunchError(f"{path} is no file. {SAVE_AGAIN}")
        stamp = (status.st_size, status.st_mtime_ns)
        read = _of_safetensors if path.suffix == ".safetensors" else _of_archive
        return list(read(path, stamp))
    except OSError as error:
        raise LaunchError(f"{path} cannot be read: {error.strerror}. {SAVE_AGAIN}") from error


# --- safetensors ------------------------------------------------------------------------------------


def _of_safetensors(path: Path, stamp: tuple[int, int]) -> Iterator[FileTensor]:
    header, start = _header(path, stamp[0])
    ends: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _entry(path, name, entry)
        tensor = FileTensor(name, str(path), start + begin, dtype, shape, dense(shape), stamp)
        if tensor.num_bytes != end - begin:
            raise tensor.wrong(f"is {shape} {dtype}, and {end - begin} bytes long: that does not fit. {SAVE_AGAIN}")
        if start + end > stamp[0]:
            raise tensor.wrong(
                f"ends at byte {start + end}, and the file at {stamp[0]} ({format_bytes(stamp[0])}): it was cut short. "
                f"{SAVE_AGAIN}"
            )
        ends.append((begin, end, name))
        yield tensor
    ends.sort()
    for (_, end, before), (begin, _, name) in pairwise([(0, 0, "the header"), *ends]):
        if begin != end:
            raise LaunchError(
                f"{path}: tensor {name!r} begins at byte {begin} of the data, {before!r} ends at {end}. {SAVE_AGAIN}"
            )


def _header(path: Path, file_bytes: int) -> tuple[dict[str, Any], int]:
    """The header, and where the data begin."""
    with path.open("rb") as file:
        num_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if file_bytes < _LENGTH_BYTES + num_bytes or num_bytes > _MOST_HEADER_BYTES:
            raise LaunchError(
                f"{path} is no safetensors file, or was cut short: its header would be {format_bytes(num_bytes)} of "
                f"{format_bytes(file_bytes)}. {SAVE_AGAIN}"
            )
        text = file.read(num_bytes)
    try:
        header = json.loads(text, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise LaunchError(f"{path} has a damaged header: {error}. {SAVE_AGAIN}") from error
    if not isinstance(header, dict):
        raise LaunchError(f"{path} has a damaged header: it lists no tensors. {SAVE_AGAIN}")
    return header, _LENGTH_BYTES + num_bytes


def _entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """What the header says of a tensor: dtype, shape, and where it begins and ends."""
    dtype = entry.get("dtype") if isinstance(entry, dict) else None
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise LaunchError(f"{path}: tensor {name!r} is of dtype {dtype!r}, which torch has not. {SAVE_AGAIN}")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise LaunchError(f"{path}: tensor {name!r} is said to be {shape} and to lie at {offsets}. {SAVE_AGAIN}")
    return _DTYPES[dtype], tuple(shape), offsets[0], offsets[1]


def _are_sizes(given: Any) -> bool:
    return isinstance(given, list) and all(type(item) is int and item >= 0 for item in given)


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different.

    Raises:
        ValueError: Two are the same.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"tensor {twice!r} is listed twice")
    return found


def dense(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor whose elements lie one after another."""
    return tuple(prod(shape[dim + 1 :]) for dim in range(len(shape)))


# --- pytorch_model.bin ------------------------------------------------------------------------------


def _of_archive(path: Path, stamp: tuple[int, int]) -> Iterator[FileTensor]:
    try:
        held = torch.load(path, map_location="meta", weights_only=True)
    except UnpicklingError as error:  # whose words are how to run what the file says
        raise LaunchError(
            f"{path} cannot be read: it holds more than tensors, or is damaged; nothing in it was run. {SAVE_AGAIN}"
        ) from error
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise LaunchError(
            f"{path} cannot be read: it is damaged, or holds tensors of an odd kind ({type(error).__name__}). "
            f"{SAVE_AGAIN}"
        ) from error
    if not isinstance(held, Mapping):
        raise LaunchError(f"{path} holds a {type(held).__name__}, not tensors by name. {SAVE_AGAIN}")
    for name, tensor in held.items():
        if isinstance(tensor, Tensor):
            yield _of_storage(path, str(name), tensor, stamp)


def _of_storage(path: Path, name: str, tensor: Tensor, stamp: tuple[int, int]) -> FileTensor:
    if tensor.layout is not torch.strided:
        raise LaunchError(
            f"{path}: tensor {name!r} is {tensor.layout}. Write the checkpoint again, with dense tensors."
        )
    start = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if start is None:
        raise LaunchError(
            f"{path} is of an old format, of which parts cannot be read (tensor {name!r}). Load it with "
            "from_pretrained and write it again with save_pretrained."
        )
    offset = start + tensor.storage_offset() * tensor.dtype.itemsize
    dtype = str(tensor.dtype).removeprefix("torch.")
    found = FileTensor(name, os.fspath(path), offset, dtype, tuple(tensor.shape), tensor.stride(), stamp)
    within = found.num_elements + tensor.storage_offset()
    if within * tensor.dtype.itemsize > tensor.untyped_storage().nbytes() or offset + found.num_bytes > stamp[0]:
        raise found.wrong(f"reaches beyond its memory or the file's end. {SAVE_AGAIN}")
    return found
