"""What goes wrong: each cause is named, nothing hangs, nothing is left, and the next run works."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest
import torch
from slow import FOREVER, X, once_running, trace_slow, works
from torch import Tensor, nn

import pipelab
from pipelab.errors import Cancelled, LaunchError, PipelabError, StageError
from pipelab.launch import client
from pipelab.launch.memory import Segment
from pipelab.launch.runner import Runner


class Lookup(nn.Module):
    """Raises in its second layer when an index is out of range."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.table, self.last = nn.Linear(4, 4), nn.Embedding(8, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return self.last(self.first(x) + self.table(index))


@pytest.fixture(scope="module")
def slow() -> pipelab.Trace:
    return trace_slow()


@pytest.fixture
def pipe(slow: pipelab.Trace) -> Iterator[pipelab.Pipeline]:
    with pipelab.start(slow, pipelab.uniform(slow, num_stages=3), device="cpu") as pipe:
        yield pipe


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_killed_rank_is_named_and_the_next_run_works(pipe: pipelab.Pipeline, slow: pipelab.Trace, rank: int) -> None:
    pids = pipe.pids
    once_running(pipe, lambda: os.kill(pids[rank], signal.SIGKILL))
    with pytest.raises(StageError, match=rf"(?s){rank}.*was killed by SIGKILL") as e:
        pipe.run(X, num_microbatches=64, repeats=FOREVER)
    assert (e.value.rank, e.value.stage) == (rank, rank)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert pipe.pids == ()
    assert works(pipe, slow)


def test_rank_killed_between_runs(pipe: pipelab.Pipeline, slow: pipelab.Trace) -> None:
    """Seen while idle, it is replaced in silence; seen while the stages are loaded, it is an error."""
    os.kill(pipe.pids[1], signal.SIGKILL)
    try:
        pipe.run(X, repeats=1)
    except PipelabError as error:
        assert "Stage 1 (rank 1) was killed by SIGKILL" in str(error)
    assert works(pipe, slow)


def test_stage_that_raises_is_named_with_module_op_and_traceback() -> None:
    traced = pipelab.trace(Lookup().eval(), torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64))
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=3)) as pipe:
        pids = pipe.pids
        bad = torch.tensor([0, 1, 2, 3, 4, 99, 6, 7])
        with pytest.raises(
            StageError, match=r"Stage 1 \(rank 1\) raised IndexError in table \(aten\.embedding\.default\): "
        ) as e:
            pipe.run(torch.zeros(8, 4), bad, num_microbatches=8)
        assert "Traceback" in e.value.remote_traceback
        assert pipe.pids == pids  # the others left the step; nobody had to be ended
        index = torch.arange(8)
        torch.testing.assert_close(pipe(torch.zeros(8, 4), index), traced._model(torch.zeros(8, 4), index))


def test_interrupt_from_another_thread_keeps_the_ranks(pipe: pipelab.Pipeline, slow: pipelab.Trace) -> None:
    pids = pipe.pids
    once_running(pipe, pipe.interrupt)
    with pytest.raises(Cancelled, match="stopped"):
        pipe.run(X, num_microbatches=64, repeats=FOREVER)
    assert pipe.pids == pids
    assert works(pipe, slow)


def test_a_run_of_short_steps_is_stopped_before_its_next_one() -> None:
    traced = pipelab.trace(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).eval(), torch.zeros(2, 4))
    steps: list[int] = []

    def progress(done: int, total: int) -> None:
        steps.append(done)
        if done == 2:
            pipe.interrupt()

    with pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cpu") as pipe:
        pids, pipe.on_progress = pipe.pids, progress
        with pytest.raises(Cancelled, match="the ranks are still there"):
            pipe.run(torch.zeros(2, 4), repeats=FOREVER)
        assert pipe.pids == pids
    assert steps[-1] == 2


