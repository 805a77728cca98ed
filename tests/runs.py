"""Reports made up by hand, and a runner that returns them: what the explorer needs of processes."""

from collections.abc import Callable
from dataclasses import replace

from pipelab.events import Event, Timeline
from pipelab.plan import Plan
from pipelab.report import Report


def made_up_report(plan: Plan, num_microbatches: int = 8) -> Report:
    """A fill-drain run in which a stage takes 20 ms and 1 ns per parameter."""
    events: list[Event] = []
    free = [0.0] * plan.num_stages
    for microbatch in range(num_microbatches):
        arrived = 0.0
        for stage in plan.stages:
            begin = max(arrived, free[stage.index])
            if begin > free[stage.index]:
                events.append(Event(stage.index, stage.index, microbatch, "wait", free[stage.index], begin))
            end = begin + 0.02 + stage.num_params * 1e-9
            events.append(Event(stage.index, stage.index, microbatch, "F", begin, end))
            arrived = free[stage.index] = end + 0.002
            events.append(Event(stage.index, stage.index, microbatch, "send", end, arrived, 100))
    timeline = Timeline(tuple(events), plan.num_stages, plan.num_stages, num_microbatches)
    environment = {"device": "cpu", "cores": 2, "device_text": "made up"}
    return Report(plan, timeline, (timeline.makespan_s,), 8, 0.9, (0,) * plan.num_stages, environment)


class Runner:
    """Returns made-up reports.

    Attributes:
        during: Called in the middle of a run.
        told: What the explorer asked of it, in order.
    """

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.during = during
        self.told: list[str] = []

    def run(self, plan: Plan, num_microbatches: int, progress: Callable[[str, float], None]) -> Report:
        """A report, after one step; predicted was that everything takes a tenth less."""
        self.told.append("run")
        progress("Step 1 of 2", 0.5)
        self.during()
        report = made_up_report(plan, num_microbatches)
        sooner = tuple(
            event._replace(end_s=event.start_s + 0.9 * (event.end_s - event.start_s))
            for event in report.timeline.events
        )
        return replace(report, predicted=replace(report.timeline, events=sooner, source="made up"))

    def begin(self) -> None:
        """It has nothing to forget."""

    def cancel(self) -> None:
        """Note it."""
        self.told.append("cancel")

    def close(self) -> None:
        """Note it."""
        self.told.append("close")
