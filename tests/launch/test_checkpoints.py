"""Checkpoints on real ranks: each reads what it needs and no more, and damage leaves nothing behind."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from math import prod
from pathlib import Path
from typing import Any

import generators
import psutil
import pytest
import torch
import zoo
from torch import Tensor

import pipelab
from pipelab import progress
from pipelab.errors import Cancelled, LaunchError, StageError
from pipelab.launch import memory, peak_memory
from pipelab.launch.group import Patience
from pipelab.launch.memory import Weights
from pipelab.launch.runner import Runner

transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")


def save(model: Any, folder: Path, kind: str, shard_bytes: int = 1 << 40) -> None:
    """Write a checkpoint of either kind, in shards of about so many bytes."""
    model.save_pretrained(folder, max_shard_size=shard_bytes)
    if kind == "safetensors":
        return
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        torch.save(safetensors.load_file(file), file.with_name(archive(file.name)))
        file.unlink()
    for index in folder.glob("*.index.json"):
        text = json.loads(index.read_text())
        text["weight_map"] = {name: archive(file) for name, file in text["weight_map"].items()}
        index.with_name("pytorch_model.bin.index.json").write_text(json.dumps(text))
        index.unlink()


def archive(name: str) -> str:
    return name.replace("model", "pytorch_model").replace(".safetensors", ".bin")


def first_output(output: Any) -> Tensor:
    return output[0]  # type: ignore[no-any-return]  # any model's


@pytest.mark.parametrize(
    ("name", "kind", "shard_bytes", "dtype"),
    [
        ("gpt2", "safetensors", 20_000, torch.float32),  # tied
        ("gpt2", "bin", 20_000, torch.bfloat16),
        ("llama", "safetensors", 1 << 40, torch.bfloat16),  # rotary frequencies are in no file
        ("qwen3", "bin", 10_000, torch.float32),
        ("t5", "safetensors", 20_000, torch.float16),  # three names of one tensor; some weights stay wide
        ("bloom", "bin", 1 << 40, torch.float16),
        ("mixtral", "safetensors", 20_000, torch.bfloat16),  # experts are one by one in the files, and over shards
        ("mixtral", "safetensors", 1 << 40, torch.float32),
        ("bert", "bin", 1 << 40, torch.float32),
    ],
)
def test_ranks_compute_what_the_loaded_model_does(
    name: str, kind: str, shard_bytes: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = generators.build(name) if name == "qwen3" else zoo.build(name)[0]
    save(model, tmp_path, kind, shard_bytes)
    assert (len(list(tmp_path.glob("*model*"))) > 2) == (shard_bytes < 1 << 40)
    model = type(model).from_pretrained(tmp_path, dtype=dtype).eval()
    traced = pipelab.trace_pretrained(tmp_path, batch_size=3, seq_len=5, dtype=dtype)
    plans = [pipelab.uniform(traced, num_stages=2), pipelab.equal_size(traced, num_stages=3)]
    with torch.no_grad(), pipelab.start(traced, plans[0], device="cpu") as pipe:
        expected = first_output(model(**traced.kwargs))
        assert torch.equal(first_output(pipe(**traced.kwargs)), expected)
        pipe.replan(plans[1])
        assert torch.equal(first_output(pipe(**traced.kwargs)), expected)
        before = pipe.read_bytes
        pipe.replan(plans[1])
        assert torch.equal(first_output(pipe(**traced.kwargs)), expected)
        assert pipe.read_bytes == before, "what a rank holds it does not read again"


@pytest.fixture
def sharded(tmp_path: Path) -> tuple[Path, Any]:
    """A GPT-2 in shards of about 20 kB, and itself."""
    model, _ = zoo.build("gpt2")
    save(model, tmp_path, "safetensors", 20_000)
    return tmp_path, model


def last_shard(folder: Path) -> Path:
    return max(folder.glob("model-*.safetensors"))


@pytest.mark.parametrize("damage", ["missing shard", "wrong shape", "cut short", "missing key", "unknown dtype"])
def test_bad_checkpoint_is_named_before_any_rank_is_there(
    damage: str, sharded: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = sharded
    shard = last_shard(folder)
    tensors = safetensors.load_file(shard)
    name = next(iter(tensors))
    data = shard.read_bytes()
    if damage == "missing shard":
        shard.unlink()
    elif damage == "wrong shape":
        safetensors.save_file({**tensors, name: torch.zeros(1, 2, 3)}, shard)
    elif damage == "cut short":
        shard.write_bytes(data[:-1])
    elif damage == "missing key":
        del tensors[name]
        safetensors.save_file(tensors, shard)
    else:
        shard.write_bytes(data.replace(b'"F32"', b'"F31"'))
    traced = pipelab.trace_pretrained(folder, batch_size=2, seq_len=4)
    monkeypatch.setattr(Runner, "start", lambda *_: pytest.fail("a rank was started"))
    with pytest.raises(LaunchError) as caught:
        pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cpu")
    assert str(shard) in str(caught.value)
    assert any(repr(each) in str(caught.value) for each in [*tensors, name])


def test_a_shard_lost_while_ranks_are_there_is_named_and_only_it_is_read_again(
    sharded: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = sharded
    monkeypatch.setattr(progress, "_SILENT_S", 0.0)
    traced = pipelab.trace_pretrained(folder, batch_size=2, seq_len=4)
    with torch.no_grad(), pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cpu") as pipe:
        shard = last_shard(folder)
        shard.rename(folder / "away")
        pids = pipe.pids
        with pytest.raises(LaunchError, match=rf"{shard.name}: tensor .* cannot be read: No such file"):
            pipe(**traced.kwargs)
        (folder / "away").rename(shard)
        capsys.readouterr()
        assert torch.equal(pipe(**traced.kwargs)[0], model(**traced.kwargs)[0])
        assert pipe.pids == pids
        bar = capsys.readouterr().err.split("\r")[-1]
        shown = re.fullmatch(r"pipelab: reading the weights ▕█+▏ (.+) of (.+)\n", bar)
        assert shown is not None, bar
        assert shown[1] == shown[2]
        share = [stage.param_bytes for stage in pipe.plan.stages]
        # Again only the tensor that a rank was reading when the other's error stopped it.
        largest = max(parameter.nbytes for parameter in model.parameters())
        again = [read - own for read, own in zip(pipe.read_bytes, share, strict=True)]
        assert all(0 <= num_bytes <= largest < own for num_bytes, own in zip(again, share, strict=True))


def test_a_checkpoint_that_does_not_fit_leaves_nothing(
    sharded: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had been taken for the weights that no file holds stayed, once for each try."""
    traced = pipelab.trace_pretrained(sharded[0], batch_size=2, seq_len=4)
    plan = pipelab.uniform(traced, num_stages=2)
    pipelab.start(traced, plan, device="cpu").close()  # the server stays
    before = psutil.Process().num_fds()
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: 1000)
    with pytest.raises(LaunchError, match="of memory is free"):
        pipelab.start(traced, plan, device="cpu")
    assert psutil.Process().num_fds() == before