def test_second_run_at_the_same_time_is_refused(pipe: pipelab.Pipeline) -> None:
    refused: list[BaseException] = []

    def second() -> None:
        try:
            pipe.run(X)
        except PipelabError as error:
            refused.append(error)
        pipe.interrupt()

    once_running(pipe, second)
    with pytest.raises(Cancelled):
        pipe.run(X, repeats=FOREVER)
    assert "running already" in str(refused[0])


def test_close_from_another_thread_ends_the_run(pipe: pipelab.Pipeline) -> None:
    pids = pipe.pids
    closing = once_running(pipe, pipe.close)
    with pytest.raises(Cancelled):
        pipe.run(X, repeats=FOREVER)
    closing.join()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_stalled_rank_ends_the_run(pipe: pipelab.Pipeline, slow: pipelab.Trace) -> None:
    """A rank that is stopped makes no progress; how long its step takes does not matter."""
    pipe.stall_s = 1.5
    pid = pipe.pids[2]
    once_running(pipe, lambda: os.kill(pid, signal.SIGSTOP))
    with pytest.raises(StageError, match="progress"):
        pipe.run(X, num_microbatches=64, repeats=FOREVER)
    pipe.stall_s = 60.0
    assert works(pipe, slow)


def test_killed_server_is_replaced(pipe: pipelab.Pipeline, slow: pipelab.Trace) -> None:
    before = psutil.Process(client.current_server().pid)
    ranks = [psutil.Process(pid) for pid in pipe.pids]
    before.kill()
    _, alive = psutil.wait_procs(ranks, timeout=10)  # they go with it
    assert not alive
    assert works(pipe, slow)
    assert client.current_server().pid != before.pid


def test_ctrl_c_at_the_end_of_start_leaves_no_ranks(slow: pipelab.Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was heard where start could undo nothing any more, and ranks lived as long as Python remembered the error."""
    pids: list[int] = []
    start = Runner.start

    def interrupted(runner: Runner, num_ranks: int, check: Callable[[], None]) -> None:
        start(runner, num_ranks, check)
        pids.extend(runner.pids)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Runner, "start", interrupted)
    with pytest.raises(KeyboardInterrupt) as remembered:
        pipelab.start(slow, pipelab.uniform(slow, num_stages=2), device="cpu")
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert len(pids) == 2
    assert not psutil.wait_procs(left, timeout=10)[1], remembered


@pytest.mark.skipif(sys.platform != "linux", reason="a signal for the parent's death is Linux's own")
def test_a_rank_whose_server_died_before_it_could_ask_for_the_signal_ends() -> None:
    """Once in a while a rank outlived a server that was killed right after it had forked it."""
    control, other = socket.socketpair()
    sentinel, owner = os.pipe()
    dead_server = 2**22 + 1  # no process has a number so high
    numbers = [str(number) for number in (other.fileno(), sentinel, dead_server)]
    command = [sys.executable, "-m", "pipelab.launch.rank", *numbers]
    rank = subprocess.Popen(command, pass_fds=(other.fileno(), sentinel))  # its owner lives, so it would wait for ever
    assert rank.wait(timeout=60) == 0
    for end in (control, other):
        end.close()
    for descriptor in (sentinel, owner):
        os.close(descriptor)


def test_not_enough_memory_is_an_error_with_the_size() -> None:
    with pytest.raises(LaunchError, match=r"The weights need 1000 TB of memory"):
        Segment.create(10**15, "the weights")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_child_neither_keeps_nor_ends_the_ranks(slow: pipelab.Trace) -> None:
    with pipelab.start(slow, pipelab.uniform(slow, num_stages=3)) as pipe:
        pids = pipe.pids
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        assert works(pipe, slow)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_ranks_started_afresh_where_they_are_not_forked(slow: pipelab.Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    server = client.ServerClient(spawn=True)
    monkeypatch.setattr(client, "_current", server)
    with pipelab.start(slow, pipelab.uniform(slow, num_stages=2)) as pipe, torch.no_grad():
        torch.testing.assert_close(pipe(X), slow._model(X))
        assert all("pipelab.launch.rank" in psutil.Process(pid).cmdline() for pid in pipe.pids)
    server.stop()
