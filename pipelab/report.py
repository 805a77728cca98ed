"""What a run did: the output, who waited for whom, and whether it paid. It outlives the processes."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from pipelab.errors import SplitError
from pipelab.events import COMPUTE, Timeline
from pipelab.files import check_header, damaged, decode, read_json, write_json
from pipelab.graph import Graph
from pipelab.plan import Plan, shorten
from pipelab.table import format_table, wrap
from pipelab.units import format_bytes, format_seconds, plural

FORMAT = "pipelab-report"
VERSION = 2
# Below this share of the step even the busiest stage is not what the step's duration follows from.
_MOSTLY = 0.5
# Below this the busiest stage does not stand out from the mean.
_EVEN = 1.05
# From here on a factor says more than per cent.
_FAR_OFF = 3.0


@dataclass(frozen=True)
class Report:
    """One measured run.

    Attributes:
        plan: Where the model was cut.
        timeline: The events of the median step.
        steps_s: Seconds of every step that counted (the first, a warm-up, does not).
        batch_size: Rows of the batch.
        baseline_s: Seconds of the unsplit model in one process with all cores (or one GPU); None where it does
            not fit, and of a paced run.
        peak_memory_bytes: Per rank, the most memory it held beyond an idle rank's own.
        environment: Machine, versions, devices, threads and links.
        output: The model's own output; None after `load`.
        predicted: The timeline that was predicted, where the model had been measured, or that set the pace.

    Example:
        >>> model, x = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)).eval(), torch.zeros(6, 4)
        >>> traced = pipelab.trace(model, x)
        >>> with pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cpu") as pipe:
        ...     report = pipe.run(x, num_microbatches=3, repeats=5)
        >>> len(report.steps_s), report.timeline.num_microbatches, report.output.shape
        (5, 3, torch.Size([6, 2]))
    """

    plan: Plan
    timeline: Timeline
    steps_s: tuple[float, ...]
    batch_size: int
    baseline_s: float | None
    peak_memory_bytes: tuple[int, ...]
    environment: dict[str, Any] = field(default_factory=dict)
    output: Any = field(default=None, repr=False, compare=False)
    predicted: Timeline | None = None

    @property
    def step_s(self) -> float:
        """Seconds of the median step."""
        return median(self.steps_s)

    @property
    def samples_per_s(self) -> float:
        """Rows of the batch per second."""
        return self.batch_size / self.step_s

    @property
    def bubble_fraction(self) -> float:
        """Idle share of all rank time in the median step."""
        return self.timeline.bubble_fraction

    @property
    def speedup(self) -> float | None:
        """How many times faster than the unsplit model; None where there is no such figure."""
        return None if self.baseline_s is None else self.baseline_s / self.step_s

    @property
    def verdict(self) -> str:
        """Whether it was faster than the unsplit model, who was the bottleneck, and why."""
        busy = self.timeline.rank_busy_s
        slowest = busy.index(max(busy))
        ranks = self.timeline.num_ranks
        text = f"{format_seconds(self.step_s)} per step{self._against_prediction()}"
        if self.is_paced:
            text += ". Paced: each stage waited its predicted time instead of computing."
        elif self.baseline_s is None:
            text += "; the unsplit model does not fit here."
        else:
            factor = self.baseline_s / self.step_s
            text += f": {factor:.2f} × the speed of the unsplit model ({format_seconds(self.baseline_s)})."
        if ranks > 1:
            mean_s = sum(busy) / ranks
            longest, mean = format_seconds(busy[slowest]), format_seconds(mean_s)
            if busy[slowest] < _MOSTLY * self.timeline.makespan_s:
                text += f" No stage computes for more than {longest} of it: the rest is moving data and waiting."
            elif busy[slowest] < _EVEN * mean_s:
                text += f" The stages are even: each computes about {mean}."
            else:
                text += f" Stage {slowest} is the bottleneck: it computes {longest}, the mean is {mean}."
            text += f" Ranks are idle {self.bubble_fraction:.0%} of the time."
        cores = self.environment.get("cores")
        on_cpu = self.environment.get("device") == "cpu" and not self.is_paced
        if on_cpu and isinstance(cores, int) and ranks > cores:
            text += f" {ranks} ranks share {plural(cores, 'core')}."
        return text

    def _against_prediction(self) -> str:
        """The predicted duration, and how far off it was."""
        if self.predicted is None or not self.predicted.makespan_s:
            return ""
        predicted_s = self.predicted.makespan_s
        ratio = self.step_s / predicted_s
        off = f"{ratio - 1:+.0%}" if ratio < _FAR_OFF else f"{ratio:.1f} × that"
        return f" ({format_seconds(predicted_s)} predicted, {off})"

    @property
    def is_paced(self) -> bool:
        """Whether stages waited their predicted time instead of computing."""
        return self.timeline.source == "paced"

    def __repr__(self) -> str:
        rows = []
        for stage in self.plan.stages:
            of_rank = [e for e in self.timeline.events if e.rank == stage.index]

            def seconds(kinds: frozenset[str], events: Any = of_rank) -> str:
                return format_seconds(sum(e.end_s - e.start_s for e in events if e.kind in kinds))

            rows.append(
                [
                    str(stage.index),
                    shorten(stage.labels),
                    seconds(COMPUTE),
                    seconds(frozenset({"send", "recv"})),
                    seconds(frozenset({"wait"})),
                    format_bytes(self.peak_memory_bytes[stage.index]),
                ]
            )
        header = ["rank", "holds", "computes", "moves data", "waits", "peak memory"]
        steps = plural(len(self.steps_s), "step")
        title = (
            f"{self.plan.graph.model}: {plural(self.timeline.num_ranks, 'rank')}, batch of {self.batch_size} in "
            f"{plural(self.timeline.num_microbatches, 'micro-batch')}, median of {steps}, "
            f"{self.environment.get('device_text', 'device unknown')}"
        )
        return f"{wrap(self.verdict)}\n{wrap(title)}\n{format_table(header, rows, left=(0, 1))}"

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON-ready dict, without the output."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "graph": self.plan.graph.to_json(),
            "cuts": list(self.plan.cuts),
            "policy": self.plan.policy,
            "timeline": self.timeline.to_json(),
            "predicted": self.predicted.to_json() if self.predicted else None,
            "steps_s": list(self.steps_s),
            "batch_size": self.batch_size,
            "baseline_s": self.baseline_s,
            "peak_memory_bytes": list(self.peak_memory_bytes),
            "environment": self.environment,
        }

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, without the output."""
        write_json(path, json.dumps(self.to_json()), "report")

    @classmethod
    def load(cls, path: str | Path) -> "Report":
        """A saved report; it needs no trace and no process.

        Raises:
            PipelabError: The file is not a report of this version.
        """
        return cls.from_json(read_json(path, "report"), source=str(path))

    @classmethod
    def from_json(cls, data: Any, *, source: str = "the report") -> "Report":
        """The report that `to_json` described.

        Args:
            data: What `to_json` gave.
            source: What an error names: the file.

        Raises:
            PipelabError: It is no report of this version, or one that cannot be.
        """
        rest = check_header(data, FORMAT, VERSION, "report", source)
        del rest["format"], rest["version"]
        graph = Graph.from_json(rest.pop("graph", None), source=source, path="graph")
        cuts = decode(tuple[int, ...], rest.pop("cuts", None), source, "cuts")
        policy = decode(str, rest.pop("policy", None), source, "policy")
        timelines = {
            name: None if found is None else Timeline.from_json(found, source=source, path=name)
            for name, found in (("timeline", rest.pop("timeline", {})), ("predicted", rest.pop("predicted", None)))
        }
        try:
            plan = Plan(graph, cuts, policy)
        except SplitError as error:
            raise damaged(source, str(error)) from error
        report: Report = decode(cls, rest, source, given={"plan": plan, "output": None, **timelines})
        if problem := report._problem():
            raise damaged(source, problem)
        return report

    def _problem(self) -> str:
        """What contradicts itself, in words; empty if nothing does."""
        counts = {self.timeline.num_ranks, self.timeline.num_stages, self.plan.num_stages, len(self.peak_memory_bytes)}
        if len(counts) > 1:
            return "its plan, timeline and peak_memory_bytes are of different numbers of stages"
        seconds = self.steps_s if self.baseline_s is None else (*self.steps_s, self.baseline_s)
        if not self.steps_s or min(seconds) <= 0 or self.batch_size < 1 or min(self.peak_memory_bytes) < 0:
            return "a time or a size in it is not above 0"
        return ""
