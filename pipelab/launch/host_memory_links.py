"""Links of a rank on a GPU through slots in memory of the host: the neighbour may share the GPU, which NCCL refuses.

The slots and the signals are those of a link between CPU ranks, so the other end may be on the CPU. All values of
a micro-batch cross in one copy. A signal says that the host's slot is written, or read, so the GPU is waited for
before each.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipelab.launch.gpu_memory import synchronize
from pipelab.launch.links import LinkSink, LinkSource, Slots
from pipelab.launch.signals import Signals


class HostMemorySource(LinkSource):
    """Receives from the stage before.

    Args:
        shared: The link's slots.
        here: Slots on the device.
        signals: From and to the neighbour.
        num_microbatches: Of a step.
        device: Where the stage computes.
    """

    def __init__(
        self, shared: Slots, here: Slots, signals: Signals, num_microbatches: int, device: torch.device
    ) -> None:
        super().__init__(here, signals, num_microbatches)
        self._shared = shared
        self._here = here
        self._device = device

    def take(self, microbatch: int) -> tuple[Tensor, ...]:
        """The values, on the device."""
        self._here.flat(microbatch).copy_(self._shared.flat(microbatch), non_blocking=_is_cuda(self._device))
        return self._here.unpack(microbatch)

    def release(self, step: int, microbatch: int) -> None:
        """Signal "free" once the slot has been read."""
        synchronize(self._device)
        super().release(step, microbatch)


class HostMemorySink(LinkSink):
    """Sends to the next stage.

    Args:
        shared: The link's slots.
        here: Slots on the device.
        signals: From and to the neighbour.
        device: Where the stage computes.
    """

    def __init__(self, shared: Slots, here: Slots, signals: Signals, device: torch.device) -> None:
        super().__init__(here, signals)
        self._shared = shared
        self._here = here
        self._device = device
        self._signals = signals

    def put(self, step: int, microbatch: int, values: Sequence[Tensor]) -> None:
        """Copy into the link's slot, and signal "full" once it has been written."""
        self._here.pack(microbatch, values)
        self._shared.flat(microbatch).copy_(self._here.flat(microbatch), non_blocking=_is_cuda(self._device))
        synchronize(self._device)
        self._signals.send(step, microbatch)


def _is_cuda(device: torch.device) -> bool:
    """Whether copies from and to pinned memory may run on their own; other devices have none."""
    return device.type == "cuda"
