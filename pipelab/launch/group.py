"""A group of ranks as one thing: starts them, loads a plan, runs a step, says who failed first, ends them."""

import selectors
import socket
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from signal import Signals
from typing import Any

from pipelab.errors import Cancelled, StageError
from pipelab.events import Event, Timeline, ordered
from pipelab.launch.batch import Batch
from pipelab.launch.channel import Channel, Closed
from pipelab.launch.links import NUM_SLOTS, slot_bytes
from pipelab.launch.memory import Place, Segment
from pipelab.launch.messages import Done, Edge, Hello, Load, Raised, Ready, Step
from pipelab.launch.preloaded import Preloaded, guard
from pipelab.launch.progress import NUM_BYTES, Progress
from pipelab.program import StageTable
from pipelab.units import plural

_LOOK_S = 0.1


@dataclass(frozen=True)
class Program:
    """What a group is to run.

    Attributes:
        tables: Per micro-batch size, the table of each stage.
        sizes: Rows of each micro-batch.
        inputs: The whole batch going in.
        outputs: The whole batch coming out.
        devices: Per rank, where it runs.
        num_threads: Threads of an op.
    """

    tables: dict[int, tuple[StageTable, ...]]
    sizes: tuple[int, ...]
    inputs: Batch
    outputs: Batch
    devices: tuple[str, ...]
    num_threads: int


@dataclass(frozen=True)
class StepResult:
    """One step of all ranks."""

    timeline: Timeline
    peak_bytes: tuple[int, ...]


