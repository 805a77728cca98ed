"""What goes wrong while tokens are made: it is named, nothing hangs, nothing is left, and the next call works."""

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import generators
import psutil
import pytest
import torch
from torch import Tensor, nn

import pipelab
from pipelab.errors import Cancelled, InputError, SplitError, StageError, TraceError
from pipelab.launch import turns
from pipelab.launch.generation import Demand, Generation
from pipelab.token_steps import Kind, TokenSteps

transformers = pytest.importorskip("transformers")

MANY = 50


@pytest.fixture(scope="module")
def model() -> Any:
    return generators.build("llama")


@pytest.fixture(scope="module")
def traced(model: Any) -> pipelab.Trace:
    return pipelab.trace(model, **generators.traced_call(model))


def three_stages(traced: pipelab.Trace) -> pipelab.Plan:
    return pipelab.split_at(traced, ["model.layers.0", "model.layers.1"])


@pytest.fixture(scope="module")
def pipe(traced: pipelab.Trace) -> Iterator[pipelab.Pipeline]:
    with pipelab.start(traced, three_stages(traced), device="cpu") as pipe:
        yield pipe


class Act(transformers.generation.streamers.BaseStreamer):
    """Does something in the middle of a generation."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act, self.calls = act, 0

    def put(self, value: Tensor) -> None:
        self.calls += 1
        if self.calls == 4:
            self.act()

    def end(self) -> None:
        """Nothing is held back."""


def works(pipe: pipelab.Pipeline, model: Any) -> bool:
    call = {**generators.prompts(model), "max_new_tokens": 4}
    return torch.equal(pipe.generate(**call), model.generate(**call)) and len(pipe.pids) == 3


def one_prompt(model: Any) -> dict[str, Any]:
    return {"input_ids": generators.prompts(model)["input_ids"][1:2], "max_new_tokens": MANY}


def test_killed_rank_is_named_and_the_next_call_works(pipe: pipelab.Pipeline, model: Any) -> None:
    for rank in range(3):
        pids = pipe.pids
        kill = Act(lambda pids=pids, rank=rank: os.kill(pids[rank], signal.SIGKILL))
        with pytest.raises(StageError, match=rf"(?s){rank}.*was killed by SIGKILL") as e:
            pipe.generate(**one_prompt(model), streamer=kill)
        assert e.value.rank == rank
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert works(pipe, model)


def test_rank_killed_while_groups_have_loops_of_their_own(pipe: pipelab.Pipeline, model: Any) -> None:
    victims = iter(pipe.pids[1:2])  # several loops tell of their progress at once, and one of them is to kill

    def kill(done: int, total: int) -> None:
        if done >= 3:
            for pid in victims:
                os.kill(pid, signal.SIGKILL)

    pipe.on_progress = kill
    try:
        with pytest.raises(StageError, match="was killed by SIGKILL"):
            pipe.generate(**{**generators.prompts(model), "max_new_tokens": MANY})
    finally:
        pipe.on_progress = None
    assert works(pipe, model)


def test_a_stopped_generation_leaves_the_ranks(pipe: pipelab.Pipeline, model: Any) -> None:
    pids = pipe.pids
    with pytest.raises(Cancelled, match="the ranks are still there"):
        pipe.generate(**one_prompt(model), streamer=Act(pipe.interrupt))
    assert pipe.pids == pids
    assert works(pipe, model)


def test_ctrl_c_stops_it(pipe: pipelab.Pipeline, model: Any) -> None:
    pids = pipe.pids
    with pytest.raises(KeyboardInterrupt):
        pipe.generate(**one_prompt(model), streamer=Act(lambda: signal.raise_signal(signal.SIGINT)))
    assert pipe.pids == pids
    assert works(pipe, model)


def test_what_the_users_own_code_raises_is_raised(pipe: pipelab.Pipeline, model: Any) -> None:
    pids = pipe.pids
    with pytest.raises(ZeroDivisionError):
        pipe.generate(**one_prompt(model), streamer=Act(lambda: 1 / 0))
    assert pipe.pids == pids
    assert works(pipe, model)


def test_what_one_loop_of_several_raises_is_raised(pipe: pipelab.Pipeline, model: Any) -> None:
    """It was told as "The run was stopped": what the ranks said of being sent home hid what had sent them."""
    pids = pipe.pids
    pipe.on_progress = lambda done, _: 1 // (3 - done)
    try:
        with pytest.raises(ZeroDivisionError):
            pipe.generate(**{**generators.prompts(model), "max_new_tokens": MANY})
    finally:
        pipe.on_progress = None
    assert pipe.pids == pids
    assert works(pipe, model)


def test_closed_from_the_progress_of_one_loop_of_several(
    traced: pipelab.Trace, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited five seconds for itself: the loops of groups have threads of their own."""
    monkeypatch.setattr(turns, "_CLOSE_S", 600.0)
    pipe = pipelab.start(traced, three_stages(traced), device="cpu")
    pids = pipe.pids
    pipe.on_progress = lambda done, _: pipe.close() if done == 3 else None
    with pytest.raises(Cancelled, match="closed while it ran"):
        pipe.generate(**{**generators.prompts(model), "max_new_tokens": MANY})
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_ranks_that_cannot_be_had_are_asked_for_once(pipe: pipelab.Pipeline, model: Any) -> None:
    """Each group's loop tried anew: tracing a step that cannot be traced, or all tokens of the other groups."""
    asked = []

    class Untraceable(TokenSteps):
        def step(self, kind: Kind, source: tuple[int, ...]) -> Any:
            asked.append(kind)
            raise TraceError("no")

    generation = Generation(Untraceable(model), pipe.plan, None)  # type: ignore[arg-type]  # none are needed
    demand = Demand((1, 1, 1), expansion=1, source=(), num_read=4, new=4, longest=8, has_cache=True, has_beams=False)
    with pytest.raises(TraceError):
        generation.run([lambda: generation.round_for(0, demand)] * 3)
    assert asked == ["prompt"]


