"""What the explorer's traits may be: each check gives the value as it is kept, or raises."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import traitlets

from pipelab.arguments import shown, whole
from pipelab.costs import microbatch_rows
from pipelab.errors import InputError
from pipelab.graph import Graph
from pipelab.hardware import HardwareLike
from pipelab.schedules import schedule_actions
from pipelab.viz.explorer_costs import one_device


@contextmanager
def refused() -> Iterator[None]:
    """A block whose complaint about a value is a trait's."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise traitlets.TraitError(str(error)) from error


def check_hardware(graph: Graph, hardware: HardwareLike, num_microbatches: int) -> HardwareLike:
    """Hardware that has times of this model; one device per stage becomes one for all.

    Raises:
        InputError: It is not known, names several devices, or was measured with another model or other rows.
    """
    device = one_device(hardware, graph)
    if device is not None:
        for rows in set(microbatch_rows(max(1, graph.batch_size), num_microbatches)):
            device.loaded_op_times_s(graph, rows)
    return hardware if hardware is None or isinstance(hardware, str) else device


def check_microbatches(graph: Graph, count: int) -> int:
    """A number of micro-batches that the traced batch splits into.

    Raises:
        InputError: There are fewer rows.
    """
    count = whole(count, "num_microbatches", least=0)
    size = max(1, graph.batch_size)
    if not 1 <= count <= size:
        raise InputError(f"A batch of {size} splits into 1 to {size} micro-batches, not into {shown(count)}.")
    return count


def check_ranks(num_ranks: int | None, num_stages: int) -> int | None:
    """A number of ranks that so many stages can be dealt to evenly.

    Raises:
        InputError: They cannot.
    """
    if num_ranks is not None:
        schedule_actions("interleaved_1f1b", num_ranks, num_stages, 1, False)
    return num_ranks


def one_of(known: Sequence[str], name: str, what: str) -> str:
    """A name of a list.

    Raises:
        TraitError: It is not in the list.
    """
    if name not in known:
        raise traitlets.TraitError(f"{what}={name!r} is not known. It is one of: {', '.join(map(repr, known))}.")
    return name
