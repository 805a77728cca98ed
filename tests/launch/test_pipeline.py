"""Outputs of real processes equal the model's: every model of the zoo, several cuts, any micro-batches."""

import gc
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import torch
import zoo
from on_devices import assert_close, on_devices, running, tensors
from torch import Tensor, nn

import pipelab
from pipelab.errors import InputError, LaunchError, SplitError
from pipelab.launch.devices import choose
from pipelab.launch.job import Job


def plans(traced: pipelab.Trace) -> list[pipelab.Plan]:
    """Between blocks where there are some, and at arbitrary ops."""
    legal = traced.graph.legal
    even = [legal[len(legal) * part // 4] for part in (1, 2, 3)]
    blocks = [point.position for point in traced.graph.cut_points if point.level == "block"]
    return [pipelab.Plan(traced.graph, tuple(sorted(set(cuts)))) for cuts in (blocks[:3], even, legal[-1:]) if cuts]


# That one computes something else with one row than with several, unsplit as well.
@on_devices
@pytest.mark.parametrize("name", [name for name in zoo.ALL if name != "one_row"])
def test_output_is_the_models_own(name: str, device: str) -> None:
    model, inputs = zoo.build(name)
    traced = pipelab.trace(model, **inputs)
    with torch.no_grad():
        expected = model(**inputs)
    bound = traced.bind((), inputs)
    with running(traced, partial(choose, device)) as run:
        for plan in plans(traced):
            for num_microbatches in (4, 3, 5):  # more than a link has slots; equal parts and unequal ones
                sizes = traced.microbatch_sizes(zoo.BATCH, num_microbatches, plan.num_stages)
                outputs = run(Job.of_plan(traced, plan, sizes), bound)
                assert_close(outputs, tensors(expected), is_exact=device == "cpu")
    with pipelab.start(traced, plans(traced)[0], device=device) as pipe:
        output = pipe(**inputs)
    assert type(output) is type(expected)
    assert_close(tensors(output), tensors(expected), is_exact=device == "cpu")


@pytest.fixture(scope="module")
def traced() -> pipelab.Trace:
    model, inputs = zoo.build("mlp")
    return pipelab.trace(model, **inputs)


def traced_model(traced: pipelab.Trace) -> nn.Module:
    return traced._model


@pytest.fixture(scope="module")
def batch() -> Tensor:
    return zoo.build("mlp")[1]["input"]


def test_ranks_are_warm_between_runs_and_replans(traced: pipelab.Trace, batch: Tensor) -> None:
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=2)) as pipe:
        two = pipe.pids
        pipe.run(batch, repeats=1)
        pipe.replan(pipelab.uniform(traced, num_stages=4))
        four = pipe.pids
        assert four[:2] == two
        pipe.run(batch, repeats=1)
        pipe.replan(pipelab.split_at(traced, [1]))
        assert pipe.pids == two
        torch.testing.assert_close(pipe(batch), traced_model(traced)(batch))
    assert pipe.pids == ()
    assert not any(psutil.pid_exists(pid) for pid in four)


@on_devices
def test_report_tells_what_happened(traced: pipelab.Trace, batch: Tensor, device: str) -> None:
    seen = []
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=3), device=device) as pipe:
        pipe.on_progress = lambda done, total: seen.append((done, total))
        report = pipe.run(batch, num_microbatches=4, repeats=3)
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]  # one to warm up
    assert len(report.steps_s) == 3
    assert report.batch_size == 8
    assert report.warmup_s > 0
    assert (report.baseline_s or 0) > 0 or "machine was busy" in report.no_baseline
    assert len(report.peak_memory_bytes) == 3
    assert report.environment["device_text"].startswith(
        f"3 ranks {'on the CPU' if device == 'cpu' else 'sharing cuda:0'}"
    )
    assert report.environment["links"] == ["shared memory" if device == "cpu" else "host memory"] * 2
    events = report.timeline.events
    assert min(event.start_s for event in events) == 0
    for rank in range(3):
        of_rank = [event for event in events if event.rank == rank]
        assert [e.microbatch for e in of_rank if e.kind == "F"] == [0, 1, 2, 3]
        assert {"recv", "F", "send"} <= {event.kind for event in of_rank}
        for before, after in pairwise(of_rank):
            assert before.end_s <= after.start_s  # one thing at a time
    for microbatch in range(4):  # on one clock, a stage computes a micro-batch after the stage before it
        ends = [e for rank in range(3) for e in events if (e.rank, e.microbatch, e.kind) == (rank, microbatch, "F")]
        assert all(a.end_s <= b.start_s for a, b in pairwise(ends))


def test_any_batch_by_any_number_of_microbatches(traced: pipelab.Trace) -> None:
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=2)) as pipe:
        for rows, parts in ((1, 1), (3, 2), (11, 4), (8, None)):
            x = torch.randn(rows, 4)
            report = pipe.run(x, num_microbatches=parts, repeats=1)
            torch.testing.assert_close(report.output, traced_model(traced)(x))


@pytest.mark.parametrize("rows", [torch.randn(1, 4), torch.randn(1, 4).expand(8, 4)], ids=["one row", "equal rows"])
def test_rows_may_differ_that_were_equal_in_the_traced_call(rows: Tensor, batch: Tensor) -> None:
    """An expanded input was taken to be expanded in every call, and only its first row travelled."""
    model, _ = zoo.build("input_skip")
    traced = pipelab.trace(model, rows)
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=3), device="cpu") as pipe, torch.no_grad():
        torch.testing.assert_close(pipe.run(batch, num_microbatches=3, repeats=1).output, model(batch))


