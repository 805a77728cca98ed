"""`start` and `Pipeline`: checks what is asked before any process is touched, runs it, reports."""

import os
import platform
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from types import FrameType
from typing import Any

import torch

import pipelab
from pipelab.errors import Cancelled, LaunchError, PipelabError
from pipelab.launch.batch import LoadedBatch
from pipelab.launch.group import Group, Program, StepResult
from pipelab.launch.memory import Segment, store
from pipelab.launch.preloaded import prepare
from pipelab.plan import Plan
from pipelab.program import StageTable
from pipelab.progress import announce
from pipelab.report import Report
from pipelab.stages import stage_tables, whole_table
from pipelab.tracing import Trace
from pipelab.units import plural

_ENOUGH_S = 1.0
_ENOUGH_STEPS = 20
_BASELINE_STEPS = 3


def start(traced: Trace, plan: Plan, device: str = "auto") -> "Pipeline":
    """Start a plan on processes of its own, one per stage.

    The weights are copied once into memory the processes share; the model stays as it is.

    Args:
        traced: The model.
        plan: Where it is cut; made from this trace.
        device: "auto" (a GPU per rank if there are enough, else all on one, else the CPU), "cpu", "cuda", or
            one GPU, "cuda:0".

    Returns:
        The running pipeline; use it in a `with` block, or `close` it.

    Raises:
        SplitError: The plan is of another trace.
        LaunchError: There are no weights, not enough memory, no such device, or an operator that only this
            process knows.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)).eval()
        >>> x = torch.zeros(6, 4)
        >>> traced = pipelab.trace(model, x)
        >>> with pipelab.start(traced, pipelab.uniform(traced, num_stages=2)) as pipe:
        ...     report = pipe.run(x, num_microbatches=3)
        >>> torch.equal(report.output, model(x))
        True
    """
    return Pipeline(traced, plan, device)


