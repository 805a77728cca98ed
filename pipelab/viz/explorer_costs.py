"""What the explorer's browser half needs to tell what stages cost and to simulate them, on one kind of device."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelab.costs import Costs, microbatch_rows, stash_bytes
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
    count = max(len(hardware), 1) if isinstance(hardware, Sequence) and not isinstance(hardware, str) else 1
    first, *others = devices_of(hardware, graph, count)
    if any(other is not first for other in others):
        raise InputError("An explorer shows one kind of device; the plan names several. Name one: hardware=...")
    return first


def cost_state(graph: Graph, device: Device | None, num_microbatches: int) -> dict[str, Any]:
    """What stages and cuts cost for one micro-batch: FLOPs, bytes, and on a device also times.

    Where the batch does not divide, its last micro-batches have a row less: they stand under "smaller".

    Args:
        graph: The model.
        device: What every stage runs on; None knows no times.
        num_microbatches: Into how many micro-batches the batch is split.

    Raises:
        InputError: The machine was measured with another model, or with other numbers of rows.
    """
    rows = microbatch_rows(max(1, graph.batch_size), num_microbatches)
    largest, smallest = rows[0], rows[-1]
    return {
        "num_microbatches": num_microbatches,
        **_size_state(graph, device, largest),
        "smaller": None if smallest == largest else _size_state(graph, device, smallest),
        "num_smaller": rows.count(smallest) if smallest < largest else 0,
        "peak_bytes": graph.memory_bytes_for(largest).tolist(),
        "stash_bytes": stash_bytes(graph, largest),
        "buffers": _buffers(graph),
        "caches": [
            [list(uses), graph.value_bytes(value, graph.batch_size)] for value, uses in graph.cache_uses.items()
        ],
        **_device_state(device),
    }


def _size_state(graph: Graph, device: Device | None, rows: int) -> dict[str, Any]:
    """Sums before each position, and what crosses each legal cut, for a micro-batch of so many rows."""
    crossing = graph.live_bytes_for(rows)
    state = {
        "rows": rows,
        "flops_before": np.concatenate([[0], np.cumsum(graph.flops_for(rows))]).tolist(),
        "cut_bytes": [int(crossing[position]) for position in graph.legal],
        "output_bytes": sum(graph.value_bytes(value, rows) for value in graph.outputs),
    }
    if device is None:
        return state
    costs = Costs.of(graph, device, rows)
    alone = None if device.parallel is None else costs.time_before.tolist()  # nobody to share with: the same
    return {**state, "time_before": costs.loaded_time_before.tolist(), "alone_before": alone}


def _device_state(device: Device | None) -> dict[str, Any]:
    if device is None:
        return {"memory_bytes": None, "reserve_bytes": 0}
    return {
        "device": device.description,
        # JSON has no infinity.
        "memory_bytes": device.memory_bytes if math.isfinite(device.memory_bytes) else None,
        "reserve_bytes": device.reserve_bytes,
        "fixed_s": device.microbatch_s,
        "latency_s": device.link_latency_s,
        "link_bytes_per_s": min(device.link_bytes_per_s, sys.float_info.max),
        "overlap": device.overlap,
        "num_slots": device.num_slots,
        "parallel": device.parallel,
    }


def _buffers(graph: Graph) -> list[list[Any]]:
    """What stages hold that is read as parameters are: each as the ops that read it, and bytes."""
    weights = ((uses, graph.weight_by_name[name]) for name, uses in graph.weight_uses.items())
    return [[list(uses), weight.num_bytes] for uses, weight in weights if weight.kind != "parameter"]
