"""Plans of one model side by side: what each costs, which is best, by how much, and what would not fit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelab.events import Timeline
from pipelab.graph import Graph
from pipelab.plan import Plan
from pipelab.planner import Regret
from pipelab.report import Report
from pipelab.table import format_table
from pipelab.units import format_bytes, format_count, format_seconds, plural

Objective = Literal["time", "params"]

# Times that differ by less are told as equal.
_SAME = 0.005


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
        memory_bytes: Per stage: weights, caches, activations at their peak and the device's reserve.
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
        shares = [used / held for used, held in zip(self.memory_bytes, self.capacity_bytes, strict=True)]
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
        if abs(self.above) <= _SAME:
            return "0% above"
        percent = f"{abs(self.above):.0%}" if abs(self.above) >= 0.1 else f"{abs(self.above):.1%}"
        return f"{percent} {'above' if self.above > 0 else 'below'}"

    @property
    def measured_text(self) -> str:
        """The measured step, with its micro-batches where the prediction has others; empty without a report."""
        if self.report is None:
            return ""
        text, number = format_seconds(self.report.step_s), self.report.timeline.num_microbatches
        same = number == self.predicted.num_microbatches and self.report.batch_size == self.plan.graph.batch_size
        return text if same else f"{text} (batch of {self.report.batch_size} in {number})"


@dataclass(frozen=True)
class Comparison:
    """Plans of one model side by side.

    Attributes:
        entries: The plans, in the order they were given.
        refused: The policies that made none, and why.
        objective: What "above optimal" is counted in: "time" where there is a cost source, else "params".
        hardware: What the times rest on.
        num_microbatches: In how many the batch is split.
        rows: Rows of the largest micro-batch.
        draw: Makes the figure a notebook shows.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(10))).eval()
        >>> comparison = pipelab.compare(pipelab.trace(model, torch.zeros(4, 16)), num_stages=4)
        >>> [(entry.name, entry.above_text) for entry in comparison.entries]
        [('equal_size', '33% above'), ('threshold', '0% above'), ('optimal', '0% above')]
    """

    entries: tuple[Contender, ...]
    refused: Mapping[str, str]
    objective: Objective
    hardware: str
    num_microbatches: int
    rows: int
    draw: Callable[["Comparison"], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def graph(self) -> Graph:
        """The model."""
        return self.entries[0].plan.graph

    @property
    def best(self) -> Contender:
        """The plan with the shortest predicted step, of those that fit if any does.

        Of those within 0.5 % of it the one with the fewest bytes on the wire.
        """
        able = [entry for entry in self.entries if not entry.misfits] or self.entries
        least = min(entry.step_s for entry in able)
        return min((entry for entry in able if entry.step_s <= (1 + _SAME) * least), key=lambda entry: entry.sent_bytes)

    def more(self, entry: Contender) -> float:
        """How much longer than the best plan's a step takes: 0.57 is 57% more."""
        return entry.step_s / self.best.step_s - 1

    @property
    def verdict(self) -> str:
        """Which plan is best and by how much, why the slowest is slow, and what does not fit."""
        best = self.best
        others = sorted((entry for entry in self.entries if entry is not best), key=self.more)
        texts = [f"{entry.name} {more_text(self.more(entry))}" for entry in others]
        text = "; ".join(
            [f"{best.name} needs {format_seconds(best.step_s)} per step", ", ".join(texts)][: 1 + bool(texts)]
        )
        worst = others[-1] if others else best
        if worst.bottleneck_s > (1 + _SAME) * best.bottleneck_s:
            slow, least = format_seconds(worst.bottleneck_s), format_seconds(best.bottleneck_s)
            text += f": its {worst.bottleneck_text} takes {slow} per micro-batch, {best.name}'s slowest {least}"
        return f"{text}. {self._misfits}".rstrip()

    @property
    def _misfits(self) -> str:
        too_large = [entry for entry in self.entries if entry.misfits]
        if len(too_large) < len(self.entries):
            return " ".join(f"{entry.name} does not fit: {_misfit_text(entry)}." for entry in too_large)
        least = min(too_large, key=lambda entry: entry.memory_bytes[entry.fullest])
        return f"No plan fits; {least.name} comes closest: {_misfit_text(least)}."

    @property
    def title(self) -> str:
        """The model, its batch, and what the times rest on."""
        split = f"batch of {self.graph.batch_size} in {plural(self.num_microbatches, 'micro-batch')}"
        unasked = "" if self.objective == "time" else " (nothing was named or measured)"
        return f"{self.graph.model}: {split} of {plural(self.rows, 'row')}, predicted for {self.hardware}{unasked}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the columns do not say: what the optimum is of, and each policy in full."""
        counted = (
            "time of the dearest stage, with transfers" if self.objective == "time" else "largest stage's parameters"
        )
        return (
            f"Above optimal: {counted}, beside the best split between blocks into as many stages. "
            "Cuts inside blocks can be below it.",
            "Memory: weights, caches, activations of one micro-batch at their peak, and the device's own.",
            *(_policy_text(entry) for entry in self.entries if entry.plan.policy != entry.name),
        )

    @property
    def refusals(self) -> tuple[str, ...]:
        """The policies that made no plan, with their reasons."""
        return tuple(f"{name} makes no plan: {reason}" for name, reason in self.refused.items())

    def __repr__(self) -> str:
        header = ["plan", "stages", "most parameters", "bottleneck", "step", "idle", "fullest memory", "sends",
                  "above optimal", "measured"]  # fmt: skip
        rows = [_row(entry) for entry in self.entries]
        width = len(header) if any(entry.report for entry in self.entries) else len(header) - 1
        table = format_table(header[:width], [row[:width] for row in rows])
        return "\n".join([self.verdict, self.title, table, *self.refusals, *self.notes])

    def _repr_png_(self) -> Any:
        return None if self.draw is None else self.draw(self)._repr_png_()


def _misfit_text(entry: Contender) -> str:
    worst, more = entry.fullest, len(entry.misfits) - 1
    used, held = format_bytes(entry.memory_bytes[worst]), format_bytes(entry.capacity_bytes[worst])
    also = f", and {plural(more, 'other stage')} more than there is" if more else ""
    return f"stage {worst} needs {used} of {held}{also}"


def more_text(more: float, than: str = "") -> str:
    """A share more or less: "57% more"; with a name "57% more than optimal"."""
    if abs(more) < _SAME:
        return f"as long as {than}" if than else "as much"
    text = f"{more:.0%} more" if more > 0 else f"{-more:.0%} less"
    return f"{text} than {than}" if than else text


def _row(entry: Contender) -> list[str]:
    params = [stage.num_params for stage in entry.plan.stages]
    used, held = (format_bytes(of[entry.fullest]) for of in (entry.memory_bytes, entry.capacity_bytes))
    return [
        entry.name,
        str(entry.plan.num_stages),
        f"stage {params.index(max(params))}: {format_count(max(params))}",
        f"{entry.bottleneck_text}: {format_seconds(entry.bottleneck_s)}",
        format_seconds(entry.step_s),
        f"{entry.predicted.bubble_fraction:.0%}",
        f"stage {entry.fullest}: {used} of {held}",
        format_bytes(entry.sent_bytes),
        entry.above_text,
        entry.measured_text or "–",
    ]


def _policy_text(entry: Contender) -> str:
    policy = entry.plan.policy
    return f"{policy}." if policy.startswith(f"{entry.name} ") else f"{entry.name}: {policy}."
