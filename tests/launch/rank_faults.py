"""Faults of a rank: it is killed or stopped, its op raises, its memory or its messages are bad."""

import os
import random
import resource
import signal
import time
from pathlib import Path

import psutil
import torch
from campaign import ROWS, STAGES, Lab, Outcome, deliver, soon
from meanwhile import ENDING, a_rank, during, heavy, names_death, use

from pipelab.errors import LaunchError, PipelabError, StageError
from pipelab.launch import client


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
