"""What a pipeline is doing when a fault comes, and what the error must say."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from campaign import ROWS, STAGES, Heavy, Lab, Outcome

import pipelab
from pipelab.errors import PipelabError, StageError

ENDING = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGTERM)
FOREVER = 10**6
begun = threading.Event()  # what is to be hit is under way
begun.set()


def use(lab: Lab, rng: random.Random, what: str) -> Callable[[], None]:
    """One round of something; calls of it follow each other."""
    pipe = lab.pipe
    if what in ("run", "paced"):
        begun.clear()
    if what == "call":
        return lab.run
    if what == "load":  # another size of micro-batch each time
        return lambda: lab.run(rng.randint(1, ROWS))
    if what == "replan":
        counts = [count for count in lab.plans for _ in range(2)]

        def replan() -> None:
            pipe.replan(lab.plans[rng.choice(counts)])
            lab.run()

        return replan
    pace = (
        pipelab.simulate(lab.plans[STAGES], num_microbatches=4, hardware="h100-80gb").slowed(1e4)
        if what == "paced"
        else None
    )

    def run() -> None:
        end_s = time.monotonic() + 20

        def progress(done: int, total: int) -> None:
            begun.set()
            if time.monotonic() > end_s:
                pipe.interrupt()

        pipe.on_progress = progress
        pipe.run(*lab.inputs, num_microbatches=4, repeats=FOREVER, pace=pace)

    return run


@contextmanager
def one_ctrl_c() -> Iterator[None]:
    """A block in which Ctrl-C is raised once: a second one may come when all is over."""
    is_due = [True]

    def handle(*_: object) -> None:
        if is_due:
            is_due.clear()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        is_due.clear()
        signal.signal(signal.SIGINT, before)


def during(
    outcome: Outcome, rng: random.Random, work: Callable[[], None], act: Callable[[], None], within_s: float = 0.03
) -> BaseException | None:
    """Work in this thread while another one acts at a random moment; the error, if one came, and when."""
    acted: list[float] = []
    delay_s = rng.uniform(0, within_s)

    def later() -> None:
        begun.wait(20)
        time.sleep(delay_s)
        now_s = time.perf_counter()
        act()
        acted.append(now_s)

    thread = threading.Thread(target=later, daemon=True)
    error: BaseException | None = None
    came_s = 0.0
    with one_ctrl_c():
        try:
            thread.start()
            while error is None:
                was_done = bool(acted)
                try:
                    work()
                except PipelabError as caught:
                    error, came_s = caught, time.perf_counter()
                if was_done:
                    break
        except KeyboardInterrupt as caught:
            error, came_s = caught, time.perf_counter()
        thread.join()
        time.sleep(1e-3)
    begun.set()
    if error is not None:
        error.__traceback__ = None  # it holds this frame, and that holds what works with the pipeline
        outcome.detected_s = came_s - acted[0]
    outcome.story += f" after {delay_s * 1e3:.0f} ms: {str(error)[:160]!r}" if error else ": nobody noticed"
    return error


def names_death(outcome: Outcome, error: BaseException | None, victims: list[int], sig: signal.Signals) -> None:
    """The error, if one came, is of this death."""
    if error is None:
        return
    if isinstance(error, StageError):
        outcome.check(error.rank in victims, f"rank {error.rank} was blamed, not {victims}: {error}")
        outcome.check(f"was killed by {sig.name}" in str(error), f"not {sig.name}: {error}")
    else:
        outcome.check("ended as soon as it was started" in str(error), f"what is that? {error!r}")


def a_rank(lab: Lab, rng: random.Random) -> Callable[[], tuple[int, int]]:
    """A function that picks a rank that is there at that moment: its number and its process."""
    share = rng.random()

    def pick() -> tuple[int, int]:
        end_s = time.monotonic() + 10
        while not (pids := lab.pipe.pids):
            assert time.monotonic() < end_s
        rank = int(share * len(pids))
        return rank, pids[rank]

    return pick


_heavy: list[pipelab.Trace] = []


def heavy(lab: Lab) -> pipelab.Pipeline:
    if not _heavy:
        _heavy.append(pipelab.trace(Heavy().eval(), torch.randn(1280, 64)))
    return pipelab.start(_heavy[0], pipelab.uniform(_heavy[0], num_stages=2), device="cpu")
