"""In which order each rank works off its stages and micro-batches: pure lists, no times.

An action reads "2F0": stage 2, forward, micro-batch 0. Two stages, three micro-batches:

    GPipe     rank 0   0F0 0F1 0F2             0B0 0B1 0B2
              rank 1       1F0 1F1 1F2 1B0 1B1 1B2
    1F1B      rank 0   0F0 0F1     0B0 0F2 0B1     0B2
              rank 1       1F0 1B0 1F1 1B1 1F2 1B2
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from pipelab.arguments import shown
from pipelab.errors import InputError
from pipelab.units import plural

ActionKind = Literal["F", "B", "I", "W"]


class Action(NamedTuple):
    """One thing a rank computes.

    Attributes:
        stage: The stage.
        kind: "F" forward, "B" backward, or its two parts: "I" the inputs' gradient, "W" the weights'.
        microbatch: Which micro-batch, from 0.
    """

    stage: int
    kind: ActionKind
    microbatch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.microbatch}"


Order = Sequence[Action]
# From rank, number of ranks, stages per rank and number of micro-batches to the rank's order.
_Generator = Callable[[int, int, int, int], list[Action]]


# Checking an order costs as much as making it, and a drag asks for the same one again and again.
@lru_cache(maxsize=64)
def schedule_actions(
    name: str, num_ranks: int, num_stages: int, num_microbatches: int, train: bool
) -> tuple[tuple[Action, ...], ...]:
    """The ordered actions of every rank; stage s is on rank s mod `num_ranks`.

    Without training every schedule runs forwards only; "gpipe", "1f1b" and "zb_h1" are then the same.

    Args:
        name: "gpipe" (fill-drain), "1f1b", "interleaved_1f1b" or "zb_h1".
        num_ranks: Number of ranks.
        num_stages: Number of stages: as many as ranks, or for "interleaved_1f1b" a multiple of them.
        num_microbatches: Number of micro-batches.
        train: Whether there is a backward.

    Raises:
        InputError: The schedule is unknown, or does not fit the ranks, stages and micro-batches.

    Example:
        >>> for order in schedule_actions("1f1b", 2, 2, 3, True):
        ...     print(*order)
        0F0 0F1 0B0 0F2 0B1 0B2
        1F0 1B0 1F1 1B1 1F2 1B2
    """
    _check_counts(name, num_ranks, num_stages, num_microbatches)
    generate = _GENERATORS[name] if train else _forwards
    per_rank = num_stages // num_ranks
    orders = tuple(tuple(generate(rank, num_ranks, per_rank, num_microbatches)) for rank in range(num_ranks))
    check_orders(orders, num_stages, num_microbatches)
    return orders


def check_orders(orders: Sequence[Order], num_stages: int, num_microbatches: int) -> None:
    """Check that every stage sees every micro-batch exactly once, and that no rank waits for ever.

    Raises:
        InputError: An action is missing, or there twice, or waits for one that never comes.
    """
    _check_complete(orders, num_stages, num_microbatches)
    done: set[Action] = set()
    positions = [0] * len(orders)
    advanced = True
    while advanced:
        advanced = False
        for rank, order in enumerate(orders):
            start = stop = positions[rank]
            while stop < len(order) and _can_start(order[stop], done, num_stages):
                done.add(order[stop])
                stop += 1
            positions[rank] = stop
            advanced |= stop > start
    stuck = [
        (rank, order[at]) for rank, (order, at) in enumerate(zip(orders, positions, strict=True)) if at < len(order)
    ]
    if stuck:
        raise deadlock(stuck)


def deadlock(stuck: Sequence[tuple[int, Action]]) -> InputError:
    """The error that says where each rank stands still."""
    each = ", ".join(f"rank {rank} at {action}" for rank, action in stuck)
    return InputError(f"The schedule cannot be finished: its ranks wait for each other, {each}. Use another order.")


def peaks_in_flight(orders: Sequence[Order]) -> tuple[int, ...]:
    """Per rank, the most activations held at once: each from its forward to the last action that needs it.

    Example:
        >>> peaks_in_flight(schedule_actions("1f1b", 4, 4, 8, True))
        (4, 3, 2, 1)
    """
    peaks = []
    for order in orders:
        last = {(stage, microbatch): index for index, (stage, _, microbatch) in enumerate(order)}
        held = peak = 0
        for index, (stage, kind, microbatch) in enumerate(order):
            held += kind == "F"
            peak = max(peak, held)
            held -= last[stage, microbatch] == index
        peaks.append(peak)
    return tuple(peaks)


def _check_counts(name: str, num_ranks: int, num_stages: int, num_microbatches: int) -> None:
    if name not in _GENERATORS:
        raise InputError(f"There is no schedule {shown(name)}; there are {', '.join(map(repr, _GENERATORS))}.")
    if min(num_ranks, num_stages, num_microbatches) < 1:
        raise InputError(
            f"A schedule needs at least one rank, one stage and one micro-batch; asked for {num_ranks}, {num_stages} "
            f"and {num_microbatches}."
        )
    if num_stages % num_ranks:
        raise InputError(
            f"{plural(num_stages, 'stage')} cannot be dealt evenly to {shown(num_ranks)} ranks: choose a number of "
            f"ranks that divides {num_stages}."
        )
    if num_stages > num_ranks and name != "interleaved_1f1b":
        raise InputError(
            f"{name!r} has one stage per rank, and there are {plural(num_stages, 'stage')} for "
            f"{plural(num_ranks, 'rank')}: use 'interleaved_1f1b', or as many ranks as stages."
        )


def _check_complete(orders: Sequence[Order], num_stages: int, num_microbatches: int) -> None:
    seen: set[Action] = set()
    for rank, order in enumerate(orders):
        for action in order:
            if action in seen:
                raise InputError(f"The schedule has {action} twice, the second time on rank {rank}.")
            seen.add(action)
    train = any(kind != "F" for _, kind, _ in seen)
    expected = 0
    for stage in range(num_stages):
        for microbatch in range(num_microbatches):
            split = Action(stage, "I", microbatch) in seen
            kinds: tuple[ActionKind, ...] = ("F",) if not train else ("F", "I", "W") if split else ("F", "B")
            for kind in kinds:
                if Action(stage, kind, microbatch) not in seen:
                    raise InputError(f"The schedule lacks {Action(stage, kind, microbatch)}.")
            expected += len(kinds)
    if len(seen) > expected:
        raise InputError(
            f"The schedule has {len(seen)} actions where {plural(num_stages, 'stage')} and "
            f"{plural(num_microbatches, 'micro-batch')} need {expected}."
        )


def _can_start(action: Action, done: set[Action], num_stages: int) -> bool:
    stage, kind, microbatch = action
    if kind == "F":
        return stage == 0 or Action(stage - 1, "F", microbatch) in done
    if kind == "W":
        return Action(stage, "I", microbatch) in done
    if stage == num_stages - 1:
        return Action(stage, "F", microbatch) in done
    return Action(stage + 1, "B", microbatch) in done or Action(stage + 1, "I", microbatch) in done


def _chunked(rank: int, num_ranks: int, per_rank: int, num_microbatches: int) -> tuple[list[Action], list[Action]]:
    """Forwards and backwards of a rank with several stages: as many micro-batches per stage as there are ranks.

    The last round may be short: its missing micro-batches are left out of a full round's order, which leaves
    every other action behind those it waits for.
    """
    forwards, backwards = [], []
    for first in range(0, num_microbatches, num_ranks):
        round_ = range(first, first + num_ranks)
        for chunk in range(per_rank):
            forwards += [Action(chunk * num_ranks + rank, "F", microbatch) for microbatch in round_]
        for chunk in reversed(range(per_rank)):
            backwards += [Action(chunk * num_ranks + rank, "B", microbatch) for microbatch in round_]
    return forwards, backwards


def _forwards(rank: int, num_ranks: int, per_rank: int, num_microbatches: int) -> list[Action]:
    forwards, _ = _chunked(rank, num_ranks, per_rank, num_microbatches)
    return [action for action in forwards if action.microbatch < num_microbatches]


def _gpipe(rank: int, num_ranks: int, per_rank: int, num_microbatches: int) -> list[Action]:
    return [Action(rank, kind, microbatch) for kind in ("F", "B") for microbatch in range(num_microbatches)]


def _one_f_one_b(rank: int, num_ranks: int, per_rank: int, num_microbatches: int) -> list[Action]:
    forwards = [Action(rank, "F", microbatch) for microbatch in range(num_microbatches)]
    backwards = [Action(rank, "B", microbatch) for microbatch in range(num_microbatches)]
    return _alternate(forwards, backwards, num_ranks - 1 - rank)


def _interleaved(rank: int, num_ranks: int, per_rank: int, num_microbatches: int) -> list[Action]:
    """Narayanan et al. 2021, section 2.2 (arXiv 2104.04473); with one stage per rank it is 1F1B."""
    if per_rank == 1:
        return _one_f_one_b(rank, num_ranks, per_rank, num_microbatches)
    forwards, backwards = _chunked(rank, num_ranks, per_rank, num_microbatches)
    order = _alternate(forwards, backwards, (per_rank - 1) * num_ranks + 2 * (num_ranks - 1 - rank))
    return [action for action in order if action.microbatch < num_microbatches]


def _alternate(forwards: list[Action], backwards: list[Action], num_warmup: int) -> list[Action]:
    """Some forwards, then one forward and one backward in turn, then what backwards remain."""
    warmup = min(num_warmup, len(forwards))
    order = forwards[:warmup]
    for forward, backward in zip(forwards[warmup:], backwards, strict=False):
        order += [forward, backward]
    return order + backwards[len(forwards) - warmup :]


def _zero_bubble(rank: int, num_ranks: int, per_rank: int, num_microbatches: int) -> list[Action]:
    """ZB-H1 of Qi et al. 2023 (arXiv 2401.10241): 1F1B whose rank r does the weight parts r micro-batches late.

    So rank r holds (p - r) + r activations, no rank more than 1F1B's first; and what is put off fills the end.
    """
    order = []
    for action in _one_f_one_b(rank, num_ranks, per_rank, num_microbatches):
        if action.kind == "F":
            order.append(action)
            continue
        order.append(Action(rank, "I", action.microbatch))
        if action.microbatch >= rank:
            order.append(Action(rank, "W", action.microbatch - rank))
    return order + [Action(rank, "W", late) for late in range(max(num_microbatches - rank, 0), num_microbatches)]


_GENERATORS: dict[str, _Generator] = {
    "gpipe": _gpipe,
    "1f1b": _one_f_one_b,
    "interleaved_1f1b": _interleaved,
    "zb_h1": _zero_bubble,
}
SCHEDULES = tuple(_GENERATORS)
