"""Caches of keys and values with room for a whole generation, written in place, as transformers' models take them.

They exist while a step is traced only: ranks get the tensors and the ops that write to them.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin


class _Slots(CacheLayerMixin):  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    """Tensors that are there from the beginning.

    Args:
        keys: With room for all tokens in the last dimension but one.
        values: The same.
    """

    is_compileable = True  # so that transformers makes a mask over all slots
    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self.keys, self.values = keys, values
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """There is nothing to make."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys attention sees, and the position of the first."""
        return self.keys.shape[-2], 0

    def get_max_length(self) -> int:
        """No layer drops tokens; the masks of a sliding window hide them."""
        return -1


class TokenSlots(_Slots):  # type: ignore[no-untyped-call]  # the same
    """What one layer keeps of the tokens so far.

    Args:
        keys: As above.
        values: As above.
        num_seen: Tokens so far, which the trace leaves open.
        window: Tokens a layer with a sliding window looks at.
    """

    def __init__(self, keys: Tensor, values: Tensor, num_seen: Tensor, window: int | None) -> None:
        super().__init__(keys, values)
        self.num_seen = num_seen
        self.is_sliding = window is not None
        self.sliding_window = window

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write new tokens behind those seen; returns all slots."""
        slots = torch.arange(key_states.shape[-2], device=key_states.device) + self.num_seen
        self.keys.index_copy_(-2, slots, key_states)
        self.values.index_copy_(-2, slots, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> Tensor:  # type: ignore[override]  # as that of transformers' own static layers
        """Tokens seen so far."""
        return self.num_seen


class SourceSlots(_Slots):  # type: ignore[no-untyped-call]  # the same
    """What one layer of a decoder keeps of the encoder's output.

    Args:
        keys: As above.
        values: As above.
        is_filled: Whether an earlier step wrote to it.
    """

    def __init__(self, keys: Tensor, values: Tensor, is_filled: bool) -> None:
        super().__init__(keys, values)
        self.is_filled = is_filled

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write all of it."""
        self.keys.copy_(key_states)
        self.values.copy_(value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens of the source, or none yet."""
        return self.keys.shape[-2] if self.is_filled else 0
