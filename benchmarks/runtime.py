"""Claim: a measured step is what fill-drain allows, and a micro-batch costs a tenth of what it costs torch's pipeline.

The same stages, two ranks of one thread, run by pipelab and by `ScheduleGPipe` of torch.distributed.pipelining over
gloo; the same model by accelerate's `prepare_pippy` (which makes stages of its own), and in one process unsplit, the
whole batch at once. All keep their processes; rounds of steps take turns, and medians of all steps are shown.

A step is from when the first rank begins until the last rank has the last output. A stage's time is measured in the
same way for both: the mean of its forward over the micro-batches of the step, while both ranks compute. With p = 2
ranks, m micro-batches and f the time of the slower stage, the efficiency is (m + p - 1) f / step, and the overhead per
micro-batch is (step - (m + p - 1) f) / m.

    python benchmarks/runtime.py [--sizes 64 256] [--models GPT-2 LLaMA] [--microbatches 8 32] [--rounds 3]
"""

import argparse
import multiprocessing
import os
import socket
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import torch
from machine import machine
from torch import Tensor, nn

import pipelab
from pipelab.launch import loop
from pipelab.launch.devices import choose, num_cores
from pipelab.launch.group import Patience
from pipelab.launch.job import Job
from pipelab.launch.loading import Loader
from pipelab.launch.memory import Weights
from pipelab.launch.messages import Join
from pipelab.launch.runner import Runner
from pipelab.launch.wiring import Wiring
from pipelab.stage_module import StageModule
from pipelab.stages import stage_tables

RANKS = 2
ROWS = {64: 8, 256: 8, 1024: 32, 2048: 64}  # of a micro-batch
TURN_S = 0.25  # how long each has its turn in a round
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Case:
    """A model and how its batch is split; made again in every process."""

    model: str  # a size, or the name of a model
    num_microbatches: int

    def build(self, num_microbatches: int | None = None) -> tuple[nn.Module, dict[str, Tensor], str]:
        """The model, its call, and the module at which it is cut."""
        torch.manual_seed(0)
        m = num_microbatches or self.num_microbatches
        if self.model.isdigit():
            size = int(self.model)
            layers = [layer for _ in range(8) for layer in (nn.Linear(size, size), nn.ReLU())]
            return nn.Sequential(*layers).eval(), {"input": torch.randn(ROWS[size] * m, size)}, "8"
        import transformers

        if self.model == "GPT-2":
            gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))
            return gpt2.eval(), {"input_ids": torch.randint(50257, (m, 32))}, "transformer.h.8"
        config = transformers.LlamaConfig(
            hidden_size=768, intermediate_size=2048, num_hidden_layers=8, num_attention_heads=12,
            num_key_value_heads=4, vocab_size=4096, use_cache=False,
        )  # fmt: skip
        tokens = {"input_ids": torch.randint(4096, (m, 64)), "attention_mask": torch.ones(m, 64, dtype=torch.int64)}
        tokens["attention_mask"][::2, :7] = 0
        return transformers.LlamaForCausalLM(config).eval(), tokens, "model.layers.4"


@dataclass(frozen=True)
class Taken:
    """What one step took."""

    step_s: float
    stage_s: float  # of the slower stage, per micro-batch
    wall_s: float = 0.0  # as the caller sees it

    def ideal_s(self, m: int) -> float:
        return (m + RANKS - 1) * self.stage_s

    def efficiency(self, m: int) -> float:
        return self.ideal_s(m) / self.step_s

    def overhead_s(self, m: int) -> float:
        return (self.step_s - self.ideal_s(m)) / m


# --- pipelab --------------------------------------------------------------------------------------------


