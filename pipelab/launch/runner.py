"""Runs jobs on a group of ranks: starts them, loads them, steps them, and starts them again after a death."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext

from torch import Tensor

from pipelab.errors import LaunchError, StageError
from pipelab.launch.client import ServerEnded, current_server
from pipelab.launch.counters import Counters
from pipelab.launch.devices import PROCESS_GROUPS, Devices
from pipelab.launch.failures import explain
from pipelab.launch.group import Group, Patience, RankDied, RankRaised, RankStalled, Request
from pipelab.launch.job import Job, fill, read
from pipelab.launch.memory import Segment, Weights
from pipelab.launch.messages import Done, Flow, Gather, Reply, Step
from pipelab.launch.ring_job import RingJob
from pipelab.launch.ring_wiring import RingWiring
from pipelab.launch.step_record import StepRecord
from pipelab.launch.wiring import Wiring
from pipelab.program import StageTable, Table
from pipelab.progress import announce_bytes

_NOTHING = Job(({1: StageTable(0, 1, Table((), (), ()), (), ())},), (1,), (), ())  # to run, for one rank
Paces = Sequence[tuple[float, ...]]  # per rank, seconds for each micro-batch


class Runner:
    """A group of ranks, and what it holds. Started by the first `load`.

    Args:
        weights: Of the model.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._group: Group | None = None
        self._wiring: Wiring | None = None
        self._job: Job | None = None
        self._has_groups = False
        self._num_steps = 0
        self._read_bytes: tuple[int, ...] = ()

    @property
    def read_bytes(self) -> tuple[int, ...]:
        """Bytes of files that each rank has read of its weights, since it was started."""
        return self._read_bytes

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids by rank; none while no ranks are there."""
        return self._group.pids if self._group else ()

    def start(self, num_ranks: int, check: Callable[[], None]) -> None:
        """Have this many ranks.

        Args:
            num_ranks: How many.
            check: Called while waiting; may raise.

        Raises:
            LaunchError: They cannot be started.
        """
        with _system_errors():
            try:
                self._have(num_ranks, check)
            except ServerEnded:  # its ranks with it, none of which had anything to do
                self._have(num_ranks, check)

    def _have(self, num_ranks: int, check: Callable[[], None]) -> None:
        if self._group is not None and not self._group.alive:
            self._group.kill()
            self._group = None
        if self._group is None:
            self._group = Group(current_server(), self._weights)
            self._job = None
            self._read_bytes = ()
        if len(self._group.pids) != num_ranks:
            self._job = None
            self._group.resize(num_ranks, check)
            self._read_bytes = (*self._read_bytes, *[0] * num_ranks)[:num_ranks]

    def gather(self, patience: Patience, check: Callable[[], None]) -> None:
        """Have one rank read the weights that lie in files into the memory that every later rank maps.

        Raises:
            LaunchError: A file cannot be read.
            StageError: The rank died before it could.
        """
        self.start(1, check)
        weights = self._weights
        placed = tuple(placed for placed in weights.placed if placed.spec.name in weights.pieces)
        with _system_errors(), Segment.create(Counters.num_bytes(1), "the counters") as segment:
            message = Gather(placed, weights.segment.num_bytes, segment.num_bytes)
            descriptors = [segment.descriptor, weights.segment.descriptor]
            self._hold(_NOTHING, [(message, descriptors)], Counters(segment), patience)
        weights.pieces = {}

    def load(self, job: Job, devices: Devices, patience: Patience, check: Callable[[], None]) -> None:
        """Have the ranks hold this job; does nothing where they do.

        Raises:
            LaunchError: They cannot.
            StageError: One died before it could.
        """
        self.start(job.num_ranks, check)
        if job is self._job:
            return
        self._job = None
        wiring = Wiring.lay(job)
        if self._wiring is not None:
            self._wiring.close()
        self._wiring = wiring
        with _system_errors(), wiring.loads(job, devices) as requests:
            self._hold(job, requests, wiring.counters, patience)
        self._job = job
        self._has_groups = not PROCESS_GROUPS.isdisjoint(devices.links)

    def load_ring(self, job: RingJob, devices: Devices, patience: Patience, check: Callable[[], None]) -> "RingWiring":
        """Have the ranks hold this job in a ring; returns what the caller sends groups through, and closes.

        Raises:
            LaunchError: They cannot.
            StageError: One died before it could.
        """
        self.start(job.num_ranks, check)
        self._job = None
        with _system_errors(), ExitStack() as undo:
            wiring = RingWiring.lay(job)
            undo.callback(wiring.close)
            with wiring.loads(devices) as requests:
                self._hold(job, requests, wiring.counters, patience)
            undo.pop_all()
        return wiring

    def flow(self, wiring: RingWiring, patience: Patience) -> tuple[Done, ...]:
        """Have the ranks run what is sent through the ring, until its end; returns what each of them tells.

        Raises:
            Cancelled: It was stopped.
            StageError: A rank failed.
        """
        wiring.counters.resume()
        requests = [(Flow(), ())] * wiring.job.num_ranks
        replies = self._ask(wiring.job, requests, wiring.counters, patience)
        return tuple(reply for reply in replies if isinstance(reply, Done))

    def _hold(self, job: Job | RingJob, requests: Sequence[Request], counters: Counters, patience: Patience) -> None:
        try:
            with self._reading(counters, job.num_ranks):
                self._ask(job, requests, counters, patience)
        except StageError as error:
            if not error.remote_traceback:  # it died, as it may at any time
                raise
            raise LaunchError(f"The stages could not be loaded. {error}") from error

    @contextmanager
    def _reading(self, counters: Counters, num_ranks: int) -> Iterator[None]:
        """Count the bytes that ranks read meanwhile, and show them."""

        def counted() -> list[tuple[int, int]]:
            return [counters.read_bytes(rank) for rank in range(num_ranks)]

        def progress() -> tuple[int, int]:
            done, total = map(sum, zip(*counted(), strict=True))
            return done, total

        try:
            with announce_bytes("reading the weights", progress) if self._weights.pieces else nullcontext():
                yield
        finally:
            pairs = zip(self._read_bytes, counted(), strict=True)
            self._read_bytes = tuple(before + more for before, (more, _) in pairs)

    def fill(self, inputs: Sequence[Tensor]) -> None:
        """Put a batch before the first stage."""
        job, wiring = self._loaded()
        fill(wiring.inputs, job.inputs, inputs)

    def step(self, patience: Patience, *, times_ops: bool = False, paces_s: Paces | None = None) -> StepRecord:
        """Run all micro-batches once.

        Args:
            patience: How long to wait.
            times_ops: Whether to measure each op.
            paces_s: Per rank and micro-batch, how long to wait instead of computing; None to compute.

        Raises:
            Cancelled: It was stopped.
            StageError: A rank failed.
        """
        job, wiring = self._loaded()
        wiring.counters.resume()
        self._num_steps += 1
        steps = [Step(self._num_steps, times_ops, paces_s[rank] if paces_s else None) for rank in range(job.num_ranks)]
        if self._has_groups:
            self._job = None  # until the step has gone well: given up, it leaves messages behind
        replies = self._ask(job, [(step, ()) for step in steps], wiring.counters, patience)
        self._job = job
        done = [reply for reply in replies if isinstance(reply, Done)]
        return StepRecord(
            job,
            tuple(reply.times_ns for reply in done),
            tuple(reply.peak_memory_bytes for reply in done),
            tuple(reply.op_s for reply in done),
            "paced" if paces_s else "measured",
        )

    def outputs(self) -> list[Tensor]:
        """The merged outputs of the last step, copied."""
        job, wiring = self._loaded()
        return read(wiring.outputs, job.outputs)

    def kill(self) -> None:
        """End the ranks, and wait until they are gone. Another thread may be using them: it is told."""
        group = self._group
        if group is not None:
            group.kill()

    def close(self) -> None:
        """End the ranks, and let go of everything."""
        self.kill()
        self.abandon()

    def abandon(self) -> None:
        """Let go of everything; the ranks end by themselves. Takes no lock, so that a finalizer may call it."""
        if self._group is not None:
            self._group.abandon()
        if self._wiring is not None:
            self._wiring.close()
        self._group = self._wiring = self._job = None

    def _loaded(self) -> tuple[Job, Wiring]:
        assert self._job is not None, "load comes first"
        assert self._wiring is not None, "load comes first"
        return self._job, self._wiring

    def _ask(
        self, job: Job | RingJob, requests: Sequence[Request], counters: Counters, patience: Patience
    ) -> list[Reply]:
        assert self._group is not None, "start comes first"
        try:
            return self._group.ask(requests, counters, patience)
        except (RankDied, RankRaised, RankStalled) as failure:
            raise explain(job, failure, patience.stall_s) from None


@contextmanager
def _system_errors() -> Iterator[None]:
    """Turn what the system refuses into an error in words.

    Raises:
        LaunchError: It refused something.
    """
    try:
        yield
    except OSError as error:
        raise LaunchError(f"The system refuses what ranks need: {error}. Free some of it, and run again.") from error
