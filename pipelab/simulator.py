"""`simulate`: what a run of a plan would do and when, before it runs."""

from collections.abc import Sequence

import numpy as np

from pipelab.arguments import flag, shown, whole
from pipelab.costs import Costs, check_microbatches, default_microbatches, microbatch_rows
from pipelab.errors import InputError
from pipelab.events import Timeline
from pipelab.hardware import Device, FloatArray, HardwareLike, devices_of
from pipelab.plan import Plan, as_run
from pipelab.replay import Workload, replay
from pipelab.schedules import ActionKind, Order, schedule_actions

_NAMES = {"gpipe": "GPipe", "1f1b": "1F1B", "interleaved_1f1b": "interleaved 1F1B", "zb_h1": "ZB-H1"}


def simulate(
    plan: Plan,
    *,
    schedule: str = "gpipe",
    num_microbatches: int | None = None,
    hardware: HardwareLike = None,
    train: bool = False,
    num_ranks: int | None = None,
) -> Timeline:
    """What every rank would do and when.

    Stages take the time of their ops for a micro-batch of that many rows, transfers the latency and bandwidth of
    the link. Ranks that share the cores of this machine, or a GPU, compete for them. In training a backward takes
    twice its forward, each of its parts as long as the forward.

    Memory of a rank is its weights (in training their gradients too, but no optimizer's state), caches and the
    device's reserve; and for each micro-batch in flight its activations: at their peak, or in training all that
    is kept for the backward.

    Args:
        plan: Where the model is cut; an empty last stage is left out.
        schedule: "gpipe" (fill-drain), "1f1b", "interleaved_1f1b" or "zb_h1".
        num_microbatches: Into how many micro-batches the traced batch is split; None is twice the stages, as far
            as there are rows.
        hardware: What times rest on; None is the plan's, else this machine if it was measured, else a preset.
        train: Whether there is a backward.
        num_ranks: Number of ranks; None is one per stage. Fewer are for "interleaved_1f1b".

    Returns:
        The timeline; its `source` says what it rests on.

    Raises:
        InputError: The schedule is unknown, or does not fit the stages, ranks or micro-batches; or the hardware is
            not known.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4))).eval()
        >>> plan = pipelab.uniform(pipelab.trace(model, torch.zeros(8, 64)), num_stages=2)
        >>> pipelab.simulate(plan, schedule="1f1b", num_microbatches=4, hardware="h100-80gb", train=True)
        Timeline(simulated, h100-80gb, 1F1B training: 2 ranks, 4 micro-batches, ... ms, idle ...%)
    """
    plan = as_run(plan)
    num_stages, batch_size = plan.num_stages, plan.graph.batch_size
    num_ranks = num_stages if num_ranks is None else whole(num_ranks, "num_ranks")
    if num_microbatches is None:
        num_microbatches = default_microbatches(batch_size, num_stages)
    num_microbatches = check_microbatches(batch_size, num_microbatches)
    if not isinstance(schedule, str):
        raise InputError(f"schedule is a name, such as 'gpipe'; it is {shown(schedule)}.")
    flag(train, "train")
    orders = schedule_actions(schedule, num_ranks, num_stages, num_microbatches, train)
    devices = devices_of(plan.hardware if hardware is None else hardware, plan.graph, num_stages)
    return _timeline(plan, schedule, orders, microbatch_rows(batch_size, num_microbatches), devices, train)


def predict(plan: Plan, rows: Sequence[int], devices: Sequence[Device]) -> Timeline:
    """What a run of micro-batches of these rows would do: pipelab's own ranks fill and drain."""
    orders = schedule_actions("gpipe", plan.num_stages, plan.num_stages, len(rows), False)
    return _timeline(plan, "gpipe", orders, rows, devices, train=False)


