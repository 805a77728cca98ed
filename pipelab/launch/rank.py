"""One rank, from its first message to its last: take weights and a stage, run steps, end with the controller.

python -m pipelab.launch.rank FD      where ranks are not forked from the server
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from pipelab.launch.channel import Channel, Closed
from pipelab.launch.links import Link
from pipelab.launch.loop import Stage, WholeBatch
from pipelab.launch.memory import Segment
from pipelab.launch.messages import Done, Edge, Hello, Load, Raised, Ready, Step
from pipelab.launch.progress import NUM_BYTES, WAITING, Progress
from pipelab.program import StageModule

_WATCH_MS = 500
_BUSY_SHARE = 0.1
_PR_SET_PDEATHSIG = 1


class Stopped(Exception):
    """The controller asked to leave the step."""


class Rank:
    """A process that holds one stage at a time.

    Args:
        channel: The controller.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.idle_bytes = _resident_bytes()
        hello, (weights, progress) = channel.receive()
        assert isinstance(hello, Hello)
        self.rank = hello.rank
        self._used_ns = 0
        self.progress = Progress(Segment(progress, NUM_BYTES))
        # Private: a model that writes to its buffers writes to its own copy.
        storage = Segment(weights, hello.weight_bytes, private=True).tensor()
        self.weights = {place.spec.name: place.view(storage) for place in hello.weights}
        self.stage: Stage | None = None
        self.step = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def serve(self) -> None:
        """Do what the controller says until it is gone."""
        while True:
            message, descriptors = self.channel.receive()
            answer: Ready | Done | Raised
            try:
                answer = self._load(message, descriptors) if isinstance(message, Load) else self._run(message)
            except Stopped:
                answer = Ready()
            except Exception as error:
                answer = self._raised(error)
            self.progress.set_op(self.rank, WAITING)
            self.channel.send(answer)

    def _load(self, load: Load, descriptors: list[int]) -> Ready:
        if self.stage is not None:
            self.stage.close()
            self.stage = None
        torch.set_num_threads(load.num_threads)
        device = torch.device(load.device)
        names = {name for table in load.tables.values() for name in table.table.weights}
        weights = {name: self.weights[name].to(device) for name in names}
        modules = {size: StageModule(table.table, weights, device) for size, table in load.tables.items()}
        for module in modules.values():
            module.on_op = self._on_op
        split = load.before.num_descriptors
        before = self._end(load.before, descriptors[:split], load.sizes)
        after = self._end(load.after, descriptors[split:], load.sizes)
        self.stage = Stage(self.rank, load.tables, modules, load.sizes, before, after, device)
        return Ready()

    def _end(self, edge: Edge, descriptors: list[int], sizes: tuple[int, ...]) -> Link | WholeBatch:
        segment = Segment(descriptors[-1], edge.num_bytes)
        if edge.is_link:
            return Link(socket.socket(fileno=descriptors[0]), segment, self._check)
        storage = segment.tensor()
        segment.close()
        return WholeBatch(edge, storage, sizes)

    def _run(self, step: Step) -> Done:
        assert self.stage is not None
        self.step = step.number
        for module in self.stage.modules.values():
            module.current = None
        with torch.inference_mode(), _peak_memory(self.idle_bytes, self.stage.device) as peak:
            events = self.stage.run(step.number)
        return Done(events, peak())

    def _on_op(self, index: int) -> None:
        self.progress.set_op(self.rank, index)
        self._check()

    def _check(self) -> None:
        if self.progress.is_stopped(self.step):
            raise Stopped

    def _raised(self, error: Exception) -> Raised:
        modules = self.stage.modules.values() if self.stage else ()
        row = next((module.current for module in modules if module.current is not None), None)
        return Raised(
            module=row.module if row else "",
            target=row.target if row else "",
            error=f"{type(error).__name__}: {error}",
            traceback="".join(traceback.format_exception(error)),
        )

    def _watch(self) -> None:
        """End with the controller, whatever the main thread does; publish processor time meanwhile."""
        poll = select.poll()
        poll.register(self.channel, 0)  # only its end is of interest
        while not poll.poll(_WATCH_MS):
            # Waiting costs a little too; only real work counts as progress.
            used_ns = time.process_time_ns()
            if used_ns - self._used_ns > _BUSY_SHARE * _WATCH_MS * 1e6:
                self.progress.set_cpu_ns(self.rank, used_ns)
            self._used_ns = used_ns
        os._exit(0)


@contextlib.contextmanager
def _peak_memory(idle_bytes: int, device: torch.device) -> Iterator[Callable[[], int]]:
    """Measures the most memory inside the block, beyond what an idle rank has."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
        return
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")  # the high-water mark starts anew
    yield lambda: max(_peak_resident_bytes() - idle_bytes, 0)


def _status_bytes(field: str) -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _resident_bytes() -> int:
    return _status_bytes("VmRSS") or _peak_resident_bytes()


def _peak_resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _end_with_parent() -> None:
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


def main(descriptor: int) -> None:
    """Be a rank for the controller at the other end of the descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    with contextlib.suppress(Closed):
        Rank(Channel(socket.socket(fileno=descriptor))).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