def ours(case: Case, stack: ExitStack) -> tuple[Callable[[], Taken], pipelab.Plan]:
    """What runs a step of ours."""
    model, inputs, cut = case.build()
    traced = pipelab.trace(model, **inputs)
    plan = pipelab.split_at(traced, [cut])
    m = case.num_microbatches
    job = Job.of_plan(traced, plan, traced.microbatch_sizes(traced.graph.batch_size, m, RANKS))
    weights = Weights(traced.weights())
    runner = Runner(weights)
    stack.callback(weights.close)
    stack.callback(runner.close)
    patience = Patience(lambda: False, TIMEOUT_S)
    runner.load(job, choose("cpu", RANKS), patience, lambda: None)
    runner.fill(traced.bind((), inputs))

    def step() -> Taken:
        start_s = time.perf_counter()
        timeline = runner.step(patience).timeline
        wall_s = time.perf_counter() - start_s
        return Taken(timeline.makespan_s, max(timeline.rank_busy_s) / m, wall_s)

    step()
    with torch.inference_mode():
        expected = model(**inputs)
    torch.testing.assert_close(runner.outputs()[0], _first(expected), rtol=1e-3, atol=1e-3)
    return step, plan


def _first(output: Any) -> Tensor:
    tensor = output if isinstance(output, Tensor) else output[0]
    assert isinstance(tensor, Tensor)
    return tensor


# --- torch and accelerate, in processes of their own ----------------------------------------------------


class Timed(nn.Module):
    """A stage that notes how long its forward takes, and sends what gloo can: contiguous tensors."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage
        self.seconds: list[float] = []

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        start_s = time.perf_counter()
        results = self.stage(*values)
        self.seconds.append(time.perf_counter() - start_s)
        return tuple(value.contiguous() for value in results)


def serve(rank: int, port: int, pipe: Connection) -> None:
    """One of the two processes of the peers."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS), LOCAL_WORLD_SIZE=str(RANKS),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1",
    )  # fmt: skip
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=RANKS)
    step: Callable[[], tuple[float, float, float]] | None = None
    while (request := pipe.recv()) is not None:
        try:
            if isinstance(request, tuple):
                system, case = request
                step = (_torch if system == "torch" else _accelerate)(rank, case)
                pipe.send(None)
            else:
                assert step is not None
                pipe.send([_together(step) for _ in range(request)])
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])
    torch.distributed.destroy_process_group()


def _together(step: Callable[[], tuple[float, float, float]]) -> tuple[float, float, float]:
    torch.distributed.barrier()
    return step()


