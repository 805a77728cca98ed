"""Faults of the server, of what is measured beside a pipeline, and of the system's limits."""

import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import psutil
import torch
from campaign import ROWS, Lab, Outcome, deliver, ranks, soon
from meanwhile import ENDING, during, names_death, use

import pipelab
from pipelab.errors import PipelabError
from pipelab.launch import client


def server_killed(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    what = rng.choice(["idle", "call", "run", "load", "replan", "start"])
    outcome.story = f"server killed in {what}"
    server = client.current_server().pid

    def act() -> None:
        deliver(signal.SIGKILL, server)

    error = None
    if what == "idle":
        act()
    else:
        work = use(lab, rng, what) if what != "start" else lambda: lab.start().close()
        error = during(outcome, rng, work, act)
    soon(lambda: not psutil.pid_exists(server) or not lab.pipe.pids)  # while it dies, the next run may meet it
    said = ("the process that starts ranks", "was killed by SIGKILL", "ended as soon as")
    outcome.check(error is None or any(words in str(error).lower() for words in map(str.lower, said)), f"{error!r}")


def server_stopped(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    server = client.current_server().pid
    what = rng.choice(["replan", "close", "rank killed"])
    outcome.story = f"server stopped, then {what}"
    begin_s = time.perf_counter()
    deliver(signal.SIGSTOP, server)
    before = lab.pipe.pids
    try:
        if what == "close":
            lab.pipe.close()
        elif what == "replan":
            lab.pipe.replan(lab.plans[2])
        else:
            deliver(signal.SIGKILL, before[0])
            lab.run()
    except PipelabError as error:
        outcome.story += f": {str(error)[:160]!r}"
        outcome.detected_s = time.perf_counter() - begin_s
    outcome.check(soon(lambda: not any(psutil.pid_exists(pid) for pid in before)) or what == "replan", "ranks live")


def killed_while_starting(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    """As soon as it is there: before, while or after it hears of the weights."""
    outcome.story = "SIGKILL to a rank in start"
    fork, wait_s = client.ServerClient.fork, rng.choice([0, rng.uniform(0, 5e-3)])
    made: list[int] = []
    is_made = threading.Event()

    def forked(server: client.ServerClient, descriptors: Sequence[int], check: Callable[[], None]) -> int:
        made.append(fork(server, descriptors, check))
        is_made.set()
        time.sleep(2e-3)  # the other thread's turn
        return made[-1]

    def act() -> None:
        is_made.wait(10)
        time.sleep(wait_s)
        deliver(signal.SIGKILL, *made[:1])

    pipes: list[pipelab.Pipeline] = []

    def work() -> None:
        pipes.append(lab.start())
        lab.run(pipe=pipes[-1])

    with patch.object(client.ServerClient, "fork", forked):
        error = during(outcome, rng, work, act, within_s=0.001)
    outcome.check(
        error is None or "was killed by SIGKILL" in str(error) or "ended as soon as" in str(error), f"{error!r}"
    )
    for pipe in pipes:
        lab.run(pipe=pipe)
        pipe.close()


def baseline_hit(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    """The process that runs the unsplit model: the run has its output all the same."""
    pipe = lab.start()
    lab.run(pipe=pipe)
    known = ranks()
    sig = rng.choice(ENDING)
    outcome.story = f"{sig.name} to the unsplit model's rank"
    done = threading.Event()

    def act() -> None:
        while not (fresh := ranks() - known) and not done.is_set():
            time.sleep(1e-3)
        time.sleep(rng.uniform(0, 0.02))
        deliver(sig, *fresh)

    thread = threading.Thread(target=act)
    thread.start()
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = pipe.run(*lab.inputs, num_microbatches=2, repeats=1)
    pipe.close()
    done.set()
    thread.join()
    torch.testing.assert_close(report.output, lab.expected)
    said = [str(warning.message) for warning in caught]
    outcome.story += f": {said}"
    said.append(report.no_baseline or "")
    ok = report.baseline_s is not None or any(
        "was killed by" in text or "as soon as" in text or "busy" in text for text in said
    )
    outcome.check(ok, f"{said}")


def measure_hit(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    how = rng.choice(["SIGKILL", "SIGINT"])
    known = ranks()
    outcome.story = f"{how} in measure"
    traced = pipelab.trace(lab.model, *lab.inputs)

    def act() -> None:
        end_s = time.monotonic() + 20
        while not ranks() - known and time.monotonic() < end_s:
            time.sleep(1e-3)
        time.sleep(rng.uniform(0, 0.3))
        if how == "SIGINT":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            deliver(signal.SIGKILL, *list(ranks() - known)[:1])

    def measure() -> None:
        pipelab.measure(traced, device="cpu", num_stages=2, microbatch_sizes=(ROWS,))

    error = during(outcome, rng, measure, act)
    if how == "SIGINT":
        outcome.check(isinstance(error, KeyboardInterrupt), f"{error!r}")
    elif error is not None:
        names_death(outcome, error, [0, 1], signal.SIGKILL)


def no_descriptors(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    """This process may open only so many more."""
    more, what = rng.randint(0, 12), rng.choice(["start", "load", "replan"])
    outcome.story = f"{more} descriptors free, {what}"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + more, hard))
    begin_s = time.perf_counter()
    try:
        if what == "start":
            lab.start().close()
        elif what == "load":
            lab.run(rng.randint(1, ROWS - 1))
        else:
            lab.pipe.replan(lab.plans[2])
            lab.run()
    except PipelabError as error:
        outcome.detected_s = time.perf_counter() - begin_s
        outcome.story += f": {str(error)[:200]!r}"
        outcome.check("Too many open files" in str(error), f"{error}")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
