"""Why a question has no answer: the limit that binds, and the nearest question that has one."""

from dataclasses import replace

import numpy as np

from pipelab.candidates import count_text
from pipelab.chain import Chain
from pipelab.minmax import minimise, reachable
from pipelab.problem import Problem
from pipelab.units import format_bytes, plural


def refusal(problem: Problem) -> str:
    """What does not fit, and what would."""
    if problem.chain.num_segments < problem.num_stages:
        return _too_few_cuts(problem)
    return f"{_what_does_not_fit(problem)} {_what_would(problem)}"


def _too_few_cuts(problem: Problem) -> str:
    graph = problem.graph
    finer = f' granularity="op" offers {len(graph.legal)}.' if len(graph.legal) > len(problem.positions) - 2 else ""
    return (
        f"{graph.model} has {count_text(problem.positions, problem.granularity)}. The largest number of stages that "
        f"works is {problem.chain.num_segments}.{finer}"
    )


def _what_does_not_fit(problem: Problem) -> str:
    """The binding limit: one piece that no stage can hold, or the model as a whole."""
    chain = problem.chain
    sizes = [problem.memory.size(segment, segment + 1) for segment in range(chain.num_segments)]
    room = max(of.limit - of.held for of in chain.stages)
    largest = int(np.argmax(sizes))
    held = _held_text(problem)
    if sizes[largest] > room:
        name, needs = problem.holds(largest, largest + 1), format_bytes(sizes[largest])
        return f"{name} alone needs {needs}{held}; that is more than {problem.held_to}."
    reached = reachable(chain, chain.upper_bound, prune=False)
    farthest = int(reached[-1].max()) if reached else 0
    pinned = " with the pinned cuts" if chain.pins else ""
    if farthest == chain.num_segments:
        return f"With {problem.held_to} per stage{held}, no split{pinned} leaves something for every stage."
    label = problem.graph.label_at(problem.positions[farthest])
    stages = plural(len(reached), "stage") if reached else "a first stage"
    return f"With {problem.held_to} per stage{held}, {stages}{pinned} can hold the model up to the cut {label}."


def _held_text(problem: Problem) -> str:
    held = max(of.held for of in problem.chain.stages)
    return f", besides {format_bytes(held)} that are taken before a model is loaded" if held else ""


def _what_would(problem: Problem) -> str:
    chain = problem.chain
    if chain.pins and minimise(replace(chain, pins=())):
        return "Without the pinned cuts it fits."
    least = minimise(_by_memory(chain, problem))
    assert least is not None  # with as many stages as this, cuts and pins admit some split
    limit = f"{format_bytes(least.cost)} ({least.cost:,.0f} bytes)"
    text = f"The smallest limit that works for {plural(chain.num_stages, 'stage')} is {limit}"
    rooms = {of.limit - of.held for of in chain.stages}
    if len(rooms) > 1:
        return f"{text}."
    if fewest := _fewest_stages(problem, rooms.pop()):
        return f"{text}; with the limit as it is, {plural(fewest, 'stage')} do."
    finer = '; granularity="op" cuts inside blocks' if problem.granularity != "op" else ""
    return f"{text}; with the limit as it is, no number of stages does{finer}."


def _by_memory(chain: Chain, problem: Problem) -> Chain:
    """The question which limit would do: memory is what it costs."""
    nothing = np.zeros(chain.num_segments + 1)
    stages = tuple(
        replace(of, work=nothing, receive=nothing, send=nothing, fixed=of.held, limit=float("inf"), overlap=False)
        for of in chain.stages
    )
    return Chain(stages, (), problem.memory, chain.pins)


def _fewest_stages(problem: Problem, room: float) -> int | None:
    """The smallest number of stages that fits if each has this room; None if none does."""
    lows = problem.memory.lows(room)
    count = start = 0
    while start < problem.chain.num_segments:
        stop = int(np.searchsorted(lows, start, side="right")) - 1  # lows ascend
        if stop <= start:
            return None
        start, count = stop, count + 1
    return count
