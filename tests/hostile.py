"""What nobody should pass, and people do: values of every kind, for every argument."""

import itertools
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pipelab.errors import PipelabError


class Unshowable:
    """Its `repr` and its comparisons raise."""

    __hash__ = None  # type: ignore[assignment]  # that is the point

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equality")


NUMBERS = [
    0, 1, 2, 3, 6, 7, -1, 10**6, 10**30, -(10**30), 10**5000, True, False, 0.0, 2.0, 1.5, math.nan, math.inf, -math.inf,
    1e300, 1e-320, 2j, Fraction(3, 2), Decimal("NaN"), Decimal(2), np.int64(2), np.float64(2), np.bool_(True),
]  # fmt: skip
TEXTS = ["", "2", "1", "gpipe", "block", "params", "time", "h100-80gb", "x" * 10_000, "\x00", "\ud800", b"2"]
LISTS = [
    (), (1,), (1, 1), (2, 1), (1, 2, 3), [math.nan], [None], ["1"], [[1]], ["h100-80gb"] * 2, [10**5000],
    [1e9, math.nan], [-1.0, 1.0], {}, {"a": 1}, {1: 2}, {"1": "end"}, {1}, range(3), range(10**12),
    np.array([1, 2]), np.array(2), np.array([math.nan]),
]  # fmt: skip
OTHERS = [None, object(), Unshowable(), int, len, math]
VALUES: list[Any] = [*NUMBERS, *TEXTS, *LISTS, *OTHERS]

ANY = st.one_of(st.sampled_from(VALUES), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(-2, 40)))


def endless() -> Any:
    """A list that never ends."""
    return itertools.count(1)


def told(call: Any) -> Any:
    """What a call gives; None where it refuses in words: a `PipelabError` of readable length."""
    try:
        return call()
    except PipelabError as error:
        assert 10 < len(str(error)) < 1500, str(error)[:200]
        return None
