"""A campaign of faults: what is looked at after each of them, and how one that hangs is told.

`live_faults.py` holds those in this process, `script_faults.py` those of a whole process. Each fault has random numbers
of its own, drawn from the seed and its number, so that a single one can be replayed.
"""

import faulthandler
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

import pipelab
from pipelab.launch import client

HANG_S = 60.0
GONE_S = 15.0
ROWS = 16
STAGES = 3
MARK = "PIPELAB_CAMPAIGN"


class Net(nn.Module):
    """A lookup in every third, which raises where an index is out of range; many ops, so that it can be hit in one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(STAGES))
        self.out = nn.Linear(64, 64)
        self.tables = nn.ModuleList(nn.Embedding(8, 64) for _ in range(STAGES))

    def forward(self, x: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        for layer, table, index in zip(self.layers, self.tables, (first, second, third), strict=True):
            x = x + table(index)
            for _ in range(10):
                x = layer(x).tanh()
        return self.out(x)


class Heavy(nn.Module):
    """Single ops that are long and need much memory."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        wide = x.repeat(1, 20)  # 1280
        return self.last((wide.t() @ wide @ wide.t())[:64].t() * 1e-3)


@dataclass
class Outcome:
    """What became of one fault.

    Attributes:
        kind: Of the fault.
        number: Which one.
        story: What was done, and what came.
        detected_s: From the fault to the error that tells of it; None where none is due.
        healed_s: How long the next run took, with new ranks where they are needed.
        mistakes: What should not have been.
    """

    kind: str
    number: int
    story: str = ""
    detected_s: float | None = None
    healed_s: float | None = None
    mistakes: list[str] = field(default_factory=list)

    def check(self, holds: bool, otherwise: str) -> None:
        """Note a mistake unless something holds."""
        if not holds:
            self.mistakes.append(otherwise)


class Lab:
    """A pipeline that faults are done to, and what is known of it.

    Args:
        seed: Of the weights and the inputs.
    """

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = Net().eval()
        self.inputs = (torch.randn(ROWS, 64), *(torch.arange(ROWS) % 8 for _ in range(STAGES)))
        self.traced = pipelab.trace(self.model, *self.inputs)
        self.plans = {count: pipelab.uniform(self.traced, num_stages=count) for count in (1, 2, STAGES)}
        with torch.no_grad():
            self.expected = self.model(*self.inputs)
        self.pipe = self.start()
        self.run()
        self.descriptors = num_descriptors()

    def start(self) -> pipelab.Pipeline:
        """A pipeline of this model."""
        pipe = pipelab.start(self.traced, self.plans[STAGES], device="cpu")
        pipe.stall_s = 0.6
        return pipe

    def rows(self, count: int) -> tuple[Tensor, ...]:
        """The first rows of the inputs."""
        return tuple(tensor[:count] for tensor in self.inputs)

    def run(self, count: int = ROWS, pipe: pipelab.Pipeline | None = None) -> None:
        """Compute some rows, and compare."""
        output = (pipe or self.pipe)(*self.rows(count))
        torch.testing.assert_close(output, self.expected[:count])

    def suffer(self, fault: "Fault", rng: random.Random, outcome: Outcome) -> None:
        """A fault, and what must hold after it."""
        fault(self, rng, outcome)
        self.examine(outcome)

    def examine(self, outcome: Outcome) -> None:
        """What must hold after every fault."""
        self.pipe.on_progress, self.pipe.stall_s = None, 0.6
        if self.pipe._turns.is_closed:
            self.pipe = self.start()
        begin_s = time.perf_counter()
        try:
            if len(self.pipe.plan.cuts) != STAGES - 1:
                self.pipe.replan(self.plans[STAGES])
            self.run()
        except (AssertionError, Exception) as error:
            outcome.mistakes.append(f"the next run: {type(error).__name__}: {error}")
            with suppress(Exception):
                self.pipe.close()
            self.pipe = self.start()
            return
        outcome.healed_s = time.perf_counter() - begin_s
        outcome.check(soon(lambda: ranks() == set(self.pipe.pids)), f"ranks {ranks()}, not {self.pipe.pids}")
        outcome.check(
            soon(lambda: num_descriptors() == self.descriptors),
            f"{num_descriptors()} descriptors, not {self.descriptors}",
        )
        self.descriptors = num_descriptors()


def num_descriptors() -> int:
    """Of this process."""
    return psutil.Process().num_fds()


def servers() -> list[psutil.Process]:
    """Of this process."""
    return [child for child in psutil.Process().children() if is_of(child, "pipelab.launch.server")]


