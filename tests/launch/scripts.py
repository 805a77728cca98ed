"""Scripts that tests run as processes of their own, and how to watch them."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]

# Without a `__main__` guard, and with a model class of the script's own.
START = """
import sys, torch, pipelab
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(3))
    def forward(self, x):
        for layer in self.layers:
            for _ in range(LOOPS):
                x = layer(x).tanh()
        return x
LOOPS = int(sys.argv[1])
x = torch.randn(8, 64)
model = Net().eval()
traced = pipelab.trace(model, x)
pipe = pipelab.start(traced, pipelab.uniform(traced, num_stages=3), device="cpu")
print("pids", *pipe.pids, pipelab.launch.client.current_server().pid, flush=True)
"""


class Script:
    """A script that runs; its lines are read as they come.

    Args:
        text: Python source, after `START`.
        loops: How often each layer runs: how long a step takes.
        prefix: A command to run it under.
    """

    def __init__(self, text: str, *, loops: int = 1, prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, sys.executable, "-c", START + text, str(loops)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        # No test hangs: what is silent for two minutes is ended.
        self._timer = threading.Timer(120, self.process.kill)
        self._timer.start()
        self.seen: list[str] = []
        self.pids = [int(pid) for pid in self.line("pids").split()[1:]]

    def line(self, start: str) -> str:
        """The next line that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(line)
            if line.startswith(start):
                return line.strip()
        raise AssertionError(f"no line {start!r} in:\n{self.output}")

    def interrupt(self) -> None:
        """Ctrl-C as Jupyter sends it: to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self) -> None:
        """Wait for its end."""
        assert self.process.stdout is not None
        self.seen += self.process.stdout
        self.process.wait()
        self._timer.cancel()

    @property
    def output(self) -> str:
        """Everything it has printed."""
        return "".join(self.seen)

    def kill(self) -> None:
        """End it without any chance to clean up."""
        self.process.kill()
        self.finish()

    def assert_nothing_left(self) -> None:
        """Ranks and server are gone, or go now."""
        left = [psutil.Process(pid) for pid in self.pids if psutil.pid_exists(pid)]
        _, alive = psutil.wait_procs(left, timeout=10)
        assert not alive, alive
