"""The headers of checkpoints: what is wrong with a file is said before anything of it is read, by file and tensor."""

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelab import pieces
from pipelab.checkpoint_folder import tensors_in
from pipelab.errors import LaunchError
from pipelab.pieces import Piece

pytest.importorskip("safetensors")
from safetensors.torch import save_file

TENSORS = {
    "a.weight": torch.arange(12.0).view(3, 4),
    "b.weight": torch.arange(5).to(torch.bfloat16),
    "c.count": torch.tensor(7),
    "d.empty": torch.empty(0, 3),
}
FILE = "model.safetensors"


def read(folder: Path, dtype: str | None = None) -> dict[str, torch.Tensor]:
    return {
        name: Piece(dtype or tensor.dtype, tensor.shape, (tensor,)).read("cpu")
        for name, tensor in tensors_in(folder).items()
    }


def with_header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write a file whose header is changed, but not its data."""
    save_file(TENSORS, folder / FILE)
    data = (folder / FILE).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header).encode()
    (folder / FILE).write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def index(folder: Path, file_of: object) -> None:
    (folder / f"{FILE}.index.json").write_text(json.dumps({"weight_map": file_of}))


@pytest.mark.parametrize("chunk_bytes", [8, 1 << 24])
def test_tensors_are_read_as_they_were_written(chunk_bytes: int, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(pieces, "_CHUNK_BYTES", chunk_bytes)
    save_file(TENSORS, tmp_path / FILE)
    for dtype in (None, "float32", "bfloat16"):
        found = read(tmp_path, dtype)
        for name, tensor in TENSORS.items():
            torch.testing.assert_close(found[name], tensor.to(found[name].dtype), rtol=0, atol=0)


def test_archives_are_read_without_being_loaded(tmp_path: Path) -> None:
    """Views of one memory, transposed ones among them, as old checkpoints hold them."""
    held = {**TENSORS, "turned": TENSORS["a.weight"].T, "row": TENSORS["a.weight"][1], "wide": torch.ones(1).expand(4)}
    torch.save(held, tmp_path / "pytorch_model.bin")
    for name, tensor in read(tmp_path).items():
        assert torch.equal(tensor, held[name]), name
        assert tensor.is_contiguous()


def test_nothing_of_an_archive_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> object:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"a": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(LaunchError, match=r"pytorch_model\.bin cannot be read"):
        tensors_in(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h["a.weight"].update(dtype="F13"), "'a.weight' is of dtype 'F13'"),
        (lambda h: h["a.weight"].update(dtype=["F32"]), "'a.weight' is of dtype"),
        (lambda h: h["a.weight"].update(shape=[3, 5]), "'a.weight' is (3, 5) float32, and 48 bytes long"),
        (lambda h: h["a.weight"].update(shape=[-3, -4]), "'a.weight' is said to be [-3, -4]"),
        (lambda h: h["a.weight"].update(shape=[True, 12]), "'a.weight' is said to be [True, 12]"),
        (lambda h: h["a.weight"].update(data_offsets=[48, 0]), "'a.weight' is said to be"),
        (lambda h: h["a.weight"].update(data_offsets=[10**6, 10**6 + 48]), "'a.weight' ends at byte"),
        (lambda h: h.update({"b.weight": "here"}), "'b.weight' is of dtype None"),
        (lambda h: h.pop("a.weight"), "begins at byte"),
    ],
)  # fmt: skip
def test_a_wrong_header_is_named_with_its_tensor(change: Any, said: str, tmp_path: Path) -> None:
    with_header(tmp_path, change)
    with pytest.raises(LaunchError, match=re.escape(said)) as caught:
        tensors_in(tmp_path)
    assert str(tmp_path / FILE) in str(caught.value)


def test_a_file_cut_short_is_named_with_the_tensor_that_lacks_bytes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / FILE)
    with (tmp_path / FILE).open("r+b") as file:
        file.truncate((tmp_path / FILE).stat().st_size - 1)
    with pytest.raises(LaunchError, match=r"model\.safetensors: tensor '.*' ends at byte .* cut short"):
        tensors_in(tmp_path)


def test_a_tensor_listed_twice_is_named(tmp_path: Path) -> None:
    text = b'{"a": {}, "a": {}}'
    (tmp_path / FILE).write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(LaunchError, match="tensor 'a' is listed twice"):
        tensors_in(tmp_path)


def test_shards_must_be_those_of_the_index(tmp_path: Path) -> None:
    for file, tensors in (("1.safetensors", ["a.weight", "b.weight"]), ("2.safetensors", ["c.count", "b.weight"])):
        save_file({name: TENSORS[name] for name in tensors}, tmp_path / file)
    for file_of, said in (
        ({"a.weight": "1.safetensors", "c.count": "3.safetensors"}, r"3\.safetensors is missing.*'c\.count' is in it"),
        ({"a.weight": "1.safetensors", "x": "1.safetensors"}, r"1\.safetensors holds no tensor 'x'"),
        ({"a.weight": "1.safetensors", "c.count": "2.safetensors"}, r"2\.safetensors: tensor 'b\.weight' is in .*1\."),
        ({"a.weight": "../1.safetensors"}, r"'a\.weight' is said to be in '\.\./1\.safetensors'"),
        ({"a.weight": str(tmp_path / "1.safetensors")}, r"'a\.weight' is said to be in"),
        ({"a.weight": "/etc/passwd"}, r"'a\.weight' is said to be in '/etc/passwd'"),
        ({"a.weight": 1}, r"is no index of a checkpoint"),
        ([], r"is no index of a checkpoint"),
    ):
        index(tmp_path, file_of)
        with pytest.raises(LaunchError, match=said):
            tensors_in(tmp_path)
    index(tmp_path, {"a.weight": "1.safetensors", "b.weight": "1.safetensors"})
    assert set(tensors_in(tmp_path)) == {"a.weight", "b.weight"}


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    """Opening a pipe waited for a writer for ever; the others were errors of Python's own."""
    for name, kinds in ((FILE, ("pipe", "folder", "loop")), (f"{FILE}.index.json", ("folder", "list", "long name"))):
        for kind in kinds:
            folder = tmp_path / f"{name}-{kind}"
            folder.mkdir()
            path = folder / name
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "folder":
                path.mkdir()
            elif kind == "loop":
                path.symlink_to(path)
            else:
                path.write_text("[]" if kind == "list" else json.dumps({"weight_map": {"a": "x" * 300 + ".bin"}}))
            with pytest.raises(LaunchError, match=r"\.(safetensors|json|bin)\b.*|holds none of the files"):
                tensors_in(folder)


