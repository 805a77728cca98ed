"""`measure`: what the ops of a model and the links between ranks take on this machine.

The ops run where ranks run them: in processes, with the threads a rank has, first alone and then while as many
ranks compute as the machine has room for. Cores share caches, memory and power, so the second is slower.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

import numpy as np
import torch

from pipelab.arguments import listed, whole
from pipelab.errors import InputError, SplitError
from pipelab.hardware import FloatArray, Measurement, remember
from pipelab.launch.bench import Bench
from pipelab.launch.devices import Devices, check_device, choose, num_cores
from pipelab.launch.failures import forgetful
from pipelab.launch.group import Patience
from pipelab.launch.interrupts import HeldInterrupts
from pipelab.launch.links import NUM_SLOTS
from pipelab.launch.memory import Weights
from pipelab.launch.runner import Runner
from pipelab.problem import MOST_STAGES
from pipelab.progress import announce, tell
from pipelab.stages import whole_table
from pipelab.tracing import Trace
from pipelab.units import plural

_STALL_S = 60.0
_ROUNDS = 2
_AGREE = 1.05  # medians of quiet seconds differ by less
_RANK_BYTES = {"cpu": 60e6, "cuda": 600e6}  # of a rank that holds nothing


@forgetful
def measure(
    traced: Trace, *, device: str = "auto", microbatch_sizes: Sequence[int] | None = None, num_stages: int = 4
) -> Measurement:
    """Measure the ops of a model and the links between ranks on this machine.

    The plans of this trace then tell seconds, `optimal` and `simulate` use them, and runs are laid over what was
    predicted. Nothing is changed in the model.

    Args:
        traced: The model.
        device: As for `start`.
        microbatch_sizes: For how many rows; between them times are interpolated. The traced batch is measured
            in any case. None for 1, the traced batch and their geometric mean.
        num_stages: Of how many stages the pipelines will be: ranks share the cores, and so each one's threads.

    Raises:
        LaunchError: There are no weights, or ranks cannot be started.
        InputError: The batch cannot be split so.
        SplitError: `num_stages` is no number of stages.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4))).eval()
        >>> traced = pipelab.trace(model, torch.zeros(8, 64))
        >>> pipelab.measure(traced, device="cpu", microbatch_sizes=(2, 4)).rows
        (2, 4, 8)
    """
    with HeldInterrupts() as held, announce("measuring this machine"):
        measurement = probe(
            traced,
            device=device,
            microbatch_sizes=microbatch_sizes,
            num_stages=num_stages,
            cancelled=lambda: held.pending,
            check=held.check,
            hurried=lambda: held.hurried,
        )
    if measurement.other_load and measurement.other_load.disturbed:
        tell(f"{measurement.other_load.sentence} Measure again when they are done.")
    return measurement


def probe(
    traced: Trace,
    *,
    device: str = "auto",
    microbatch_sizes: Sequence[int] | None = None,
    num_stages: int = 4,
    cancelled: Callable[[], bool],
    check: Callable[[], None],
    hurried: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measurement:
    """`measure` for who can be told to stop.

    Args:
        traced: The model.
        device: As for `start`.
        microbatch_sizes: As for `measure`.
        num_stages: As for `measure`.
        cancelled: Whether to stop.
        check: Called between two parts; raises in order to stop.
        hurried: Whether to stop at once, whatever becomes of the processes.
        progress: Takes how many parts are done, of how many.
    """
    if not isinstance(traced, Trace):
        raise InputError(f"measure takes what pipelab.trace(model, ...) returned; it is a {type(traced).__name__}.")
    check_device(device)
    num_stages = whole(num_stages, "num_stages", most=MOST_STAGES, error=SplitError)
    sizes = _sizes(traced, microbatch_sizes)
    devices = choose(device, num_stages)
    with ExitStack() as stack:
        weights = Weights(*traced.stored(), with_room=True)
        stack.callback(weights.close)
        patience = Patience(cancelled, _STALL_S, hurried)
        if weights.pieces:
            with closing(Runner(weights)) as reader:
                reader.gather(patience, check)
        bench = Bench(traced, weights, devices, patience, check)
        stack.callback(bench.close)
        measurement = _measured(traced, sizes, devices, _parallel(devices, num_stages), bench, check, progress)
    remember(traced.graph, measurement)
    return measurement


def _measured(
    traced: Trace,
    sizes: tuple[int, ...],
    devices: Devices,
    parallel: int | None,
    bench: Bench,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
) -> Measurement:
    """The ops for each number of rows, alone and side by side, then the links."""
    tables = {rows: whole_table(traced, rows) for rows in sizes}
    # Twice, some seconds apart: a virtual machine has slow ones.
    asked = _ROUNDS * [(rows, count) for count in dict.fromkeys((1, parallel or 1)) for rows in sizes]
    found: dict[tuple[int, int], list[FloatArray]] = {}
    for done, (rows, count) in enumerate(asked):
        check()
        progress(done, len(asked) + 1)
        found.setdefault((rows, count), []).append(bench.op_times_s(tables[rows], count))
    op_s = {key: undisturbed(times) for key, times in found.items()}
    check()
    progress(len(asked), len(asked) + 1)
    latency_s, bytes_per_s, microbatch_s = bench.link()
    alone = np.array([op_s[rows, 1] for rows in sizes])
    return Measurement(
        name=_name(devices),
        num_ops=len(traced.graph.ops),
        rows=sizes,
        alone_s=alone,
        loaded_s=np.array([op_s[rows, parallel] for rows in sizes]) if parallel and parallel > 1 else alone,
        parallel=parallel,
        microbatch_s=microbatch_s,
        memory_bytes=_memory_bytes(devices),
        link_bytes_per_s=bytes_per_s,
        link_latency_s=latency_s,
        num_slots=NUM_SLOTS,
        overlap=False,
        reserve_bytes=_RANK_BYTES[devices.kind],
        device=devices.names[0],
        num_threads=devices.num_threads,
        other_load=bench.other_load,
    )


def undisturbed(times: Sequence[FloatArray]) -> FloatArray:
    """The seconds of each op: the mean of the rounds that agree with the fastest; whatever disturbs only adds.

    Args:
        times: Of each round, the seconds of each op.
    """
    fastest_s = min(float(round_s.sum()) for round_s in times)
    agreeing = [round_s for round_s in times if round_s.sum() <= _AGREE * fastest_s]
    mean: FloatArray = np.mean(agreeing, axis=0)
    return mean


def _sizes(traced: Trace, asked: Sequence[int] | None) -> tuple[int, ...]:
    """The numbers of rows to measure, ascending, the traced batch among them."""
    batch_size = traced.graph.batch_size
    if asked is not None:
        asked = [whole(rows, "each of microbatch_sizes") for rows in listed(asked, "microbatch_sizes")]
    for rows in asked or ():
        if rows != batch_size and not any(traced.batched):
            raise InputError(f"{traced.graph.model} fixes its batch to {batch_size} rows; measure it with those.")
    if asked is None:
        divides = any(traced.batched) and all(traced.output_batched)
        asked = [1, round(batch_size**0.5)] if divides else []
    return tuple(sorted({*asked, batch_size}))


def _parallel(devices: Devices, num_stages: int) -> int | None:
    """How many ranks can compute at once; None where each has a device of its own."""
    if devices.kind == "cpu":
        return max(1, min(num_stages, num_cores() // devices.num_threads))
    return None if len(set(devices.names)) == len(devices.names) else 1


def _name(devices: Devices) -> str:
    if devices.kind == "cpu":
        return f"this machine ({plural(num_cores(), 'core')})"
    return f"this machine ({torch.cuda.get_device_name(devices.names[0])})"


def _memory_bytes(devices: Devices) -> float:
    """Memory of the machine, or of a GPU; ranks may share it."""
    if devices.kind == "cpu":
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return float(torch.cuda.get_device_properties(devices.names[0]).total_memory)
