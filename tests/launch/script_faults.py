"""Faults of a whole process, the kernel or a script: it is killed, ends without closing, is interrupted."""

import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from campaign import GONE_S, Outcome, soon

from pipelab.launch.channel import Channel

HERE = Path(__file__).resolve().parent

START = "import os, sys, time, threading, signal\n"
PIPE = """
pipe = pipelab.start(traced, pipelab.uniform(traced, num_stages=3), device="cpu")
torch.testing.assert_close(pipe(x), model(x))
"""
# What it is doing when it is hit; a line says when it has begun.
DOING = {
    "idle": PIPE + "print('go', flush=True)\ntime.sleep(600)",
    "computing": PIPE
    + "pipe.on_progress = lambda d, t: d == 1 and print('go', flush=True)\npipe.run(x, repeats=10**6)",
    "computing in a thread": PIPE
    + "pipe.on_progress = lambda d, t: d == 1 and print('go', flush=True)\n"
    + "threading.Thread(target=pipe.run, args=(x,), kwargs={'repeats': 10**6}).start()\ntime.sleep(600)",
    "waiting in a paced run": PIPE
    + "pace = pipelab.simulate(pipe.plan, hardware='h100-80gb').slowed(1e6)\nprint('go', flush=True)\n"
    + "pipe.run(x, repeats=10**6, pace=pace)",
    "starting": "print('go', flush=True)\n" + PIPE + "time.sleep(600)",
    "replanning": PIPE
    + "plans = [pipelab.uniform(traced, num_stages=n) for n in (1, 2, 3)]\nprint('go', flush=True)\n"
    + "while True:\n    for plan in plans:\n        pipe.replan(plan)\n        pipe(x)",
    "measuring": "print('go', flush=True)\npipelab.measure(traced, device='cpu')\n" + PIPE + "time.sleep(600)",
}
# How it ends by itself.
ENDING = {
    "at its end": "",
    "sys.exit": "sys.exit(3)",
    "an exception": "raise ValueError('mine')",
    "os._exit": "os._exit(0)",
    "exec": "os.execv(sys.executable, [sys.executable, '-c', ''])",
    "at its end, a daemon thread running": "begun = threading.Event()\n"
    "pipe.on_progress = lambda d, t: d == 1 and begun.set()\n"
    "threading.Thread(target=pipe.run, args=(x,), kwargs={'repeats': 10**6}, daemon=True).start()\nbegun.wait()",
    "after a forked child has ended as it does": "pid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\n"
    "    torch.testing.assert_close(pipe(x), model(x))\n    print('right', flush=True)",
    "os._exit in a thread": "threading.Thread(target=os._exit, args=(0,)).start(); time.sleep(600)",
}
INTERRUPTED = (
    PIPE
    + """
pids = pipe.pids
LONG
try:
    print('go', flush=True)
    pipe.run(x, repeats=10**6)
except KeyboardInterrupt:
    print('interrupted', flush=True)
pipe.on_progress = None
torch.testing.assert_close(pipe(x), model(x))
print('right', pids == pipe.pids, flush=True)
"""
)