class Group:
    """Processes that hold one stage each. Every wait ends: on a death, or when nothing has moved for `stall_s`.

    Args:
        server: What starts them.
        weights: The segment of the weights.
        places: Where each weight lies.
        num_ranks: How many.
        is_cancelled: Asked while waiting; True leaves the step.
    """

    stall_s = 60.0

    def __init__(
        self,
        server: Preloaded,
        weights: Segment,
        places: tuple[Place, ...],
        num_ranks: int,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self.server = server
        self.progress = Progress(Segment.create(NUM_BYTES, "the progress counters"))
        self.channels: list[Channel] = []
        self.pids: list[int] = []
        self._is_cancelled = is_cancelled
        self._program: Program | None = None
        self._step = 0
        self._end = weakref.finalize(self, _end, server, self.channels, self.pids, self.progress.segment)
        self._weights = weights
        self._places = places
        self.resize(num_ranks)

    @property
    def is_alive(self) -> bool:
        """Whether its ranks are there."""
        return self._end.alive

    def resize(self, num_ranks: int) -> None:
        """Start or end ranks at the end of the pipeline until there are this many."""
        while len(self.pids) > num_ranks:
            _end_ranks(self.server, [self.channels.pop()], [self.pids.pop()])
        while len(self.pids) < num_ranks:
            hello = Hello(len(self.pids), self._places, self._weights.num_bytes)
            channel, theirs = Channel.pair()
            guard(channel)
            self.channels.append(channel)
            self.pids.append(self.server.start_rank(theirs.fileno()))
            theirs.close()
            channel.send(hello, [self._weights.fd, self.progress.segment.fd])

    def load(self, program: Program) -> None:
        """Give each rank its stage, and links between them.

        Raises:
            StageError: A rank failed.
        """
        self._program = program
        last = len(self.channels) - 1
        first_edge = _whole(program.inputs)
        edges: list[tuple[Edge, list[int]]] = [(first_edge, [program.inputs.segment.fd])]
        opened: list[socket.socket | Segment] = []
        try:
            for rank in range(len(self.channels)):
                before, before_fds = edges[-1]
                if rank == last:
                    after, after_fds, next_fds = _whole(program.outputs), [program.outputs.segment.fd], []
                else:
                    specs = [tables[rank].outputs for tables in program.tables.values()]
                    slots = Segment.create(NUM_SLOTS * slot_bytes(specs), "the slots of a link")
                    ends = socket.socketpair()
                    opened += [slots, *ends]
                    after = Edge(slots.num_bytes, is_link=True)
                    after_fds, next_fds = [ends[0].fileno(), slots.fd], [ends[1].fileno(), slots.fd]
                edges.append((after, next_fds))
                tables = {size: of_size[rank] for size, of_size in program.tables.items()}
                load = Load(tables, program.sizes, before, after, program.devices[rank], program.num_threads)
                self._tell(rank, load, [*before_fds, *after_fds])
        finally:
            for item in opened:
                item.close()
        self._gather()

    def step(self) -> StepResult:
        """Run every micro-batch once.

        Raises:
            StageError: A rank raised, died or stalled; the first that did.
            Cancelled: The step was left as asked.
        """
        assert self._program is not None
        self._step += 1
        for rank in range(len(self.channels)):
            self._tell(rank, Step(self._step))
        answers = self._gather()
        done = [answer for answer in answers if isinstance(answer, Done)]
        if len(done) < len(answers):
            raise Cancelled("The run was stopped; the processes are still there.")
        events = [event for answer in done for event in answer.events]
        count = len(self.channels)
        timeline = Timeline(_from_zero(events), count, count, len(self._program.sizes))
        return StepResult(timeline, tuple(answer.peak_bytes for answer in done))

    def end(self) -> None:
        """End the ranks; nothing of them is left when this returns."""
        self._end()

    # --- talking to ranks ---------------------------------------------------------------------------

    def _tell(self, rank: int, message: Any, descriptors: Sequence[int] = ()) -> None:
        try:
            self.channels[rank].send(message, descriptors)
        except Closed:
            raise self._death(rank) from None

    def _gather(self) -> list[Any]:
        """One answer of every rank; the first failure is raised when all are idle again."""
        answers: dict[int, Any] = {}
        failures: list[tuple[int, Raised]] = []
        moved, seen = time.monotonic(), self.progress.snapshot(len(self.channels))
        with selectors.DefaultSelector() as selector:
            for rank, channel in enumerate(self.channels):
                selector.register(channel, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select(_LOOK_S):
                    answers[key.data] = self._receive(key.data)
                    selector.unregister(key.fileobj)
                    if isinstance(answers[key.data], Raised):
                        failures.append((key.data, answers[key.data]))
                        self.progress.request_stop(self._step)
                    moved = time.monotonic()
                if self._is_cancelled():
                    self.progress.request_stop(self._step)
                now = self.progress.snapshot(len(self.channels))
                if now != seen:
                    moved, seen = time.monotonic(), now
                if time.monotonic() - moved > self.stall_s:
                    raise self._stall(set(range(len(self.channels))) - set(answers))
        if failures:
            raise self._failure(failures)
        return [answers[rank] for rank in range(len(self.channels))]

    def _receive(self, rank: int) -> Any:
        try:
            answer, _ = self.channels[rank].receive()
        except Closed:
            raise self._death(rank) from None
        assert isinstance(answer, Ready | Done | Raised)
        return answer

    # --- what went wrong ----------------------------------------------------------------------------

    def _failure(self, failures: list[tuple[int, Raised]]) -> StageError:
        # A rank whose neighbour died raises too, but then the death was seen first, as the end of its channel.
        rank, raised = failures[0]
        where = f" in {raised.module or 'the model'}, {raised.target}" if raised.target else ""
        return StageError(
            f"Stage {rank} (rank {rank}) raised {raised.error}{where}\n\n{raised.traceback}",
            rank=rank,
            stage=rank,
            remote_traceback=raised.traceback,
        )

    def _death(self, rank: int) -> StageError:
        pid = self.pids[rank]
        code = self.server.exit_code(pid)
        self.end()
        if code is None:
            how = "ended together with the server that started it"
        elif code < 0:
            how = f"was killed by {Signals(-code).name}"
            how += " (the system may have run out of memory)" if -code == Signals.SIGKILL else ""
        else:
            how = f"exited with code {code}"
        text = f"Stage {rank} (rank {rank}, pid {pid}) {how}. All ranks were ended; the next run starts new ones."
        return StageError(text, rank=rank, stage=rank)

    def _stall(self, waiting: set[int]) -> StageError:
        running = {rank: self.progress.op(rank) for rank in waiting if self.progress.op(rank) >= 0}
        rank = min(running, default=min(waiting))
        where = ""
        if rank in running and self._program is not None:
            rows = next(iter(self._program.tables.values()))[rank].table.rows
            row = rows[min(running[rank] + 1, len(rows) - 1)]
            where = f" in {row.module or 'the model'}, {row.target}"
        self.end()
        return StageError(
            f"Stage {rank} (rank {rank}) has made no progress for {self.stall_s:.0f} s{where}. All ranks were ended; "
            "the next run starts new ones.",
            rank=rank,
            stage=rank,
        )

    def __repr__(self) -> str:
        return f"Group({plural(len(self.pids), 'rank')})"


def _whole(batch: Batch) -> Edge:
    return Edge(batch.segment.num_bytes, is_link=False, whole=batch.places, batched=batch.batched)


def _from_zero(events: Sequence[Event]) -> tuple[Event, ...]:
    """Events on a clock that starts with the first micro-batch."""
    zero = min(event.start_s for event in events)
    return ordered(
        Event(e.rank, e.stage, e.microbatch, e.kind, e.start_s - zero, e.end_s - zero, e.num_bytes) for e in events
    )


def _end(server: Preloaded, channels: list[Channel], pids: list[int], progress: Segment) -> None:
    _end_ranks(server, channels, pids)
    progress.close()


def _end_ranks(server: Preloaded, channels: list[Channel], pids: list[int]) -> None:
    # Killed, not asked: a rank has nothing to save, and a hung one would not listen.
    server.kill(pids)
    for channel in channels:
        channel.close()
    for pid in pids:
        server.exit_code(pid)
