"""`python -m pipelab`: its figures are the library's, and its exit codes tell what became of it."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from generators import build

import pipelab
from pipelab import pretrained
from pipelab.shell import generate, plan
from pipelab.shell.main import main

HARDWARE = "l4-24gb"


class Told(NamedTuple):
    code: int
    out: str
    err: str


def tell(*words: str) -> Told:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as left:
            code = int(left.code or 0)
    return Told(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("llama")
    build("llama").save_pretrained(path)
    return str(path)


@pytest.fixture(autouse=True, scope="module")
def _traced_once() -> Iterator[None]:
    """What asks the same of the same model shares its trace, which takes seconds."""
    trace, traced = pretrained.trace_pretrained, dict[tuple[str, ...], pipelab.Trace]()

    def once(model: Any, **how: Any) -> pipelab.Trace:
        asked = (model if isinstance(model, str) else model.to_json_string(), *sorted(map(str, how.items())))
        if asked not in traced:
            traced[asked] = trace(model, **how)
        return traced[asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "trace_pretrained", once)
        yield


@pytest.fixture(autouse=True)
def _progress_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins as a new process would."""
    monkeypatch.setattr("pipelab.progress._muted", False)
    for name in ("TQDM_DISABLE", "TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):  # put back after each
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    return


def sizes(**others: Any) -> list[str]:
    asked = {"stages": 2, "hardware": HARDWARE, "batch-size": 6, "seq-len": 5, "context": 9, **others}
    return [word for name, value in asked.items() for word in (f"--{name}", str(value))]


# --- plan ---------------------------------------------------------------------------------------------


def test_the_figures_of_a_plan_are_the_librarys(folder: str, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    told = tell("plan", "--model", folder, *sizes(microbatches=4), "--json", "--save", str(saved))
    assert told.code == 0
    found = json.loads(told.out)

    config = build("llama").config
    prefill = pipelab.trace_pretrained(config, batch_size=6, seq_len=5)
    decode = pipelab.trace_pretrained(config, batch_size=6, cache_len=9)
    split = pipelab.optimal_mix([(prefill, 1), (decode, 128)], num_stages=2, hardware=HARDWARE, num_microbatches=4)
    moved = pipelab.split_at(decode, split.split_points)
    assert found["split_points"] == list(split.split_points)
    assert pipelab.Plan.load(saved, prefill).cuts == split.cuts
    for name, expected, tokens in (("prefill", split, 30), ("decode", moved, 6)):
        step_s = pipelab.simulate(expected, hardware=HARDWARE, num_microbatches=4).makespan_s
        assert found[name]["step_s"] == step_s
        assert found[name]["tokens_per_s"] == tokens / step_s
    for told_of, stage, cached in zip(found["stages"], split.stages, moved.stages, strict=True):
        assert told_of["num_params"] == stage.num_params
        assert told_of["weights_bytes"] == stage.param_bytes + stage.buffer_bytes
        assert told_of["kv_cache_bytes"] == cached.cache_bytes > 0
        parts = ("weights", "kv_cache", "activations", "reserve")
        assert told_of["total_bytes"] == sum(told_of[f"{part}_bytes"] for part in parts)
    # A step that fills and drains takes longer than a round of micro-batches that follow each other.
    assert found["decode"]["round_s"] < found["decode"]["step_s"]
    # Six rows in four micro-batches: the largest has two.
    assert found["stages"][0]["prefill"]["sent_bytes"] == split.graph.live_bytes_for(2)[split.cuts[0]]
    assert found["stages"][-1]["prefill"]["sent_bytes"] == 0


def test_a_table_has_a_line_per_stage_and_the_launch_line(folder: str) -> None:
    told = tell("plan", "--model", f"{folder}/config.json", *sizes(), "--split", "uniform", "--export", "vllm")
    lines = told.out.splitlines()
    heads = [at for at, line in enumerate(lines) if line.startswith("stage ")]
    assert [lines[at].split()[1] for at in heads] == ["holds", "prefill"]
    assert [[line.split()[0] for line in lines[at + 1 : at + 3]] for at in heads] == [["0", "1"]] * 2
    assert "tokens per second" in told.out
    assert told.out.count("micro-batches") == 2  # of a step, and in flight
    assert max(map(len, lines[:-1])) <= 80  # a terminal's width
    assert lines[-1] == 'VLLM_PP_LAYER_PARTITION="1,1" vllm serve MODEL --pipeline-parallel-size 2'


def test_caches_that_do_not_fit_are_said(folder: str) -> None:
    words = ["plan", "--model", folder, *sizes(context=90_000_000), "--split", "uniform"]
    assert re.search(r"It does not fit: stage \d needs [\d.]+ GB of 24 GB; 2 stages in all\.", tell(*words).out)


def test_a_model_that_does_not_generate_is_planned_as_a_whole(tmp_path: Path) -> None:
    from transformers import BertConfig

    settings = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertConfig(**settings, architectures=["BertForMaskedLM"], vocab_size=32).save_pretrained(tmp_path)
    found = json.loads(tell("plan", "--model", str(tmp_path), *sizes(), "--json").out)
    assert "does not generate" in found["note"]
    assert found["forward"]["tokens_per_s"] > 0
    assert not {"prefill", "decode"} & set(found)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--model", "{folder}", *sizes(stages=9)], "optimal_mix cannot make 9 stages"),
        (["--model", "{folder}", *sizes(microbatches=7)], "A batch of 6 rows"),
        (["--model", "{folder}", *sizes(split="uniform", granularity="op")], "--granularity is for --split optimal"),
        (["--model", "{empty}", "--stages", "2"], "holds no config.json"),
        (["--model", "{folder}", "--stages", "2", "--hardware", HARDWARE, "--context", "90000000"], "alone needs 23"),
        (["--model", "{empty}/typo", "--stages", "2"], "There is no folder"),
    ],
)
def test_what_cannot_be_planned_is_said_and_is_1(folder: str, tmp_path: Path, words: list[str], reason: str) -> None:
    told = tell("plan", "--quiet", *(word.format(folder=folder, empty=tmp_path) for word in words))
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("pipelab: ")
    assert reason in told.err
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["plan", "--model", "x"],
        ["plan", "--model", "x", "--stages", "0"],
        ["plan", "--model", "x", "--stages", "2", "--save", "/no-such-folder/plan.json"],
        ["plan", "--model", "x", "--stages", "2", "--save", "."],
        ["plan", "--model", "x", "--stages", "2", "--split", "best"],
        ["generate", "--model", "x"],
        ["generate", "--model", "x", "--prompt-ids", "a"],
        ["generate", "--model", "x", "--prompt-ids", "1", "--sample", "--temperature", "0"],
        ["generate", "--model", "x", "--prompt-ids", "1", "--sample", "--top-p", "7"],
        ["generate", "--model", "x", "--prompt", "a", "--prompt-ids", "1"],
    ],
)
def test_wrong_usage_is_2(words: list[str]) -> None:
    told = tell(*words)
    assert told.code == 2
    assert "usage:" in told.err


