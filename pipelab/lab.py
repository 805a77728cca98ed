"""Where pictures meet processes: the explorer with a Run button that starts ranks."""

import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelab.comparing import policies_of, side_by_side
from pipelab.comparison import Comparison
from pipelab.costs import default_microbatches
from pipelab.errors import Cancelled, InputError, SplitError
from pipelab.graph import Graph
from pipelab.hardware import HardwareLike, Measurement
from pipelab.launch.controller import Pipeline, start
from pipelab.launch.probing import probe
from pipelab.plan import HasGraph, Plan, graph_of
from pipelab.problem import MemoryLimit
from pipelab.report import Report
from pipelab.tracing import Trace
from pipelab.viz.comparison_view import ComparisonView
from pipelab.viz.explorer import Explorer
from pipelab.viz.explorer_checks import check_microbatches
from pipelab.viz.explorer_costs import one_device
from pipelab.viz.explorer_runs import Progress
from pipelab.viz.explorer_workloads import Workload, are_of_one_model, opening_plan

# Thirty students with two explorers of four ranks each: processes nobody uses must go.
IDLE_S = 600.0
# Short steps are more than a browser can be told of one by one, and telling would disturb them.
_TELL_S = 0.1
_DECODE = "Planning only: this is one decode step, whose caches have no contents. Explore whole sequences to run them."


def explore(
    traced: Trace | Plan | Mapping[str, Trace],
    *,
    num_stages: int = 4,
    num_microbatches: int | None = None,
    hardware: HardwareLike = None,
) -> Explorer:
    """A widget to split a model by hand: drag the split points, then run the stages as processes.

    The processes start on the first Run. They stay warm, and end after ten idle minutes, when the explorer
    is closed, or with the kernel.

    Args:
        traced: The traced model. A plan opens as it is cut, and cannot be run: it holds no model. Several traces of
            one model by name, such as `{"prefill": ..., "decode": ...}`, share the split: `explorer.workload` says
            which is shown.
        num_stages: How many stages a trace opens with, of the same number of blocks each.
        num_microbatches: In how many micro-batches Run splits the batch; None is min(batch, 2 x stages).
        hardware: What times rest on: a preset's name, a `Hardware` or a `Measurement`. None is the plan's own, else
            this machine if the model was measured; else there are no times, and sizes are compared.

    Returns:
        An ordinary ipywidget, with `cuts`, `value`, `num_stages`, `num_microbatches`, `hardware`, `schedule`, `train`,
        `workload`, `plan`, `timeline`, `report`, `reports`.

    Raises:
        InputError: The batch cannot be split so, the hardware is not known, or the traces are of different models.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(8))).eval()
        >>> explorer = pipelab.explore(pipelab.trace(model, torch.zeros(4, 16)), num_stages=4)
        >>> explorer.cuts
        (2, 4, 6)
        >>> explorer.cuts = (1, 4, 6)
        >>> [stage.num_params for stage in explorer.plan.stages]
        [272, 816, 544, 544]
        >>> explorer.close()

        Two batch sizes of one model share the split:

        >>> few, many = (pipelab.trace(model, torch.zeros(rows, 16)) for rows in (2, 64))
        >>> explorer = pipelab.explore({"few": few, "many": many}, hardware="t4-16gb")
        >>> explorer.workload = "many"
        >>> explorer.plan.graph.batch_size
        64
        >>> explorer.close()
    """
    first = next(iter((workloads := _workloads(traced)).values())).graph
    one_device(hardware, first)
    plan, notice = (traced, "") if isinstance(traced, Plan) else opening_plan(first, num_stages)
    if hardware is not None:
        plan = replace(plan, hardware=hardware)
    if num_microbatches is None:
        num_microbatches = default_microbatches(plan.graph.batch_size, plan.num_stages)
    check_microbatches(plan.graph, num_microbatches)
    explorer = Explorer(plan, num_microbatches=num_microbatches, workloads=workloads, notice=notice)
    for workload in workloads.values():
        if workload.runner is not None:
            weakref.finalize(explorer, workload.runner.close)
    return explorer


def _workloads(of: Trace | Plan | Mapping[str, Trace]) -> dict[str, Workload]:
    """What an explorer shows, and what runs it."""
    if isinstance(of, Plan):
        return {"": Workload(of.graph, None, "Planning only: a plan holds no model; explore its trace to run it.")}
    traces = of if isinstance(of, Mapping) else {"": of}
    for name, traced in traces.items():
        if not isinstance(traced, Trace):
            which = repr(name) if isinstance(of, Mapping) else "this"
            kind = type(traced).__name__
            raise InputError(f"explore takes what pipelab.trace(...) returned; {which} is of type {kind}.")
    if not traces:
        raise InputError("explore takes at least one trace; it was given none.")
    graphs = [traced.graph for traced in traces.values()]
    for graph in graphs[1:]:
        if not are_of_one_model(graphs[0], graph):
            raise InputError(
                f"An explorer shows traces of one model; these are of {graphs[0].model} and {graph.model}, with "
                "different parameters. Explore them one by one."
            )
    return {name: _workload(traced) for name, traced in traces.items()}


def _workload(traced: Trace) -> Workload:
    refusal = _DECODE if traced.graph.caches else traced.no_weights_reason
    return Workload(traced.graph, None if refusal else _Runner(traced), refusal)


