"""One flow of one rank: whatever group comes next, run the program that its token names, and hand the group on."""

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from pipelab.launch.counters import Counters
from pipelab.launch.ends import mapped
from pipelab.launch.messages import RingLoad, Spent
from pipelab.launch.ring import GroupSlots, next_token, send_end, send_token
from pipelab.program import StageTable, ValueSpec
from pipelab.stage_module import StageModule


class RingEnds:
    """What ties a rank to its neighbours in a ring, made of the descriptors that came with its `RingLoad`.

    Args:
        load: What goes round.
        rest: Descriptors from those of the slots on; what is used is taken out.

    Attributes:
        source: The slots before it.
        sink: The slots behind it.
        before: Where tokens come from.
        behind: Where they go: to the next rank, or of the last one to whoever waits for the group.
    """

    def __init__(self, load: RingLoad, rest: list[int]) -> None:
        before, behind = (mapped(rest, num_bytes).bytes for num_bytes in (load.source_bytes, load.sink_bytes))
        self.source = GroupSlots(before, [stage.inputs for stage in load.programs], len(load.groups))
        self.sink = GroupSlots(behind, [stage.outputs for stage in load.programs], len(load.groups))
        self.before, *self.behind = [socket.socket(fileno=descriptor) for descriptor in rest]
        rest.clear()

    def close(self) -> None:
        """Leave the neighbours."""
        for end in (self.before, *self.behind):
            end.close()


@dataclass(frozen=True)
class RingStage:
    """What a rank holds while it is part of a ring.

    Attributes:
        rank: Which rank this is.
        programs: The stage for each kind of step and number of rows.
        modules: The same, ready to run.
        groups: Per group, what is kept of it from step to step.
        device: Where it computes.
        ends: What ties it to its neighbours.
        counters: What it publishes.
    """

    rank: int
    programs: Sequence[StageTable]
    modules: Sequence[StageModule]
    groups: Sequence[Sequence[ValueSpec]]
    device: torch.device
    ends: RingEnds
    counters: Counters

    @cached_property
    def first_ops(self) -> list[int]:
        """The number of each program's first op: counters count through all programs."""
        return list(accumulate((len(program.table.rows) for program in self.programs), initial=0))


class Clock:
    """Adds up how long each program takes.

    Args:
        num_programs: How many there are.
        device: Where they compute.
    """

    def __init__(self, num_programs: int, device: torch.device) -> None:
        self._ns = [[0, 0] for _ in range(num_programs)]
        self._is_cuda = device.type == "cuda"

    def now_ns(self) -> int:
        """The time at which all that was asked for is done."""
        if self._is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter_ns()

    def add(self, program: int, compute_ns: int, move_ns: int) -> None:
        """A run of a program has taken so long."""
        spent = self._ns[program]
        spent[0] += compute_ns
        spent[1] += move_ns

    @property
    def spent(self) -> tuple[Spent, ...]:
        """Per program, all its runs."""
        return tuple(Spent(*spent) for spent in self._ns)


@torch.inference_mode()
def run_flow(stage: RingStage) -> tuple[Spent, ...]:
    """Run what comes until the end of the flow; returns how long each program took in all.

    What is kept of a group begins as zeros and is gone afterwards.

    Raises:
        Stopped: The flow was given up, or a neighbour is gone.
    """
    kept = [{spec.name: _zeros(spec, stage.device) for spec in group} for group in stage.groups]
    ends, clock = stage.ends, Clock(len(stage.programs), stage.device)
    while token := next_token(ends.before, stage.counters):
        program, group = token
        taken_ns = time.perf_counter_ns()
        values = [value.to(stage.device) for value in ends.source.unpack(program, group)]
        begun_ns = clock.now_ns()
        results = _compute(stage, program, values, kept[group])
        computed_ns = clock.now_ns()
        ends.sink.pack(program, group, results)
        send_token(ends.behind[group % len(ends.behind)], program, group)
        handed_ns = time.perf_counter_ns()  # whoever comes next is at work already
        clock.add(program, computed_ns - begun_ns, begun_ns - taken_ns + handed_ns - computed_ns)
    send_end(ends.behind[0])
    return clock.spent


def _compute(
    stage: RingStage, program: int, values: Sequence[Tensor], kept: Mapping[str, Tensor]
) -> tuple[Tensor, ...]:
    stage.counters.enter(stage.rank, stage.first_ops[program])
    own = [kept[spec.name] for spec in stage.programs[program].kept]
    results: tuple[Tensor, ...] = stage.modules[program](*values, *own)
    stage.counters.leave(stage.rank)
    return results


def _zeros(spec: ValueSpec, device: torch.device) -> Tensor:
    return torch.zeros(spec.shape, dtype=spec.torch_dtype, device=device)
