"""One plan of a comparison, with what it costs on the hardware of all."""

from dataclasses import dataclass

from pipelab.events import Timeline
from pipelab.plan import Plan
from pipelab.planner import Regret
from pipelab.report import Report
from pipelab.units import format_percent, format_seconds

# Times that differ by less are told as equal.
SAME = 0.005
# A run that takes more or less than this times its prediction has a time axis of its own.
_ALIKE = 4.0


@dataclass(frozen=True)
class Contender:
    """One plan of a comparison and what it costs. Times and memory are of one micro-batch of the largest size.

    Attributes:
        name: What the comparison calls it.
        plan: Where it cuts the model.
        regret: How far it is from the best split that may cut where it does.
        optimum: The least that the dearest stage of any split between blocks into as many stages takes.
        predicted: The simulated step.
        edges: Where along the model its stages begin and end: shares of the time it computes, 0 to 1.
        stage_s: Seconds each stage computes, while the others do.
        link_s: Seconds what crosses each boundary takes on its link.
        memory_bytes: Per stage: weights, caches of the whole batch, activations at their peak and the device's reserve.
        capacity_bytes: Per stage: what its device holds, or the limit that was set.
        report: The run that was measured, if there is one.
    """

    name: str
    plan: Plan
    regret: Regret
    optimum: float
    predicted: Timeline
    edges: tuple[float, ...]
    stage_s: tuple[float, ...]
    link_s: tuple[float, ...]
    memory_bytes: tuple[int, ...]
    capacity_bytes: tuple[int, ...]
    report: Report | None = None

    @property
    def step_s(self) -> float:
        """Seconds of the predicted step."""
        return self.predicted.makespan_s

    @property
    def slowest(self) -> int:
        """The stage that computes longest."""
        return self.stage_s.index(max(self.stage_s))

    @property
    def largest(self) -> int:
        """The stage with most parameters."""
        params = [stage.num_params for stage in self.plan.stages]
        return params.index(max(params))

    @property
    def slow_link(self) -> int | None:
        """The boundary that takes longest, if it takes longer than any stage computes."""
        longest = max(self.link_s, default=0.0)
        return self.link_s.index(longest) if longest > max(self.stage_s) else None

    @property
    def bottleneck_s(self) -> float:
        """Seconds of the slowest stage, or of a boundary that takes longer."""
        return max((*self.stage_s, *self.link_s))

    @property
    def bottleneck_text(self) -> str:
        """What that is: "stage 3", "cut 2" (the boundary between stage 1 and 2)."""
        return f"stage {self.slowest}" if self.slow_link is None else f"cut {self.slow_link + 1}"

    @property
    def fullest(self) -> int:
        """The stage whose memory is fullest for its device."""
        shares = [used / max(held, 1) for used, held in zip(self.memory_bytes, self.capacity_bytes, strict=True)]
        return shares.index(max(shares))

    @property
    def misfits(self) -> tuple[int, ...]:
        """The stages that need more memory than there is."""
        pairs = enumerate(zip(self.memory_bytes, self.capacity_bytes, strict=True))
        return tuple(stage for stage, (used, held) in pairs if used > held)

    @property
    def sent_bytes(self) -> int:
        """Bytes over all boundaries, for the traced batch."""
        return sum(boundary.num_bytes for boundary in self.plan.boundaries)

    @property
    def above(self) -> float:
        """Share by which its dearest stage takes more than the optimum; below 0 where it cuts inside blocks."""
        return self.regret.cost / self.optimum - 1 if self.optimum else 0.0

    @property
    def above_text(self) -> str:
        """How far above the optimum, in words."""
        if abs(self.above) <= SAME:
            return f"{format_percent(0)} above"
        percent = format_percent(abs(self.above), 0 if abs(self.above) >= 0.1 else 1)
        return f"{percent} {'above' if self.above > 0 else 'below'}"

    @property
    def shares_axis(self) -> bool:
        """Whether its run, if there is one, can be drawn on the time axis of the predictions."""
        return self.report is None or 1 / _ALIKE <= self.report.timeline.makespan_s / self.step_s <= _ALIKE

    @property
    def measured_text(self) -> str:
        """The measured step, with its micro-batches where the prediction has others; empty without a report."""
        if self.report is None:
            return ""
        text, number = format_seconds(self.report.step_s), self.report.timeline.num_microbatches
        same = number == self.predicted.num_microbatches and self.report.batch_size == self.plan.graph.batch_size
        return text if same else f"{text} (batch of {self.report.batch_size} in {number})"