# --- generate -----------------------------------------------------------------------------------------


def expected(ids: list[int], seed: int = 0, **settings: Any) -> list[int]:
    model = build("llama")
    torch.manual_seed(seed)
    made = model.generate(torch.tensor([ids]), **settings)
    return [int(token) for token in made[0, len(ids) :]]


def test_a_seed_draws_the_same_tokens(folder: str) -> None:
    drawn = ["--sample", "--seed", "7", "--temperature", "1.5", "--top-k", "20"]
    told = tell("generate", "--model", folder, "--prompt-ids", "3 1 4", "--max-new-tokens", "6", *drawn, "--json",
                "--quiet")  # fmt: skip
    found = json.loads(told.out)
    assert found["ids"] == expected([3, 1, 4], 7, max_new_tokens=6, do_sample=True, temperature=1.5, top_k=20)
    assert found["prompt_ids"] == [3, 1, 4]
    assert told.err == ""


def test_text_goes_in_and_comes_out(folder: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    words = {f"w{index}": index for index in range(48)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    told = tell("generate", "--model", str(tmp_path), "--prompt", "w3 w1 w4", "--max-new-tokens", "4", "--quiet")
    assert (told.code, told.err) == (0, "")
    assert told.out.split() == [f"w{token}" for token in expected([3, 1, 4], max_new_tokens=4)]


class Pressed(io.StringIO):
    """Presses Ctrl-C at the first token."""

    def write(self, text: str) -> int:
        if not self.getvalue():
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_ctrl_c_ends_it_with_130_and_no_rank_is_left(folder: str) -> None:
    asked = ["generate", "--model", folder, "--prompt-ids", "1", "--max-new-tokens", "60", "--quiet"]
    out, err = Pressed(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert main(asked) == 130
    assert (len(out.getvalue().split()) < 60, err.getvalue()) == (True, "")
    assert all("rank" not in " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--prompt", "Hello"], "Pass --prompt-ids"),
        (["--prompt-ids", "99"], "Token id 99 is none of the model's: it has 0 to 47."),
        (["--prompt-ids", "1", "--top-k", "3"], "--top-k is for --sample"),
        (["--prompt-ids", "3 1 4", "--stages", "40", "--split", "uniform"], "uniform cannot make 40 stages"),
        (["--prompt-ids", "3 1 4", "--device", "moon"], "moon"),
    ],
)
def test_what_cannot_be_generated_is_said_and_is_1(folder: str, words: list[str], reason: str) -> None:
    told = tell("generate", "--quiet", "--model", folder, *words)
    assert (told.code, told.out) == (1, "")
    assert reason in told.err


def test_of_torchruns_processes_the_first_alone_generates(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    asked = ["generate", "--model", folder, "--prompt-ids", "3 1 4", "--max-new-tokens", "2", "--json"]
    assert tell(*asked) == (0, "", "")
    monkeypatch.setenv("RANK", "0")
    assert json.loads(tell(*asked).out)["num_stages"] == 2
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "pipelab's ranks run on one host" in tell(*asked).err


# --- the process --------------------------------------------------------------------------------------


def examples() -> list[list[str]]:
    """The command lines of the help texts."""
    text = plan._EXAMPLE + generate._EXAMPLE
    return [shlex.split(line) for line in re.findall(r"^  (?:python|torchrun) .*-m (pipelab .*)$", text, re.MULTILINE)]


def test_the_examples_of_the_help_run(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = examples()
    assert [words[:2] for words in found] == [["pipelab", "plan"], *[["pipelab", "generate"]] * 2]
    # They are for models with more layers and a tokenizer.
    instead = {"DIR": folder, "8": "2", "Once upon": "1 2 3", "--prompt": "--prompt-ids", "60": "3"}
    planned, generated = (tell(*(instead.get(word, word) for word in words[1:])) for words in found[:2])
    assert (planned.code, generated.code) == (0, 0), planned.err + generated.err
    assert "tokens per second" in planned.out
    # As transformers makes them.
    assert [int(word) for word in generated.out.split()] == expected([1, 2, 3], max_new_tokens=3, do_sample=False)
    assert "3 tokens in" in generated.err


def test_a_process_starts_without_torch_and_ends_with_the_code() -> None:
    code = "import sys, pipelab.shell.main; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
    words = [sys.executable, "-m", "pipelab", "plan", "--model", os.devnull, "--stages", "0"]
    assert subprocess.run(words, capture_output=True).returncode == 2