def compare(
    plans: HasGraph | Graph | Mapping[str, Plan | Report] | Sequence[Plan | Report],
    *,
    num_stages: int = 4,
    hardware: HardwareLike = None,
    num_microbatches: int | None = None,
    memory_limit_bytes: MemoryLimit = None,
) -> Comparison:
    """Plans of one model side by side: which is best, by how much, and what would not fit.

    Args:
        plans: A trace: its equal_size, threshold (the smallest that needs at most `num_stages`) and optimal plan. Or
            plans of your own by name, or saved reports: their measured steps stand beside the predicted ones.
        num_stages: Stages of a trace's plans.
        hardware: What times rest on; None for what a plan was made for, else the measured machine, else a preset.
        num_microbatches: Micro-batches of a step; None is min(batch, 2 x stages), or what the reports ran with.
        memory_limit_bytes: What a device may hold; None for all of its memory.

    Returns:
        A table as text; in a notebook a widget, with one cursor and one zoom for all plans. `save` writes it as a page
        (.html) or a picture (.png, .svg).

    Raises:
        SplitError: No policy makes a plan, or the plans are of different models.
        InputError: The hardware is not known, or the batch cannot be split so.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(10))).eval()
        >>> traced = pipelab.trace(model, torch.zeros(4, 16))
        >>> plans = {"mine": pipelab.split_at(traced, ["2"]), "half": pipelab.split_at(traced, ["5"])}
        >>> pipelab.compare(plans).best.name
        'half'
    """
    if isinstance(plans, Plan | Report):
        raise SplitError('compare takes a trace, or plans by name: compare({"mine": plan, "other": plan2}).')
    limits: Any = {"hardware": hardware, "num_microbatches": num_microbatches, "memory_limit_bytes": memory_limit_bytes}
    refused: Mapping[str, str] = {}
    if not isinstance(plans, Mapping | Sequence):
        plans, refused = policies_of(graph_of(plans), num_stages=num_stages, **limits)
    return replace(side_by_side(plans, refused=refused, **limits), make_view=ComparisonView)


class _Runner:
    """Runs an explorer's plans on one pipeline: started by the first run, warm afterwards, gone when idle."""

    def __init__(self, traced: Trace) -> None:
        self._traced = traced
        self._pipe: Pipeline | None = None
        self._cancelled = threading.Event()
        self._busy = threading.RLock()
        self._idle: threading.Timer | None = None

    def begin(self) -> None:
        """Forget a cancel that came when all was done."""
        self._cancelled.clear()

    def run(self, plan: Plan, num_microbatches: int, progress: Progress) -> Report:
        """Run one plan on the traced call's own inputs."""
        with self._busy:
            self._stop_idling()
            try:
                pipe = self._ready(plan, progress)
                self._check()

                told_s = 0.0

                def step(done: int, total: int) -> None:
                    nonlocal told_s
                    if done in (0, 1, total) or time.monotonic() - told_s > _TELL_S:
                        progress(*_told(done, total))
                        told_s = time.monotonic()
                    self._check()

                pipe.on_progress = step
                return pipe.run(*self._traced.args, num_microbatches=num_microbatches, **self._traced.kwargs)
            finally:
                self._start_idling()

    def measure(self, num_stages: int, progress: Progress) -> Measurement:
        """Measure the model on this machine, on processes of its own."""
        with self._busy:
            try:
                return probe(
                    self._traced,
                    num_stages=num_stages,
                    cancelled=self._cancelled.is_set,
                    check=self._check,
                    progress=lambda done, total: progress("Measuring this machine…", done / total),
                )
            except Cancelled as error:
                raise Cancelled("The measurement was cancelled.") from error

    def cancel(self) -> None:
        """Stop the run under way; the ranks stay."""
        self._cancelled.set()
        if self._pipe is not None:
            self._pipe.interrupt()

    def close(self) -> None:
        """End the ranks."""
        self.cancel()
        with self._busy:
            self._stop_idling()
            self._end()

    def _ready(self, plan: Plan, progress: Progress) -> Pipeline:
        """The pipeline, holding this plan."""
        if self._pipe is None:
            progress("Starting 1 process…" if plan.num_stages == 1 else f"Starting {plan.num_stages} processes…", None)
            self._pipe = start(self._traced, plan)
        elif plan.cuts != self._pipe.plan.cuts:
            self._pipe.replan(plan)
        return self._pipe

    def _check(self) -> None:
        """Between two steps: an interrupt reaches only a pipeline that computes."""
        if self._cancelled.is_set():
            raise Cancelled("The run was cancelled; the processes stay.")

    def _end(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()

    def _start_idling(self) -> None:
        if self._pipe is not None:
            self._idle = threading.Timer(IDLE_S, self._end_if_idle)
            self._idle.daemon = True
            self._idle.start()

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _end_if_idle(self) -> None:
        with self._busy:
            if self._idle is threading.current_thread():  # else a run came first
                self._idle = None
                self._end()


def _told(done: int, total: int) -> tuple[str, float | None]:
    """What is going on after `done` of `total` steps, of which the first is the warm-up."""
    if done == 0:
        return "Loading the stages and warming up…", None
    if done == total:
        return "Running the unsplit model to compare…", None
    # How many steps fit into the time for them is known once one was measured.
    return ("Step 1", None) if done == 1 else (f"Step {done} of {total - 1}", done / total)
