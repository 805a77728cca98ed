"""What happens to a whole process: it ends without closing, is interrupted, is killed; and has little /dev/shm."""

import shutil
import subprocess

import pytest
from scripts import Script

# Most containers have no more.
SMALL = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"', "sh")
PLAIN = """
torch.testing.assert_close(pipe.run(x).output, model(x))
net = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048) for _ in range(6))).eval()
y = torch.randn(4096, 2048)
big = pipelab.trace(net, y)
with pipelab.start(big, pipelab.uniform(big, num_stages=2), device="cpu") as other:
    torch.testing.assert_close(other(y), net(y))
import os
print("equal, used", os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize)
"""
INTERRUPTED = """
before = pipe.pids
pipe.on_progress = lambda d, t: d == 2 and print("step", flush=True)
try:
    pipe.run(x, num_microbatches=8, repeats=10**6)
except KeyboardInterrupt:
    print("interrupted", flush=True)
print("same ranks", pipe.pids == before, flush=True)
torch.testing.assert_close(pipe.run(x, repeats=1).output, model(x))
print("works", flush=True)
pipe.on_progress = lambda d, t: d == 2 and print("again", flush=True)
pipe.run(x, repeats=10**6)
"""


def _can_mount() -> bool:
    command = [*SMALL, "true"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def plain() -> Script:
    """A script without a main guard that does not close what it started; it has ended."""
    script = Script(PLAIN, prefix=SMALL if _can_mount() else ())
    script.finish()
    return script


def test_plain_script_without_main_guard_ends_and_leaves_nothing(plain: Script) -> None:
    assert "equal" in plain.output
    assert plain.process.returncode == 0
    plain.assert_nothing_left()


@pytest.mark.skipif(not _can_mount(), reason="needs the right to mount a small /dev/shm")
def test_64_mb_of_dev_shm_are_enough(plain: Script) -> None:
    """Containers have no more; a 120 MB segment there died of SIGBUS."""
    assert "equal, used 67108864" in plain.output


def test_ctrl_c_stops_the_run_and_keeps_the_ranks_and_kill_leaves_nothing() -> None:
    script = Script(INTERRUPTED, loops=50)
    script.line("step")
    script.interrupt()
    assert script.line("interrupted")
    assert script.line("same ranks").endswith("True")
    assert script.line("works")
    script.line("again")
    script.kill()
    script.assert_nothing_left()
