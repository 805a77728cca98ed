"""What only a GPU has: its memory, its clock, ranks that share it. Other tests run on GPUs by parametrisation."""

import os
import signal
import threading
import time
from itertools import pairwise

import pytest
import torch
from on_devices import assert_close, needs_gpus
from torch import nn

import pipelab
from pipelab.errors import StageError
from pipelab.launch.devices import LINKS, choose
from pipelab.launch.gpu_clock import GpuClock, on_host_clock

X = torch.randn(64, 512, generator=torch.Generator().manual_seed(3))


def on_gpus(count: int) -> pytest.MarkDecorator:
    """The marks of one parametrised case: a test that needs so many GPUs."""
    return pytest.mark.parametrize("num_gpus", [pytest.param(count, marks=needs_gpus(count))])


@pytest.fixture(scope="module")
def traced() -> pipelab.Trace:
    torch.manual_seed(0)
    return pipelab.trace(nn.Sequential(*(nn.Linear(512, 512) for _ in range(8))).eval(), X)


@pytest.mark.parametrize(("elapsed_ms", "expected_ns"), [(0.0, 1_000), (5.0, 501_000), (10.0, 1_001_000)])
def test_moments_lie_between_the_two_comparisons_of_clocks(elapsed_ms: float, expected_ns: int) -> None:
    """In a GPU's 10 ms the host counted 1 ms: its clock is that much slower, and the moments keep their order."""
    assert on_host_clock(elapsed_ms, 10.0, 1_000, 1_001_000) == expected_ns


@on_gpus(1)
def test_moments_of_a_gpu_are_on_the_hosts_clock(num_gpus: int) -> None:
    before_ns = time.perf_counter_ns()
    clock = GpuClock()
    factor = torch.randn(2048, 2048, device="cuda")
    clock.mark()
    for _ in range(50):
        factor @ factor
    clock.mark()
    asked_ns = time.perf_counter_ns()
    start_ns, end_ns = clock.times_ns()
    assert before_ns <= start_ns < end_ns <= time.perf_counter_ns()
    assert end_ns > asked_ns  # the GPU was still at it when the host had asked for everything


@on_gpus(1)
@pytest.mark.parametrize("num_stages", [2, 4])
def test_ranks_share_a_gpu(traced: pipelab.Trace, num_stages: int, num_gpus: int) -> None:
    with torch.no_grad():
        expected = traced._model(X)
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=num_stages), device="cuda:0") as pipe:
        before_ns = time.perf_counter_ns()
        report = pipe.run(X, num_microbatches=5, repeats=3)
        elapsed_s = (time.perf_counter_ns() - before_ns) * 1e-9
    assert_close([report.output], [expected], is_exact=False)
    assert report.environment["device_text"].startswith(f"{num_stages} ranks sharing cuda:0")
    assert report.environment["links"] == [LINKS["host memory"]] * (num_stages - 1)
    assert report.timeline.makespan_s < elapsed_s
    for rank in range(num_stages):
        computed = [event for event in report.timeline.events if (event.rank, event.kind) == (rank, "F")]
        assert [event.microbatch for event in computed] == list(range(5))
        assert all(a.end_s <= b.start_s for a, b in pairwise(computed))


@on_gpus(1)
def test_each_rank_holds_its_own_slice_and_nothing_stays(num_gpus: int) -> None:
    """Weights lie once on the GPU, in parts; what a rank held for the split before is given back."""
    model = nn.Sequential(*(nn.Linear(4096, 4096, bias=False) for _ in range(4))).eval()  # 67 MB each
    traced = pipelab.trace(model, torch.zeros(2, 4096))
    free = torch.cuda.mem_get_info(0)[0]
    with pipelab.start(traced, pipelab.split_at(traced, [1, 3]), device="cuda:0") as pipe:
        peaks = pipe.run(torch.zeros(2, 4096), repeats=1).peak_memory_bytes
        assert [round(peak / 67e6) for peak in peaks] == [1, 2, 1]
        pipe.replan(pipelab.split_at(traced, [2, 3]))
        peaks = pipe.run(torch.zeros(2, 4096), repeats=1).peak_memory_bytes
        assert [round(peak / 67e6) for peak in peaks] == [2, 1, 1]
    assert torch.cuda.mem_get_info(0)[0] > free - 50e6


@on_gpus(1)
def test_killed_rank_leaves_the_gpu_usable(traced: pipelab.Trace, num_gpus: int) -> None:
    with torch.no_grad():
        expected = traced._model(X)
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=3), device="cuda:0") as pipe:
        kill = threading.Thread(target=os.kill, args=(pipe.pids[1], signal.SIGKILL))
        pipe.on_progress = lambda done, _: kill.start() if done == 1 else None
        with pytest.raises(StageError, match="SIGKILL"):
            pipe.run(X, num_microbatches=32, repeats=100_000)
        pipe.on_progress = None
        assert_close([pipe(X)], [expected], is_exact=False)


@on_gpus(2)
def test_each_rank_has_a_gpu_where_there_are_enough(traced: pipelab.Trace, num_gpus: int) -> None:
    assert choose("auto", 2).names == ("cuda:0", "cuda:1")
    with torch.no_grad():
        expected = traced._model(X)
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=2)) as pipe:
        report = pipe.run(X, num_microbatches=5, repeats=3)
    assert_close([report.output], [expected], is_exact=False)
    assert report.environment["links"] == [LINKS["nccl"]]


@on_gpus(1)
def test_measured_ops_predict_a_run(traced: pipelab.Trace, num_gpus: int) -> None:
    measured = pipelab.measure(traced, device="cuda:0", microbatch_sizes=(16,), num_stages=2)
    assert measured.device == "cuda:0"
    assert measured.alone_s.min() >= 0
    assert measured.link_bytes_per_s > 0
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cuda:0") as pipe:
        report = pipe.run(X, num_microbatches=4, repeats=3)
    assert report.predicted is not None
    assert report.predicted.makespan_s > 0


@on_gpus(1)
def test_failing_op_is_named(num_gpus: int) -> None:
    """A GPU finds an index out of range when it gets there, and its context is then of no use: the next ranks work."""
    traced = pipelab.trace(nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4)).eval(), torch.zeros(8, dtype=torch.int64))
    with pipelab.start(traced, pipelab.split_at(traced, [1]), device="cuda:0") as pipe:
        with pytest.raises(StageError):
            pipe(torch.full((8,), 99))
        with torch.no_grad():
            assert_close([pipe(torch.arange(8))], [traced._model(torch.arange(8))], is_exact=False)