class Zygote:
    """Where scripts come from."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py"), str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        )
        theirs.close()
        self._channel = Channel(ours)
        self._lock = threading.Lock()

    def fork(self, text: str, output: int) -> int:
        with self._lock:
            self._channel.send(START + text, [output])
            pid, _ = self._channel.receive()
            return int(pid)

    def close(self) -> None:
        self._channel.close()
        self._process.wait()


class Script:
    """A process that runs a text. Its output ends when it has ended, and its server and all ranks as well."""

    def __init__(self, zygote: Zygote, text: str) -> None:
        self._reader, writer = os.pipe()
        self.pid = zygote.fork(text, writer)
        os.close(writer)
        self.printed = ""
        self.over = False

    def wait_for(self, text: str, within_s: float = 50.0) -> bool:
        """Read until it has printed this, or has ended."""
        end_s = time.monotonic() + within_s
        while text not in self.printed and not self.over:
            if not select.select([self._reader], [], [], max(end_s - time.monotonic(), 0))[0]:
                return False
            data = os.read(self._reader, 1 << 16)
            self.printed += data.decode(errors="replace")
            self.over = not data
        return text in self.printed

    def ends(self, within_s: float = GONE_S) -> bool:
        """Whether it and all of its processes come to an end."""
        self.wait_for("\0", within_s)
        return self.over

    def family(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def close(self) -> None:
        for process in self.family():
            with suppress(psutil.Error):
                process.kill()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.close(self._reader)


ScriptFault = Callable[[Zygote, random.Random, Outcome], None]


def owner_killed(zygote: Zygote, rng: random.Random, outcome: Outcome) -> None:
    what = rng.choice(list(DOING))
    sig = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV, signal.SIGABRT])
    delay_s = rng.uniform(0, 3.0 if what in ("starting", "measuring") else 0.05)
    outcome.story = f"{sig.name} to the owner, {what}, after {delay_s * 1e3:.0f} ms"
    script = Script(zygote, DOING[what])
    try:
        outcome.check(script.wait_for("go"), f"it did not begin: {script.printed}")
        time.sleep(delay_s)
        family = script.family()
        begin_s = time.perf_counter()
        os.kill(script.pid, sig)
        outcome.check(script.ends(), "its processes live")
        outcome.detected_s = time.perf_counter() - begin_s
        outcome.check(
            soon(lambda: not any(process.is_running() and process.status() != "zombie" for process in alive(family))),
            f"{family}",
        )
    finally:
        script.close()


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def owner_ends(zygote: Zygote, rng: random.Random, outcome: Outcome) -> None:
    how = rng.choice(list(ENDING))
    outcome.story = f"the owner ends: {how}"
    script = Script(zygote, PIPE + ENDING[how] + "\nprint('end', flush=True)")
    try:
        outcome.check(script.ends(50), f"it does not end: {script.printed}")
        # A daemon thread's own error is its own.
        complains = "Traceback" in script.printed and how != "an exception" and "daemon" not in how
        outcome.check(not complains, script.printed)
        outcome.check("fork" not in how or "right" in script.printed, script.printed)
    finally:
        script.close()


def terminal_ctrl_c(zygote: Zygote, rng: random.Random, outcome: Outcome) -> None:
    times = rng.choice([1, 1, 2])
    outcome.story = f"Ctrl-C {times} times in a terminal"
    script = Script(zygote, INTERRUPTED.replace("LONG", ""))
    try:
        outcome.check(script.wait_for("go"), f"it did not begin: {script.printed}")
        time.sleep(rng.uniform(0, 0.05))
        begin_s = time.perf_counter()
        for _ in range(times):
            os.killpg(script.pid, signal.SIGINT)
        outcome.check(script.wait_for("interrupted"), script.printed)
        outcome.detected_s = time.perf_counter() - begin_s
        outcome.check(script.ends(50), "its processes live")
        if times == 1:
            outcome.check("right True" in script.printed, script.printed)
    finally:
        script.close()


def server_killed_at_first(zygote: Zygote, rng: random.Random, outcome: Outcome) -> None:
    """While it imports torch."""
    sig, delay_s = rng.choice([signal.SIGKILL, signal.SIGSEGV]), rng.uniform(0, 2)
    outcome.story = f"{sig.name} to a server that starts, after {delay_s * 1e3:.0f} ms"
    again = "\n    ".join(PIPE.strip().splitlines())
    text = f"print('go', flush=True)\ntry:\n    {again}\n"
    text += "except pipelab.PipelabError as error:\n    print('error', error)\n"
    script = Script(zygote, text + PIPE + "print('right')")
    try:
        script.wait_for("go")
        soon(lambda: bool(script.family()))
        time.sleep(delay_s)
        family = script.family()
        for process in family[:1]:
            process.send_signal(sig)
        outcome.check(script.ends(50), "its processes live")
        outcome.check("right" in script.printed, script.printed)
        outcome.check("error" not in script.printed or f"{sig.name}" in script.printed, script.printed)
    except psutil.NoSuchProcess:
        outcome.story += " (over before)"
    finally:
        script.close()


SCRIPTS: dict[str, tuple[float, ScriptFault]] = {
    "owner killed": (6, owner_killed),
    "owner ends without closing": (4, owner_ends),
    "Ctrl-C in a terminal": (2, terminal_ctrl_c),
    "server killed while it starts": (1, server_killed_at_first),
}
