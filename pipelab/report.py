"""What a run did: the output, who waited for whom, and whether it paid. It outlives the processes."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from pipelab import report_words
from pipelab.errors import SplitError
from pipelab.events import Timeline
from pipelab.files import check_header, damaged, decode, read_json, write_json
from pipelab.graph import Graph
from pipelab.load import OtherLoad
from pipelab.plan import Plan

FORMAT = "pipelab-report"
VERSION = 3
# It told neither the warm-up nor what else the machine did; all that it told is still there.
_VERSION_BEFORE = 2


@dataclass(frozen=True)
class Report:
    """One measured run.

    Attributes:
        plan: Where the model was cut.
        timeline: The events of the median step.
        steps_s: Seconds of every step that counted.
        batch_size: Rows of the batch.
        baseline_s: Seconds of the unsplit model in one process with all cores (or one GPU); None where
            `no_baseline` says why, and of a paced run.
        peak_memory_bytes: Per rank, the most memory it held beyond an idle rank's own.
        environment: Machine, versions, devices, threads and links.
        output: The model's own output; None after `load`.
        predicted: The timeline that was predicted, where the model had been measured, or that set the pace.
        warmup_s: Seconds of the step before those that count; None where it was not told.
        other_load: What else the machine did meanwhile; None where nobody can tell: the steps took less than 0.2 s in
            all, or the system keeps no accounts.
        no_baseline: Why there is nothing to compare with: it does not fit, or the machine was not quiet.

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
    warmup_s: float | None = None
    other_load: OtherLoad | None = None
    no_baseline: str = ""

    @property
    def step_s(self) -> float:
        """Seconds of the median step."""
        return median(self.steps_s)

    @property
    def spread_s(self) -> tuple[float, float]:
        """Four of five steps lie between these: the 10th and the 90th percentile of `steps_s`."""
        if len(self.steps_s) == 1:
            return self.steps_s[0], self.steps_s[0]
        tenths = quantiles(self.steps_s, n=10, method="inclusive")
        return tenths[0], tenths[-1]

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
        """Whether it was faster than the unsplit model, who was the bottleneck, and what disturbed it."""
        return report_words.verdict(self)

    @property
    def is_paced(self) -> bool:
        """Whether stages waited their predicted time instead of computing."""
        return self.timeline.source == "paced"

    def __repr__(self) -> str:
        return report_words.full_text(self)

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
            "warmup_s": self.warmup_s,
            "other_load": self.other_load.to_json() if self.other_load else None,
            "no_baseline": self.no_baseline,
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
        if isinstance(data, dict) and data.get("version") == _VERSION_BEFORE:
            data = {**data, "version": VERSION}
        rest = check_header(data, FORMAT, VERSION, "report", source)
        del rest["format"], rest["version"]
        graph = Graph.from_json(rest.pop("graph", None), source=source, path="graph")
        cuts = decode(tuple[int, ...], rest.pop("cuts", None), source, "cuts")
        policy = decode(str, rest.pop("policy", None), source, "policy")
        timeline = Timeline.from_json(rest.pop("timeline", None), source=source, path="timeline")
        predicted = rest.pop("predicted", None)
        if predicted is not None:
            predicted = Timeline.from_json(predicted, source=source, path="predicted")
        try:
            plan = Plan(graph, cuts, policy)
        except SplitError as error:
            raise damaged(source, str(error)) from error
        given = {"plan": plan, "output": None, "timeline": timeline, "predicted": predicted}
        report: Report = decode(cls, rest, source, given=given)
        if problem := report._problem():
            raise damaged(source, problem)
        return report

    def _problem(self) -> str:
        """What contradicts itself, in words; empty if nothing does."""
        counts = {self.timeline.num_ranks, self.timeline.num_stages, self.plan.num_stages, len(self.peak_memory_bytes)}
        if len(counts) > 1:
            return "its plan, timeline and peak_memory_bytes are of different numbers of stages"
        seconds = (*self.steps_s, *(known for known in (self.baseline_s, self.warmup_s) if known is not None))
        if not self.steps_s or min(seconds) <= 0 or self.batch_size < 1 or min(self.peak_memory_bytes) < 0:
            return "a time or a size in it is not above 0"
        return ""
