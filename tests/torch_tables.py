"""The orders of torch's schedules, from its private table builder: a second opinion for ours."""

from typing import Any

from torch.distributed.pipelining._schedule_visualizer import get_schedule_ops

from pipelab.schedules import Action

_KINDS = {"FORWARD": "F", "FULL_BACKWARD": "B", "BACKWARD_INPUT": "I", "BACKWARD_WEIGHT": "W"}


def torch_orders(name: str, num_ranks: int, num_microbatches: int, per_rank: int = 1) -> tuple[tuple[Action, ...], ...]:
    """The actions of each rank, as torch's table has them."""
    table: Any = get_schedule_ops(name, num_ranks, num_microbatches, per_rank)
    return tuple(tuple(action for entry in order if entry and (action := _action(entry))) for order in table)


def _action(entry: Any) -> Action | None:
    kind = _KINDS.get(entry.computation_type.name)
    return Action(entry.stage_index, kind, entry.microbatch_index) if kind else None
