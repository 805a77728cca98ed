"""`start`, and the Pipeline it gives: the kernel's handle of the processes that run a plan."""

import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pipelab.arguments import whole
from pipelab.errors import InputError, LaunchError
from pipelab.events import Timeline
from pipelab.generation_report import GenerationReport
from pipelab.hardware import measurement_of
from pipelab.launch.baselines import Baseline, Baselines
from pipelab.launch.client import current_server
from pipelab.launch.devices import Devices, check_device, choose
from pipelab.launch.environment import environment
from pipelab.launch.failures import forgetful
from pipelab.launch.group import Patience
from pipelab.launch.interrupts import HeldInterrupts
from pipelab.launch.job import Job
from pipelab.launch.measuring import measure_steps
from pipelab.launch.memory import Weights, check_room
from pipelab.launch.pacing import check_pace, paces_of
from pipelab.launch.runner import Paces, Runner
from pipelab.launch.turns import Turns
from pipelab.plan import Plan, check_plan
from pipelab.progress import announce
from pipelab.report import Report
from pipelab.simulator import predict
from pipelab.tracing import Trace
from pipelab.units import plural

if TYPE_CHECKING:
    from pipelab.token_steps import TokenSteps

_MOST_REPEATS = 1_000_000  # each leaves a record in memory


@forgetful
def start(traced: Trace, plan: Plan, *, device: str = "auto") -> "Pipeline":
    """Start one process per stage of a plan.

    The weights are copied once, into memory that all processes share; the model stays as and where it is. Those of
    a checkpoint (`trace_pretrained`) are not: when the first batch comes, each process reads its own from the files.
    The processes stay until `close`, the end of the `with` block, or the end of this process.

    Args:
        traced: The model.
        plan: Where it is cut; made from this trace.
        device: "auto" (one GPU per stage where there are enough, one GPU for all where there is any, else the
            CPU), "cpu", "cuda" or "cuda:0".

    Returns:
        The running pipeline: call it, or `run` it for a report.

    Raises:
        SplitError: The plan is of another trace.
        LaunchError: There are no weights or their files are damaged, an operator is unknown to other processes,
            there is not enough memory, or processes cannot be started here.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
        >>> traced = pipelab.trace(model, torch.ones(6, 4))
        >>> with pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cpu") as pipe:
        ...     output = pipe(torch.ones(6, 4))
        >>> torch.allclose(output, model(torch.ones(6, 4)))
        True
    """
    return Pipeline(traced, plan, device=device)


