"""Makes processes that have pipelab, a model and its trace already: `python zygote.py <socket>`, for `Script`.

Each is forked, leads a session of its own as under a terminal or a notebook, runs the text it is given as its main
module, and ends as any Python process does.
"""

import os
import signal
import socket
import sys

import torch

import pipelab
from pipelab.launch.channel import Channel, Gone

torch.set_num_threads(1)  # a fork copies no threads


class Net(torch.nn.Module):
    """As long as `loops` makes it."""

    loops = 1

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            for _ in range(self.loops):
                x = layer(x).tanh()
        return x


def main(descriptor: int) -> str:
    """Fork until nobody asks any more; in a child, the text to run."""
    channel = Channel(socket.socket(fileno=descriptor))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    try:
        while True:
            text, (output,) = channel.receive()
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.setsid()
                os.dup2(output, 1)
                os.dup2(output, 2)
                os.close(output)
                return str(text)
            os.close(output)
            channel.send(pid)
    except Gone:
        sys.exit()


if __name__ == "__main__":
    torch.manual_seed(0)
    x = torch.randn(8, 64)
    model = Net().eval()
    traced = pipelab.trace(model, x)
    Net.loops = 50
    longer = pipelab.trace(model, x)
    Net.loops = 1
    exec(compile(main(int(sys.argv[1])), "script", "exec"))
