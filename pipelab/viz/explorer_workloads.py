"""What an explorer can show: traces of one model, such as prefill and decode, that share the split."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelab.arguments import whole
from pipelab.errors import SplitError
from pipelab.graph import Graph
from pipelab.plan import Plan
from pipelab.policies import uniform
from pipelab.split_points import name_of, resolve
from pipelab.units import plural
from pipelab.viz.explorer_runs import Runner
from pipelab.viz.explorer_state import graph_state, largest_that_works, preset_state


@dataclass(frozen=True, eq=False)
class Workload:
    """One trace of the model.

    Attributes:
        graph: What was traced.
        runner: What runs and measures it; None turns Run off.
        refusal: Why Run is off, in a sentence.
    """

    graph: Graph
    runner: Runner | None = None
    refusal: str = ""

    @cached_property
    def data(self) -> dict[str, Any]:
        """The graph as the browser's half takes it."""
        return graph_state(self.graph)

    @cached_property
    def presets(self) -> dict[str, Any]:
        """The policies' cuts for each number of stages."""
        return preset_state(self.graph)


def opening_plan(graph: Graph, num_stages: int) -> tuple[Plan, str]:
    """The plan an explorer opens with, and the refusal if there can be no so many stages."""
    num_stages = whole(num_stages, "num_stages")
    try:
        return uniform(graph, num_stages=num_stages), ""
    except SplitError as error:
        works = largest_that_works(preset_state(graph)["uniform"], num_stages)
        return uniform(graph, num_stages=works), str(error)


def carried(before: Graph, cuts: Sequence[int], after: Graph) -> tuple[tuple[int, ...], str]:
    """The same cuts in another trace of the model: by name, else at the nearest legal place.

    Returns:
        The cuts, and a sentence on those that moved; it is empty if none did.
    """
    placed = [_place(before, cut, after) for cut in cuts]
    found = sorted({position for position, _ in placed if position is not None})
    num_moved = len(cuts) - sum(by_name for _, by_name in placed)
    lost = len(cuts) - len(found)
    parts = [f"{plural(num_moved, 'split point')} moved to the nearest legal place"] if num_moved else []
    parts += [f"{plural(lost, 'split point')} found no place of {'its' if lost == 1 else 'their'} own"] if lost else []
    text = " and ".join(parts)
    return tuple(found), f"{text[0].upper()}{text[1:]}." if text else ""


def _place(before: Graph, cut: int, after: Graph) -> tuple[int | None, bool]:
    """A cut's position in the other trace, and whether it was found by its name."""
    try:
        return resolve(after, name_of(before, cut)), True
    except SplitError:
        near = _about(before, cut, after)
        return min(after.legal, key=lambda legal: abs(legal - near), default=None), False


def _about(before: Graph, cut: int, after: Graph) -> float:
    """As far into the block of the same name, or where there is none into the model."""
    for block in before.blocks_between(cut, cut + 1):
        for other in after.blocks:
            if (other.path, other.label) == (block.path, block.label):
                return other.start + (cut - block.start) / (block.stop - block.start) * (other.stop - other.start)
    return cut / len(before.ops) * len(after.ops)


def are_of_one_model(first: Graph, second: Graph) -> bool:
    """Whether two traces have the same parameters."""
    return _parameters(first) == _parameters(second)


def _parameters(graph: Graph) -> tuple[str, set[tuple[str, tuple[int, ...]]]]:
    return graph.model, {(weight.name, weight.shape) for weight in graph.weights if weight.kind == "parameter"}
