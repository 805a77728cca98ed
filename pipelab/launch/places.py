"""Memory that tensors are copied to."""

import ctypes

from torch import Tensor


class Place:
    """Memory of one tensor, which others of its shape are copied to, one after another.

    After a stage has used the caches for itself, torch's way to a copy takes as long as moving 100 KB. So what lies
    as it is to lie here is moved without it.

    Args:
        buffer: The memory.
    """

    __slots__ = ("_address", "_num_bytes", "_strides", "buffer")

    def __init__(self, buffer: Tensor) -> None:
        self.buffer = buffer
        self._strides = buffer.stride()
        self._num_bytes = buffer.numel() * buffer.itemsize
        self._address = buffer.data_ptr() if buffer.is_cpu and buffer.is_contiguous() else 0

    def put(self, value: Tensor) -> None:
        """Copy a tensor here."""
        buffer = self.buffer
        if (
            self._address
            and value.is_cpu
            and value.dtype == buffer.dtype
            and value.shape == buffer.shape
            and value.stride() == self._strides
            and not value.is_neg()  # views that only say what would have to be computed
            and not value.is_conj()
        ):
            ctypes.memmove(self._address, value.data_ptr(), self._num_bytes)
        else:
            buffer.copy_(value)
