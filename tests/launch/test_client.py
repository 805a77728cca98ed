"""The kernel's side of the server."""

import os
import signal
import socket
import threading
from pathlib import Path

import psutil
import pytest

from pipelab.errors import LaunchError
from pipelab.launch import client, runner
from pipelab.launch.group import Sentinel
from pipelab.launch.memory import Weights
from pipelab.launch.processes import describe_exit


def nothing() -> None:
    pass


def test_server_that_cannot_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    monkeypatch.syspath_prepend(str(tmp_path))
    server = client.ServerClient(spawn=False)
    with pytest.raises(LaunchError, match="no torch here"):
        server.fork((0, 0), nothing)
    server.stop()
    assert not server.alive


def test_python_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(LaunchError, match="No process can be started with '/nowhere/python'"):
        client.ServerClient(spawn=False)


def test_rank_is_forked_watched_and_killed() -> None:
    server = client.current_server()
    sentinel = Sentinel()
    ours, theirs = socket.socketpair()
    pid = server.fork((theirs.fileno(), sentinel.reader), nothing)
    theirs.close()
    assert os.getsid(pid) == os.getsid(server.pid) != os.getsid(0)  # Jupyter interrupts the kernel's group
    os.kill(pid, signal.SIGINT)  # ignored
    os.kill(pid, signal.SIGKILL)
    assert server.how_ended(pid).startswith("was killed by SIGKILL")
    server.kill([pid])
    assert not psutil.pid_exists(pid)
    ours.close()
    sentinel.close()


@pytest.mark.parametrize("end", ["control", "sentinel"])
def test_rank_ends_when_its_owner_is_gone(end: str) -> None:
    server = client.current_server()
    sentinel = Sentinel()
    ours, theirs = socket.socketpair()
    pid = server.fork((theirs.fileno(), sentinel.reader), nothing)
    theirs.close()
    (ours if end == "control" else sentinel).close()
    assert server.how_ended(pid) == f"ended with exit code {0 if end == 'control' else 1}"
    ours.close()
    sentinel.close()


def test_a_server_that_dies_before_it_has_made_a_rank_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed a moment before `start`, it made that fail, though nothing had been touched."""
    dying = client.ServerClient(spawn=False)
    os.kill(dying.pid, signal.SIGKILL)
    servers = iter([dying])
    monkeypatch.setattr(runner, "current_server", lambda: next(servers, None) or client.current_server())
    weights = Weights({})
    ranks = runner.Runner(weights)
    ranks.start(2, nothing)
    assert len(ranks.pids) == 2
    ranks.close()
    weights.close()
    dying.stop()


def test_there_is_one_server() -> None:
    server = client.current_server()
    assert client.current_server() is server
    assert server.alive


def test_two_threads_get_one_server() -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(client.current_server())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (3, "ended with exit code 3"),
        (-11, "was killed by SIGSEGV"),
        (-9, "was killed by SIGKILL (by hand, or by the system because memory ran out)"),
        (-40, "was killed by signal 40"),
        (None, "ended"),
    ],
)
def test_ends_are_put_in_words(code: int | None, text: str) -> None:
    assert describe_exit(code) == text
