"""Plans of one model side by side: what each costs, which is best, by how much, and what would not fit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipelab.contenders import SAME, Contender
from pipelab.errors import InputError
from pipelab.graph import Graph
from pipelab.table import format_table
from pipelab.units import format_bytes, format_count, format_need, format_percent, format_seconds, format_whole, plural

Objective = Literal["time", "params"]


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
        places: Where along the model each op begins, and the last one ends: shares of the time it computes, 0 to 1.
        counts_reserves: Whether memory is told with what devices hold anyway.
        make_view: Makes the widget a notebook shows.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(10))).eval()
        >>> comparison = pipelab.compare(pipelab.trace(model, torch.zeros(4, 16)), num_stages=4)
        >>> for entry in comparison.entries:
        ...     print(entry.name, entry.above_text)
        equal_size 33...% above
        threshold 0...% above
        optimal 0...% above
    """

    entries: tuple[Contender, ...]
    refused: Mapping[str, str]
    objective: Objective
    hardware: str
    num_microbatches: int
    rows: int
    places: tuple[float, ...] = field(repr=False)
    counts_reserves: bool = True
    make_view: Callable[["Comparison"], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def graph(self) -> Graph:
        """The model."""
        return self.entries[0].plan.graph

    @property
    def best(self) -> Contender:
        """The plan that costs least, of those that fit if any does; see `cost`.

        Of those within 0.5 % of it the one with the fewest bytes on the wire.
        """
        able = [entry for entry in self.entries if not entry.misfits] or self.entries
        least = (1 + SAME) * min(self.cost(entry) for entry in able)
        return min((entry for entry in able if self.cost(entry) <= least), key=lambda entry: entry.sent_bytes)

    def cost(self, entry: Contender) -> float:
        """Seconds of the predicted step; where there is no cost source, parameters of the largest stage."""
        return entry.step_s if self.objective == "time" else entry.regret.cost

    def more(self, entry: Contender) -> float:
        """How much more than the best plan it costs: 0.57 is 57 % more."""
        least = self.cost(self.best)
        return self.cost(entry) / least - 1 if least else 0.0

    @property
    def verdict(self) -> str:
        """Which plan is best and by how much, why the dearest is dear, and what does not fit."""
        best = self.best
        others = sorted((entry for entry in self.entries if entry is not best), key=self.more)
        beside = ", ".join(f"{entry.name} {more_text(self.more(entry))}" for entry in others)
        text = f"{self._lead}; {beside}" if others else self._lead
        if others and self.more(others[-1]) > SAME:
            text += self._reason(others[-1])
        return " ".join(part for part in (f"{text}.", self._measured, self._misfits, self._caution) if part)

    @property
    def _lead(self) -> str:
        if self.objective == "time":
            return f"{self.best.name} needs {format_seconds(self.best.step_s)} per step"
        return f"{self.best.name} holds {format_count(self.best.regret.cost)} parameters in its largest stage"

    def _reason(self, worst: Contender) -> str:
        best = self.best
        if self.objective == "params":
            return f": its stage {worst.largest} holds {format_count(worst.regret.cost)}"
        if worst.bottleneck_s <= (1 + SAME) * best.bottleneck_s:
            return ""  # the same bottleneck: what it does beside it takes longer
        slow, least = format_seconds(worst.bottleneck_s), format_seconds(best.bottleneck_s)
        return f": its {worst.bottleneck_text} takes {slow} per micro-batch, {best.name}'s slowest {least}"

    @property
    def _measured(self) -> str:
        """The steps that were measured, the shortest first."""
        ran = [(entry.report.step_s, f"{entry.name} {entry.measured_text}") for entry in self.entries if entry.report]
        return f"Measured: {', '.join(text for _, text in sorted(ran))}." if ran else ""

    @property
    def _caution(self) -> str:
        return "" if self.objective == "time" else f"No hardware was named: times are for {self.hardware}."

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
        return f"{self.graph.model}: {split} of {plural(self.rows, 'row')}, predicted for {self.hardware}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the columns do not say: what the optimum is of, and each policy in full."""
        counted = (
            "time of the slowest stage, with transfers" if self.objective == "time" else "largest stage's parameters"
        )
        reserves = ", and the device's own" if self.counts_reserves else ""
        caches = " caches of the whole batch," if self.graph.caches else ""
        unlimited = any(entry.misfits for entry in self.entries) or "optimal" in self.refused
        return (
            f"Above optimal: {counted}, beside the best split between blocks into as many stages"
            f"{', or the best with room for everything if none fits' if unlimited else ''}. "
            "Cuts inside blocks can be below it.",
            "Time per micro-batch: while the other stages compute as well. "
            f"Memory: weights,{caches} activations of one micro-batch at their peak{reserves}.",
            *(_policy_text(entry) for entry in self.entries if entry.plan.policy != entry.name),
        )

    @property
    def refusals(self) -> tuple[str, ...]:
        """The policies that made no plan, with their reasons."""
        return tuple(
            reason if reason.startswith(name) else f"{name} makes no plan: {reason}"
            for name, reason in self.refused.items()
        )

    def __repr__(self) -> str:
        header = ["plan", "stages", "most parameters", "bottleneck", "step", "idle", "fullest memory", "sends",
                  "above optimal", "measured"]  # fmt: skip
        rows = [_row(entry) for entry in self.entries]
        width = len(header) if any(entry.report for entry in self.entries) else len(header) - 1
        table = format_table(header[:width], [row[:width] for row in rows])
        return "\n".join([self.verdict, self.title, table, *self.refusals, *self.notes])

    @cached_property
    def view(self) -> Any:
        """The same as an ordinary ipywidget, always the same one: its `value` is the chosen plan's name.

        Raises:
            InputError: It comes from elsewhere than `pipelab.compare`.

        Example:
            >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(10))).eval()
            >>> comparison = pipelab.compare(pipelab.trace(model, torch.zeros(4, 16)), num_stages=2)
            >>> comparison.view.value = "optimal"
            >>> comparison.view.close()
        """
        if self.make_view is None:
            raise InputError("This comparison has no view: pipelab.compare makes those that have one.")
        return self.make_view(self)

    def save(self, path: str | Path) -> None:
        """Write a page that works in any browser without Python and network (.html), or a picture (.png, .svg).

        Raises:
            InputError: The name ends otherwise.

        Example:
            >>> import tempfile
            >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(10))).eval()
            >>> comparison = pipelab.compare(pipelab.trace(model, torch.zeros(4, 16)), num_stages=2)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     comparison.save(f"{folder}/plans.html")
        """
        self.view.save(path)

    def _ipython_display_(self) -> None:
        if self.make_view is None:
            raise NotImplementedError  # IPython then asks for the text
        self.view._ipython_display_()

    def _repr_png_(self) -> Any:
        return None if self.make_view is None else self.view._repr_png_()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return None if self.make_view is None else self.view._repr_mimebundle_(**kwargs)


def _misfit_text(entry: Contender) -> str:
    worst, more = entry.fullest, len(entry.misfits) - 1
    needs = format_need(entry.memory_bytes[worst], entry.capacity_bytes[worst])
    also = f", and {plural(more, 'other stage')} more than there is" if more else ""
    return f"stage {worst} needs {needs}{also}"


def more_text(more: float, than: str = "") -> str:
    """A share more or less: "57 % more"; with a name "57 % more than optimal"."""
    if abs(more) < SAME:
        return f"as much as {than}" if than else "as much"
    text = f"{format_percent(abs(more))} {'more' if more > 0 else 'less'}"
    return f"{text} than {than}" if than else text


def _row(entry: Contender) -> list[str]:
    used, held = format_bytes(entry.memory_bytes[entry.fullest]), format_whole(entry.capacity_bytes[entry.fullest])
    return [
        entry.name,
        str(entry.plan.num_stages),
        f"stage {entry.largest}: {format_count(entry.plan.stages[entry.largest].num_params)}",
        f"{entry.bottleneck_text}: {format_seconds(entry.bottleneck_s)}",
        format_seconds(entry.step_s),
        format_percent(entry.predicted.bubble_fraction),
        f"stage {entry.fullest}: {used} of {held}",
        format_bytes(entry.sent_bytes),
        entry.above_text,
        entry.measured_text or "–",
    ]


def _policy_text(entry: Contender) -> str:
    policy = entry.plan.policy
    return f"{policy}." if policy.startswith(f"{entry.name} ") else f"{entry.name}: {policy}."
