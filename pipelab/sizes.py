"""From the symbols of a traced program to the integers of one batch size."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from pipelab.errors import InputError


class Sizes:
    """Turns symbolic sizes into integers for one number of rows.

    Every batch symbol of the program stands for the same number of rows.

    Args:
        num_rows: Rows of the (micro-)batch.
        others: What the symbols stand for that are no rows.
    """

    def __init__(self, num_rows: int, others: Mapping[Any, int] = MappingProxyType({})) -> None:
        self.num_rows = num_rows
        self.others = others
        self._known: dict[Any, Any] = {}

    def __call__(self, size: Any) -> Any:
        """The plain number behind a size; anything that is not symbolic is returned as it is.

        Raises:
            InputError: The program has no integer there for this number of rows.
        """
        if not isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool):
            return size
        expression = size.node.expr
        if expression not in self._known:
            self._known[expression] = self._number(expression, size)
        return self._known[expression]

    def _number(self, expression: Any, size: Any) -> int | float | bool:
        value = expression.subs({symbol: self.others.get(symbol, self.num_rows) for symbol in expression.free_symbols})
        if isinstance(size, torch.SymBool):
            return bool(value)
        if isinstance(size, torch.SymFloat):
            return float(value)
        if not value.is_integer:
            raise InputError(
                f"The model cannot run {self.num_rows} rows: a size {expression} would be {value}, not an integer. "
                "Choose a number of micro-batches that gives other sizes."
            )
        return int(value)


def symbols(size: Any) -> frozenset[Any]:
    """The symbols a size depends on; none for a plain number."""
    return frozenset(size.node.expr.free_symbols) if isinstance(size, torch.SymInt) else frozenset()


def guards_of(size: Any) -> tuple[Any, ...]:
    """The conditions on sizes that held while the program of this symbolic size was traced.

    Those that a size is not 0 or 1 are left out: torch itself asks for them everywhere.
    """
    found = (guard.expr for guard in size.node.shape_env.guards)
    return tuple(guard for guard in found if not (getattr(guard, "rel_op", "") == "!=" and guard.rhs in (0, 1)))


def meanings(shapes: Iterable[tuple[Sequence[Any], Sequence[int]]]) -> dict[Any, int]:
    """What each symbol stands for.

    Args:
        shapes: Pairs of the traced shape of an input, and the one it has now.
    """
    pairs = ((size, now) for traced, shape in shapes for size, now in zip(traced, shape, strict=True))
    return {size.node.expr: now for size, now in pairs if isinstance(size, torch.SymInt) and size.node.expr.is_symbol}


def holds(guard: Any, num_rows: int, others: Mapping[Any, int] = MappingProxyType({})) -> bool:
    """Whether a condition holds for this number of rows, and for what the other symbols stand for."""
    held = guard.subs({symbol: others.get(symbol, num_rows) for symbol in guard.free_symbols})
    return bool(held != False)  # noqa: E712  # sympy's own false is not Python's


def is_multiple(size: Any) -> bool:
    """Whether a size is a multiple of one symbol, so that the sizes of the parts add up to the whole."""
    found = symbols(size)
    if len(found) != 1:
        return False
    (symbol,) = found
    ratio = size.node.expr / symbol
    return bool(ratio.is_integer)


def for_each_tensor(value: Any, visit: Callable[[torch.Tensor], None]) -> None:
    """Visit a tensor, or every tensor in a list of them."""
    if isinstance(value, torch.Tensor):
        visit(value)
    elif isinstance(value, list | tuple):
        for item in value:
            for_each_tensor(item, visit)
