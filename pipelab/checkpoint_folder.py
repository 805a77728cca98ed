"""Which tensors a checkpoint holds: those of one file, or of shards as their index has them."""

import json
import os
from pathlib import Path

from pipelab.errors import LaunchError
from pipelab.tensor_files import SAVE_AGAIN, FileTensor, tensors_of, without_repeats

_SINGLE = ("model.safetensors", "pytorch_model.bin")


def has_tensor_files(folder: Path) -> bool:
    """Whether a folder holds a checkpoint."""
    return any((folder / name).exists() or _index_of(folder / name).exists() for name in _SINGLE)


def tensors_in(folder: Path) -> dict[str, FileTensor]:
    """Each tensor of a checkpoint by its name there.

    Args:
        folder: With `model.safetensors` or `pytorch_model.bin`, or with shards of one of them and their index.

    Raises:
        LaunchError: A file is missing, cut short or no such file; names it, and the tensor where there is one.
    """
    for name in _SINGLE:
        path = folder / name
        if path.exists():
            return {tensor.name: tensor for tensor in tensors_of(path)}
        if _index_of(path).exists():
            return _sharded(_index_of(path))
    raise LaunchError(f"{folder} holds none of the files {', '.join(_SINGLE)}, and no index of shards of one.")


def _index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.index.json")


def _sharded(index: Path) -> dict[str, FileTensor]:
    """The tensors of all shards, as the index has them."""
    file_of = _weight_map(index)
    for name, file in file_of.items():
        if Path(file).name != file or not file.endswith((".safetensors", ".bin")) or not file.isprintable():
            raise LaunchError(f"{index}: tensor {name!r} is said to be in {file!r}, which is no file beside it.")
        if not os.path.lexists(index.parent / file):
            raise LaunchError(
                f"{index.parent / file} is missing; {index.name} says that tensor {name!r} is in it. Download it, or "
                "save the checkpoint again."
            )
    found: dict[str, FileTensor] = {}
    for file in sorted(set(file_of.values())):
        for tensor in tensors_of(index.parent / file):
            if tensor.name in found:
                raise tensor.wrong(f"is in {found[tensor.name].path} as well. {SAVE_AGAIN}")
            found[tensor.name] = tensor
    for name, file in file_of.items():
        if name not in found or Path(found[name].path).name != file:
            raise LaunchError(
                f"{index.parent / file} holds no tensor {name!r}; {index.name} says it does. {SAVE_AGAIN}"
            )
    return found


def _weight_map(index: Path) -> dict[str, str]:
    try:
        file_of = json.loads(index.read_bytes(), object_pairs_hook=without_repeats)["weight_map"]
        assert isinstance(file_of, dict)
        assert all(isinstance(file, str) for file in file_of.values())
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise LaunchError(
            f"{index} is no index of a checkpoint: it maps no tensors to files ({error}). {SAVE_AGAIN}"
        ) from error
    return file_of