def is_of(process: psutil.Process, module: str) -> bool:
    """Whether a process runs a module."""
    with suppress(psutil.Error):
        return module in process.cmdline()
    return False


def ranks() -> set[int]:
    """All that live, of any pipeline of this process."""
    found = set()
    server = client._current
    if server is not None and server.alive:
        for child in psutil.Process(server.pid).children():
            with suppress(psutil.Error):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.add(child.pid)
    return found


def soon(holds: Callable[[], bool], within_s: float = GONE_S) -> bool:
    """Whether something comes to hold."""
    end_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.002)
    return True


Fault = Callable[[Lab, random.Random, Outcome], None]


class Campaign:
    """Faults one after another, each with a time in which it must be over.

    Args:
        seed: All randomness follows from it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.outcomes: list[Outcome] = []

    def do(self, number: int, kind: str, fault: Callable[[random.Random, Outcome], None]) -> Outcome:
        """One fault."""
        outcome = Outcome(kind, number)
        rng = random.Random(f"{self.seed}:{number}")
        timer = threading.Timer(HANG_S, self._hangs, (outcome,))
        timer.daemon = True
        timer.start()
        try:
            fault(rng, outcome)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            outcome.mistakes.append(f"{type(error).__name__}: {error}")
        finally:
            timer.cancel()
        self.outcomes.append(outcome)
        return outcome

    def _hangs(self, outcome: Outcome) -> None:
        outcome.mistakes.append("it hung")
        print(f"HANG: {outcome}", file=sys.stderr)
        faulthandler.dump_traceback(all_threads=True)
        for process in marked():
            if process.pid != os.getpid():
                with suppress(psutil.Error):
                    wchan = Path(f"/proc/{process.pid}/wchan").read_text()
                    print(process.pid, process.status(), wchan, process.cmdline()[:4], file=sys.stderr)
                    process.kill()


def marked() -> list[psutil.Process]:
    """Every process that this campaign has caused."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.environ[MARK].encode() in Path(f"/proc/{process.pid}/environ").read_bytes():
                found.append(process)
    return found


def shared_memory() -> list[str]:
    """Segments that a marked process still maps or holds open."""
    found = []
    for process in [*marked(), psutil.Process()]:
        with suppress(OSError):
            lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            found += [f"{process.pid}: {line}" for line in lines if "memfd:pipelab" in line]
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    if "memfd:pipelab" in str(link.readlink()):
                        found.append(f"{process.pid}: {link.readlink()}")
    return found


def sockets() -> list[str]:
    """Sockets with a name, or that listen, of marked processes."""
    found = []
    for process in [*marked(), psutil.Process()]:
        with suppress(psutil.Error):
            for connection in process.net_connections("all"):
                if connection.status == psutil.CONN_LISTEN or (isinstance(connection.laddr, str) and connection.laddr):
                    found.append(f"{process.pid}: {connection.laddr}")
    return found


def names_in(folder: str) -> set[str]:
    """What lies there."""
    return {path.name for path in Path(folder).iterdir()}


@contextmanager
def clean_room() -> Iterator[Callable[[], dict[str, list[str]]]]:
    """A place in which everything left over is found; gives a function that says what is left."""
    before = {key: os.environ.get(key) for key in (MARK, "TMPDIR")}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The machine is busy")
        os.environ.update({MARK: uuid.uuid4().hex, "TMPDIR": folder})
        tempfile.tempdir = None
        client._stop()  # the next server has the mark
        client._forget()
        names = names_in("/dev/shm")

        def left() -> dict[str, list[str]]:
            client._stop()
            client._forget()
            own = os.getpid()
            soon(lambda: all(process.pid == own for process in marked()))
            return {
                "orphans": [str(process) for process in marked() if process.pid != own],
                "segments": shared_memory() + sorted(n for n in names_in("/dev/shm") - names if "pipelab" in n),
                "sockets": sockets(),
                "files": [name for name in names_in(folder) if not name.startswith("torchinductor")],  # torch's cache
            }

        try:
            yield left
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value
            tempfile.tempdir = None
            client._stop()
            client._forget()


def deliver(sig: signal.Signals, *pids: int) -> None:
    """Send a signal; who is gone already is gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, sig)


def drawn(seed: int, number: int, kinds: dict[str, float]) -> str:
    """The kind of a fault."""
    return random.Random(f"{seed}:{number}:kind").choices(list(kinds), list(kinds.values()))[0]
