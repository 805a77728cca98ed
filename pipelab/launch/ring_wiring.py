"""The kernel's place in a ring: it lays the slots and sockets, sends groups off, and gets them back."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from pipelab.launch.channel import MOST_DESCRIPTORS
from pipelab.launch.counters import Counters
from pipelab.launch.devices import Devices
from pipelab.launch.group import Request
from pipelab.launch.memory import Segment
from pipelab.launch.messages import RingLoad
from pipelab.launch.ring import GroupSlots, send_end, send_token, wait_token
from pipelab.launch.ring_job import RingJob

# A message hands the last rank a socket for each, and four descriptors besides.
MOST_GROUPS = MOST_DESCRIPTORS - 4


@dataclass(frozen=True)
class RingWiring:
    """What the kernel keeps of it.

    Attributes:
        job: What goes round.
        counters: What the ranks publish.
        slots: The slots before each rank, and behind the last one.
        sockets: Pairs for tokens: to each rank, and from the last one for each group.
    """

    job: RingJob
    counters: Counters
    slots: tuple[Segment, ...]
    sockets: tuple[tuple[socket.socket, socket.socket], ...]

    @classmethod
    def lay(cls, job: RingJob) -> "RingWiring":
        """Take the memory.

        Raises:
            LaunchError: There is not enough.
        """
        with ExitStack() as undo:
            counters = undo.enter_context(Segment.create(Counters.num_bytes(job.num_ranks), "the counters"))
            slots = [
                undo.enter_context(Segment.create(job.slots_bytes(index), "the links"))
                for index in range(job.num_ranks + 1)
            ]
            sockets = [_pair(undo) for _ in range(job.num_ranks + len(job.group_rows))]
            undo.pop_all()
        return cls(job, Counters(counters), tuple(slots), tuple(sockets))

    @contextmanager
    def loads(self, devices: Devices) -> Iterator[list[Request]]:
        """What to tell each rank. Afterwards only the ranks hold the ends that are theirs."""
        ranks = range(self.job.num_ranks)
        try:
            yield [(self._load(rank, devices), self._descriptors(rank)) for rank in ranks]
        finally:
            for index, (writes, reads) in enumerate(self.sockets):
                if index > 0:
                    writes.close()
                if index < self.job.num_ranks:
                    reads.close()

    def _descriptors(self, rank: int) -> list[int]:
        behind = self.sockets[rank + 1 :] if rank == self.job.num_ranks - 1 else self.sockets[rank + 1 : rank + 2]
        segments = (self.counters.segment, self.slots[rank], self.slots[rank + 1])
        ends = (self.sockets[rank][1], *(writes for writes, _ in behind))
        return [*(segment.descriptor for segment in segments), *(end.fileno() for end in ends)]

    def _load(self, rank: int, devices: Devices) -> RingLoad:
        return RingLoad(
            rank=rank,
            programs=self.job.of_rank(rank),
            groups=self.job.kept(rank),
            constants=self.job.constants,
            device=devices.names[rank],
            num_threads=devices.num_threads,
            counters_bytes=self.counters.segment.num_bytes,
            source_bytes=self.slots[rank].num_bytes,
            sink_bytes=self.slots[rank + 1].num_bytes,
        )

    def send(self, program: int, group: int, values: Sequence[Tensor]) -> None:
        """Send a group off.

        Raises:
            Stopped: The ranks are gone, or stop.
        """
        self._first.pack(program, group, values)
        send_token(self.sockets[0][0], program, group)

    def wait(self, program: int, group: int) -> tuple[Tensor, ...]:
        """What comes back of a group, in its slot.

        Raises:
            Stopped: The ranks are gone, or stop.
        """
        wait_token(self.sockets[self.job.num_ranks + group][1])
        return self._last.unpack(program, group)

    @cached_property
    def _first(self) -> GroupSlots:
        return GroupSlots(self.slots[0].bytes, self.job.values_before(0), len(self.job.group_rows))

    @cached_property
    def _last(self) -> GroupSlots:
        return GroupSlots(
            self.slots[-1].bytes, self.job.values_behind(self.job.num_ranks - 1), len(self.job.group_rows)
        )

    def end(self) -> None:
        """Send the end through all ranks.

        Raises:
            Stopped: They are gone.
        """
        send_end(self.sockets[0][0])

    def hang_up(self) -> None:
        """Nothing will come back any more: whoever waits, or is going to, is told."""
        for _, reads in self.sockets[self.job.num_ranks :]:
            with suppress(OSError):  # there was nobody left
                reads.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of memory and sockets."""
        for segment in (*self.slots, self.counters.segment):
            segment.close()
        for pair in self.sockets:
            for end in pair:
                end.close()


def _pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two ends that `stack` closes."""
    one, other = socket.socketpair()
    return stack.enter_context(one), stack.enter_context(other)
