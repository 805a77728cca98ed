"""What a caller passed: checked once, where it comes in, and shown short in the message that refuses it."""

from collections.abc import Iterable, Sequence
from itertools import islice
from math import isfinite
from numbers import Integral, Real
from typing import Any

from pipelab.errors import InputError, PipelabError

_LONGEST = 80  # characters of a value in a message
_MOST = 1_000_000  # items of a list that somebody meant to pass


def shown(value: object) -> str:
    """A value for a message: one line, not long, whatever its `repr` does.

    Example:
        >>> shown("layers.1"), shown("x" * 100)[-5:], len(shown("x" * 100))
        ("'layers.1'", 'xxxx…', 80)
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a user's own class, or an integer that Python will not write out
        text = f"a very long {type(value).__name__}" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def whole(
    value: Any, name: str, *, least: int = 1, most: int | None = None, error: type[PipelabError] = InputError
) -> int:
    """A whole number within limits, as Python's own integer; a bool is none.

    Raises:
        PipelabError: It is something else: of the type `error`.

    Example:
        >>> import numpy
        >>> whole(numpy.int64(3), "repeats")
        3
    """
    found = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if found is None or found < least or (most is not None and found > most):
        limits = f"{least} or more" if most is None else f"{least} to {most:,}"
        raise error(f"{name} must be a whole number, {limits}; it is {shown(value)}.")
    return found


def number(value: Any, name: str, *, least: float = 0.0, most: float = float("inf")) -> float:
    """A finite number within limits, as Python's own float; a bool is none.

    Raises:
        InputError: It is something else.
    """
    found = as_float(value)
    if found is None or not isfinite(found) or not least <= found <= most:
        limits = f"{least:g} or more" if most == float("inf") else f"{least:g} to {most:g}"
        raise InputError(f"{name} must be a number, {limits}; it is {shown(value)}.")
    return found


def as_float(value: Any) -> float | None:
    """A real number as a float, which may be infinite or not a number; None for anything else, and for a bool."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value == abs(value) else float("-inf")


def flag(value: Any, name: str) -> bool:
    """True or False.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False; it is {shown(value)}.")
    return value


def one_of(value: Any, known: Iterable[str], name: str, *, error: type[PipelabError] = InputError) -> str:
    """A word of a list.

    Raises:
        PipelabError: It is none: of the type `error`; lists them.
    """
    words = tuple(known)
    if not isinstance(value, str) or value not in words:
        raise error(f"{name} must be one of {', '.join(map(repr, words))}; it is {shown(value)}.")
    return value


def listed(values: Any, name: str, *, most: int = _MOST, error: type[PipelabError] = InputError) -> tuple[Any, ...]:
    """The items of a list, or of anything else that gives items one by one; not of a text.

    Raises:
        PipelabError: It is no list, or has more than `most` items: of the type `error`.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable | Sequence):
        raise error(f"{name} must be a list; it is {shown(values)}.")
    try:
        items = tuple(islice(values, most + 1))
    except TypeError as cause:  # a tensor without dimensions says that it can be iterated
        raise error(f"{name} must be a list; it is {shown(values)}.") from cause
    if len(items) > most:
        raise error(f"{name} has more than {most:,} items; it is {shown(values)}.")
    return items