def test_ids_and_masks_of_any_whole_type_are_taken(pipe: pipelab.Pipeline, model: Any) -> None:
    """Ranks were sent what the program was not traced for, and a ValueError came back."""
    call = generators.prompts(model)
    expected = model.generate(**call, max_new_tokens=4)
    call = {"input_ids": call["input_ids"].int(), "attention_mask": call["attention_mask"].bool()}
    assert torch.equal(pipe.generate(**call, max_new_tokens=4), expected)


def test_a_long_pause_of_the_users_own_code_is_no_stall(pipe: pipelab.Pipeline, model: Any) -> None:
    """Ranks that have nothing to do are not hanging."""
    patient, pipe.stall_s = pipe.stall_s, 0.3
    try:
        pipe.generate(**{**one_prompt(model), "max_new_tokens": 6}, streamer=Act(lambda: threading.Event().wait(1)))
    finally:
        pipe.stall_s = patient
    assert works(pipe, model)


def test_a_rank_that_raises_names_module_and_op(pipe: pipelab.Pipeline, model: Any) -> None:
    pids = pipe.pids
    ids = generators.prompts(model)["input_ids"][1:3].repeat(3, 1)
    ended, other = model.generate(ids[:2], max_new_tokens=1)[:, -1]
    assert ended != other, "the padding of a row that has ended is read where another goes on"
    for num_microbatches in (1, 3):  # in one loop the padding is as far as it is in several
        with pytest.raises(StageError, match=r"Stage 0 \(rank 0\) raised IndexError in model.embed_tokens") as e:
            pipe.generate(
                ids,
                max_new_tokens=4,
                eos_token_id=int(ended),
                pad_token_id=generators.VOCAB,
                num_microbatches=num_microbatches,
            )
        assert "Traceback" in e.value.remote_traceback
    assert pipe.pids == pids
    assert works(pipe, model)