def _torch(rank: int, case: Case) -> Callable[[], tuple[float, float, float]]:
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

    model, inputs, cut = case.build()
    traced = pipelab.trace(model, **inputs)
    m = case.num_microbatches
    table = stage_tables(traced, pipelab.split_at(traced, [cut]), traced.graph.batch_size // m)[rank]
    timed = Timed(StageModule(table.table, traced.weights()))
    schedule = ScheduleGPipe(PipelineStage(timed, rank, RANKS, torch.device("cpu")), m)
    values = traced.bind((), inputs) if rank == 0 else ()

    @torch.no_grad()
    def step() -> tuple[float, float, float]:
        timed.seconds.clear()
        start_s = time.perf_counter()
        output = schedule.eval(*values)
        end_s = time.perf_counter()
        if rank == RANKS - 1:
            outputs.append(output)
        return start_s, end_s, sum(timed.seconds[-m:]) / m

    outputs: list[Any] = []
    step()
    _check(rank, model, inputs, outputs)
    return step


def _accelerate(rank: int, case: Case) -> Callable[[], tuple[float, float, float]]:
    from accelerate import PartialState
    from accelerate.inference import prepare_pippy

    PartialState(cpu=True)
    torch.set_num_threads(1)
    model, inputs, cut = case.build()
    expected = model(**inputs)
    example = case.build(1)[1]
    m = case.num_microbatches
    batch_size = len(next(iter(inputs.values())))
    if batch_size != m and batch_size // m != m:
        # It adds m - batch // m rows to any batch that has not m, and its stages were made for rows of batch // m.
        raise ValueError(f"it pads {batch_size} rows in {m} chunks by {m - batch_size // m}, which its stages refuse")
    if case.model.isdigit():
        piped = prepare_pippy(model, [cut], example_args=tuple(example.values()), num_chunks=m)
    else:
        piped = prepare_pippy(model, [cut], example_kwargs=example, num_chunks=m)

    @torch.no_grad()
    def step() -> tuple[float, float, float]:
        start_s = time.perf_counter()
        output = piped(*inputs.values()) if case.model.isdigit() else piped(**inputs)
        end_s = time.perf_counter()
        if rank == RANKS - 1 and not checked:
            checked.append(True)
            torch.testing.assert_close(_first(output), _first(expected), rtol=1e-3, atol=1e-3)
        return start_s, end_s, 0.0

    checked: list[bool] = []
    step()
    return step


def _check(rank: int, model: nn.Module, inputs: dict[str, Tensor], outputs: list[Any]) -> None:
    if rank == RANKS - 1:
        torch.testing.assert_close(_first(outputs.pop()), _first(model(**inputs)), rtol=1e-3, atol=1e-3)


class Refused(Exception):
    """A peer cannot run this."""


class Peer:
    """The two processes of one peer, for one case: a second schedule in the same process group trips over the first."""

    def __init__(self, system: str) -> None:
        self.system = system
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        spawn = multiprocessing.get_context("spawn")
        pairs = [spawn.Pipe() for _ in range(RANKS)]
        self._pipes = [ours for ours, _ in pairs]
        self._processes = [
            spawn.Process(target=serve, args=(rank, port, theirs)) for rank, (_, theirs) in enumerate(pairs)
        ]
        for process, (_, theirs) in zip(self._processes, pairs, strict=True):
            process.start()
            theirs.close()  # so that its end shows here

    def load(self, case: Case) -> None:
        self._ask((self.system, case))

    def steps(self, count: int) -> list[Taken]:
        replies = self._ask(count)
        return [
            Taken(of_rank[-1][1] - of_rank[0][0], max(stage_s for _, _, stage_s in of_rank))
            for of_rank in zip(*replies, strict=True)
        ]

    def close(self) -> None:
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
        for process in self._processes:
            process.join(10)
            process.kill()

    def _ask(self, request: Any) -> list[Any]:
        try:
            for pipe in self._pipes:
                pipe.send(request)
            replies = [pipe.recv() if pipe.poll(TIMEOUT_S) else "no answer in a minute" for pipe in self._pipes]
        except (EOFError, OSError) as error:
            raise Refused("one of its processes died") from error
        for reply in replies:
            if isinstance(reply, str):
                raise Refused(reply)
        return replies


# --- one process ----------------------------------------------------------------------------------------


def plain(case: Case, num_threads: int) -> Callable[[], Taken]:
    """What runs the model in this process, unsplit."""
    model, inputs, _ = case.build()

    def step() -> Taken:
        torch.set_num_threads(num_threads)
        with torch.inference_mode():
            start_s = time.perf_counter()
            model(**inputs)
            return Taken(time.perf_counter() - start_s, 0.0)

    step()
    return step


# --- recording ------------------------------------------------------------------------------------------


def recording_s(size: int) -> tuple[float, float]:
    """Seconds of a micro-batch of a stage in this process, without a recorder and with it."""
    case = Case(str(size), 32)
    model, inputs, cut = case.build()
    traced = pipelab.trace(model, **inputs)
    tables = stage_tables(traced, pipelab.split_at(traced, [cut]), ROWS[size])
    job = Job(({ROWS[size]: tables[0]},), (ROWS[size],) * case.num_microbatches, (True,), (True,))
    with ExitStack() as stack:
        weights = Weights(traced.weights())
        stack.callback(weights.close)
        wiring = Wiring.lay(job)
        stack.callback(wiring.close)
        loader = Loader(Join(weights.placed, weights.segment.num_bytes, {}), os.dup(weights.segment.descriptor))
        with wiring.loads(job, choose("cpu", RANKS)) as ((load, descriptors),):
            stage = loader.load(load, [os.dup(descriptor) for descriptor in descriptors])
        run = loop.computed(stage)
        times: dict[bool, list[float]] = {False: [], True: []}
        with torch.inference_mode():
            for _ in range(200):
                for records in times:
                    marks: list[int] = []
                    mark = loop.marker(stage.device, marks) if records else _nothing
                    start_s = time.perf_counter()
                    loop.run_microbatches(stage, 1, run, mark)
                    times[records].append((time.perf_counter() - start_s) / case.num_microbatches)
    return min(times[False]), min(times[True])


def _nothing() -> None:
    """Instead of a recorder."""


# --- the table ------------------------------------------------------------------------------------------


def measure(case: Case, names: Sequence[str], num_rounds: int) -> str:
    """A row of the table."""
    refused: dict[str, str] = {}
    with ExitStack() as stack:
        step, plan = ours(case, stack)
        once = {"ours": step, "plain 1": plain(case, 1), "plain all": plain(case, num_cores())}
        turns: dict[str, Callable[[int], list[Taken]]] = {
            name: lambda count, one=one: [one() for _ in range(count)] for name, one in once.items()
        }
        for name in names:
            peer = Peer(name)
            stack.callback(peer.close)
            try:
                peer.load(case)
                turns[name] = peer.steps
            except Refused as error:
                refused[name] = str(error)
        counts = {name: max(1, int(TURN_S / median(t.step_s for t in turn(3)))) for name, turn in turns.items()}
        taken: dict[str, list[Taken]] = {name: [] for name in turns}
        for _ in range(num_rounds):
            for name, turn in turns.items():
                taken[name] += turn(counts[name])
    return _row(case, plan, taken, refused)


def _row(case: Case, plan: pipelab.Plan, taken: dict[str, list[Taken]], refused: dict[str, str]) -> str:
    m = case.num_microbatches
    step_s = {name: median(t.step_s for t in of_peer) for name, of_peer in taken.items()}
    own, torchs = taken["ours"], taken.get("torch", [])

    def of(records: list[Taken], what: Callable[[Taken], float], form: str) -> str:
        return format(median(map(what, records)), form) if records else "–"

    def ratio(name: str) -> str:
        return f"{step_s[name] / step_s['ours']:.2f}" if name in step_s else "refused"

    overhead = [median(t.overhead_s(m) for t in records) for records in (own, torchs) if records]
    less = f"{max(overhead[0], 0) / overhead[1]:.3f}" if len(overhead) == 2 else "–"
    for name, why in refused.items():
        print(f"# {name} refuses {case.model}, m = {m}: {why}")
    cells = [
        case.model if not case.model.isdigit() else f"D = {case.model}", str(m),
        str(len(plan.boundaries[0].tensors)),
        of(own, lambda t: 1e3 * t.stage_s, ".3f"), f"{1e3 * step_s['ours']:.2f}",
        of(own, lambda t: t.efficiency(m), ".3f"), of(torchs, lambda t: t.efficiency(m), ".3f"),
        of(own, lambda t: 1e6 * t.overhead_s(m), ".0f"), of(torchs, lambda t: 1e6 * t.overhead_s(m), ".0f"), less,
        of(own, lambda t: 1e6 * (t.wall_s - t.step_s), ".0f"),
        *map(ratio, ("torch", "accelerate", "plain 1", "plain all")),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="*", default=list(ROWS))
    parser.add_argument("--models", nargs="*", default=["GPT-2", "LLaMA"])
    parser.add_argument("--microbatches", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    names = ["torch", *(["accelerate"] if find_spec("accelerate") else [])]
    if len(names) == 1:
        print("# accelerate is not installed: pip install accelerate")
    print(machine())
    print(
        "\n| stages | m | tensors | slower stage, ms | step, ms | efficiency | torch's | overhead per micro-batch, us "
        "| torch's | ours / torch's | call beyond the step, us | steps: torch / ours | accelerate / ours "
        "| 1 process, 1 thread / ours | 1 process, all cores / ours |\n" + "|---" * 15 + "|"
    )
    for model in [*map(str, args.sizes), *args.models]:
        for m in args.microbatches:
            print(measure(Case(model, m), names, args.rounds), flush=True)
    print("\n| recording | without, us per micro-batch | with | share |\n|---|---|---|---|")
    for size in args.sizes:
        without_s, with_s = recording_s(size)
        print(f"| D = {size} | {1e6 * without_s:.1f} | {1e6 * with_s:.1f} | {with_s / without_s - 1:.2%} |", flush=True)


if __name__ == "__main__":
    main()
