"""What the explorer's browser half needs to tell what stages cost: times and memory on one kind of device."""

from collections.abc import Sequence
from typing import Any

from pipelab.costs import Costs, rows_of
from pipelab.errors import InputError
from pipelab.graph import Graph
from pipelab.hardware import Device, HardwareLike, devices_of, measurement_of


def one_device(hardware: HardwareLike, graph: Graph) -> Device | None:
    """The device that every stage of an explorer runs on: the machine the graph was measured on if none is named.

    Returns:
        None where nothing is named and nothing was measured: then there are no times.

    Raises:
        InputError: There is no such preset, or there are several devices.
    """
    if hardware is None:
        return measurement_of(graph)
    count = len(hardware) if isinstance(hardware, Sequence) and not isinstance(hardware, str) else 1
    first, *others = devices_of(hardware, graph, count)
    if any(other is not first for other in others):
        raise InputError("An explorer shows one kind of device; the plan names several. Name one: hardware=...")
    return first


def cost_state(graph: Graph, device: Device | None, num_microbatches: int) -> dict[str, Any]:
    """Prefix sums of one micro-batch's time, what each cut transfers, and what memory there is; empty without times.

    Raises:
        InputError: The machine was measured with another model, or with other numbers of rows.
    """
    if device is None:
        return {}
    costs = Costs.of(graph, device, rows_of(max(1, graph.batch_size), num_microbatches))
    return {
        "device": device.description,
        "num_microbatches": num_microbatches,
        "rows": costs.rows,
        "time_before": costs.loaded_time_before.tolist(),
        "alone_s": float(costs.time_before[-1]),
        "fixed_s": device.microbatch_s,
        "transfer_s": costs.transfer_s[[point.position for point in graph.cut_points]].tolist(),
        "overlap": device.overlap,
        "memory_bytes": device.memory_bytes,
        "reserve_bytes": device.reserve_bytes,
        "peak_bytes": costs.activation_bytes.tolist(),
        "held": _held(graph, costs.rows),
    }


def _held(graph: Graph, rows: int) -> list[list[Any]]:
    """What a stage holds besides parameters: buffers, constants and caches, each as the ops that read it, and bytes."""
    weights = ((uses, graph.weight_by_name[name]) for name, uses in graph.weight_uses.items())
    held = [[list(uses), weight.num_bytes] for uses, weight in weights if weight.kind != "parameter"]
    caches = ([list(uses), graph.value_bytes(value, graph.batch_size)] for value, uses in graph.cache_uses.items())
    return [*held, *caches]
