"""A real notebook kernel: models of a cell, errors in words, interrupt and kill."""

from collections.abc import Iterator

import psutil
import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

START = """
import torch, pipelab
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(256, 256) for _ in range(3))
    def forward(self, x):
        for layer in self.layers:
            for _ in range(20):
                x = layer(x).tanh()
        return x
model, x = Net().eval(), torch.randn(256, 256)
traced = pipelab.trace(model, x)
plan = pipelab.uniform(traced, num_stages=3)
pipe = pipelab.start(traced, plan, device="cpu")
from pipelab.launch.client import current_server
"""


class Notebook:
    """Cells run in a kernel."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def send(self, code: str) -> str:
        return str(self.client.execute(code))

    def result(self, sent: str) -> tuple[str, str]:
        """What a cell printed, less what pipelab tells of its progress, and the error it ended with."""
        printed, error = "", ""
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != sent:
                continue
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                printed += content["text"]
            elif message["msg_type"] == "error":
                error = f"{content['ename']}: {content['evalue']}"
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                lines = printed.splitlines(keepends=True)
                return "".join(line for line in lines if not line.startswith("pipelab: ")), error

    def run(self, code: str) -> tuple[str, str]:
        return self.result(self.send(code))

    def wait_for(self, sent: str, text: str) -> None:
        """Wait until a running cell prints this."""
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["msg_type"] == "stream" and text in message["content"]["text"]:
                return


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    manager = KernelManager()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    try:
        yield Notebook(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def processes(notebook: Notebook) -> list[int]:
    """The ranks of the kernel's pipeline, and their server; a kernel that has no pipeline starts one."""
    if notebook.run("pipe")[1]:
        notebook.run(START)
    printed, error = notebook.run("print(*pipe.pids, current_server().pid)")
    assert not error, error
    return [int(pid) for pid in printed.split()]


LONG = "pipe.on_progress = lambda d, t: d == 2 and print('running', flush=True)\npipe.run(x, repeats=10**6)"


def gone(pids: list[int]) -> bool:
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return not psutil.wait_procs(left, timeout=10)[1]


ERRORS = {
    "pipe.run(torch.zeros(4, 7))": "InputError: Input 'x' is (4, 7) float32; Net was traced with (256, 256)",
    "pipe.run(x, num_microbatches=999)": "InputError: num_microbatches must be between 1 and the batch of 256",
    "plan.with_cuts([0])": "SplitError: Position 0 is not a legal cut",
    "pipelab.uniform(traced, num_stages=400)": "SplitError: uniform cannot make 400 stages of Net",
    """
class Branch(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x
pipelab.trace(Branch().eval(), x)""": "TraceError: Branch cannot be traced: it decides by the values of a tensor",
    """
class Mean(torch.nn.Module):
    def forward(self, x):
        return (x * 2).mean()
mean = pipelab.trace(Mean().eval(), x)
with pipelab.start(mean, pipelab.split_at(mean, [1]), device="cpu") as other:
    other.run(x, num_microbatches=2)""": "InputError: 2 micro-batches are not possible: output 0",
    """
from torch import library
@library.custom_op("cell::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2
@double.register_fake
def _(x):
    return torch.empty_like(x)
class Double(torch.nn.Module):
    def forward(self, x):
        return double(x) + 1
doubled = pipelab.trace(Double().eval(), x)
pipelab.start(doubled, pipelab.split_at(doubled, [1]))""": "LaunchError: Operator 'cell.double.default'",
    "import os, signal; os.kill(pipe.pids[1], signal.SIGKILL); pipe.run(x, repeats=1)": "",
}


def test_interrupt_keeps_the_ranks_and_mistakes_are_clear_errors(notebook: Notebook) -> None:
    pids = processes(notebook)
    sent = notebook.send(LONG)
    notebook.wait_for(sent, "running")
    notebook.manager.interrupt_kernel()
    _, error = notebook.result(sent)
    assert error.startswith("KeyboardInterrupt")
    printed, error = notebook.run(
        "pipe.on_progress = None\n"
        "torch.testing.assert_close(pipe.run(x, repeats=1).output, model(x).detach())\n"
        "print(*pipe.pids)"
    )
    assert not error, error
    assert [int(pid) for pid in printed.split()] == pids[:3]
    for code, said in ERRORS.items():
        _, error = notebook.run(code)
        assert said in error, f"{code}\n{error}"
    assert notebook.run("print(pipe.run(x, repeats=1).output.shape)") == ("torch.Size([256, 256])\n", "")


def test_progress_is_no_red_box(notebook: Notebook) -> None:
    """The first thing that a student saw under the first cell was the colour of errors: Jupyter's for stderr."""
    code = "import contextlib, io\nfrom pipelab.progress import tell\n"
    code += "with contextlib.redirect_stdout(io.StringIO()) as told: tell('working')\nprint([told.getvalue()])"
    assert notebook.run(code) == ("['pipelab: working\\n']\n", "")


def test_restarted_kernel_leaves_nothing(notebook: Notebook) -> None:
    pids = processes(notebook)
    notebook.manager.restart_kernel(now=True)
    notebook.client.wait_for_ready(timeout=60)
    assert gone(pids)


def test_kernel_killed_in_a_run_leaves_nothing(notebook: Notebook) -> None:
    pids = processes(notebook)
    notebook.wait_for(notebook.send(LONG), "running")
    notebook.manager.shutdown_kernel(now=True)
    assert gone(pids)
