"""A child that the kernel forks must neither keep ranks alive nor end them: it drops their descriptors."""

import os
from typing import Protocol
from weakref import WeakSet


class Closable(Protocol):
    """Something that holds descriptors."""

    def close(self) -> None:
        """Close them in this process."""


_held: WeakSet[Closable] = WeakSet()


def drop_in_forked_children(holder: Closable) -> None:
    """Have a forked child of this process close what `holder` holds; this process keeps it."""
    _held.add(holder)


def _drop() -> None:
    for holder in list(_held):
        holder.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop)
