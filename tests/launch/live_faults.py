"""Faults that are done to a living pipeline of this process, at random moments."""

import gc
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import psutil
import torch
from campaign import ROWS, STAGES, Fault, Heavy, Lab, Outcome, deliver, ranks, soon

import pipelab
from pipelab.errors import Cancelled, LaunchError, PipelabError, StageError
from pipelab.launch import client

ENDING = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGTERM)
FOREVER = 10**6
begun = threading.Event()  # what is to be hit is under way
begun.set()


# --- what a pipeline is doing meanwhile ---------------------------------------------------------------


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
        return lambda: (pipe.replan(lab.plans[rng.choice(counts)]), lab.run())[-1]  # type: ignore[func-returns-value]
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


# --- a rank ------------------------------------------------------------------------------------------


def rank_killed(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    what, sig, pick = rng.choice(["call", "run", "load", "replan", "paced"]), rng.choice(ENDING), a_rank(lab, rng)
    victims: list[int] = []

    def act() -> None:
        rank, pid = pick()
        victims.append(rank)
        deliver(sig, pid)

    outcome.story = f"{sig.name} to a rank in {what}"
    error = during(outcome, rng, use(lab, rng, what), act)
    names_death(outcome, error, victims, sig)
    outcome.check(error is not None or what not in ("run", "paced"), "no error")


def rank_killed_idle(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    sig, (rank, pid), waits = rng.choice(ENDING), a_rank(lab, rng)(), rng.random() < 0.5
    outcome.story = f"{sig.name} to rank {rank} while idle" + " and then gone" * waits
    begin_s = time.perf_counter()
    deliver(sig, pid)
    if waits:
        soon(lambda: not psutil.pid_exists(pid))
    try:
        lab.run()
    except StageError as error:
        outcome.detected_s = time.perf_counter() - begin_s
        outcome.check(not waits, "it was seen to be gone; the run should have brought it back")
        names_death(outcome, error, [rank], sig)


def several_killed(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    victims = rng.sample(range(STAGES), rng.randint(2, STAGES))
    what, sig = rng.choice(["call", "run", "load"]), rng.choice(ENDING)
    pids = lab.pipe.pids
    outcome.story = f"{sig.name} to ranks {victims} in {what}"
    error = during(outcome, rng, use(lab, rng, what), lambda: deliver(sig, *(pids[rank] for rank in victims)))
    names_death(outcome, error, victims, sig)


def rank_stopped(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    what, rank = rng.choice(["call", "run", "load", "paced"]), rng.randrange(STAGES)
    pid = lab.pipe.pids[rank]
    outcome.story = f"SIGSTOP to rank {rank} in {what}"
    error = during(outcome, rng, use(lab, rng, what), lambda: deliver(signal.SIGSTOP, pid))
    outcome.check(isinstance(error, StageError), f"no StageError: {error!r}")
    if isinstance(error, StageError):
        outcome.check(error.rank == rank and "is stopped (SIGSTOP" in str(error), f"rank {rank} was stopped: {error}")


def rank_paused(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    """Less than a stall: nothing comes of it."""
    what, rank = rng.choice(["call", "load"]), rng.randrange(STAGES)
    pid = lab.pipe.pids[rank]

    def act() -> None:
        deliver(signal.SIGSTOP, pid)
        time.sleep(0.1)
        deliver(signal.SIGCONT, pid)

    outcome.story = f"SIGSTOP and SIGCONT to rank {rank} in {what}"
    lab.pipe.stall_s = 20.0
    error = during(outcome, rng, use(lab, rng, what), act)
    outcome.check(error is None, f"{error!r}")


def harmless_signal(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    sig = rng.choice([signal.SIGINT, signal.SIGCHLD, signal.SIGWINCH, signal.SIGCONT, signal.SIGPIPE])
    pids = (*lab.pipe.pids, client.current_server().pid)
    outcome.story = f"{sig.name} to all ranks and the server"
    before = lab.pipe.pids
    error = during(outcome, rng, lab.run, lambda: deliver(sig, *pids))
    outcome.check(error is None and lab.pipe.pids == before, f"{error!r}")


def op_raises(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    stages = rng.sample(range(STAGES), rng.choice([1, 1, 1, 2]))
    inputs = [tensor.clone() for tensor in lab.inputs]
    for stage in stages:
        inputs[1 + stage][rng.randrange(ROWS)] = 99
    before = lab.pipe.pids
    count = rng.choice([1, 4, 16])
    outcome.story = f"index out of range in stage {stages}, {count} micro-batches"
    begin_s = time.perf_counter()
    try:
        lab.pipe.run(*inputs, num_microbatches=count, repeats=1)
        outcome.mistakes.append("no error")
    except StageError as error:
        outcome.detected_s = time.perf_counter() - begin_s
        said = f"raised IndexError in tables.{error.rank} (aten.embedding.default)"
        outcome.check(error.rank in stages and said in str(error), f"{error}")
        outcome.check("Traceback" in error.remote_traceback, "no traceback")
        outcome.check(lab.pipe.pids == before, "the ranks were ended")


def rank_without_memory(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    pipe, x = heavy(lab), torch.randn(1280, 64)
    try:
        pipe(x)
        before, rank = pipe.pids, rng.randrange(2)
        used = psutil.Process(pipe.pids[rank]).memory_info().vms
        outcome.story = f"rank {rank} may take no more memory"
        for pid in pipe.pids:
            used = psutil.Process(pid).memory_info().vms
            resource.prlimit(
                pid, resource.RLIMIT_AS, (used + rng.choice([1 << 20, 1 << 23, 1 << 25]), resource.RLIM_INFINITY)
            )
        begin_s = time.perf_counter()
        try:
            pipe(x.repeat(2, 1))
            outcome.mistakes.append("no error")
        except (StageError, LaunchError) as error:
            outcome.detected_s = time.perf_counter() - begin_s
            outcome.story += f": {str(error)[:200]!r}"
            outcome.check("memory" in str(error).lower(), f"{error}")
        for pid in pipe.pids:
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        pipe(x)
        outcome.check(pipe.pids == before, "the ranks were ended")
    finally:
        pipe.close()


_heavy: list[pipelab.Trace] = []


def heavy(lab: Lab) -> pipelab.Pipeline:
    if not _heavy:
        _heavy.append(pipelab.trace(Heavy().eval(), torch.randn(1280, 64)))
    return pipelab.start(_heavy[0], pipelab.uniform(_heavy[0], num_stages=2), device="cpu")


def batch_too_big(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    rows = rng.choice([10**9, 10**10, 10**11])
    before = lab.pipe.pids
    outcome.story = f"{rows} rows"
    begin_s = time.perf_counter()
    try:
        lab.pipe(torch.zeros(1, 64).expand(rows, 64), *(torch.zeros(1, dtype=torch.int64).expand(rows),) * STAGES)
        outcome.mistakes.append("no error")
    except LaunchError as error:
        outcome.detected_s = time.perf_counter() - begin_s
        outcome.check("of memory that ranks share" in str(error), f"{error}")
    outcome.check(lab.pipe.pids == before, "the ranks were ended")


def garbage(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    """What a rank with spoilt memory might send; written to this process's own end as if it were the other's."""
    rank = rng.randrange(STAGES)
    data = rng.choice(
        [b"x", b"garbage " * 100, b"pipelab\0" + b"\xff" * 64, b"pipelab\0" + b"\2" + bytes(15) + b"\x80."]
    )
    pid = lab.pipe.pids[rank]
    theirs = descriptor_of(pid, control_of(pid))
    outcome.story = f"{data[:12]!r} from rank {rank}"

    def act() -> None:
        os.write(theirs, data)

    # Between two calls the ranks are replaced in silence.
    error = during(outcome, rng, use(lab, rng, "call"), act)
    os.close(theirs)
    outcome.check(error is None or "sent what is no message" in str(error), f"{error!r}")


def control_of(pid: int) -> int:
    """The descriptor by which a rank is told what to do: the first of its sockets."""
    links = sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda link: int(link.name))
    return next(int(link.name) for link in links if str(link.readlink()).startswith("socket:"))


def descriptor_of(pid: int, number: int) -> int:
    """A copy of another process's descriptor."""
    import ctypes

    syscall = ctypes.CDLL(None, use_errno=True).syscall
    handle = os.pidfd_open(pid)
    try:
        found = syscall(438, handle, number, 0)
        if found < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        return int(found)
    finally:
        os.close(handle)


# --- the user -----------------------------------------------------------------------------------------


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


# --- the server and the system ------------------------------------------------------------------------


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

    error = during(
        outcome, rng, lambda: pipelab.measure(traced, device="cpu", num_stages=2, microbatch_sizes=(ROWS,)), act
    )  # type: ignore[func-returns-value, arg-type, return-value]
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


def wrong_shape(lab: Lab, rng: random.Random, outcome: Outcome) -> None:
    """Weights that were given another shape after the trace: an op gives what nobody expects."""
    stage = rng.randrange(STAGES)
    rows = rng.choice([1, 32, 65])  # 1 would fit anywhere, wrongly
    outcome.story = f"layer {stage} gives {rows} columns, not 64"
    layer = lab.model.out if stage == STAGES - 1 else lab.model.layers[stage]
    weight, bias = layer.weight.data, layer.bias.data
    begin_s = time.perf_counter()
    try:
        layer.weight.data, layer.bias.data = torch.randn(rows, 64), torch.randn(rows)
        with lab.start() as pipe:
            pipe(*lab.inputs)
        outcome.mistakes.append("no error")
    except PipelabError as error:
        outcome.detected_s = time.perf_counter() - begin_s
        outcome.story += f": {str(error)[:300]!r}"
    finally:
        layer.weight.data, layer.bias.data = weight, bias


# How often each, against the others.
LIVE: dict[str, tuple[float, Fault]] = {
    "rank killed in a run": (20, rank_killed),
    "rank killed while idle": (6, rank_killed_idle),
    "several ranks killed at once": (6, several_killed),
    "rank killed in start": (3, killed_while_starting),
    "rank stopped": (4, rank_stopped),
    "rank paused, then let go on": (4, rank_paused),
    "signals that mean nothing": (3, harmless_signal),
    "op raises": (12, op_raises),
    "op gives a wrong shape": (3, wrong_shape),
    "rank may take no more memory": (3, rank_without_memory),
    "batch larger than the memory": (3, batch_too_big),
    "rank sends garbage": (3, garbage),
    "interrupt()": (6, interrupted),
    "Ctrl-C": (10, ctrl_c),
    "Ctrl-C twice": (3, ctrl_c_twice),
    "closed in a run": (6, closed_meanwhile),
    "closed by its own callback": (3, closed_from_within),
    "callback raises": (3, progress_raises),
    "name rebound": (4, rebound),
    "forgotten": (4, forgotten),
    "fork": (4, forked),
    "one of two pipelines hit": (4, two_pipelines),
    "server killed": (3, server_killed),
    "server stopped": (0.5, server_stopped),
    "unsplit model's rank killed": (3, baseline_hit),
    "measure hit": (1.5, measure_hit),
    "no descriptors left": (4, no_descriptors),
}
