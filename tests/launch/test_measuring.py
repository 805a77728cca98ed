"""What is told of the machine: whose processor time is whose."""

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import cast

import pytest
import torch

import pipelab
from pipelab.launch.baselines import _NOT_QUIET, Baseline, Baselines
from pipelab.launch.devices import Devices, num_cores
from pipelab.launch.group import Patience
from pipelab.launch.load_meter import SHORTEST_S, LoadMeter, _cores_s
from pipelab.launch.measuring import LEAST_S, MOST_S, NUM_STEPS, Measured, _expected, spare_cores
from pipelab.launch.memory import Weights
from pipelab.load import OtherLoad

BURNT_S = 0.4
BURN = f"""
import sys, time
sys.stdin.readline()
while time.process_time() < {BURNT_S}: pass
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        yield it
        it.kill()


def burn(other: subprocess.Popen[str]) -> None:
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write("\n")
    other.stdin.flush()
    assert other.stdout.readline() == "done\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the accounts are Linux's")
def test_what_another_process_computes_is_others_unless_it_is_a_rank(other: subprocess.Popen[str]) -> None:
    started_s = time.clock_gettime(~other.pid << 3 | 2)
    meters = LoadMeter((), 0), LoadMeter((other.pid,), 0)
    burn(other)
    as_other, as_rank = (meter.read() for meter in meters)
    assert as_other is not None
    assert as_rank is not None
    burnt_s = BURNT_S - started_s
    assert as_other.others_cores * as_other.window_s > 0.8 * burnt_s
    difference_s = as_other.others_cores * as_other.window_s - as_rank.others_cores * as_rank.window_s
    assert difference_s < 1.2 * burnt_s
    assert difference_s > 0.6 * burnt_s
    assert as_other.cores == num_cores()


def test_too_short_a_time_tells_nothing() -> None:
    meter, start_s = LoadMeter((), 0), time.perf_counter()
    load = meter.read()
    assert load is None or time.perf_counter() - start_s >= SHORTEST_S


def test_only_cores_that_may_be_used_count() -> None:
    # user nice system idle iowait irq softirq steal guest guest_nice, in ticks of 10 ms
    rows = ("cpu  9 9 9 9 9 9 9 9 9 9", "cpu0 100 20 3 999 99 4 5 60 7 8", "cpu11 7 7 7 7 7 7 7 7 7 7",
            "cpu1 1 0 0 0 0 0 0 2 0 0", "ctxt 12")  # fmt: skip
    stat = "\n".join(rows)
    assert _cores_s(stat, {0, 1}) == (pytest.approx(1.33), pytest.approx(0.62))
    assert _cores_s(stat, {1}) == (pytest.approx(0.01), pytest.approx(0.02))


@pytest.mark.parametrize(("step_s", "steps"), [(1e-3, 250), (0.02, NUM_STEPS), (0.1, 10), (0.6, 2), (5.0, 1)])
def test_short_steps_go_on_for_a_while_and_long_ones_end(step_s: float, steps: int) -> None:
    """Twenty steps of a millisecond were over before anybody could tell what else the machine did."""
    done = 0
    while done < _expected(done, done * step_s):
        done += 1
    assert abs(done - steps) <= 1
    assert done * step_s >= LEAST_S
    assert (done - 1) * step_s < MOST_S


def test_ranks_leave_the_cores_beyond_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelab.launch.measuring.num_cores", lambda: 8)
    assert spare_cores(Devices(("cpu",) * 3, 2, "")) == 2
    assert spare_cores(Devices(("cpu",) * 9, 1, "")) == 0
    assert spare_cores(Devices(("cuda:0", "cuda:1"), 4, "")) == 6
    assert spare_cores(Devices(("cpu",) * 3, 2, ""), paced=True) == 8


class Asked(Baselines):
    """Counts how often the unsplit model is measured, and takes what it is told to find."""

    found = Baseline(1.0)
    times = 0

    def _measure(self, *_: object) -> Baseline:
        self.times += 1
        return self.found


@pytest.fixture
def asked() -> Asked:
    traced = pipelab.trace(torch.nn.Linear(2, 2).eval(), torch.zeros(4, 2))
    return Asked(traced, cast(Weights, None), "cpu")


def beside(asked: Asked, others_cores: float | None, rows: int = 4) -> Baseline:
    load = None if others_cores is None else OtherLoad(others_cores, 0.0, 2, 0, 1.0)
    patience = Patience(lambda: False, 60.0)
    return asked.beside(Measured(0.1, (), load), [torch.zeros(rows, 2)], patience, lambda: None)


def test_a_disturbed_run_is_not_compared(asked: Asked) -> None:
    """A run beside another program seemed slower than the unsplit model that ran after it."""
    assert beside(asked, 1.0) == Baseline(None, "not compared with the unsplit model: the machine was busy")
    assert asked.times == 0


def test_the_unsplit_model_is_measured_once_per_batch_size(asked: Asked) -> None:
    assert [beside(asked, load).seconds for load in (0.0, None, 0.1)] == [1.0, 1.0, 1.0]
    assert asked.times == 1
    beside(asked, 0.0, rows=2)
    assert asked.times == 2


def test_the_unsplit_model_is_measured_again_once_the_machine_is_quiet(asked: Asked) -> None:
    asked.found = Baseline(None, _NOT_QUIET)
    assert [beside(asked, load).seconds for load in (0.0, None)] == [None, None]
    assert asked.times == 1
    asked.found = Baseline(2.0)
    assert beside(asked, 0.0).seconds == 2.0
    assert asked.times == 2


def test_all_processes_have_one_clock() -> None:
    """Events of all ranks lie on one timeline: the clock must not begin with a process."""
    before_ns = time.perf_counter_ns()
    code = "import time; print(time.perf_counter_ns())"
    between_ns = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert before_ns < between_ns < time.perf_counter_ns()
