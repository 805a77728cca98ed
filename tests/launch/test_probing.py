"""Measuring this machine: what comes out, what it is good for, and what is refused."""

import os
import signal
import sys
import threading
import traceback

import numpy as np
import psutil
import pytest
import torch
import zoo
from torch import nn

import pipelab
from pipelab.errors import InputError, LaunchError, SplitError
from pipelab.hardware import has_costs, measurement_of
from pipelab.launch import group
from pipelab.launch.client import current_server
from pipelab.launch.devices import num_cores
from pipelab.launch.interrupts import HeldInterrupts
from pipelab.launch.probing import undisturbed


class Uneven(nn.Module):
    """A small product, then one of a thousand times its work."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Linear(512, 16)
        self.wide = nn.Linear(16, 4096)
        self.large = nn.Linear(4096, 4096)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.large(self.wide(self.small(x)))


@pytest.fixture(scope="module")
def traced() -> pipelab.Trace:
    return pipelab.trace(Uneven().eval(), torch.ones(16, 512))


@pytest.fixture(scope="module")
def measured(traced: pipelab.Trace) -> pipelab.Measurement:
    return pipelab.measure(traced, device="cpu", microbatch_sizes=(1, 4), num_stages=2)


def test_every_op_has_a_time_at_every_size(traced: pipelab.Trace, measured: pipelab.Measurement) -> None:
    assert measured.rows == (1, 4, 16)
    assert measured.alone_s.shape == measured.loaded_s.shape == (3, len(traced.graph.ops))
    assert (measured.alone_s > 0).all()
    assert (measured.loaded_s > 0).all()
    assert np.argmax(measured.alone_s[-1]) == len(traced.graph.ops) - 1
    assert measured.link_latency_s > 0
    assert measured.link_bytes_per_s > 0
    assert measured.parallel == max(1, min(2, num_cores() // measured.num_threads))
    assert sys.platform != "linux" or (measured.other_load and measured.other_load.window_s >= 0.3)


def test_plans_of_the_trace_now_tell_time(traced: pipelab.Trace, measured: pipelab.Measurement) -> None:
    assert measurement_of(traced.graph) is measured
    plan = pipelab.split_at(traced, ["large"])
    first, last = plan.stages
    assert first.time_s is not None
    assert last.time_s is not None
    assert last.time_s > first.time_s
    assert "this machine" in plan.verdict
    assert "Stage 1 is the bottleneck" in plan.verdict


def test_a_run_comes_with_its_prediction(traced: pipelab.Trace, measured: pipelab.Measurement) -> None:
    inputs = torch.ones(16, 512)
    with pipelab.start(traced, pipelab.split_at(traced, ["large"]), device="cpu") as pipe:
        report = pipe.run(inputs, num_microbatches=4, repeats=2)
        other_batch = pipe.run(torch.ones(6, 512), num_microbatches=3, repeats=1)
    assert report.predicted is not None
    assert report.predicted.num_microbatches == 4
    assert report.predicted.makespan_s > 0
    assert "predicted" in report.verdict
    assert other_batch.predicted is not None  # two rows each: between those measured
    assert other_batch.predicted.makespan_s < report.predicted.makespan_s


def test_nothing_is_predicted_where_nothing_was_measured() -> None:
    traced = pipelab.trace(zoo.build("mlp")[0], **zoo.build("mlp")[1])
    assert not has_costs(traced.graph)
    assert all(stage.time_s is None for stage in pipelab.uniform(traced, num_stages=2).stages)


def test_measuring_leaves_no_process_and_the_model_as_it_was() -> None:
    model, inputs = zoo.build("gpt2")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    children = set(psutil.Process().children(recursive=True))
    pipelab.measure(pipelab.trace(model, **inputs), device="cpu", microbatch_sizes=(1,))
    left = set(psutil.Process().children(recursive=True)) - children
    assert all("server" in " ".join(child.cmdline()) for child in left)  # it stays, to fork the next ranks
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_second_ctrl_c_waits_for_no_rank(traced: pipelab.Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a rank inside a long op the first one waits for seconds."""
    monkeypatch.setattr(group, "_AFTER_CANCEL_S", 600.0)
    server, main = psutil.Process(current_server().pid), threading.get_ident()
    known, note = set(server.children()), HeldInterrupts._note
    pause, noted = threading.Event(), threading.Event()
    monkeypatch.setattr(HeldInterrupts, "_note", lambda held, *_: (note(held), noted.set()))

    def press_twice() -> None:
        while not (ranks := set(server.children()) - known):
            pause.wait(1e-3)
        for rank in ranks:
            rank.suspend()
        while "_exchange" not in {
            frame.f_code.co_name for frame, _ in traceback.walk_stack(sys._current_frames()[main])
        }:
            pause.wait(1e-3)
        os.kill(os.getpid(), signal.SIGINT)
        noted.wait(60)  # else the system takes both for one
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press_twice)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        pipelab.measure(traced, device="cpu", microbatch_sizes=(1,))
    thread.join()
    assert "Rank 0 had not come to an end" in str(caught.value.__context__)
    assert set(server.children()) <= known