def test_new_ranks_read_what_a_dead_one_held(sharded: tuple[Path, Any]) -> None:
    folder, model = sharded
    traced = pipelab.trace_pretrained(folder, batch_size=2, seq_len=4)
    with torch.no_grad(), pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cpu") as pipe:
        pipe(**traced.kwargs)
        share = pipe.read_bytes
        dead = psutil.Process(pipe.pids[1])
        dead.kill()
        dead.wait(20)
        with suppress(StageError):  # or it is noticed before the step
            pipe(**traced.kwargs)
        assert torch.equal(pipe(**traced.kwargs)[0], model(**traced.kwargs)[0])
        assert pipe.read_bytes == share


@pytest.mark.parametrize("name", ["gpt2", "mixtral"])  # tied; made of several tensors
def test_one_rank_reads_for_all_that_measure(name: str, tmp_path: Path) -> None:
    model, _ = zoo.build(name)
    save(model, tmp_path, "safetensors", 20_000)
    traced = pipelab.trace_pretrained(tmp_path, batch_size=2, seq_len=4, dtype="bfloat16")
    weights = Weights(*traced.stored(), with_room=True)
    with closing(weights), closing(Runner(weights)) as reader:
        assert weights.pieces
        reader.gather(Patience(lambda: False, 60.0), lambda: None)
        assert not weights.pieces
        found = {placed.spec.name: placed.spec.unpack(weights.segment.storage(placed)) for placed in weights.placed}
        expected = traced.weights()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def write_sparse(config: Any, folder: Path, num_shards: int) -> dict[str, Tensor]:
    """A checkpoint of zeros that takes no room on the disk, but for embeddings and head, which are returned."""
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    torch.manual_seed(0)
    real = {name: torch.randn(shapes[name]) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    real["model.norm.weight"] = torch.ones(shapes["model.norm.weight"])
    file_of = {}
    names = list(shapes)
    for shard in range(num_shards):
        file = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
        header, end = {}, 0
        for name in names[shard * len(names) // num_shards : (shard + 1) * len(names) // num_shards]:
            file_of[name] = file
            begin, end = end, end + 4 * prod(shapes[name])
            header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as written:
            written.write(len(text).to_bytes(8, "little") + text)
            written.truncate(8 + len(text) + end)
            for name in real.keys() & header.keys():
                written.seek(8 + len(text) + header[name]["data_offsets"][0])
                written.write(memoryview(real[name].numpy()))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": file_of}))
    return real


def memory_bytes(pid: int, key: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{key}:"))


needs_peaks = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")


@needs_peaks
def test_who_measures_holds_no_weight(tmp_path: Path) -> None:
    """`measure` once read the whole checkpoint into the kernel, twice over."""
    config = transformers.LlamaConfig(
        num_hidden_layers=1, hidden_size=1024, intermediate_size=8192, num_attention_heads=16, vocab_size=1024,
        tie_word_embeddings=False, dtype="float32", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    write_sparse(config, tmp_path, num_shards=2)
    traced = pipelab.trace_pretrained(tmp_path, batch_size=1, seq_len=2)
    peak_memory.reset_peak(torch.device("cpu"))
    before = memory_bytes(os.getpid(), "VmRSS")
    pipelab.measure(traced, device="cpu", num_stages=1)
    assert memory_bytes(os.getpid(), "VmHWM") - before < traced.graph.param_bytes / 4 > 25e6


def stop_while_it_reads(pipe: pipelab.Pipeline, traced: pipelab.Trace) -> tuple[int, ...]:
    """Interrupt a run whose ranks have read some of their weights; says who they are."""
    pids = pipe.pids
    idle_bytes = memory_bytes(pids[0], "VmRSS")

    def interrupt() -> None:
        while memory_bytes(pids[0], "VmRSS") < idle_bytes + 100e6:
            pass
        pipe.interrupt()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        with pytest.raises(Cancelled):
            pipe(**traced.kwargs)
    return pids


@needs_peaks
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_gigabytes_are_read_once_by_those_who_need_them(dtype: str, tmp_path: Path) -> None:
    """Cast on the way, they once left holes in memory as large as themselves."""
    config = transformers.LlamaConfig(
        num_hidden_layers=10, hidden_size=2048, intermediate_size=5632, num_attention_heads=16, vocab_size=2048,
        tie_word_embeddings=False, dtype="float32", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    real = write_sparse(config, tmp_path, num_shards=5)
    assert sum(file.stat().st_size for file in tmp_path.glob("*.safetensors")) > 2e9
    traced = pipelab.trace_pretrained(tmp_path, batch_size=2, seq_len=4, dtype=dtype)
    largest = 4 * config.hidden_size * config.intermediate_size
    with torch.no_grad(), pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cpu") as pipe:
        own = os.getpid()
        peak_memory.reset_peak(torch.device("cpu"))
        before = [memory_bytes(pid, "VmRSS") for pid in (own, *pipe.pids)]
        if dtype == "bfloat16":
            pids = stop_while_it_reads(pipe, traced)
            assert pipe.pids == pids
        logits = pipe(**traced.kwargs).logits
        peaks = [memory_bytes(pid, "VmHWM") - idle for pid, idle in zip((own, *pipe.pids), before, strict=True)]
        shares = [stage.param_bytes for stage in pipe.plan.stages]
        # Again only the tensor in which a rank was stopped.
        again = [read - 4 * stage.num_params for read, stage in zip(pipe.read_bytes, pipe.plan.stages, strict=True)]
        assert all(0 <= num_bytes <= (largest if dtype == "bfloat16" else 0) for num_bytes in again)
        assert sum(pipe.read_bytes) > 2e9
    for share, peak in zip(shares, peaks[1:], strict=True):
        assert share < peak <= 1.15 * share
    assert peaks[0] < 100e6
    if dtype == "bfloat16":
        return
    # Layers of zeros add nothing to the embeddings.
    hidden = real["model.embed_tokens.weight"][traced.kwargs["input_ids"]]
    hidden = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps)
    torch.testing.assert_close(logits, hidden @ real["lm_head.weight"].T)