@on_devices
def test_peak_memory_is_that_of_the_stage(device: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4_000_000), nn.Linear(4_000_000, 1, bias=False)).eval()
    traced = pipelab.trace(model, torch.zeros(2, 8))
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=3), device=device) as pipe:
        small, large, _ = pipe.run(torch.zeros(2, 8), num_microbatches=1, repeats=1).peak_memory_bytes
    assert traced.graph.param_bytes > 160_000_000
    assert small < 100_000_000 < 140_000_000 < large  # 144 MB of weights, 32 MB of outputs


def test_outputs_stay_what_they_were(traced: pipelab.Trace) -> None:
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=2)) as pipe:
        first = pipe(torch.ones(8, 4))
        kept = first.clone()
        pipe(torch.zeros(8, 4))
        assert torch.equal(first, kept)


class Counter(nn.Module):
    """Writes to its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1))
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.total.add_(1)
        return self.layer(x)


def test_users_model_is_not_written_to_and_follows_its_own_weights() -> None:
    model = Counter().eval()
    traced = pipelab.trace(model, torch.zeros(4, 4))
    for _ in range(2):
        with pipelab.start(traced, pipelab.split_at(traced, traced.graph.legal)) as pipe:
            pipe.run(torch.zeros(4, 4), repeats=2)
    assert model.total.item() == 0
    with torch.no_grad():
        model.layer.bias.fill_(7.0)
        model.layer.weight.zero_()
    with pipelab.start(traced, pipelab.split_at(traced, traced.graph.legal)) as pipe:
        assert torch.equal(pipe(torch.zeros(4, 4)), torch.full((4, 4), 7.0))


def test_empty_last_stage_is_left_out_and_said(traced: pipelab.Trace, batch: Tensor) -> None:
    plan = pipelab.Plan(traced.graph, (2, len(traced.graph.ops)))
    with pytest.warns(UserWarning, match="holds no op; it is left out, and 2 ranks run"):
        pipe = pipelab.start(traced, plan)
    with pipe:
        assert len(pipe.pids) == 2
        torch.testing.assert_close(pipe(batch), traced_model(traced)(batch))


def test_what_cannot_run_is_refused_before_any_process_is_touched(traced: pipelab.Trace, batch: Tensor) -> None:
    other = pipelab.trace(zoo.Mlp().eval(), batch)
    children = psutil.Process().children(recursive=True)
    with pytest.raises(SplitError, match="another trace"):
        pipelab.start(traced, pipelab.uniform(other, num_stages=2))
    with pytest.raises(LaunchError, match="device='cuda:9' was asked for"):
        pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cuda:9")
    with torch.device("meta"):
        empty = pipelab.trace(zoo.Mlp().eval(), torch.zeros(8, 4))
    with pytest.raises(LaunchError, match="without weights"):
        pipelab.start(empty, pipelab.uniform(empty, num_stages=2))
    assert psutil.Process().children(recursive=True) == children
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=2)) as pipe:
        ran = pipe.pids
        for bad in (torch.zeros(8, 5), torch.zeros(8, 4, dtype=torch.float64), torch.zeros(0, 4)):
            with pytest.raises(InputError):
                pipe.run(bad)
        with pytest.raises(InputError, match="between 1 and the batch of 8"):
            pipe.run(batch, num_microbatches=9)
        with pytest.raises(InputError, match="repeats"):
            pipe.run(batch, repeats=0)
        assert pipe.pids == ran
        torch.testing.assert_close(pipe(batch), traced_model(traced)(batch))


def test_closed_pipeline_says_so(traced: pipelab.Trace, batch: Tensor) -> None:
    pipe = pipelab.start(traced, pipelab.uniform(traced, num_stages=2))
    pipe.close()
    pipe.close()
    assert "closed" in repr(pipe)
    with pytest.raises(LaunchError, match="closed"):
        pipe(batch)


def test_nothing_is_left_after_close_or_without_it(traced: pipelab.Trace, batch: Tensor) -> None:
    plan = pipelab.uniform(traced, num_stages=3)
    with pipelab.start(traced, plan) as pipe:  # the server and its channel stay
        pipe.run(batch, repeats=1)
    gc.collect()
    me = psutil.Process()
    before = me.num_fds(), set(Path("/dev/shm").glob("*"))
    pipe = pipelab.start(traced, plan)
    pipe.run(batch, repeats=1)
    forgotten = [psutil.Process(pid) for pid in pipe.pids]
    del pipe
    gc.collect()
    assert not psutil.wait_procs(forgotten, timeout=30)[1]
    with pytest.raises(RuntimeError), pipelab.start(traced, plan) as pipe:
        pids = pipe.pids
        raise RuntimeError("in the block")
    gc.collect()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    after = me.num_fds(), set(Path("/dev/shm").glob("*"))
    assert after == before


def test_a_trace_during_which_a_forgotten_pipeline_is_collected(traced: pipelab.Trace) -> None:
    """What lets go of its memory ran an op, which became part of whatever model was being traced."""

    class Collects(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            gc.collect()
            return self.layer(x)  # type: ignore[no-any-return]  # torch leaves it untyped

    pipe = pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cpu")
    pipe.on_progress = pipe.interrupt  # type: ignore[assignment]  # a circle
    ranks = [psutil.Process(pid) for pid in pipe.pids]
    del pipe
    assert [op.target for op in pipelab.trace(Collects().eval(), torch.ones(8, 4)).graph.ops] == ["aten.linear.default"]
    assert not psutil.wait_procs(ranks, timeout=30)[1]


def test_two_pipelines_at_once(traced: pipelab.Trace, batch: Tensor) -> None:
    with (
        pipelab.start(traced, pipelab.uniform(traced, num_stages=2)) as one,
        pipelab.start(traced, pipelab.uniform(traced, num_stages=3)) as two,
    ):
        assert torch.equal(one(batch), two(batch))
