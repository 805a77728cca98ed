"""What an explorer has its ranks do: one thing at a time, told in words while it goes on and when it ends."""

import contextlib
import threading
import traceback
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from pipelab.errors import Cancelled, LaunchError, PipelabError
from pipelab.hardware import Measurement
from pipelab.plan import Plan
from pipelab.report import Report

Result = TypeVar("Result")
# Takes a sentence and the share that is done, None where nobody knows.
Progress = Callable[[str, float | None], None]


class Runner(Protocol):
    """Runs plans for an explorer."""

    def run(self, plan: Plan, num_microbatches: int, progress: Progress) -> Report:
        """Run one plan."""

    def measure(self, num_stages: int, progress: Progress) -> Measurement:
        """Measure the model on this machine."""

    def begin(self) -> None:
        """Be ready for one thing: forget what was cancelled before."""

    def cancel(self) -> None:
        """Stop what is under way; it then raises `Cancelled`."""

    def close(self) -> None:
        """End what was started."""


# Gives its result, and what to say of it.
Task = Callable[[Runner, Progress], tuple[Result, str]]


class Work:
    """What is under way.

    Args:
        tell: Takes the state, as the browser's half shows it.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell
        self._busy = threading.Lock()
        self._runner: Runner | None = None

    def now(self, runner: Runner | None, refusal: str, task: Task[Result]) -> Result:
        """Do it, and wait for it.

        Args:
            runner: Who does it; None for nobody.
            refusal: Why nobody does.
            task: What to do.

        Raises:
            LaunchError: Nobody does it, or something else is under way.
        """
        return self._do(self._taken(runner, refusal), task, cancellable=False)

    def in_background(self, runner: Runner | None, refusal: str, task: Task[Any]) -> None:
        """Do it without blocking the kernel, so that dragging goes on and Cancel arrives."""
        try:
            taken = self._taken(runner, refusal)
        except LaunchError as error:
            if not self._busy.locked():  # else what is under way goes on telling
                self._tell(_ended(error))
            return

        def work() -> None:
            # Whatever goes wrong is told in the verdict line, with its traceback: there is nobody to raise to.
            with contextlib.suppress(Exception):
                self._do(taken, task, cancellable=True)

        threading.Thread(target=work, name="pipelab-explorer-run", daemon=True).start()

    def cancel(self) -> None:
        """Stop what is under way, if anything is."""
        if (runner := self._runner) is not None:
            runner.cancel()

    def _taken(self, runner: Runner | None, refusal: str) -> Runner:
        """The runner, for one thing to do: `_do` gives it back."""
        if runner is None:
            raise LaunchError(refusal)
        if not self._busy.acquire(blocking=False):
            raise LaunchError("A run of this explorer is under way: wait for it, or press Cancel.")
        runner.begin()
        self._runner = runner
        return runner

    def _do(self, runner: Runner, task: Task[Result], *, cancellable: bool) -> Result:
        def progress(text: str, fraction: float | None) -> None:
            self._tell({"phase": "running", "text": text, "fraction": fraction, "cancellable": cancellable})

        try:
            progress("Preparing…", None)
            result, text = task(runner, progress)
            self._tell({"phase": "done", "text": text})
        except BaseException as error:
            self._tell(_ended(error))
            raise
        finally:
            self._runner = None
            self._busy.release()
        return result


def ranks_of(schedule: str, num_stages: int, num_ranks: int | None) -> int:
    """Ranks of a schedule: one per stage, or for the interleaved one as many as were asked for.

    Where nobody asked it is the largest number below the stages that divides them, as 4 for 8 and 3 for 9; a prime
    number of stages has as many ranks.
    """
    if schedule != "interleaved_1f1b":
        return num_stages
    divisors = (count for count in range(num_stages // 2, 1, -1) if num_stages % count == 0)
    return num_ranks or next(divisors, num_stages)


def _ended(error: BaseException) -> dict[str, Any]:
    """How what raised is told."""
    if isinstance(error, Cancelled | KeyboardInterrupt):
        return {"phase": "cancelled", "text": str(error) or "The run was interrupted."}
    text = str(error) if isinstance(error, PipelabError) else f"{type(error).__name__}: {error}"
    first, _, rest = text.partition("\n")
    # An error of ours says what to do, and brings a rank's traceback along; our own calls would only hide that.
    details = rest if isinstance(error, PipelabError) else "".join(traceback.format_exception(error))
    return {"phase": "failed", "text": first, "details": details.strip()}
