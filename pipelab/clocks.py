"""How time passes in a replay: every rank computes at its own speed, or ranks share the cores of one machine."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

Then = Callable[[Any], None]


class Clock:
    """Time that jumps from one end to the next. Every rank computes as if it were alone.

    Attributes:
        now_s: The time.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._ends: list[tuple[float, int, Then, Any]] = []
        self._order = count()  # what ends at the same time ends in the order in which it was begun

    def at(self, time_s: float, then: Then, what: Any) -> None:
        """Call `then(what)` at this time."""
        heappush(self._ends, (time_s, next(self._order), then, what))

    def compute(self, alone_s: float, loaded_s: float, then: Then, what: Any) -> None:
        """Call `then(what)` when a core has done this.

        Args:
            alone_s: Seconds if nobody else computes.
            loaded_s: Seconds if as many compute as can at once.
            then: What to call.
            what: Its argument.
        """
        self.at(self.now_s + alone_s, then, what)

    def step(self) -> bool:
        """Go to the next end, and call what was to be called; False if nothing is under way."""
        if not self._ends:
            return False
        self.now_s, _, then, what = heappop(self._ends)
        then(what)
        return True


class SharedClock(Clock):
    """Ranks share a machine that can compute for `parallel` of them at once.

    A task that takes a seconds alone and b loaded takes, while n ranks compute,

        a + (b - a) (n - 1) / (parallel - 1)    up to n = parallel, and
        b n / parallel                          beyond: each gets its share of the time.

    Whenever n changes, what is left of every task goes on at the new speed (processor sharing).

    Args:
        parallel: How many ranks can compute at once.
    """

    def __init__(self, parallel: int) -> None:
        super().__init__()
        self._parallel = parallel
        self._tasks: list[_Task] = []

    def compute(self, alone_s: float, loaded_s: float, then: Then, what: Any) -> None:
        """Call `then(what)` when a core has done this."""
        self._tasks.append(_Task(alone_s, loaded_s - alone_s, then, what))

    def step(self) -> bool:
        """Go to the next end, and call what was to be called; False if nothing is under way."""
        if not self._tasks:
            return super().step()
        num = len(self._tasks)
        load = (min(num, self._parallel) - 1) / (self._parallel - 1) if self._parallel > 1 else 1.0
        stretch = max(num / self._parallel, 1.0)
        first, end_s = None, self._ends[0][0] if self._ends else float("inf")
        for task in self._tasks:
            task.full_s = (task.alone_s + task.extra_s * load) * stretch
            if (task_end_s := self.now_s + task.left * task.full_s) < end_s:
                first, end_s = task, task_end_s
        self._pass(end_s - self.now_s)
        if first is None:
            return super().step()
        self.now_s = end_s
        self._tasks.remove(first)
        first.then(first.what)
        return True

    def _pass(self, seconds: float) -> None:
        for task in self._tasks:
            if task.full_s > 0:
                task.left = max(task.left - seconds / task.full_s, 0.0)


class _Task:
    """What a core works at.

    Attributes:
        left: The share that is left to do.
        alone_s: Seconds of the whole, alone.
        extra_s: Seconds more if loaded.
        full_s: Seconds of the whole at the present speed.
    """

    __slots__ = ("alone_s", "extra_s", "full_s", "left", "then", "what")

    def __init__(self, alone_s: float, extra_s: float, then: Then, what: Any) -> None:
        self.left, self.alone_s, self.extra_s, self.full_s = 1.0, alone_s, extra_s, alone_s
        self.then, self.what = then, what
