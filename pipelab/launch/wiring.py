"""Lays the memory and the sockets that one job needs, and hands each rank its ends."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pipelab.launch.counters import Counters
from pipelab.launch.devices import PROCESS_GROUPS, Devices, LinkKind, num_cores
from pipelab.launch.group import Request
from pipelab.launch.job import Job
from pipelab.launch.memory import Segment
from pipelab.launch.messages import LinkEnd, Load
from pipelab.launch.signals import HEADER_BYTES


@dataclass(frozen=True)
class Wiring:
    """What the kernel keeps of it: the two ends of the pipeline, and a look at the ranks.

    Attributes:
        inputs: The whole batch.
        outputs: The merged outputs.
        counters: What the ranks publish.
    """

    inputs: Segment
    outputs: Segment
    counters: Counters

    @classmethod
    def lay(cls, job: Job) -> "Wiring":
        """Take the memory.

        Raises:
            LaunchError: There is not enough.
        """
        with ExitStack() as undo:
            inputs = undo.enter_context(Segment.create(job.inputs.num_bytes, "the inputs"))
            outputs = undo.enter_context(Segment.create(job.outputs.num_bytes, "the outputs"))
            counters = undo.enter_context(Segment.create(Counters.num_bytes(job.num_ranks), "the counters"))
            undo.pop_all()
        return cls(inputs, outputs, Counters(counters))

    def close(self) -> None:
        """Let go of the memory."""
        for segment in (self.inputs, self.outputs, self.counters.segment):
            segment.close()

    @contextmanager
    def loads(self, job: Job, devices: Devices) -> Iterator[list[Request]]:
        """What to tell each rank. Only the ranks hold the links: this process closes its ends after the block.

        Raises:
            LaunchError: There is not enough memory for the links.
        """
        with ExitStack() as stack:
            sources, sinks = [[self.inputs.descriptor]], []
            for index in range(job.num_ranks - 1):
                kind = devices.links[index]
                slots = stack.enter_context(Segment.create(_link_bytes(job, kind, index), "the links"))
                ends = [stack.enter_context(end) for end in socket.socketpair()]
                meeting = [_meeting_file(stack)] if kind in PROCESS_GROUPS else []
                sinks.append([slots.descriptor, ends[0].fileno(), *meeting])
                sources.append([slots.descriptor, ends[1].fileno(), *meeting])
            sinks.append([self.outputs.descriptor])
            yield [
                (self._load(job, devices, rank), [self.counters.segment.descriptor, *source, *sink])
                for rank, (source, sink) in enumerate(zip(sources, sinks, strict=True))
            ]

    def _load(self, job: Job, devices: Devices, rank: int) -> Load:
        last = job.num_ranks - 1
        ends = [LinkEnd(kind, _link_bytes(job, kind, index)) for index, kind in enumerate(devices.links)]
        return Load(
            rank=rank,
            sizes=job.sizes,
            tables=job.tables[rank],
            device=devices.names[rank],
            num_threads=devices.num_threads,
            has_core=job.num_ranks <= num_cores(),
            counters_bytes=self.counters.segment.num_bytes,
            source=job.inputs if rank == 0 else ends[rank - 1],
            sink=job.outputs if rank == last else ends[rank],
        )


def _link_bytes(job: Job, kind: LinkKind, index: int) -> int:
    """Bytes that the two ranks share; a process group's messages have their slots in each."""
    return HEADER_BYTES if kind in PROCESS_GROUPS else job.link_bytes(index)


def _meeting_file(stack: ExitStack) -> int:
    """An empty file without a name, by which the two ranks of a process group find each other."""
    descriptor = os.memfd_create("pipelab", os.MFD_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor
