"""Links through torch.distributed: NCCL between two GPUs, gloo for what shares neither a GPU's nor the host's memory.

Two neighbours have a process group of their own, made when the stages are loaded and gone with them. Values go by
messages, one per micro-batch, from two slots of the sender into two of the receiver. A message is sent while the
next micro-batch is computed, and received while the one before is; the signals beside it are those of any link, so
that a wait ends as any other does: with the step, or with the neighbour. A step that was given up may leave messages
behind, and nobody can take them back: the stages are then loaded anew (see runner.py).

What is open meanwhile: neighbours meet in a memory file without a name. gloo listens on a free port of 127.0.0.1,
NCCL on the loopback interface, where it drops who does not know the pair's random number.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed
from torch import Tensor

from pipelab.launch.counters import Stopped
from pipelab.launch.devices import LinkKind
from pipelab.launch.gpu_memory import synchronize
from pipelab.launch.links import NUM_SLOTS, LinkSink, LinkSource, Slots
from pipelab.launch.signals import Signals

dist: Any = torch.distributed  # its types leave out process groups
_TAG = 0
_NEVER = timedelta(days=365)  # a wait is ended by the kernel, which ends the process


class Work(Protocol):
    """A message under way."""

    def wait(self) -> object:
        """Wait until it has arrived, or (on a GPU) have what is asked of the GPU next wait for it."""


class Pair:
    """A process group of two neighbours.

    Args:
        kind: "nccl" or "gloo".
        rendezvous: Descriptor of an empty memory file that both have; closed with the pair.
        is_sender: Which of the two this is.
    """

    def __init__(self, kind: LinkKind, rendezvous: int, *, is_sender: bool) -> None:
        self._is_sender = is_sender
        rank, self._peer = (0, 1) if is_sender else (1, 0)
        store = dist.FileStore(f"/proc/self/fd/{rendezvous}", -1)
        self._group: Any = _nccl(store, rank) if kind == "nccl" else _gloo(store, rank)
        self._rendezvous = rendezvous

    def greet(self, slots: Slots) -> None:
        """Exchange a first message while both are sure to be here, because NCCL connects with it."""
        byte = torch.zeros(1, dtype=torch.uint8, device=slots.device)
        (self.send if self._is_sender else self.receive)(byte).wait()
        synchronize(byte.device)

    def send(self, message: Tensor) -> Work:
        """Begin to send; the message must stay as it is until the work is done."""
        work: Work = self._group.send([message], self._peer, _TAG)
        return work

    def receive(self, message: Tensor) -> Work:
        """Begin to receive, in the order in which the neighbour sends."""
        work: Work = self._group.recv([message], self._peer, _TAG)
        return work

    def close(self) -> None:
        """Leave; messages under way are dropped."""
        if self._group is not None:
            self._group.abort()
            self._group = None
            os.close(self._rendezvous)  # only now: the group's store has opened it by number until here


def _gloo(store: Any, rank: int) -> Any:
    options = dist.ProcessGroupGloo._Options()
    options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1", lazy_init=False)]
    options._threads = 1
    options._timeout = _NEVER
    return dist.ProcessGroupGloo(store, rank, 2, options)


def _nccl(store: Any, rank: int) -> Any:
    # torch's own threads would end a process that waits for a neighbour; that is for the kernel to decide.
    os.environ.update(TORCH_NCCL_ASYNC_ERROR_HANDLING="0", TORCH_NCCL_ENABLE_MONITORING="0", NCCL_SOCKET_IFNAME="lo")
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = _NEVER
    return dist.ProcessGroupNCCL(dist.PrefixStore("pair", store), rank, 2, options)


@contextmanager
def _parting(signals: Signals) -> Iterator[None]:
    """A block that begins a message or waits for one: either may fail where the neighbour is gone.

    Raises:
        Stopped: The neighbour is gone, which is for the kernel to tell: he died of something else.
    """
    try:
        yield
    except RuntimeError as error:
        if signals.is_alone():
            raise Stopped from error
        raise


class GroupSource(LinkSource):
    """Receives from the stage before.

    Args:
        pair: The process group.
        slots: On this rank's device.
        signals: From and to the neighbour.
        num_microbatches: Of a step.
    """

    def __init__(self, pair: Pair, slots: Slots, signals: Signals, num_microbatches: int) -> None:
        super().__init__(slots, signals, num_microbatches)
        self._pair = pair
        self._here = slots
        self._count = num_microbatches
        self._works: deque[Work] = deque()
        pair.greet(slots)

    def wait(self, step: int, microbatch: int) -> None:
        """Wait until the message is on its way."""
        if microbatch == 0:
            self._receive(0)
        super().wait(step, microbatch)

    def take(self, microbatch: int) -> tuple[Tensor, ...]:
        """The values, in the slot. The next message comes into the other one meanwhile."""
        if microbatch + 1 < self._count:
            self._receive(microbatch + 1)
        with _parting(self._signals):
            self._works.popleft().wait()
        return self._here.unpack(microbatch)

    def close(self) -> None:
        """Leave the group."""
        self._works.clear()
        self._pair.close()

    def _receive(self, microbatch: int) -> None:
        with _parting(self._signals):
            self._works.append(self._pair.receive(self._here.flat(microbatch)))


class GroupSink(LinkSink):
    """Sends to the next stage.

    Args:
        pair: The process group.
        slots: On this rank's device.
        signals: From and to the neighbour.
        device: The device.
    """

    def __init__(self, pair: Pair, slots: Slots, signals: Signals, device: torch.device) -> None:
        super().__init__(slots, signals)
        self._pair = pair
        self._here = slots
        self._signals = signals
        self._device = device
        self._works: deque[Work] = deque()
        pair.greet(slots)

    def wait(self, step: int, microbatch: int) -> None:
        """Wait until the slot's message before, of this step or the last one, has been sent."""
        super().wait(step, microbatch)
        under_way = 0 if microbatch == 0 else NUM_SLOTS - 1
        while len(self._works) > under_way:
            with _parting(self._signals):
                self._works.popleft().wait()

    def put(self, step: int, microbatch: int, values: Sequence[Tensor]) -> None:
        """Begin to send, and signal "full" once there is something to send."""
        self._here.pack(microbatch, values)
        with _parting(self._signals):
            self._works.append(self._pair.send(self._here.flat(microbatch)))
        synchronize(self._device)
        self._signals.send(step, microbatch)

    def close(self) -> None:
        """Leave the group."""
        self._works.clear()
        self._pair.close()