class Pipeline:
    """Processes that hold the stages of a model, from `start`.

    Attributes:
        on_progress: Called with the steps done and the steps in all, while `run` is under way.
        stall_s: Seconds without progress of any rank after which a step counts as hung. A long step is
            progress.
    """

    def __init__(self, traced: Trace, plan: Plan, *, device: str = "auto") -> None:
        if not isinstance(traced, Trace):
            raise LaunchError(f"start takes what pipelab.trace(model, ...) returned; it is a {type(traced).__name__}.")
        check_device(device)
        self.on_progress: Callable[[int, int], None] | None = None
        self.stall_s = 60.0
        self._traced = traced
        self._device = device
        self._plan, self._job = self._checked(plan, None, stacklevel=5)
        self._steps: TokenSteps | None = None
        self._last_generation: GenerationReport | None = None
        with _announced(f"starting {plural(self._plan.num_stages, 'process')}"), HeldInterrupts() as held:
            current_server()  # it imports torch while the weights are copied
            tensors, pieces = traced.stored()
            if pieces and choose(device, self._plan.num_stages).kind == "cpu":
                check_room(sum(stage.param_bytes for stage in self._plan.stages), "the weights")
            self._weights = Weights(tensors, pieces)
            self._runner = Runner(self._weights)
            # Not of this object: in a circle it would outlive its name until the next garbage collection.
            self._turns = Turns(partial(_end, self._runner, self._weights))
            self._baselines = Baselines(traced, self._weights, device)
            self._let_go = weakref.finalize(self, _let_go, self._runner, self._weights)
            try:
                self._runner.start(self._plan.num_stages, held.check)
            except BaseException:
                self._let_go()
                raise

    @property
    def plan(self) -> Plan:
        """The plan it runs."""
        return self._plan

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids by rank; none after a failure that ended them, until the next run."""
        return self._runner.pids

    @property
    def last_generation(self) -> GenerationReport | None:
        """How long the last `generate` took and where its time went; None before one has come to its end."""
        return self._last_generation

    @property
    def read_bytes(self) -> tuple[int, ...]:
        """Bytes that each rank has read of the checkpoint's files; 0 where the weights are in memory."""
        return self._runner.read_bytes

    @forgetful
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output, computed by the ranks on one micro-batch.

        Args:
            *args: As the model is called; any number of rows.
            **kwargs: The same.

        Raises:
            InputError: The inputs do not fit.
            StageError: A rank failed.
        """
        with self._turns.take() as held:
            inputs, job = self._job_for(args, kwargs, 1)
            patience = self._patience(held)
            self._ready(job, inputs, patience, held)
            self._runner.step(patience)
            return self._output(inputs)

    @forgetful
    def run(
        self,
        *args: Any,
        num_microbatches: int | None = None,
        repeats: int | None = None,
        pace: Timeline | None = None,
        **kwargs: Any,
    ) -> Report:
        """Run a batch in micro-batches, several times, and measure.

        Where the model was measured on this device, the report also holds what was predicted.

        Args:
            *args: As the model is called; the whole batch, of any number of rows.
            num_microbatches: Into how many the batch is split, as `torch.tensor_split` does; None for
                min(batch, 2 x stages).
            repeats: How many steps are measured, after one that is not; None for 20, for fewer where they take
                more than a second, and for more where they take less than a quarter of one. The report shows the
                step of median duration.
            pace: A simulated timeline of this plan, for lessons: processes and messages are real, but each stage
                waits as long as it was predicted to take instead of computing. More stages than cores then
                behave as on a machine that has them.
            **kwargs: As the model is called.

        Returns:
            The report, with the model's own output (None of a paced run).

        Raises:
            InputError: The inputs do not fit, cannot be split so, or the outputs cannot be put together; or the
                timeline to keep pace with has other stages than this plan, or a backward.
            StageError: A rank failed; the next run works.
            Cancelled: `interrupt` was called.
        """
        if repeats is not None:
            repeats = whole(repeats, "repeats", most=_MOST_REPEATS)
        with self._turns.take() as held:
            paces_s = paces_of(pace, self._plan.num_stages) if pace is not None else None
            if pace and num_microbatches is None:
                num_microbatches = pace.num_microbatches
            inputs, job = self._job_for(args, kwargs, num_microbatches)
            if pace:
                check_pace(pace, len(job.sizes))
            return self._measured(inputs, job, repeats, pace, paces_s, held)

    @forgetful
    def generate(self, inputs: Tensor | None = None, *, num_microbatches: int | None = None, **kwargs: Any) -> Any:
        """Generate tokens as transformers' `generate` does, computed by the ranks.

        Loop, logits processors and stopping criteria are transformers' own, and so are the tokens: the same ones,
        also of a sampling with the same seed. Each rank keeps the key-value caches of its own layers. The rows of the
        batch go through the ranks in groups, each with a loop of its own, so that all stages have work. One loop over
        all groups, for whose slowest each token waits, is run where something is to see the whole batch: a streamer,
        processors and criteria of your own, `return_dict_in_generate`, `max_time`, several sequences per row of a beam
        search, a beam search that samples, and a `generate` of the model's own (Whisper's).

        Afterwards `last_generation` tells where the time went, and what the caches took.

        Args:
            inputs: The prompts, (rows, tokens), padded on the left; of an encoder-decoder model, the encoder's input:
                token ids, sound or images. Also by name: `input_ids`, `input_features`, `pixel_values`.
            num_microbatches: Into how many groups the rows are split, at most 249; None for one per stage.
            **kwargs: As transformers' `generate` takes them: `attention_mask`, `max_new_tokens`, `do_sample`,
                `temperature`, `num_beams`, `streamer`, ...

        Returns:
            What transformers' `generate` returns.

        Raises:
            InputError: The model does not generate, or an argument is of no use here.
            TraceError: The model's program is for one number of tokens, as a state-space model's.
            SplitError: The plan is cut where a step of generation cannot be.
            StageError: A rank failed; the next run works.
            Cancelled: `interrupt` was called.
        """
        model: Any = self._traced.model
        if not callable(getattr(model, "can_generate", None)) or not model.can_generate():
            raise InputError(
                f"{type(model).__name__} does not generate: only a model of transformers with a head for the next "
                "token does, such as LlamaForCausalLM or T5ForConditionalGeneration. Trace that model itself."
            )
        from pipelab.launch.generate_call import generate  # needs transformers
        from pipelab.launch.generation import Ranks
        from pipelab.token_steps import TokenSteps

        shows = self.on_progress or kwargs.get("streamer")
        with self._turns.take() as held, nullcontext() if shows else _announced("generating"):
            self._steps = self._steps or TokenSteps(model)
            ranks = Ranks(self._runner, choose(self._device, self._plan.num_stages), self._patience(held), held.check)
            arguments = {"inputs": inputs, **kwargs}
            on_token = self.on_progress or _nobody
            self._last_generation = None
            made, self._last_generation = generate(
                model, self._steps, self._plan, ranks, arguments, num_microbatches, on_token
            )
            return made

    @forgetful
    def replan(self, plan: Plan) -> None:
        """Split the model otherwise, on the same processes; stages more or fewer are added or ended.

        Args:
            plan: The new plan, of the same trace.

        Raises:
            SplitError: The plan is of another trace.
        """
        with self._turns.take() as held:
            self._plan, self._job = self._checked(plan, self._job.sizes, stacklevel=4)
            self._runner.start(self._plan.num_stages, held.check)

    def interrupt(self) -> None:
        """Stop the run that is under way in another thread; it raises `Cancelled`, and the ranks stay."""
        self._turns.stop()

    def close(self) -> None:
        """End the processes, and wait until they are gone. Closing twice does nothing."""
        self._turns.close(self._runner.kill)

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._turns.is_closed else choose(self._device, self._plan.num_stages).text
        return f"Pipeline({self._plan.graph.model}: {state})"

    # --- before a run -------------------------------------------------------------------------------

    def _checked(self, plan: Plan, sizes: tuple[int, ...] | None, *, stacklevel: int) -> tuple[Plan, Job]:
        """The plan as it is run, and a first job of it; whatever is wrong with it shows here.

        The job is for these micro-batches, which ran last and likely run next; None for those of the traced batch.
        """
        check_plan(plan)
        if plan.has_empty_stage:
            warnings.warn(
                f"The last stage of this plan ({plan.policy}) holds no op; it is left out, and "
                f"{plural(plan.num_stages - 1, 'rank')} run.",
                stacklevel=stacklevel,
            )
            plan = plan.without_empty_stage()
        if sizes is None:
            sizes = self._traced.microbatch_sizes(self._traced.graph.batch_size, None, plan.num_stages)
        return plan, Job.of_plan(self._traced, plan, sizes)

    def _job_for(
        self, args: Sequence[Any], kwargs: dict[str, Any], num_microbatches: int | None
    ) -> tuple[tuple[Tensor, ...], Job]:
        """The inputs of a call, and the job that runs them; no process is touched."""
        inputs = self._traced.bind(args, kwargs)
        batch_size = self._traced.batch_size_of(inputs)
        sizes = self._traced.microbatch_sizes(batch_size, num_microbatches, self._plan.num_stages)
        if sizes != self._job.sizes:
            self._job = Job.of_plan(self._traced, self._plan, sizes)
        return inputs, self._job

    # --- a run --------------------------------------------------------------------------------------

    def _patience(self, held: HeldInterrupts) -> Patience:
        return Patience(lambda: self._turns.stopped or held.pending, self.stall_s, lambda: held.hurried)

    def _ready(self, job: Job, inputs: Sequence[Tensor], patience: Patience, held: HeldInterrupts) -> Devices:
        """Have the ranks hold the job, and the batch before the first of them."""
        devices = choose(self._device, job.num_ranks)
        self._runner.load(job, devices, patience, held.check)
        self._runner.fill(inputs)
        return devices

    def _measured(
        self,
        inputs: tuple[Tensor, ...],
        job: Job,
        repeats: int | None,
        pace: Timeline | None,
        paces_s: Paces | None,
        held: HeldInterrupts,
    ) -> Report:
        """The report of a batch, run several times."""
        patience = self._patience(held)
        what = f"measuring {plural(job.num_ranks, 'rank')}{'' if pace else ', then the unsplit model'}"
        with nullcontext() if self.on_progress else _announced(what):
            devices = self._ready(job, inputs, patience, held)
            measured = measure_steps(self._runner, devices, patience, repeats, self.on_progress or _nobody, paces_s)
            output = None if pace else self._output(inputs)
            baseline = Baseline(None) if pace else self._baselines.beside(measured, inputs, patience, held.check)
        return Report(
            plan=self._plan,
            timeline=measured.middle.timeline,
            steps_s=measured.steps_s,
            batch_size=sum(job.sizes),
            baseline_s=baseline.seconds,
            peak_memory_bytes=measured.peak_memory_bytes,
            environment=environment(devices),
            output=output,
            predicted=pace or self._predicted(job, devices),
            warmup_s=measured.warmup_s,
            other_load=measured.load,
            no_baseline=baseline.reason,
        )

    def _predicted(self, job: Job, devices: Devices) -> Timeline | None:
        """What the model's measurement on this device lets expect; None where there is none."""
        measured = measurement_of(self._plan.graph)
        if measured is None or (measured.device, measured.num_threads) != (devices.names[0], devices.num_threads):
            return None
        if not all(map(measured.tells, job.sizes)):
            return None
        return predict(self._plan, job.sizes, (measured,) * job.num_ranks)

    def _output(self, inputs: Sequence[Tensor]) -> Any:
        """The model's own output, on the device the inputs came from."""
        outputs = self._runner.outputs()
        return self._traced.unflatten([output.to(inputs[0].device) for output in outputs] if inputs else outputs)


def _end(runner: Runner, weights: Weights) -> None:
    runner.close()
    weights.close()


def _let_go(runner: Runner, weights: Weights) -> None:
    """For a pipeline nobody closed."""
    runner.abandon()
    weights.close()


def _announced(what: str) -> AbstractContextManager[None]:
    """Say what takes long, unless a background thread does it: whoever started that shows progress of his own."""
    return announce(what) if threading.current_thread() is threading.main_thread() else nullcontext()


def _nobody(done: int, total: int) -> None:
    """Nobody asked for progress."""