@pytest.mark.parametrize("held", [b"", b"text", [1], {"a": torch.eye(2).to_sparse()}])
def test_an_archive_of_something_else_is_named(held: Any, tmp_path: Path) -> None:
    """Without words of torch's, whose advice is to run what is in the file."""
    path = tmp_path / "pytorch_model.bin"
    if isinstance(held, bytes):
        path.write_bytes(held)
    else:
        torch.save(held, path)
    with pytest.raises(LaunchError, match=rf"^{path}.* again") as caught:
        tensors_in(tmp_path)
    assert "weights_only" not in str(caught.value)


def test_flipped_bits_give_an_error_or_tensors_within_the_file(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / FILE)
    whole = (tmp_path / FILE).read_bytes()
    header_bytes = 8 + int.from_bytes(whole[:8], "little")
    rng = random.Random(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3))):
            damaged[rng.randrange(header_bytes)] ^= 1 << rng.randrange(8)
        (tmp_path / FILE).write_bytes(damaged)
        try:
            found = read(tmp_path)
        except LaunchError as error:
            refused += 1
            assert str(tmp_path / FILE) in str(error)
        else:
            assert sum(tensor.nbytes for tensor in found.values()) <= len(whole) - header_bytes
    assert 100 < refused < 500


def test_a_file_that_changes_after_its_header_was_read_is_not_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / FILE)
    tensor = tensors_in(tmp_path)["a.weight"]
    os.utime(tmp_path / FILE, ns=(0, 0))
    with pytest.raises(LaunchError, match=r"tensor 'a\.weight' cannot be read: the file was changed"):
        Piece("float32", tensor.shape, (tensor,)).read("cpu")
    (tmp_path / FILE).unlink()
    with pytest.raises(LaunchError, match=r"tensor 'a\.weight' cannot be read: No such file.*Run again"):
        Piece("float32", tensor.shape, (tensor,)).read("cpu")
