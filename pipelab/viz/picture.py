"""What a stage graph shows, before anybody draws it: boxes and labelled links between them."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pipelab.graph import Graph, TensorInfo, Weight
from pipelab.plan import Plan, shorten
from pipelab.plan_parts import Stage
from pipelab.units import format_bytes, format_count, plural
from pipelab.viz.value_names import cut_off, tail, value_names

# A value that more pieces read than this (a mask, positions) gets a badge instead of an arrow to each of them.
MAX_FAN_OUT = 8
_LABEL_LENGTH = 28

Kind = Literal["boundary", "flow", "skip", "tied"]


@dataclass(frozen=True, slots=True)
class Box:
    """One box.

    Attributes:
        stage: The stage it belongs to.
        lines: Its text, the title first.
    """

    stage: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """A line between two boxes.

    Attributes:
        source: Index of a box; -1 for the model's inputs.
        target: Index of a box; the number of boxes for the model's outputs.
        label: Its text.
        kind: "boundary" what crosses a cut, "flow" inside a stage, "skip" past a box that does not read it,
            "tied" a weight in both.
    """

    source: int
    target: int
    label: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Picture:
    """Boxes in execution order, the links between them, and a heading per stage (empty where boxes say it all)."""

    title: str
    inputs: str
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]
    headings: tuple[str, ...] = ()


def stage_picture(plan: Plan) -> Picture:
    """One box per stage, the bytes of each boundary, skips and tied weights."""
    graph = plan.graph
    # What the model returns ends in an empty last stage, if there is one.
    ranges = _Ranges(graph, plan.without_empty_stage().bounds)
    links = [
        *_ends(graph, plan.num_stages),
        *(Link(b.index, b.index + 1, format_bytes(b.num_bytes), "boundary") for b in plan.boundaries),
        *(
            Link(s, t, _values_text(ranges.names, values), "skip")
            for (s, t), values in ranges.transfers().items()
            if t > s + 1
        ),
        *ranges.tied(),
    ]
    boxes = tuple(Box(stage.index, _stage_lines(stage)) for stage in plan.stages)
    return Picture(_title(plan), _inputs_text(graph), boxes, tuple(links))


def block_picture(plan: Plan) -> Picture:
    """One box per block, or per part of one where a cut lies inside it."""
    graph = plan.graph
    boxes, bounds = [], []
    for stage in plan.stages:
        for block in graph.blocks:
            start, stop = max(block.start, stage.start), min(block.stop, stage.stop)
            if start < stop:
                part = "" if (start, stop) == (block.start, block.stop) else " (part)"
                boxes.append(Box(stage.index, (tail(block.label) + part, *_weight_lines(graph, start, stop))))
                bounds.append((start, stop))
    ranges = _Ranges(graph, bounds)
    stage_of = [*(box.stage for box in boxes), -1]
    transfers = ranges.transfers(MAX_FAN_OUT)
    steps = [
        Link(i, i + 1, format_bytes(plan.boundaries[a].num_bytes), "boundary") if a != b else Link(i, i + 1, "", "flow")
        for i, (a, b) in enumerate(pairwise(stage_of[:-1]))
        if a != b or (i, i + 1) in transfers
    ]
    skips = [
        Link(s, t, _values_text(ranges.names, values) if t == len(boxes) or stage_of[s] != stage_of[t] else "", "skip")
        for (s, t), values in transfers.items()
        if t > s + 1
    ]
    ties = [link for link in ranges.tied() if stage_of[link.source] != stage_of[link.target]]
    links = (*_ends(graph, len(boxes)), *steps, *skips, *ties)
    return Picture(_title(plan), _inputs_text(graph), tuple(boxes), links, _headings(plan, ranges, stage_of))


class _Ranges:
    """Consecutive ranges of ops, and what goes from one to another."""

    def __init__(self, graph: Graph, bounds: Sequence[tuple[int, int]]) -> None:
        self.graph, self.bounds = graph, bounds
        self._stops = [stop for _, stop in bounds]
        self.names = value_names(graph)

    def at(self, op: int) -> int:
        """The range an op lies in; the one after the last for the model's outputs, -1 for its inputs."""
        return -1 if op < 0 else bisect_right(self._stops, op)

    def readers(self) -> Iterator[tuple[int, TensorInfo, list[int]]]:
        """Each value that leaves its range: the range that makes it, its tensor, the ranges that read it."""
        read: dict[int, set[int]] = {}
        for index, op in enumerate(self.graph.ops):
            for value in op.args:
                read.setdefault(value, set()).add(self.at(index))
        for value in self.graph.outputs:
            read.setdefault(value, set()).add(len(self.bounds))
        for value, ranges in read.items():
            tensor, made = self.graph.tensor(value), self.at(value)
            others = sorted(ranges - {made})
            if tensor is not None and others and value not in self.graph.caches:
                yield made, tensor, others

    def transfers(self, max_fan_out: int | None = None) -> dict[tuple[int, int], list[TensorInfo]]:
        """The values that go from one range to another: from where they are made, or were last read, to a reader.

        Args:
            max_fan_out: A value that more ranges read keeps only its first; `broadcasts` tells of the others.
        """
        found: dict[tuple[int, int], list[TensorInfo]] = {}
        for made, tensor, others in self.readers():
            if max_fan_out is None:
                hops = list(pairwise([made, *others]))
            else:
                hops = [(made, other) for other in (others if len(others) <= max_fan_out else others[:1])]
            for hop in hops:
                found.setdefault(hop, []).append(tensor)
        return found

    def broadcasts(self, max_fan_out: int) -> list[tuple[TensorInfo, list[int]]]:
        """The values that more ranges than this read, with all but the first of those ranges."""
        return [(tensor, others[1:]) for _, tensor, others in self.readers() if len(others) > max_fan_out]

    def tied(self) -> list[Link]:
        """A link for the parameters that two ranges both hold."""
        shared: dict[tuple[int, int], list[Weight]] = {}
        for name, uses in self.graph.weight_uses.items():
            weight = self.graph.weight_by_name[name]
            if weight.kind == "parameter":
                for pair in pairwise(sorted({self.at(op) for op in uses})):
                    shared.setdefault(pair, []).append(weight)
        return [Link(s, t, self._tied_text(weights), "tied") for (s, t), weights in shared.items()]

    def _tied_text(self, weights: list[Weight]) -> str:
        size = format_bytes(sum(weight.num_bytes for weight in weights))
        if len(weights) > 1:
            return f"shared: {len(weights)} weights, {size} in both"
        names = [w.name for w in self.graph.weights if w.tied_to == weights[0].name]
        texts = [tail(self.graph.short(name).removesuffix(".weight")) for name in names]
        same = " = ".join(texts) if len(texts) <= 2 else f"{texts[0]} and {len(texts) - 1} other names"
        return f"{'tied' if len(names) > 1 else 'shared'}: {same}, {size} in both"


