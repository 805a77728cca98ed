"""What a language model takes to serve with one split: memory per device, and the time of reading and of generating."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelab.costs import Costs, microbatch_rows
from pipelab.events import Timeline
from pipelab.hardware import describe, devices_of
from pipelab.plan import Plan, shorten
from pipelab.simulator import simulate
from pipelab.table import format_table, wrap
from pipelab.units import format_bytes, format_count, format_seconds, format_whole, plural


@dataclass(frozen=True)
class Phase:
    """One workload on a plan: prompts read (prefill), or one new token for each row (decode).

    Attributes:
        name: "prefill", "decode"; "forward" of a model that does not generate.
        plan: The cuts on the trace of this workload, with hardware.
        num_microbatches: Into how many its rows are split.
        num_tokens: Tokens of a step, over all rows.
    """

    name: str
    plan: Plan
    num_microbatches: int
    num_tokens: int

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Rows of each micro-batch."""
        return microbatch_rows(self.plan.graph.batch_size, self.num_microbatches)

    @cached_property
    def timeline(self) -> Timeline:
        """One step: all micro-batches through all stages, from empty to empty."""
        return simulate(self.plan, num_microbatches=self.num_microbatches)

    @property
    def step_s(self) -> float:
        """Seconds of that step."""
        return self.timeline.makespan_s

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second, step after step."""
        return self.num_tokens / self.step_s

    def stage_s(self, stage: int, rows: int) -> float:
        """Seconds a stage computes for a micro-batch of these rows."""
        (start, stop), costs = self.plan.bounds[stage], self._costs(stage, rows)
        before = costs.work_before(self.plan.num_stages)
        return float(before[stop] - before[start]) + costs.device.microbatch_s

    def sent_s(self, stage: int, rows: int) -> float:
        """Seconds until what it sends is at the next stage; 0 for the last."""
        return float(self._costs(stage, rows).transfer_s[self.plan.bounds[stage][1]])

    def sent_bytes(self, stage: int) -> int:
        """Bytes it sends per micro-batch; 0 for the last."""
        return int(self._costs(stage, self.rows[0]).cut_bytes[self.plan.bounds[stage][1]])

    def activation_bytes(self, stage: int) -> int:
        """Bytes of activations at their peak, of one micro-batch."""
        start, stop = self.plan.bounds[stage]
        return int(self._costs(stage, self.rows[0]).activation_bytes[start:stop].max())

    @cached_property
    def round_s(self) -> float:
        """Seconds from a token of every row to the next, if each micro-batch starts again as soon as it is through.

        Then no stage waits for a step to end: the busiest stage or link sets the pace, or, with few micro-batches,
        the way of one of them through all stages.
        """
        stages = range(self.plan.num_stages)
        work = {rows: [self.stage_s(stage, rows) for stage in stages] for rows in set(self.rows)}
        sent = {rows: [self.sent_s(stage, rows) for stage in stages] for rows in set(self.rows)}
        busiest = max(sum(of[rows][stage] for rows in self.rows) for of in (work, sent) for stage in stages)
        return max(busiest, *(sum(work[rows]) + sum(sent[rows]) for rows in work))

    def _costs(self, stage: int, rows: int) -> Costs:
        device = devices_of(self.plan.hardware, self.plan.graph, self.plan.num_stages)[stage]
        return Costs.of(self.plan.graph, device, rows)

    def to_json(self) -> dict[str, float]:
        """Its figures as a whole."""
        found = {
            "step_s": self.step_s,
            "tokens_per_s": self.tokens_per_s,
            "bubble_fraction": self.timeline.bubble_fraction,
        }
        if self.name == "decode":
            found |= {"round_s": self.round_s, "tokens_per_s_in_flight": self.num_tokens / self.round_s}
        return found


@dataclass(frozen=True)
class Serving:
    """A model on devices, one per stage.

    Attributes:
        phases: What it does, with the same cuts.
        settings: What was asked for, by name.
        note: What is missing and why; empty if nothing is.
    """

    phases: tuple[Phase, ...]
    settings: Mapping[str, Any]
    note: str = ""

    @property
    def plan(self) -> Plan:
        """The split, on the trace of the first phase."""
        return self.phases[0].plan

    @cached_property
    def memory(self) -> tuple[dict[str, int], ...]:
        """Per device: what weights, caches, activations and the device itself take, their sum, and what there is.

        Caches are of all rows, activations of one micro-batch in the phase that has more of them.
        """
        return tuple(self._memory_of(stage) for stage in range(self.plan.num_stages))

    def _memory_of(self, stage: int) -> dict[str, int]:
        held = [phase.plan.stages[stage] for phase in self.phases]
        device = devices_of(self.plan.hardware, self.plan.graph, self.plan.num_stages)[stage]
        parts = {
            "weights": max(of.param_bytes + of.buffer_bytes for of in held),
            "kv_cache": max(of.cache_bytes for of in held),
            "activations": max(phase.activation_bytes(stage) for phase in self.phases),
            "reserve": int(device.reserve_bytes),
        }
        return {**parts, "total": sum(parts.values()), "capacity": int(device.memory_bytes)}

    @property
    def misfits(self) -> tuple[int, ...]:
        """The stages that need more memory than their device has."""
        return tuple(stage for stage, of in enumerate(self.memory) if of["total"] > of["capacity"])

    def to_json(self) -> dict[str, Any]:
        """All figures, JSON-ready."""
        graph = self.plan.graph
        return {
            "format": "pipelab-serving",
            "version": 1,
            "model": graph.model,
            "num_params": graph.num_params,
            "param_bytes": graph.param_bytes,
            **self.settings,
            "policy": self.plan.policy,
            "split_points": list(self.plan.split_points),
            "num_microbatches": self.phases[0].num_microbatches,
            "fits": not self.misfits,
            "note": self.note,
            "stages": [self._stage_json(stage) for stage in range(self.plan.num_stages)],
            **{phase.name: phase.to_json() for phase in self.phases},
        }

    def _stage_json(self, index: int) -> dict[str, Any]:
        stage = self.plan.stages[index]
        figures = {
            phase.name: {"time_s": phase.stage_s(index, phase.rows[0]), "sent_bytes": phase.sent_bytes(index)}
            for phase in self.phases
        }
        memory = {f"{name}_bytes": size for name, size in self.memory[index].items()}
        return {"index": index, "holds": list(stage.labels), "num_params": stage.num_params, **memory, **figures}

    def __repr__(self) -> str:
        parts = [
            self._title,
            self._memory_table,
            self._time_table,
            *map(_phase_text, self.phases),
            self._fit,
            self.note,
        ]
        return "\n".join(part if "\n" in part else wrap(part) for part in parts if part)

    @property
    def _title(self) -> str:
        graph = self.plan.graph
        params = f"{format_count(graph.num_params)} parameters ({format_bytes(graph.param_bytes)})"
        stages = plural(self.plan.num_stages, "stage")
        return f"{graph.model}, {params}, batch of {graph.batch_size}, in {stages}: {self.plan.policy}"

    @property
    def _memory_table(self) -> str:
        stages, memory = self.plan.stages, self.memory
        columns = {
            "stage": [str(stage.index) for stage in stages],
            "holds": [shorten(stage.labels) for stage in stages],
            "params": [format_count(stage.num_params) for stage in stages],
        }
        cached = any(of["kv_cache"] for of in memory)
        for title, name in _MEMORY_COLUMNS.items():
            if cached or name != "kv_cache":
                columns[title] = [format_bytes(of[name]) for of in memory]
        reserve = format_bytes(max(of["reserve"] for of in memory))
        heading = f"Memory of each device, with {reserve} for its driver{' and the caches of all rows' * cached}:"
        return f"{wrap(heading)}\n{_table(columns, left=(0, 1))}"

    @property
    def _time_table(self) -> str:
        stages, first = self.plan.stages, self.phases[0]
        columns = {"stage": [str(stage.index) for stage in stages]}
        for phase in self.phases:
            sent = [phase.sent_bytes(stage.index) for stage in stages[:-1]]
            columns[phase.name] = [format_seconds(phase.stage_s(stage.index, phase.rows[0])) for stage in stages]
            columns[f"{phase.name} sends"] = [*(format_bytes(of) for of in sent), ""]
        devices = devices_of(self.plan.hardware, self.plan.graph, self.plan.num_stages)
        groups = plural(first.num_microbatches, "micro-batch")
        each = f"{plural(first.rows[0], 'row')}{'' if first.rows[0] == first.rows[-1] else ' or fewer'}"
        return f"{wrap(f'One of {groups}, of {each} ({describe(devices)}):')}\n{_table(columns, left=(0,))}"

    @property
    def _fit(self) -> str:
        shares = [of["total"] / of["capacity"] for of in self.memory]
        fullest = shares.index(max(shares))
        of = self.memory[fullest]
        needs = f"{format_bytes(of['total'])} of {format_whole(of['capacity'])}"
        if not self.misfits:
            return f"Stage {fullest} is the fullest: {needs}."
        return f"It does not fit: stage {fullest} needs {needs}; {plural(len(self.misfits), 'stage')} in all."


def _table(columns: Mapping[str, Sequence[str]], left: Sequence[int]) -> str:
    return format_table(list(columns), list(zip(*columns.values(), strict=True)), left=left)


_MEMORY_COLUMNS = {
    "weights": "weights",
    "KV cache": "kv_cache",
    "activations": "activations",
    "memory": "total",
}


def _rate(per_s: float) -> str:
    """Three digits: a prediction knows no more."""
    return f"{float(f'{per_s:.3g}'):,.{0 if per_s >= 100 else 1}f}"


def _phase_text(phase: Phase) -> str:
    text = (
        f"{phase.name.capitalize()}: a step of {phase.num_tokens:,} tokens takes {format_seconds(phase.step_s)}, "
        f"{_rate(phase.tokens_per_s)} tokens per second."
    )
    if phase.name != "decode":
        return text
    return (
        f"{text} With all micro-batches in flight, each beginning its next token when it is through, every "
        f"{format_seconds(phase.round_s)}: {_rate(phase.num_tokens / phase.round_s)} tokens per second."
    )