def test_what_disturbs_one_round_does_not_count() -> None:
    """A virtual machine was half as fast for some seconds, and predictions were off by 60 %."""
    quiet, slow = np.array([1.0, 2.0]), np.array([1.5, 3.5])
    assert undisturbed([slow, quiet]).tolist() == quiet.tolist()
    assert undisturbed([quiet, quiet * 1.02]).tolist() == (quiet * 1.01).tolist()


class Fixed(nn.Module):
    """Mixes its rows, so that they cannot be split."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix @ x


def test_a_fixed_batch_is_measured_as_it_is() -> None:
    traced = pipelab.trace(Fixed().eval(), torch.ones(4, 4))
    assert pipelab.measure(traced, device="cpu").rows == (4,)
    with pytest.raises(InputError, match="fixes its batch to 4 rows"):
        pipelab.measure(traced, device="cpu", microbatch_sizes=(2,))


@pytest.mark.parametrize("sizes", [(0,), (1.5,), ("4",), 4])
def test_sizes_are_a_list_of_numbers_of_rows(traced: pipelab.Trace, sizes: object) -> None:
    with pytest.raises(InputError, match=r"microbatch_sizes must be a (whole number|list)"):
        pipelab.measure(traced, device="cpu", microbatch_sizes=sizes)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("num_stages", [0, -1, 1.5])
def test_the_number_of_stages_is_one(traced: pipelab.Trace, num_stages: object) -> None:
    with pytest.raises(SplitError, match="num_stages must be a whole number"):
        pipelab.measure(traced, device="cpu", num_stages=num_stages)


def test_a_model_without_weights_cannot_be_measured() -> None:
    with torch.device("meta"):
        model = nn.Linear(4, 4).eval()
    with pytest.raises(LaunchError, match="without weights"):
        pipelab.measure(pipelab.trace(model, torch.ones(2, 4, device="meta")), device="cpu")


def test_a_run_that_cannot_be_predicted_is_reported_all_the_same() -> None:
    # Measured with one row, run with four: the refusal to guess came after the run, and took its report along.
    traced = pipelab.trace(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).eval(), torch.ones(1, 8))
    assert pipelab.measure(traced, device="cpu", num_stages=2).rows == (1,)
    with pipelab.start(traced, pipelab.uniform(traced, num_stages=2), device="cpu") as pipe:
        assert pipe.run(torch.ones(4, 8), num_microbatches=2, repeats=1).predicted is None
        assert pipe.run(torch.ones(4, 8), num_microbatches=4, repeats=1).predicted is not None


def test_a_trace_is_measured_nothing_else(traced: pipelab.Trace) -> None:
    with pytest.raises(InputError, match="it is a Graph"):
        pipelab.measure(traced.graph)  # type: ignore[arg-type]  # that is the point


def test_a_rank_that_computes_alone_is_not_measured_beside_others() -> None:
    traced = pipelab.trace(nn.Linear(8, 8).eval(), torch.ones(2, 8))
    measured = pipelab.measure(traced, device="cpu", num_stages=1)
    assert measured.parallel == 1
    assert measured.loaded_s is measured.alone_s
