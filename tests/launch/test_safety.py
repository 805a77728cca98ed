"""What an attacker, or a careless folder, finds no hold on: sockets, descriptors, names, pickles, the import path."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

import pipelab
from pipelab.launch import client

ROOT = Path(__file__).resolve().parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture(scope="module")
def pipe() -> Iterator[pipelab.Pipeline]:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))).eval()
    traced = pipelab.trace(model, torch.zeros(2, 4))
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=3), device="cpu") as pipe:
        pipe(torch.zeros(2, 4))
        yield pipe


def test_no_process_listens_or_has_a_socket_with_a_name(pipe: pipelab.Pipeline) -> None:
    for pid in (*pipe.pids, client.current_server().pid):
        for connection in psutil.Process(pid).net_connections("all"):
            assert connection.status != psutil.CONN_LISTEN
            assert not connection.laddr


@linux
def test_ranks_hold_what_they_were_given_and_nothing_else(pipe: pipelab.Pipeline) -> None:
    """Neither another rank's control socket nor the server's; memory without a name, and one sentinel."""
    controls = []
    for pid in pipe.pids:
        links = {link.name: str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        rest = [link for number, link in links.items() if int(number) > 2]
        kinds = sorted(re.sub(r"[^a-z].*", "", link.lstrip("/")) for link in rest)
        assert set(kinds) <= {"memfd", "pipe", "socket"}, rest
        assert kinds.count("pipe") == 1
        controls += [link for link in rest if link.startswith("socket")]
    server = {str(link.readlink()) for link in Path(f"/proc/{client.current_server().pid}/fd").iterdir()}
    assert not server & set(controls)
    assert len(controls) == len(set(controls))


@linux
def test_shared_memory_has_no_name(pipe: pipelab.Pipeline) -> None:
    for pid in pipe.pids:
        shared = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if " rw-s " in line]
        assert shared
        assert all(line.endswith("(deleted)") for line in shared)


def test_only_the_channel_unpickles() -> None:
    """It reads from processes of our own alone; a file is read by torch's own reader of nothing but weights."""
    texts = {path.name: path.read_text() for path in (ROOT / "pipelab").rglob("*.py")}
    unpickles = {
        name for name, text in texts.items() if re.search(r"pickle\.load|import pickle|marshal\.|shelve\.", text)
    }
    assert unpickles == {"channel.py"}
    reads = {name: re.findall(r"torch\.load\(.*", text) for name, text in texts.items()}
    assert [name for name, found in reads.items() if found] == ["tensor_files.py"]
    assert all("weights_only=True" in line for line in reads["tensor_files.py"])


def test_modules_of_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    """A notebook beside a file `queue.py` starts its ranks all the same, and does not run that file."""
    for name in ("queue", "pickle", "torch", "pipelab"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w').close()\nraise ImportError('of the folder')")
    text = (
        "import os, socket, sys; os.chdir(sys.argv[1])\n"
        "from pipelab.launch.client import current_server\n"
        "ours, theirs = socket.socketpair()\n"
        "reader, writer = os.pipe()\n"
        "print(current_server().fork((theirs.fileno(), reader), lambda: None) > 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", text, str(tmp_path)]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout
    assert printed.split() == ["True"]
    assert not (tmp_path / "imported").exists()
