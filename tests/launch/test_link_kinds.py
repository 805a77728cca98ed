"""Ranks with each kind of link but shared memory: outputs, steps given up, ranks killed, what is left open."""

import os
import signal
from collections.abc import Iterator
from functools import partial

import psutil
import pytest
import torch
import zoo
from on_devices import assert_close, devices_of, over_links, running, tensors
from slow import FOREVER, X, once_running, trace_slow, works

import pipelab
from pipelab.errors import Cancelled, StageError
from pipelab.launch import controller
from pipelab.launch.job import Job

EXACT = ("gloo", "host memory")  # on the CPU


@over_links
@pytest.mark.parametrize("name", ["input_skip", "in_place", "multi_output", "dict_output", "tied", "llama"])
def test_output_is_the_models_own(name: str, link: str) -> None:
    model, inputs = zoo.build(name)
    traced = pipelab.trace(model, **inputs)
    with torch.no_grad():
        expected = tensors(model(**inputs))
    legal, bound = traced.graph.legal, traced.bind((), inputs)
    quarters = tuple(legal[len(legal) * part // 4] for part in (1, 2, 3))
    with running(traced, partial(devices_of, link)) as run:
        for cuts, parts in ((quarters, 1), (quarters, 3), (quarters, 8), (legal[-1:], 5)):
            sizes = traced.microbatch_sizes(zoo.BATCH, parts, len(cuts) + 1)
            outputs = run(Job.of_plan(traced, pipelab.Plan(traced.graph, cuts), sizes), bound)
            assert_close(outputs, expected, is_exact=link in EXACT)


@pytest.fixture(scope="module")
def slow() -> pipelab.Trace:
    return trace_slow()


@pytest.fixture
def pipe(slow: pipelab.Trace, link: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[pipelab.Pipeline]:
    monkeypatch.setattr(controller, "choose", lambda device, num_ranks: devices_of(link, num_ranks))
    with pipelab.start(slow, pipelab.uniform(slow, num_stages=3)) as pipe:
        yield pipe


@over_links
def test_unequal_micro_batches_of_many_numbers(slow: pipelab.Trace, link: str) -> None:
    plan = pipelab.uniform(slow, num_stages=3)
    with torch.no_grad():
        expected = slow._model(X[:19])
    with running(slow, partial(devices_of, link)) as run:
        for num_microbatches in range(1, 10):
            job = Job.of_plan(slow, plan, slow.microbatch_sizes(19, num_microbatches, 3))
            assert_close(run(job, (X[:19],)), [expected], is_exact=link in EXACT)


@over_links
def test_step_given_up_leaves_no_message_for_the_next(pipe: pipelab.Pipeline, slow: pipelab.Trace) -> None:
    """A message that nobody took would be taken for the first of the next step."""
    pids = pipe.pids
    once_running(pipe, pipe.interrupt)
    with pytest.raises(Cancelled, match="stopped"):
        pipe.run(X.flip(0), num_microbatches=64, repeats=FOREVER)
    assert works(pipe, slow)
    assert pipe.pids == pids


@over_links
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_killed_rank_is_named_and_the_next_run_works(pipe: pipelab.Pipeline, slow: pipelab.Trace, rank: int) -> None:
    """Its neighbour's next message failed as it began, and was taken for the first cause."""
    pids = pipe.pids
    once_running(pipe, lambda: os.kill(pids[rank], signal.SIGKILL))
    with pytest.raises(StageError, match="was killed by SIGKILL") as e:
        pipe.run(X, num_microbatches=64, repeats=FOREVER)
    assert e.value.rank == rank
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert works(pipe, slow)


@over_links
def test_rank_that_hangs_inside_torch_ends_with_the_others(pipe: pipelab.Pipeline, slow: pipelab.Trace) -> None:
    """The neighbour of a stopped rank waits for it in C++, where no flag is looked at."""
    pids = pipe.pids
    pipe.stall_s = 1.0
    os.kill(pids[0], signal.SIGSTOP)
    with pytest.raises(StageError):
        pipe(X)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    pipe.stall_s = 60.0
    assert works(pipe, slow)


@over_links
def test_nobody_listens_beyond_loopback(pipe: pipelab.Pipeline, slow: pipelab.Trace, link: str) -> None:
    assert works(pipe, slow)
    ranks = [psutil.Process(pid) for pid in pipe.pids]
    addresses = {connection.laddr.ip for rank in ranks for connection in rank.net_connections("inet")}
    assert addresses == ({"127.0.0.1"} if link in ("gloo", "nccl") else set())


@pytest.mark.parametrize("link", ["gloo", "host memory"])
def test_loads_leave_nothing_open(pipe: pipelab.Pipeline, slow: pipelab.Trace) -> None:
    """A stage is a web of references to itself: the one before kept its memory and descriptors for some loads."""
    held = []
    for _ in range(5):
        assert works(pipe, slow)  # two numbers of rows: loaded anew each time
        held.append(sum(psutil.Process(pid).num_fds() for pid in pipe.pids))
    assert min(held[1:]) <= held[0]  # a socket may take a moment to close
