"""`explore` with real ranks: when they start, when they stay, when they go."""

from collections.abc import Callable
from queue import Queue

import psutil
import pytest
import torch
from torch import nn

import pipelab
from pipelab import lab
from pipelab.errors import Cancelled, InputError, LaunchError, StageError
from pipelab.hardware import Measurement
from pipelab.tracing import Trace
from pipelab.viz.explorer import Explorer


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(16, 16) for _ in range(6))).eval()


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    return torch.randn(8, 16)


@pytest.fixture(scope="module")
def traced(model: nn.Module, inputs: torch.Tensor) -> Trace:
    return pipelab.trace(model, inputs)


def pids(explorer: Explorer) -> tuple[int, ...]:
    runner = explorer._runner
    assert isinstance(runner, lab._Runner)
    return runner._pipe.pids if runner._pipe else ()


def test_it_opens_uniformly_and_starts_nothing(traced: Trace) -> None:
    explorer = pipelab.explore(traced, num_stages=2)
    assert explorer.plan.cuts == pipelab.uniform(traced, num_stages=2).cuts
    assert explorer.num_microbatches == 4
    assert explorer.report is None
    assert pids(explorer) == ()


def test_more_stages_than_blocks_opens_with_the_most_and_says_so(traced: Trace) -> None:
    explorer = pipelab.explore(traced, num_stages=9)
    assert explorer.num_stages == 6
    assert explorer._run_state["phase"] == "refused"
    assert "cannot make 9 stages" in explorer._run_state["text"]


def test_more_micro_batches_than_rows_are_refused(traced: Trace) -> None:
    with pytest.raises(InputError, match="A batch of 8 splits into 1 to 8 micro-batches, not into 9"):
        pipelab.explore(traced, num_microbatches=9)


def test_a_plan_opens_as_it_is_cut_and_cannot_run(traced: Trace) -> None:
    plan = pipelab.equal_size(traced, num_stages=3)
    explorer = pipelab.explore(plan)
    assert explorer.cuts == plan.cuts
    with pytest.raises(LaunchError, match="Planning only: a plan holds no model"):
        explorer.run()


def test_without_weights_it_plans_only(model: nn.Module) -> None:
    with torch.device("meta"):
        bare = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3))).eval()
        explorer = pipelab.explore(pipelab.trace(bare, torch.zeros(4, 16)), num_stages=2)
    with pytest.raises(LaunchError, match="Planning only"):
        explorer.run()


def test_ranks_stay_for_another_split_and_go_with_the_explorer(
    traced: Trace, model: nn.Module, inputs: torch.Tensor
) -> None:
    explorer = pipelab.explore(traced, num_stages=3)
    first = explorer.run()
    torch.testing.assert_close(first.output, model(inputs))
    before = pids(explorer)
    assert len(before) == 3
    explorer.cuts = pipelab.equal_size(traced, num_stages=3).cuts[:1] + explorer.cuts[1:]
    explorer.num_microbatches = 5
    second = explorer.run()
    torch.testing.assert_close(second.output, model(inputs))
    assert (second.plan.cuts, second.timeline.num_microbatches) == (explorer.cuts, 5)
    assert pids(explorer) == before
    explorer.close()
    assert not any(map(psutil.pid_exists, before))


@pytest.mark.parametrize("moment", ["Preparing", "Loading", "Step 1"])
def test_a_cancelled_run_leaves_the_ranks(traced: Trace, moment: str) -> None:
    explorer = pipelab.explore(traced, num_stages=2)

    def cancel(change: dict[str, dict[str, str]]) -> None:
        if change["new"]["text"].startswith(moment):
            explorer._hear(explorer, {"type": "cancel"}, [])

    explorer.observe(cancel, "_run_state")
    with pytest.raises(Cancelled):
        explorer.run()
    assert explorer._run_state["phase"] == "cancelled"
    before = pids(explorer)
    assert len(before) == 2
    explorer.unobserve_all("_run_state")
    explorer.run()
    assert pids(explorer) == before
    explorer.close()


def test_a_cancel_that_comes_when_all_is_done_cancels_nothing_later(traced: Trace) -> None:
    explorer = pipelab.explore(traced, num_stages=2)
    explorer.observe(lambda _: explorer._hear(explorer, {"type": "cancel"}, []), "report")
    explorer.run()
    assert explorer.run() is explorer.report
    explorer.close()


def test_idle_ranks_go_and_the_next_run_starts_others(traced: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "IDLE_S", 0.0)
    explorer = pipelab.explore(traced, num_stages=2)
    explorer.run()
    runner = explorer._runner
    assert isinstance(runner, lab._Runner)
    timer = runner._idle
    if timer is not None:  # else it has fired already
        timer.join()
    assert pids(explorer) == ()
    assert explorer.run().step_s > 0
    explorer.close()


def test_hardware_gives_times(traced: Trace) -> None:
    explorer = pipelab.explore(traced, num_stages=2, hardware="t4-16gb")
    assert explorer.hardware == explorer.plan.hardware == "t4-16gb"
    assert all(stage.time_s for stage in explorer.plan.stages)
    again = pipelab.explore(explorer.plan)
    assert again.hardware == "t4-16gb"
    assert pipelab.explore(explorer.plan, hardware="l4-24gb").hardware == "l4-24gb"
    assert not pipelab.explore(traced, num_stages=2).plan.has_times


def test_unknown_hardware_is_refused_before_anything_is_built(traced: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "Explorer", None)
    with pytest.raises(InputError, match=r"hardware='t4' is not known\. It is one of: .*'t4-16gb'"):
        pipelab.explore(traced, hardware="t4")


