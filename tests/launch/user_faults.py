"""What the user does to a pipeline at work: interrupts it, closes it, rebinds its name, forks."""

import gc
import os
import random
import signal
import threading
import time
from contextlib import suppress

import torch
from campaign import ROWS, STAGES, Lab, Outcome, deliver, ranks, soon
from meanwhile import FOREVER, a_rank, during, heavy, names_death, use

from pipelab.errors import Cancelled, LaunchError, StageError


def interrupted(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    what = rng.choice(["run", "paced"])
    before = lab.pipe.pids
    outcome.story = f"interrupt() in {what}"
    # One that comes before the run begins is forgotten: it is of no run.
    error = during(outcome, rng, use(lab, rng, what), lab.pipe.interrupt)
    outcome.check(isinstance(error, Cancelled), f"{error!r}")
    outcome.check(lab.pipe.pids == before, "the ranks were ended")


def ctrl_c(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    what = rng.choice(["call", "run", "load", "replan", "paced", "start"])
    before = lab.pipe.pids
    outcome.story = f"Ctrl-C in {what}"
    work = use(lab, rng, what) if what != "start" else lambda: lab.start().close()
    error = during(outcome, rng, work, lambda: os.kill(os.getpid(), signal.SIGINT))
    outcome.check(isinstance(error, KeyboardInterrupt), f"{error!r}")
    outcome.check(what in ("replan",) or lab.pipe.pids == before, "the ranks were ended")


def ctrl_c_twice(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    """In the middle of an op that takes seconds."""
    pipe = heavy(lab)
    pids = pipe.pids
    x = torch.randn(1280, 64).repeat(8, 1)
    outcome.story = "Ctrl-C twice in a long op"

    def act() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    try:
        error = during(outcome, rng, lambda: pipe(x), act, within_s=0.2)
        outcome.check(isinstance(error, KeyboardInterrupt), f"{error!r}")
        outcome.check(not set(pids) & ranks() or pipe.pids == pids, f"{pids} live")
        pipe(x[:64])
    finally:
        pipe.close()


def closed_meanwhile(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    what, times = rng.choice(["call", "run", "load", "paced"]), rng.choice([1, 2])
    outcome.story = f"close {times} times in {what}"
    pids, pipe = lab.pipe.pids, lab.pipe

    def close() -> None:
        for _ in range(times):
            pipe.close()

    error = during(outcome, rng, use(lab, rng, what), close)
    outcome.check(
        isinstance(error, Cancelled) or (isinstance(error, LaunchError) and "is closed" in str(error)), f"{error!r}"
    )
    outcome.check(soon(lambda: not set(pids) & ranks()), "ranks live")


def closed_from_within(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    pipe, at = lab.pipe, rng.randint(1, 5)
    outcome.story = f"close from on_progress, step {at}"
    pipe.on_progress = lambda done, total: pipe.close() if done == at else None
    begin_s = time.perf_counter()
    try:
        pipe.run(*lab.inputs, repeats=FOREVER)
        outcome.mistakes.append("no error")
    except Cancelled:
        outcome.detected_s = time.perf_counter() - begin_s


def progress_raises(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    before, at = lab.pipe.pids, rng.randint(0, 5)
    outcome.story = f"on_progress raises, step {at}"

    def progress(done: int, total: int) -> None:
        if done == at:
            raise ValueError("mine")

    lab.pipe.on_progress = progress
    with suppress(ValueError):
        lab.pipe.run(*lab.inputs, repeats=FOREVER)
    outcome.check(lab.pipe.pids == before, "the ranks were ended")


def rebound(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    """`pipe = start(...)` once more; perhaps after an error, which Python remembers with its frames."""
    how = rng.choice(["plain", "after an error", "after Ctrl-C"])
    outcome.story = f"name rebound {how}"
    before, remembered = lab.pipe.pids, None
    if how == "after an error":
        try:
            lab.pipe(lab.inputs[0], *(torch.full((ROWS,), 99) for _ in range(STAGES)))
        except StageError as error:
            remembered = error
    elif how == "after Ctrl-C":
        try:
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
            lab.pipe.run(*lab.inputs, repeats=FOREVER)
        except KeyboardInterrupt as error:
            remembered = error
    lab.pipe = lab.start()
    outcome.check(soon(lambda: not set(before) & ranks()), f"the old ranks live: {before}")
    del remembered


def forgotten(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    cycle = rng.random() < 0.5
    pipe = lab.start()
    if rng.random() < 0.5:
        lab.run(pipe=pipe)
    pids = pipe.pids
    if cycle:
        vars(pipe)["itself"] = pipe
    outcome.story = "del" + " of a cycle" * cycle
    del pipe
    if cycle:
        gc.collect()
    outcome.check(soon(lambda: not set(pids) & ranks()), "ranks live")


def forked(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    lives = rng.random() < 0.5
    outcome.story = "fork, child " + ("lives on while the parent closes" if lives else "ends")
    child = os.fork()
    if child == 0:
        if lives:
            signal.pause()
        os._exit(0)
    try:
        if not lives:
            os.waitpid(child, 0)
        lab.run()
        if lives:
            pids = lab.pipe.pids
            lab.pipe.close()
            outcome.check(soon(lambda: not set(pids) & ranks()), "ranks live")
    finally:
        if lives:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def two_pipelines(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    other = lab.start()
    try:
        lab.run(pipe=other)
        rank, pid = a_rank(lab, rng)()
        outcome.story = f"SIGKILL to rank {rank} of one of two"
        stop = threading.Event()
        mistakes: list[str] = []

        def run_other() -> None:
            while not stop.is_set():
                try:
                    lab.run(pipe=other)
                except Exception as error:
                    mistakes.append(f"the other: {error}")
                    return

        thread = threading.Thread(target=run_other)
        thread.start()
        error = during(outcome, rng, use(lab, rng, "run"), lambda: deliver(signal.SIGKILL, pid))
        lab.run()
        stop.set()
        thread.join()
        names_death(outcome, error, [rank], signal.SIGKILL)
        outcome.mistakes += mistakes
    finally:
        other.close()
