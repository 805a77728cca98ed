"""What the explorer's Run does in Python, and how what ended is told. No browser."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from explorers import CUTS, GRAPH, OTHER, changes, make
from graphs import gpt2_graph
from runs import Runner

from pipelab.errors import Cancelled, LaunchError, StageError
from pipelab.report_words import outcome
from pipelab.viz.explorer import Explorer
from pipelab.viz.explorer_workloads import Workload


def press(explorer: Explorer) -> dict[str, Any]:
    """What the browser sends when Run is pressed."""
    return {"type": "run", "cuts": list(explorer.cuts), "num_microbatches": explorer.num_microbatches}


def test_run_returns_the_report_and_keeps_it() -> None:
    explorer = make(Runner())
    states = changes(explorer, "_run_state")
    report = explorer.run()
    assert explorer.report is report
    assert report.plan.cuts == CUTS
    assert [state["phase"] for _, state in states] == ["running", "running", "done"]
    assert states[1][1] == {"phase": "running", "text": "Step 1 of 2", "fraction": 0.5, "cancellable": False}
    assert states[-1][1]["text"] == outcome(report)


def test_what_disturbed_a_run_is_told_once() -> None:
    """It stood in the verdict, and again over the timeline below."""
    explorer = make(Runner())
    explorer.run()
    assert explorer._report_state is not None
    assert explorer._report_state["remarks"] == "4 ranks share 2 cores."
    assert "share 2 cores" not in explorer._run_state["text"]


def test_without_a_runner_run_says_why() -> None:
    with pytest.raises(LaunchError, match=r"Off\."):
        make().run()


def test_a_second_run_is_refused_while_one_is_under_way() -> None:
    refusals: list[str] = []

    def again() -> None:
        with pytest.raises(LaunchError) as raised:
            explorer.run()
        refusals.append(str(raised.value))

    explorer = make(Runner(during=again))
    explorer.run()
    assert refusals == ["A run of this explorer is under way: wait for it, or press Cancel."]
    explorer.run()


def raising(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "phase", "text"),
    [
        (LaunchError("No memory for 4 ranks.\nFree some."), "failed", "No memory for 4 ranks."),
        (ZeroDivisionError("ours"), "failed", "ZeroDivisionError: ours"),
        (Cancelled("Stopped."), "cancelled", "Stopped."),
        (KeyboardInterrupt(), "cancelled", "The run was interrupted."),
    ],
)
def test_a_failed_run_raises_and_is_told(error: BaseException, phase: str, text: str) -> None:
    runner = Runner(during=raising(error))
    explorer = make(runner)
    with pytest.raises(type(error)):
        explorer.run()
    assert explorer._run_state["phase"] == phase
    assert explorer._run_state["text"] == text
    assert explorer.cuts == CUTS
    runner.during = lambda: None
    assert explorer.run() is explorer.report


def test_what_stops_a_run_comes_without_frames_of_ours() -> None:
    """The stop button left three screens of pipelab's own code below the cell."""
    for error in (KeyboardInterrupt(), StageError("Rank 1 was killed.", rank=1, stage=1)):
        with pytest.raises(type(error)) as caught:
            make(Runner(during=raising(error))).run()
        assert [entry.name for entry in caught.traceback][1:] == ["run"]


def test_cancel_reaches_the_runner_while_it_runs_and_close_always() -> None:
    runner = Runner(during=lambda: explorer._hear(explorer, {"type": "cancel"}, []))
    explorer = make(runner)
    explorer._hear(explorer, {"type": "cancel"}, [])
    explorer.run()
    explorer.close()
    assert runner.told == ["run", "cancel", "close"]


def test_the_button_runs_in_the_background_and_tells_how_it_ended() -> None:
    explorer = make(Runner(during=raising(ZeroDivisionError("ours"))))
    ended = threading.Event()
    explorer.observe(lambda change: ended.set() if change["new"]["phase"] == "failed" else None, "_run_state")
    explorer._hear(explorer, press(explorer), [])
    assert ended.wait(10)
    assert explorer._run_state["text"] == "ZeroDivisionError: ours"
    assert "raise_it" in explorer._run_state["details"]


def test_the_button_runs_the_split_that_the_browser_shows() -> None:
    """Of two moves in a row the kernel heard the second only after it was told to run, and ran the first."""
    explorer = make(Runner())
    ended = threading.Event()
    explorer.observe(lambda change: ended.set() if change["new"]["phase"] == "done" else None, "_run_state")
    explorer._hear(explorer, {**press(explorer), "cuts": list(OTHER), "num_microbatches": 3}, [])
    assert ended.wait(10)
    assert (explorer.value, explorer.cuts, explorer.num_microbatches) == (OTHER, OTHER, 3)
    assert explorer.reports[-1].plan.cuts == OTHER


def test_details_of_a_failed_rank_are_its_traceback_once() -> None:
    failed = StageError(
        "Rank 1 failed.\n\nTraceback of rank 1:\nKeyError", rank=1, stage=1, remote_traceback="KeyError"
    )
    killed = StageError("Rank 1 was killed.", rank=1, stage=1)
    for error, details in ((failed, "Traceback of rank 1:\nKeyError"), (killed, "")):
        explorer = make(Runner(during=raising(error)))
        with pytest.raises(StageError):
            explorer.run()
        assert explorer._run_state["details"] == details


@pytest.mark.parametrize(
    ("name", "value", "of"), [("cuts", CUTS, ""), ("cuts", OTHER, "The previous split: "), ("workload", "b", "a: ")]
)
def test_a_run_of_what_is_not_shown_any_more_says_of_what_it_was(name: str, value: Any, of: str) -> None:
    runner = Runner(during=lambda: setattr(explorer, name, value))
    explorer = make(workloads={"a": Workload(GRAPH, runner), "b": Workload(gpt2_graph())})
    report = explorer.run()
    assert explorer._run_state["text"] == f"{of}{outcome(report) if name == 'cuts' else report.verdict}"
    explorer._hear(explorer, {"type": "show_report", "index": 0}, [])
    assert bool(explorer._report_state) == (name == "cuts")  # it is no run of the other trace


def test_the_button_says_why_there_is_no_run() -> None:
    explorer = make()
    explorer._hear(explorer, press(explorer), [])
    assert (explorer._run_state["phase"], explorer._run_state["text"]) == ("failed", "Off.")


def test_a_closed_explorer_runs_nothing() -> None:
    explorer = make()
    explorer.close()
    with pytest.raises(LaunchError, match="This explorer is closed"):
        explorer.run()