def test_ids_that_are_none_of_the_models_reach_no_rank(pipe: pipelab.Pipeline, model: Any) -> None:
    """The rank's "index out of range" told no remedy."""
    pids = pipe.pids
    for wrong in (generators.VOCAB, -1):
        ids = generators.prompts(model)["input_ids"]
        ids[1, 2] = wrong
        with pytest.raises(InputError, match=f"Token id {wrong} is none of LlamaForCausalLM's, which has 0 to 47"):
            pipe.generate(ids)
    assert pipe.pids == pids


def test_nothing_is_left_of_a_generation(pipe: pipelab.Pipeline, model: Any) -> None:
    assert works(pipe, model)
    gc.collect()
    me = psutil.Process()
    before = me.num_fds(), me.num_threads(), set(Path("/dev/shm").glob("*"))
    for _ in range(3):
        assert works(pipe, model)
    with pytest.raises(Cancelled):
        pipe.generate(**one_prompt(model), streamer=Act(pipe.interrupt))
    gc.collect()
    assert (me.num_fds(), me.num_threads(), set(Path("/dev/shm").glob("*"))) == before


def test_it_runs_between_other_runs_and_tells_its_progress(pipe: pipelab.Pipeline, model: Any) -> None:
    seen: list[tuple[int, int]] = []
    call = generators.traced_call(model)
    with torch.no_grad():
        expected = model(**call).logits
    torch.testing.assert_close(pipe(**call).logits, expected)
    pipe.on_progress = lambda done, total: seen.append((done, total))
    pipe.generate(**{**one_prompt(model), "max_new_tokens": 3})
    pipe.on_progress = None
    torch.testing.assert_close(pipe(**call).logits, expected)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_what_cannot_be_generated_is_refused_in_words(
    pipe: pipelab.Pipeline, traced: pipelab.Trace, model: Any
) -> None:
    pids, ids = pipe.pids, generators.prompts(model)["input_ids"]
    with pytest.raises(InputError, match="integers of shape"):
        pipe.generate(torch.zeros(2, 3))
    with pytest.raises(InputError, match="given input_ids twice"):
        pipe.generate(ids, input_ids=ids)
    with pytest.raises(InputError, match="between 1 and the batch of 3"):
        pipe.generate(ids, num_microbatches=4)
    with pytest.raises(InputError, match=r"whole number, 1 or more; it is '2'"):
        pipe.generate(ids, num_microbatches="2")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InputError, match=r"at most 249 to generate; it is 250"):
        pipe.generate(torch.ones(300, 4, dtype=torch.int64), num_microbatches=250)
    for mask in (torch.ones(2, ids.shape[1]), torch.ones(3, 2), [[1]]):
        with pytest.raises(InputError, match=r"attention_mask must be a tensor with a number for each token"):
            pipe.generate(ids, attention_mask=mask)
    for refused in ({"output_attentions": True}, {"inputs_embeds": torch.zeros(2, 3, 16)}):
        with pytest.raises(InputError, match=f"does not take {next(iter(refused))}"):
            pipe.generate(ids, **refused)
    with pytest.raises(ValueError, match="max_new_tokenz"):  # transformers' own
        pipe.generate(ids, max_new_tokenz=4)
    attention = "model.layers.0.self_attn:aten.scaled_dot_product_attention.default"
    pipe.replan(pipelab.split_at(traced, [attention]))
    with pytest.raises(SplitError, match=r"cannot be cut where this plan is.*The nearest legal one is"):
        pipe.generate(ids, max_new_tokens=4)
    pipe.replan(three_stages(traced))
    assert pipe.pids[:2] == pids[:2]
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    plain = pipelab.trace(net, torch.zeros(2, 4))
    with (
        pipelab.start(plain, pipelab.uniform(plain, num_stages=2), device="cpu") as other,
        pytest.raises(InputError, match="Sequential does not generate"),
    ):
        other.generate(ids)
