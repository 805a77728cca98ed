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
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from statistics import median

import torch
from machine import machine
from runtime_cases import RANKS, ROWS, TIMEOUT_S, Case, Taken, first
from runtime_peers import Peer, Refused

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
from pipelab.stages import stage_tables

TURN_S = 0.25  # how long each has its turn in a round
RECORDING_S = 5.0  # how long a size is run with and without a recorder, in turns


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
        record = runner.step(patience)
        wall_s = time.perf_counter() - start_s
        timeline = record.timeline
        return Taken(timeline.makespan_s, max(timeline.rank_busy_s) / m, wall_s)

    step()
    with torch.inference_mode():
        expected = model(**inputs)
    torch.testing.assert_close(runner.outputs()[0], first(expected), rtol=1e-3, atol=1e-3)
    return step, plan


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
            end_s = time.perf_counter() + RECORDING_S
            while time.perf_counter() < end_s:
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
        if name in step_s:
            return f"{step_s[name] / step_s['ours']:.2f}"
        return "refused" if name in refused else "–"

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
