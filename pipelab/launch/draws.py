"""The random numbers of a batch that is sampled in groups: each group gets those that its rows have in the whole batch.

torch draws a token as the one whose probability is largest over an exponential random number, and these numbers do not
depend on the probabilities. So they can be drawn for the whole batch by whichever group is the first to need them.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, count, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pipelab.errors import InputError


class Draws:
    """What the groups of a batch share.

    Args:
        rows: Rows of each group.
    """

    def __init__(self, rows: Sequence[int]) -> None:
        self._rows = rows
        self._bounds = list(pairwise(accumulate(rows, initial=0)))
        self._lock = threading.Lock()
        self._under_way = set(range(len(rows)))
        self._drawn: dict[int, Tensor] = {}
        self._taken: dict[int, set[int]] = {}
        self._next = 0

    def for_group(self, group: int, loop: Callable[[], Any]) -> Any:
        """What a loop over the rows of a group gives, if tokens are drawn as in the whole batch."""
        try:
            with _Drawing(self, group):
                return loop()
        finally:
            with self._lock:
                self._under_way.discard(group)
                self._forget()

    def token(self, step: int, group: int, shares: Tensor) -> Tensor:
        """A token for each row of a group.

        Args:
            step: Which draw of the group it is.
            group: Which group.
            shares: How probable each token is, (rows, vocabulary).

        Raises:
            InputError: They are no probabilities.
        """
        if not bool(shares.isfinite().all()):
            raise InputError("No token can be drawn: probabilities are not finite. Set a higher temperature.")
        start, stop = self._bounds[group]
        per_row = shares.shape[0] // (stop - start)  # several sequences of a row follow one another
        with self._lock:
            if step == self._next:
                whole = shares.new_empty((sum(self._rows) * per_row, shares.shape[1]))
                self._drawn[step], self._taken[step] = whole.exponential_(), set()
                self._next += 1
            numbers = self._drawn[step][start * per_row : stop * per_row]
            self._taken[step].add(group)
            self._forget()
        return (shares / numbers).argmax(dim=-1, keepdim=True)

    def _forget(self) -> None:
        """Let go of what nobody will ask for."""
        for step in [step for step, taken in self._taken.items() if taken >= self._under_way]:
            del self._drawn[step], self._taken[step]


class _Drawing(TorchFunctionMode):
    """In this thread, `torch.multinomial` draws from the batch's numbers."""

    def __init__(self, draws: Draws, group: int) -> None:
        super().__init__()
        self._draws, self._group, self._steps = draws, group, count()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.multinomial:
            return self._draws.token(next(self._steps), self._group, args[0])
        return func(*args, **(kwargs or {}))