def _timeline(
    plan: Plan, schedule: str, orders: Sequence[Order], rows: Sequence[int], devices: Sequence[Device], train: bool
) -> Timeline:
    names = " and ".join(dict.fromkeys(device.name for device in devices))
    costs = [[Costs.of(plan.graph, device, size) for size in rows] for device in devices]
    return Timeline(
        replay(orders, _workload(plan, devices, costs, train)),
        len(orders),
        plan.num_stages,
        len(rows),
        f"simulated, {names}, {_NAMES[schedule]} {'training' if train else 'inference'}",
        rank_bytes=_rank_bytes(plan, orders, costs, train),
        microbatch_bytes=_microbatch_bytes(plan, costs, train),
    )


# Of each stage and micro-batch.
_CostsOfAll = Sequence[Sequence[Costs]]


def _workload(plan: Plan, devices: Sequence[Device], costs: _CostsOfAll, train: bool) -> Workload:
    shared = [device.parallel for device in devices if device.parallel is not None]
    slots = [device.num_slots for device in devices if device.num_slots is not None]
    forward_s = _stage_seconds(plan, [[of.time_before for of in row] for row in costs], devices)
    loaded_s = _stage_seconds(plan, [[of.loaded_time_before for of in row] for row in costs], devices)
    links = list(zip(plan.cuts, costs, strict=False))
    return Workload(
        compute_s=_kinds(forward_s),
        loaded_s=_kinds(loaded_s),
        transfer_s=np.array([[of.transfer_s[cut] for of in row] for cut, row in links]),
        transfer_bytes=np.array([[of.cut_bytes[cut] for of in row] for cut, row in links]),
        output_s=None if train else _output_s(devices[-1], costs[-1]),
        overlap=all(device.overlap for device in devices),
        num_slots=min(slots, default=None),
        parallel=min(shared, default=None),
    )


def _stage_seconds(plan: Plan, before_s: Sequence[Sequence[FloatArray]], devices: Sequence[Device]) -> FloatArray:
    return np.array(
        [
            [before[stop] - before[start] + device.microbatch_s for before in row]
            for (start, stop), row, device in zip(plan.bounds, before_s, devices, strict=True)
        ]
    )


def _output_s(device: Device, costs: Sequence[Costs]) -> FloatArray | None:
    """Where a rank does its transfers itself, it also copies the model's outputs to where they are gathered."""
    if device.overlap:
        return None
    return np.array([of.output_bytes / device.link_bytes_per_s for of in costs])


def _kinds(forward_s: FloatArray) -> dict[ActionKind, FloatArray]:
    # The backward of a matrix product is two of them: one for the inputs' gradient, one for the weights'.
    return {"F": forward_s, "B": 2 * forward_s, "I": forward_s, "W": forward_s}


def _rank_bytes(plan: Plan, orders: Sequence[Order], costs: _CostsOfAll, train: bool) -> tuple[int, ...]:
    stage_bytes = [_stage_bytes(row, *bounds, train) for row, bounds in zip(costs, plan.bounds, strict=True)]
    held = [sorted({action.stage for action in order}) for order in orders]
    return tuple(
        int(costs[stages[0]][0].device.reserve_bytes) + sum(stage_bytes[stage] for stage in stages) for stages in held
    )


def _stage_bytes(costs: Sequence[Costs], start: int, stop: int, train: bool) -> int:
    """Weights, their gradients, and the caches of every micro-batch: they stay from step to step."""
    weights = costs[0].graph.weights_between(start, stop)
    gradients = sum(weight.num_bytes for weight in weights if weight.kind == "parameter") if train else 0
    return costs[0].weight_bytes(start, stop) + gradients + costs[0].cache_bytes(start, stop)


def _microbatch_bytes(plan: Plan, costs: _CostsOfAll, train: bool) -> tuple[int, ...]:
    """What the largest micro-batch, the first, takes on each stage."""
    largest = [row[0] for row in costs]
    if train:
        stashes = [of.stash_before for of in largest]
        return tuple(int(s[stop] - s[start]) for s, (start, stop) in zip(stashes, plan.bounds, strict=True))
    peaks = [of.activation_bytes for of in largest]
    return tuple(int(p[start:stop].max()) for p, (start, stop) in zip(peaks, plan.bounds, strict=True))
