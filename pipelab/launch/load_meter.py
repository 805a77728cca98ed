"""Reads from the system's own accounts how much of the cores others used while ranks were measured."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelab.launch.devices import num_cores
from pipelab.load import OtherLoad

_STAT = Path("/proc/stat")
# The accounts of a core count in ticks of 10 ms: of a shorter time they tell nothing.
SHORTEST_S = 0.2
# user, nice, system, irq and softirq of a core's line; what guests use is in user.
_BUSY, _STOLEN = (0, 1, 2, 5, 6), 7


@dataclass(frozen=True, slots=True)
class _Reading:
    """Seconds so far: of the clock, of the cores in use, of those withheld by a host, and used by us."""

    clock_s: float
    busy_s: float
    stolen_s: float
    ours_s: float


class LoadMeter:
    """Watches from its making on.

    Args:
        pids: The processes that are measured. This one counts as theirs.
        spare_cores: Cores that they leave to others.
    """

    def __init__(self, pids: Sequence[int], spare_cores: int) -> None:
        self._pids = tuple(pids)
        self._spare_cores = spare_cores
        self._start = self._read()

    def read(self) -> OtherLoad | None:
        """What others used until now; None where the system keeps no accounts, or too little time has passed.

        The load average would not do where there are none: it is of the last minute, and full of our own ranks.
        """
        start, end = self._start, self._read()
        if start is None or end is None or end.clock_s - start.clock_s < SHORTEST_S:
            return None
        window_s = end.clock_s - start.clock_s
        busy_s, ours_s = end.busy_s - start.busy_s, end.ours_s - start.ours_s
        if busy_s < ours_s / 2:  # a sandbox that shows made-up accounts
            return None
        return OtherLoad(
            others_cores=max(0.0, busy_s - ours_s) / window_s,
            withheld_cores=(end.stolen_s - start.stolen_s) / window_s,
            cores=num_cores(),
            spare_cores=self._spare_cores,
            window_s=window_s,
        )

    def _read(self) -> _Reading | None:
        if sys.platform != "linux" or num_cores() < len(os.sched_getaffinity(0)):
            return None  # from which cores a container's share comes, nobody can tell
        try:
            busy_s, stolen_s = _cores_s(_STAT.read_text(), os.sched_getaffinity(0))
            ours_s = time.process_time() + sum(map(_process_s, self._pids))
        except OSError:  # no accounts are shown here; or a rank is gone, which whoever asks it hears
            return None
        return _Reading(time.perf_counter(), busy_s, stolen_s, ours_s)


def _cores_s(stat: str, cores: set[int]) -> tuple[float, float]:
    """Seconds that these cores were in use, and that they were withheld."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    lines = (line.split() for line in stat.splitlines())
    rows = [list(map(int, row[1:])) for row in lines if row and row[0] in {f"cpu{core}" for core in cores}]
    busy = sum(row[index] for row in rows for index in _BUSY)
    return busy * tick_s, sum(row[_STOLEN] for row in rows) * tick_s


def _process_s(pid: int) -> float:
    """Processor seconds of all threads of a process, by its own clock: its entry in /proc counts in ticks."""
    return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid gives, which Python has for threads only