def test_a_decode_step_is_planned_and_not_run() -> None:
    config = pytest.importorskip("transformers").GPT2Config(
        n_layer=2, n_embd=32, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0
    )
    traced = pipelab.trace_pretrained(config, batch_size=4, cache_len=8)
    explorer = pipelab.explore(traced, num_stages=2, hardware="t4-16gb")
    caches = [size for _, size in explorer._costs["caches"]]
    assert sum(caches) == sum(stage.cache_bytes for stage in explorer.plan.stages) > 0
    with pytest.raises(LaunchError, match="Planning only: this is one decode step"):
        explorer.run()


def test_a_measured_model_opens_with_this_machines_times_and_predicts_the_run() -> None:
    mine = pipelab.trace(nn.Sequential(*(nn.Linear(16, 16) for _ in range(4))).eval(), torch.randn(2, 16))
    machine = pipelab.measure(mine, microbatch_sizes=(1,), device="cpu")
    explorer = pipelab.explore(mine, num_stages=2)
    assert explorer._costs["device"] == machine.description
    report = explorer.run()
    assert report.predicted is not None
    assert explorer._report_state is not None
    assert explorer._report_state["predicted"]["makespan_s"] == report.predicted.makespan_s
    explorer.close()


def test_a_failing_model_is_told_with_its_stage_and_module_and_runs_again() -> None:
    index = torch.arange(8)
    traced = pipelab.trace(nn.Sequential(nn.Identity(), nn.Embedding(8, 4), nn.Linear(4, 4)).eval(), index)
    explorer = pipelab.explore(traced, num_stages=2)
    cuts = explorer.cuts
    index[3] = 99
    with pytest.raises(StageError):
        explorer.run()
    state = explorer._run_state
    assert state["phase"] == "failed"
    assert state["text"].startswith("Stage 0 (rank 0) raised IndexError in 1 (aten.embedding.default): ")
    assert "Traceback of rank 0" in state["details"]
    assert (explorer.cuts, explorer.reports) == (cuts, [])
    index[3] = 3
    assert explorer.run() is explorer.report
    explorer.close()


def test_measuring_gives_times_and_can_be_cancelled(traced: Trace) -> None:
    mine = pipelab.trace(nn.Sequential(*(nn.Linear(16, 16) for _ in range(2))).eval(), torch.randn(1, 16))
    explorer = pipelab.explore(mine, num_stages=2)
    # A key that chooses from the list must not start a measurement: there is a button for that.
    assert "this machine" not in [choice["name"] for choice in explorer._hardwares]
    ends = watched(explorer)
    explorer.observe(cancelling(explorer), "_run_state")
    explorer._hear(explorer, {"type": "measure"}, [])
    assert ends.get(timeout=60) == "The measurement was cancelled."
    explorer.unobserve_all("_run_state")
    ends = watched(explorer)
    explorer._hear(explorer, {"type": "measure"}, [])
    assert ends.get(timeout=60).startswith("Times are now those of this machine")
    assert isinstance(explorer.hardware, Measurement)
    assert explorer.timeline is not None
    explorer.close()


def watched(explorer: Explorer) -> Queue[str]:
    """What was said of the ends of what went on in the background."""
    ends: Queue[str] = Queue()
    explorer.observe(
        lambda change: ends.put(change["new"]["text"]) if change["new"]["phase"] != "running" else None, "_run_state"
    )
    return ends


def cancelling(explorer: Explorer) -> Callable[[dict[str, dict[str, str]]], None]:
    """Cancels as soon as this machine is measured."""

    def cancel(change: dict[str, dict[str, str]]) -> None:
        if change["new"]["text"].startswith("Measuring"):
            explorer._hear(explorer, {"type": "cancel"}, [])

    return cancel


def test_traces_of_one_model_share_the_split() -> None:
    config = pytest.importorskip("transformers").GPT2Config(
        n_layer=4, n_embd=32, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0
    )
    prefill = pipelab.trace_pretrained(config, batch_size=4)
    decode = pipelab.trace_pretrained(config, batch_size=2, cache_len=8)
    explorer = pipelab.explore({"prefill": prefill, "decode": decode}, num_stages=3, hardware="t4-16gb")
    explorer.num_microbatches = 4
    names = explorer.plan.split_points
    explorer.workload = "decode"
    assert explorer.plan.graph is decode.graph
    assert explorer.plan.split_points == names
    assert (explorer.num_microbatches, explorer.hardware, explorer._workload) == (2, "t4-16gb", "decode")
    assert explorer._data["num_ops"] == len(decode.graph.ops)
    assert len(explorer._costs["flops_before"]) == len(decode.graph.ops) + 1
    with pytest.raises(LaunchError, match="one decode step"):
        explorer.run()
    explorer.set_state({"_workload": "prefill"})
    assert (explorer.workload, explorer.plan.split_points) == ("prefill", names)


def test_traces_of_different_models_are_refused(traced: Trace) -> None:
    other = pipelab.trace(nn.Sequential(*(nn.Linear(8, 8) for _ in range(6))).eval(), torch.zeros(8, 8))
    with pytest.raises(InputError, match="traces of one model"):
        pipelab.explore({"a": traced, "b": other})
    with pytest.raises(InputError, match="at least one trace"):
        pipelab.explore({})
    with pytest.raises(InputError, match="'a' is of type int"):
        pipelab.explore({"a": 1})
