"""`generate`: transformers' tokens, one for one, whatever the family, the split and the way of choosing them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import generators
import pytest
import torch
from torch import Tensor

import pipelab
from pipelab.errors import InputError, SplitError

pytest.importorskip("transformers")

NEW = 12
FAMILIES = [family for family in generators.FAMILIES if family != "falcon"]
BEAMS = ("gpt2", "llama", "bart")


@dataclass(frozen=True)
class Case:
    family: str
    model: Any
    traced: pipelab.Trace
    pipe: pipelab.Pipeline

    def both(self, **settings: Any) -> tuple[Tensor, Tensor]:
        """What the ranks and what transformers itself generates, from the same seed."""
        results = []
        for generate in (self.pipe.generate, self.model.generate):
            torch.manual_seed(7)
            results.append(generate(**{**generators.prompts(self.model), "max_new_tokens": NEW, **settings}))
            settings.pop("num_microbatches", None)
        return results[0], results[1]

    @property
    def ways(self) -> dict[str, dict[str, Any]]:
        """Ways to choose tokens."""
        finished = int(self.model.generate(**generators.prompts(self.model), max_new_tokens=NEW)[1, -5])
        ways = {
            "greedy": {},
            "greedy, until a token that one row comes to early": {"eos_token_id": finished},
            "sampled": {"do_sample": True, "temperature": 1.3, "top_k": 30, "top_p": 0.95},
            "without a cache": {"use_cache": False},
            "sampled without a cache": {"use_cache": False, "do_sample": True},
        }
        if self.family in BEAMS:
            ways["beams"] = {"num_beams": 3}
            ways["beams in one group"] = {"num_beams": 2, "num_return_sequences": 2, "num_microbatches": 1}
        return ways


def between_blocks(traced: pipelab.Trace, num_stages: int) -> pipelab.Plan:
    """As many stages as asked for, of about as many blocks each; embedding and head are blocks as well."""
    positions = [point.position for point in traced.graph.cut_points if point.level == "block"]
    return pipelab.split_at(traced, [positions[k * len(positions) // num_stages] for k in range(1, num_stages)])


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    model = generators.build(request.param)
    traced = pipelab.trace(model, **generators.traced_call(model))
    with pipelab.start(traced, between_blocks(traced, 2), device="cpu") as pipe:
        yield Case(request.param, model, traced, pipe)


of_llama = pytest.mark.parametrize("case", ["llama"], indirect=True, scope="module")


@pytest.mark.filterwarnings("ignore:.*computed from all before it")
@pytest.mark.parametrize("num_stages", [2, 3])
def test_tokens_are_transformers_own(case: Case, num_stages: int) -> None:
    case.pipe.replan(between_blocks(case.traced, num_stages))
    for way, settings in case.ways.items():
        ours, expected = case.both(**settings)
        assert torch.equal(ours, expected), way


@pytest.mark.filterwarnings("ignore:.*computed from all before it")
def test_op_level_cuts_that_a_step_has_are_used_and_others_refused(case: Case) -> None:
    """Two cuts inside a layer: of the attention before its keys are cached, and of the feed-forward net behind it."""
    graph = case.traced.graph
    used = 0
    for share in (0.4, 0.55, 0.7):
        position = min(graph.legal, key=lambda legal: abs(legal - share * len(graph.ops)))
        case.pipe.replan(pipelab.split_at(case.traced, [position]))
        try:
            ours, expected = case.both()
        except SplitError as error:
            assert "A step of generation cannot be cut where this plan is" in str(error)
            assert "nearest legal" in str(error) or "A legal cut near it is" in str(error)
        else:
            used += 1
            assert torch.equal(ours, expected), graph.label_at(position)
    assert used


def test_a_checkpoint_generates_with_the_settings_beside_its_weights(tmp_path: Path) -> None:
    """The settings were those of the bare config, and numbers that `forward` makes itself were lost (Falcon's mask)."""
    model = generators.build("falcon")
    free = model.generate(**generators.prompts(model), max_new_tokens=NEW)
    model.generation_config.eos_token_id = int(free[1, -5])
    model.save_pretrained(tmp_path)
    expected = model.generate(**generators.prompts(model), max_new_tokens=NEW)
    assert not torch.equal(expected, free)
    traced = pipelab.trace_pretrained(tmp_path, batch_size=2, seq_len=4)
    with pipelab.start(traced, between_blocks(traced, 2), device="cpu") as pipe:
        assert torch.equal(pipe.generate(**generators.prompts(model), max_new_tokens=NEW), expected)


@pytest.mark.parametrize("case", ["gpt2"], indirect=True, scope="module")
def test_what_a_step_does_not_take_is_not_left_aside(case: Case) -> None:
    """Token types (and the image beside a prompt) were dropped in silence: the tokens were others than the model's."""
    call = generators.prompts(case.model)
    with pytest.raises(InputError, match="would generate from token_type_ids as well"):
        case.pipe.generate(**call, token_type_ids=call["attention_mask"])


@of_llama
def test_one_row_many_groups_and_scores(case: Case) -> None:
    case.pipe.replan(between_blocks(case.traced, 2))
    for rows, groups in ((1, None), (5, 5), (5, 3), (70, 70)):
        call = {**generators.prompts(case.model, rows), "max_new_tokens": 4}
        assert torch.equal(case.pipe.generate(**call, num_microbatches=groups), case.model.generate(**call))
    told = {**generators.prompts(case.model), "max_new_tokens": 4}
    told |= {"return_dict_in_generate": True, "output_scores": True}
    ours, expected = case.pipe.generate(**told), case.model.generate(**told)
    assert torch.equal(ours.sequences, expected.sequences)
    torch.testing.assert_close(ours.scores, expected.scores)


@of_llama
def test_the_report_adds_up(case: Case) -> None:
    case.pipe.replan(between_blocks(case.traced, 2))
    call = {**generators.prompts(case.model, 3), "max_new_tokens": 5}
    case.pipe.generate(**call)
    report = case.pipe.last_generation
    assert report is not None and report.decode is not None and report.token_s is not None and report.loop_s is not None
    assert (report.group_rows, report.num_prompt_tokens, report.num_new_tokens) == ((2, 1), 6, 5)
    assert (report.prefill.num_steps, report.prefill.num_tokens) == (2, 3 * 6)
    assert (report.decode.num_steps, report.decode.num_tokens) == (2 * 4, 3 * 4)
    # Each rank has one layer: keys and values of 2 heads of 4 floats, for 6 + 4 tokens of each row.
    assert report.cache_bytes == ((2 * 10 * 2 * 4 * 4 * 2, 1 * 10 * 2 * 4 * 4 * 2),) * 2
    for phase in (report.prefill, report.decode):
        assert all(0 < share < 1 for share in phase.busy_shares)
        assert all(0 < moving_s < phase.seconds for moving_s in phase.moving_s)
    assert 0 < report.loop_s < report.token_s < report.decode.seconds
    assert report.overhead_s is None, "one group waits for the other"
    case.pipe.generate(**call, num_microbatches=1)
    alone = case.pipe.last_generation
    assert alone is not None and alone.token_s is not None
    assert 0 < (alone.overhead_s or 0) < alone.token_s / 2
    assert "3 rows in 1 group on 2 ranks, 6 tokens read and 5 made per row, 3.84 kB of KV cache" in repr(alone).replace(
        "\n", " "
    )
    with pytest.raises(InputError):
        case.pipe.generate(**call, num_microbatches=9)
    assert case.pipe.last_generation is None, "of a call that failed there is none"
    case.pipe.generate(**{**call, "max_new_tokens": 1}, use_cache=False)
    short = case.pipe.last_generation
    assert short is not None and short.decode is None and not short.has_cache
    assert "no KV cache" in repr(short) and "Decode" not in repr(short)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_makes_the_tokens_of_half_precision(dtype: str, tmp_path: Path) -> None:
    """Of a model, and of a checkpoint that is started so."""
    model = generators.build("llama")
    model.save_pretrained(tmp_path)
    model.to(getattr(torch, dtype))
    if dtype == "bfloat16":
        traced = pipelab.trace_pretrained(tmp_path, batch_size=2, seq_len=4, dtype=dtype)
    else:
        traced = pipelab.trace(model, **generators.traced_call(model))
    with pipelab.start(traced, between_blocks(traced, 2), device="cpu") as pipe:
        for settings in ({"do_sample": True}, {}):  # the steps are traced while tokens are drawn in groups
            ours, expected = Case("llama", model, traced, pipe).both(**settings)
            assert torch.equal(ours, expected), settings