class Pipeline:
    """A plan on running processes. `pipelab.start` makes it.

    Attributes:
        on_progress: Called with (steps done, steps planned) while `run` measures.
    """

    def __init__(self, traced: Trace, plan: Plan, device: str = "auto") -> None:
        self.on_progress: Callable[[int, int], None] | None = None
        self._traced = traced
        self._device = device
        self._cancelled = threading.Event()
        self._running = threading.Lock()
        self._group: Group | None = None
        self._loaded: LoadedBatch | None = None
        self._baselines: dict[tuple[tuple[int, ...], ...], float] = {}
        self._plan = self._checked(plan)
        self._devices(self._plan.num_stages)
        with announce(f"starting {plural(self._plan.num_stages, 'process')}"), self._interruptible():
            self._weights, self._places = store(traced.weights(), f"the weights of {traced.graph.model}")
            self._end = weakref.finalize(self, Segment.close, self._weights)
            self._ensure_group()

    # --- use ----------------------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """The plan that runs."""
        return self._plan

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the ranks; empty after a failure that ended them, and after `close`."""
        return tuple(self._group.pids) if self._group is not None and self._group.is_alive else ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One forward pass as one micro-batch.

        Args:
            *args: As the model is called.
            **kwargs: As the model is called.

        Returns:
            The model's own output.

        Raises:
            InputError: The inputs do not fit the trace.
            StageError: A rank failed.
        """
        with self._exclusive():
            self._prepare(args, kwargs, 1)
            self._step()
            return self._output()

    def run(self, *args: Any, num_microbatches: int | None = None, repeats: int | None = None, **kwargs: Any) -> Report:
        """Run the batch in micro-batches, several times, and measure.

        Args:
            *args: As the model is called.
            num_microbatches: Parts of the batch, as `torch.tensor_split` divides it; None for
                min(batch, 2 x stages).
            repeats: Steps to measure, after one to warm up; None for as many as fit into a second, at most 20.
            **kwargs: As the model is called.

        Returns:
            The report; its timeline is that of the median step.

        Raises:
            InputError: The inputs do not fit the trace, or cannot be split or merged. No process was touched.
            StageError: A rank raised, died or stalled.
            Cancelled: `interrupt` was called. The ranks stay.
        """
        if repeats is not None and repeats < 1:
            raise pipelab.errors.InputError(f"repeats must be 1 or more; it is {repeats}.")
        with self._exclusive():
            batch_size = self._prepare(args, kwargs, num_microbatches)
            baseline_s = self._baseline()
            results = self._measure(repeats)
            results.sort(key=lambda result: result.timeline.makespan_s)
            middle = results[(len(results) - 1) // 2]
            return Report(
                plan=self._plan,
                timeline=middle.timeline,
                steps_s=tuple(result.timeline.makespan_s for result in results),
                batch_size=batch_size,
                baseline_s=baseline_s,
                peak_memory_bytes=tuple(
                    max(result.peak_bytes[rank] for result in results) for rank in range(self._plan.num_stages)
                ),
                environment=self._environment(),
                output=self._output(),
            )

    def replan(self, plan: Plan) -> None:
        """Cut the model elsewhere; the processes stay, and as many are added or ended as the plan needs.

        Args:
            plan: Made from the same trace.

        Raises:
            SplitError: The plan is of another trace. The old one goes on.
        """
        with self._exclusive():
            plan = self._checked(plan)
            self._devices(plan.num_stages)
            self._plan = plan
            self._loaded = None
            with announce(f"starting {plural(plan.num_stages, 'process')}"):
                self._ensure_group()

    def interrupt(self) -> None:
        """Stop the run that goes on in another thread: it raises `Cancelled`, and the ranks stay."""
        self._cancelled.set()

    def close(self) -> None:
        """End the processes; nothing of them is left. A second call does nothing."""
        if self._group is not None:
            self._group.end()
            self._group = None
        self._loaded = None
        self._end()

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"pids {self.pids}" if self.pids else "closed" if not self._end.alive else "no ranks"
        return f"Pipeline({self._traced.graph.model} in {plural(self._plan.num_stages, 'stage')}, {state})"

    # --- checks -------------------------------------------------------------------------------------

    def _checked(self, plan: Plan) -> Plan:
        """The plan to run; refused here if its stages cannot be built."""
        if plan.has_empty_stage:
            warnings.warn(
                f"The last stage of {plan.policy} is empty and is left out: {plan.num_stages - 1} stages run.",
                stacklevel=5,
            )
        plan = plan.without_empty_stage()
        stage_tables(self._traced, plan, self._traced.graph.batch_size)
        return plan

    def _devices(self, num_ranks: int) -> tuple[str, ...]:
        count = torch.cuda.device_count()
        if self._device == "cpu" or (self._device == "auto" and not count):
            return ("cpu",) * num_ranks
        if self._device in ("auto", "cuda") and count >= num_ranks:
            return tuple(f"cuda:{rank}" for rank in range(num_ranks))
        device = "cuda:0" if self._device in ("auto", "cuda") else self._device
        number = device.removeprefix("cuda:")
        if not number.isdigit() or int(number) >= count:
            raise LaunchError(
                f"device={self._device!r} cannot be used: there {plural(count, 'GPU')} here. Use 'auto', 'cpu', 'cuda' "
                "or 'cuda:0'."
            )
        return (device,) * num_ranks

    # --- running ------------------------------------------------------------------------------------

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One run at a time; an interrupt stops it and leaves the ranks."""
        if not self._end.alive:
            raise LaunchError("The pipeline is closed; start another one.")
        if not self._running.acquire(blocking=False):
            raise PipelabError("The pipeline is running in another thread: wait for it, or interrupt() it.")
        try:
            self._cancelled.clear()
            with self._interruptible():
                yield
        finally:
            self._running.release()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Turn Ctrl-C into a request to stop: raised anywhere, it would tear a message in two.

        A second Ctrl-C ends the ranks.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        hits = 0

        def note(_signal: int, _frame: FrameType | None) -> None:
            nonlocal hits
            hits += 1
            self._cancelled.set()
            if hits > 1 and self._group is not None:
                self._group.end()

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        except Exception:
            if not hits:
                raise
        finally:
            signal.signal(signal.SIGINT, before)
        if hits:
            raise KeyboardInterrupt

    def _ensure_group(self) -> Group:
        """The running group, of as many ranks as the plan has stages."""
        count = self._plan.num_stages
        if self._group is not None and self._group.is_alive and len(self._group.pids) != count:
            self._group.resize(count)
        if self._group is None or not self._group.is_alive:
            self._loaded = None
            self._group = Group(prepare(), self._weights, self._places, count, self._cancelled.is_set)
        return self._group

    def _prepare(self, args: Sequence[Any], kwargs: dict[str, Any], num_microbatches: int | None) -> int:
        """Check the call, load what it needs, put its inputs in place; returns the rows of the batch."""
        inputs = self._traced.bind(args, kwargs)
        batch_size = self._traced.batch_size_of(inputs)
        sizes = self._traced.microbatch_sizes(batch_size, num_microbatches, self._plan.num_stages)
        tables = {size: stage_tables(self._traced, self._plan, size) for size in dict.fromkeys(sizes)}
        key = (sizes, tuple(tuple(tensor.shape) for tensor in inputs))
        group = self._ensure_group()
        if self._loaded is None or self._loaded.key != key:
            self._loaded = None
            loaded = LoadedBatch.make(self._traced, key, sizes, tables, inputs)
            count = self._plan.num_stages
            group.load(Program(tables, sizes, loaded.inputs, loaded.outputs, self._devices(count), _threads(count)))
            self._loaded = loaded
        self._loaded.fill(inputs)
        return batch_size

    def _step(self) -> StepResult:
        assert self._group is not None
        try:
            return self._group.step()
        except PipelabError:
            if not self._group.is_alive:
                self._loaded = None
            raise

    def _measure(self, repeats: int | None) -> list[StepResult]:
        planned = _ENOUGH_STEPS if repeats is None else repeats
        self._step()
        results: list[StepResult] = []
        start = time.perf_counter()
        while len(results) < planned:
            if self._cancelled.is_set():
                raise Cancelled("The run was stopped; the processes are still there.")
            results.append(self._step())
            if self.on_progress is not None:
                self.on_progress(len(results), planned)
            if repeats is None and time.perf_counter() - start > _ENOUGH_S:
                break
        return results

    def _output(self) -> Any:
        assert self._loaded is not None
        return self._traced.unflatten(self._loaded.read())

    def _baseline(self) -> float:
        """Seconds of the unsplit model in one process with all cores; measured once per input shape."""
        assert self._loaded is not None
        loaded = self._loaded
        if loaded.key[1] not in self._baselines:
            batch_size = sum(loaded.sizes)
            table = whole_table(self._traced, batch_size)
            group = Group(prepare(), self._weights, self._places, 1, self._cancelled.is_set)
            try:
                devices = self._devices(1)
                sizes = (batch_size,)
                tables: dict[int, tuple[StageTable, ...]] = {batch_size: (table,)}
                group.load(Program(tables, sizes, loaded.inputs, loaded.outputs, devices, _cores()))
                group.step()
                steps = [group.step().timeline.makespan_s for _ in range(_BASELINE_STEPS)]
            finally:
                group.end()
            self._baselines[loaded.key[1]] = median(steps)
        return self._baselines[loaded.key[1]]

    def _environment(self) -> dict[str, Any]:
        count = self._plan.num_stages
        devices, threads = self._devices(count), _threads(count)
        if devices[0] == "cpu":
            text = f"{plural(count, 'rank')} on the CPU, {plural(threads, 'thread')} each"
        elif len(set(devices)) == count:
            text = f"{plural(count, 'rank')}, a GPU each"
        else:
            text = f"{plural(count, 'rank')} share {devices[0]}: their stages do not truly overlap"
        return {
            "device": devices[0].partition(":")[0],
            "device_text": text,
            "devices": list(devices),
            "cores": _cores(),
            "threads_per_rank": threads,
            "links": "shared memory of the host, 2 slots",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pipelab": pipelab.__version__,
            "system": f"{platform.system()} {platform.release()}",
            "machine": platform.machine(),
        }


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(num_ranks: int) -> int:
    return max(1, _cores() // num_ranks)
