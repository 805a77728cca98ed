"""The peers of `runtime.py`: torch's `ScheduleGPipe` and accelerate's `prepare_pippy`, in two processes each."""

import multiprocessing
import os
import socket
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch
from runtime_cases import RANKS, TIMEOUT_S, Case, Taken, first
from torch import Tensor, nn

import pipelab
from pipelab.stage_module import StageModule
from pipelab.stages import stage_tables


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
        except Exception as error:  # whatever it is is told as a refusal
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
            torch.testing.assert_close(first(output), first(expected), rtol=1e-3, atol=1e-3)
        return start_s, end_s, 0.0

    checked: list[bool] = []
    step()
    return step


def _check(rank: int, model: nn.Module, inputs: dict[str, Tensor], outputs: list[Any]) -> None:
    if rank == RANKS - 1:
        torch.testing.assert_close(first(outputs.pop()), first(model(**inputs)), rtol=1e-3, atol=1e-3)


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
