"""Schedules: complete, free of deadlocks, as little memory as they promise, and those of torch where it has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch_tables import torch_orders

from pipelab.errors import InputError
from pipelab.schedules import Action, check_orders, peaks_in_flight, schedule_actions

NAMES = ["gpipe", "1f1b", "interleaved_1f1b", "zb_h1"]
COUNTS = st.integers(1, 9)


def texts(name: str, ranks: int, stages: int, microbatches: int, *, train: bool = True) -> list[str]:
    return [" ".join(map(str, order)) for order in schedule_actions(name, ranks, stages, microbatches, train)]


def test_gpipe_fills_then_drains() -> None:
    assert texts("gpipe", 2, 2, 3) == ["0F0 0F1 0F2 0B0 0B1 0B2", "1F0 1F1 1F2 1B0 1B1 1B2"]


def test_1f1b_alternates_once_it_is_warm() -> None:
    assert texts("1f1b", 3, 3, 4) == [
        "0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3",
        "1F0 1F1 1B0 1F2 1B1 1F3 1B2 1B3",
        "2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3",
    ]


def test_interleaving_takes_as_many_microbatches_per_stage_as_there_are_ranks() -> None:
    assert texts("interleaved_1f1b", 2, 4, 4, train=False) == [
        "0F0 0F1 2F0 2F1 0F2 0F3 2F2 2F3",
        "1F0 1F1 3F0 3F1 1F2 1F3 3F2 3F3",
    ]


def test_the_rank_puts_off_weights_by_as_many_microbatches_as_its_number() -> None:
    assert texts("zb_h1", 3, 3, 4) == [
        "0F0 0F1 0F2 0I0 0W0 0F3 0I1 0W1 0I2 0W2 0I3 0W3",
        "1F0 1F1 1I0 1F2 1I1 1W0 1F3 1I2 1W1 1I3 1W2 1W3",
        "2F0 2I0 2F1 2I1 2F2 2I2 2W0 2F3 2I3 2W1 2W2 2W3",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_without_training_there_are_forwards_only(name: str) -> None:
    assert texts(name, 2, 2, 3, train=False) == ["0F0 0F1 0F2", "1F0 1F1 1F2"]


@given(name=st.sampled_from(NAMES), ranks=COUNTS, per_rank=st.integers(1, 4), microbatches=COUNTS, train=st.booleans())
def test_every_schedule_is_complete_and_can_be_finished(
    name: str, ranks: int, per_rank: int, microbatches: int, train: bool
) -> None:
    stages = ranks * (per_rank if name == "interleaved_1f1b" else 1)
    orders = schedule_actions(name, ranks, stages, microbatches, train)  # checks itself
    actions = [action for order in orders for action in order]
    per_place = 1 if not train else 3 if name == "zb_h1" else 2
    assert len(actions) == len(set(actions)) == stages * microbatches * per_place
    assert all(action.stage % ranks == rank for rank, order in enumerate(orders) for action in order)


@given(ranks=COUNTS, microbatches=COUNTS)
def test_activations_in_flight_are_those_of_the_papers(ranks: int, microbatches: int) -> None:
    def peaks(name: str) -> tuple[int, ...]:
        return peaks_in_flight(schedule_actions(name, ranks, ranks, microbatches, True))

    assert peaks("gpipe") == (microbatches,) * ranks
    assert peaks("1f1b") == tuple(min(microbatches, ranks - rank) for rank in range(ranks))
    assert max(peaks("zb_h1")) == max(peaks("1f1b"))


@pytest.mark.parametrize(
    ("ranks", "microbatches", "per_rank", "expected"),
    [
        (4, 8, 2, (11, 9, 7, 5)),
        (4, 8, 4, (19, 17, 15, 13)),
        (8, 16, 2, (23, 21, 19, 17, 15, 13, 11, 9)),
    ],
)
def test_activations_in_flight_when_interleaved(
    ranks: int, microbatches: int, per_rank: int, expected: tuple[int, ...]
) -> None:
    orders = schedule_actions("interleaved_1f1b", ranks, ranks * per_rank, microbatches, True)
    assert peaks_in_flight(orders) == expected
    # The first rank: 1 + (p - 1) / (p v) times 1F1B's p, and each activation is of a v-th of a stage.
    assert expected[0] == ranks * per_rank + ranks - 1


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_gpipe_and_interleaved_are_torchs(ranks: int, rounds: int) -> None:
    microbatches = ranks * rounds
    assert schedule_actions("gpipe", ranks, ranks, microbatches, True) == torch_orders("GPipe", ranks, microbatches)
    for per_rank in (2, 3):
        ours = schedule_actions("interleaved_1f1b", ranks, ranks * per_rank, microbatches, True)
        assert ours == torch_orders("Interleaved1F1B", ranks, microbatches, per_rank)


def test_1f1b_is_torchs_but_for_the_last_rank_where_torch_is_wrong() -> None:
    # If this fails torch has mended its table: then compare all ranks with it.
    ours, theirs = schedule_actions("1f1b", 4, 4, 8, True), torch_orders("1F1B", 4, 8)
    assert ours[:-1] == theirs[:-1]
    assert " ".join(map(str, theirs[-1][:4])) == "3F1 3B0 3F2 3B1"
    with pytest.raises(InputError, match="lacks 3F0"):
        check_orders(theirs, 4, 8)


@pytest.mark.parametrize(("name", "peak"), [("LoopedBFS", 2 * 8), ("InterleavedZeroBubble", 8), ("ZBVZeroBubble", 8)])
def test_activations_in_flight_of_torchs_own_schedules(name: str, peak: int) -> None:
    # 4 ranks with 2 stages each, 8 micro-batches; each activation is of half a stage.
    assert max(peaks_in_flight(torch_orders(name, 4, 8, 2))) == peak


def test_an_unknown_schedule_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="no schedule 'dualpipe'; there are 'gpipe', '1f1b', 'interleaved_1f1b', 'zb"):
        schedule_actions("dualpipe", 2, 2, 2, True)


@pytest.mark.parametrize(
    ("name", "ranks", "stages", "microbatches", "message"),
    [
        ("interleaved_1f1b", 3, 8, 4, "8 stages cannot be dealt evenly to 3 ranks"),
        ("gpipe", 4, 8, 4, "'gpipe' has one stage per rank, and there are 8 stages for 4 ranks"),
        ("1f1b", 2, 2, 0, "at least one rank, one stage and one micro-batch; asked for 2, 2 and 0"),
        ("zb_h1", 4, 2, 2, "2 stages cannot be dealt evenly to 4 ranks"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(
    name: str, ranks: int, stages: int, microbatches: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        schedule_actions(name, ranks, stages, microbatches, True)


F0, F1 = Action(0, "F", 0), Action(0, "F", 1)
NEXT0, NEXT1 = Action(1, "F", 0), Action(1, "F", 1)


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ([[F0, F1], [NEXT0, NEXT1, NEXT0]], "has 1F0 twice, the second time on rank 1"),
        ([[F0, F1], [NEXT0]], "lacks 1F1"),
        ([[F0, F1, Action(0, "F", 2)], [NEXT0, NEXT1]], "has 5 actions where 2 stages and 2 micro-batches need 4"),
        ([[F0, NEXT1], [NEXT0, F1]], None),
        ([[NEXT1, F0], [NEXT0, F1]], "its ranks wait for each other, rank 0 at 1F1, rank 1 at 1F0"),
    ],
)
def test_a_wrong_order_is_found(orders: list[list[Action]], message: str | None) -> None:
    if message is None:
        check_orders(orders, 2, 2)
    else:
        with pytest.raises(InputError, match=message):
            check_orders(orders, 2, 2)