def _ends(graph: Graph, num_boxes: int) -> list[Link]:
    outputs = [graph.tensor(value) for value in graph.outputs]
    return [
        Link(-1, 0, format_bytes(sum(tensor.num_bytes for tensor in graph.sent_inputs)), "flow"),
        Link(num_boxes - 1, num_boxes, format_bytes(sum(tensor.num_bytes for tensor in outputs if tensor)), "flow"),
    ]


def _stage_lines(stage: Stage) -> tuple[str, ...]:
    if stage.start == stage.stop:
        return f"stage {stage.index}", "empty:", "a run leaves it out"
    holds = [line for line in _wrapped(shorten(stage.labels)) if line]
    cache = (f"{format_bytes(stage.cache_bytes)} of KV cache",) if stage.cache_bytes else ()
    return f"stage {stage.index}", *holds, *_size_lines(stage.num_params, stage.param_bytes), *cache


def _weight_lines(graph: Graph, start: int, stop: int) -> tuple[str, ...]:
    parameters = [weight for weight in graph.weights_between(start, stop) if weight.kind == "parameter"]
    return _size_lines(sum(w.num_elements for w in parameters), sum(w.num_bytes for w in parameters))


def _size_lines(num_params: int, param_bytes: int) -> tuple[str, ...]:
    return (f"{format_count(num_params)} parameters", format_bytes(param_bytes)) if num_params else ("no parameters",)


def _headings(plan: Plan, ranges: _Ranges, stage_of: Sequence[int]) -> tuple[str, ...]:
    badges: dict[int, list[TensorInfo]] = {}
    for tensor, others in ranges.broadcasts(MAX_FAN_OUT):
        for stage in sorted({stage_of[other] for other in others if other < len(ranges.bounds)}):
            badges.setdefault(stage, []).append(tensor)
    return tuple(
        ", ".join([f"stage {stage.index}", *_size_lines(stage.num_params, stage.param_bytes)])
        + (f"\nbroadcast input: {_values_text(ranges.names, badges[stage.index])}" if stage.index in badges else "")
        for stage in plan.stages
    )


def _values_text(names: Mapping[str, str], tensors: Sequence[TensorInfo]) -> str:
    name = names[tensors[0].name] if len(tensors) == 1 else f"{len(tensors)} values"
    return f"{name}, {format_bytes(sum(tensor.num_bytes for tensor in tensors))}"


def _inputs_text(graph: Graph) -> str:
    names = [cut_off(tensor.name) for tensor in graph.sent_inputs]
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"


def _title(plan: Plan) -> str:
    return f"{plan.graph.model} in {plural(plan.num_stages, 'stage')} (batch of {plan.graph.batch_size})"


def _wrapped(text: str) -> list[str]:
    """Text in lines of a box's width, broken at commas; a long list is cut off after four lines."""
    first, *parts = text.split(", ")
    lines = [tail(first)]
    for part in parts:
        joined = f"{lines[-1]}, {part}"
        if len(joined) <= _LABEL_LENGTH:
            lines[-1] = joined
        else:
            lines[-1] += ","
            lines.append(tail(part))
    return lines if len(lines) <= 4 else [*lines[:3], f"and {len(lines) - 3} lines more"]
