"""What a micro-batch costs: the arrays agree with the plan's figures, whatever the rows."""

import pickle

import numpy as np
import pytest
import torch
import zoo
from graphs import gpt2_graph, mlp_graph
from test_hardware import DEVICE, measurement

import pipelab
from pipelab.costs import Costs, default_microbatches, microbatch_rows, rows_of
from pipelab.hardware import remember


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_trace_of_fewer_rows_costs_what_the_larger_one_says_of_them(rows: int) -> None:
    model = zoo.build("gpt2")[0]
    ids = torch.zeros(8, 12, dtype=torch.int64)
    large, small = (pipelab.trace(model, input_ids=ids[:count]).graph for count in (8, max(rows, 2)))
    of_large, of_small = (Costs.of(graph, DEVICE, rows) for graph in (large, small))
    np.testing.assert_array_equal(of_large.cut_bytes, of_small.cut_bytes)
    np.testing.assert_array_equal(of_large.activation_bytes, of_small.activation_bytes)
    np.testing.assert_array_equal(large.flops_for(rows), small.flops_for(rows))
    np.testing.assert_allclose(of_large.op_s, of_small.op_s)


def test_the_traced_batch_costs_what_the_plan_says() -> None:
    graph = gpt2_graph()
    plan = pipelab.Plan(graph, pipelab.uniform(graph, num_stages=3).cuts, hardware=DEVICE)
    costs = Costs.of(graph, DEVICE, graph.batch_size)
    for stage in plan.stages:
        weights = stage.param_bytes + stage.buffer_bytes
        assert costs.weight_bytes(stage.start, stage.stop) == weights
        assert costs.memory_bytes(stage.start, stage.stop) == weights + stage.activation_bytes + DEVICE.reserve_bytes
        assert stage.time_s == pytest.approx(costs.op_s[stage.start : stage.stop].sum())
    for boundary in plan.boundaries:
        assert costs.cut_bytes[boundary.position] == boundary.num_bytes
        assert costs.transfer_s[boundary.position] == DEVICE.transfer_s(boundary.num_bytes)


def test_stages_of_a_measured_model_take_what_they_take_while_the_others_compute() -> None:
    graph = mlp_graph(6)
    measured = measurement(graph)
    remember(graph, measured)
    one, two = (pipelab.uniform(graph, num_stages=number) for number in (1, 2))
    rows = graph.batch_size
    assert one.stages[0].time_s == pytest.approx(measured.op_times_s(graph, rows).sum())
    assert sum(stage.time_s for stage in two.stages) == pytest.approx(measured.loaded_op_times_s(graph, rows).sum())
    for entry in pipelab.compare({"one": one, "two": two}, num_microbatches=1).entries:
        assert entry.stage_s == pytest.approx([stage.time_s for stage in entry.plan.stages])


def test_a_copied_graph_takes_no_device_for_another() -> None:
    graph = mlp_graph(4)
    first = Costs.of(graph, DEVICE, 2)
    copied = pickle.loads(pickle.dumps(graph))
    of_copy = Costs.of(copied, DEVICE, 2)
    assert of_copy.device is DEVICE
    assert of_copy.graph is copied
    assert Costs.of(graph, DEVICE, 2) is first


def test_nothing_crosses_the_ends() -> None:
    costs = Costs.of(mlp_graph(4), DEVICE, 2)
    assert (costs.cut_bytes[0], costs.cut_bytes[-1]) == (0, 0)
    assert (costs.transfer_s[0], costs.transfer_s[-1]) == (0, 0)


def test_the_same_question_is_answered_once() -> None:
    graph = mlp_graph(4)
    assert Costs.of(graph, DEVICE, 2) is Costs.of(graph, DEVICE, 2)
    assert Costs.of(graph, DEVICE, 2) is not Costs.of(graph, DEVICE, 1)


def test_training_keeps_every_value_that_has_memory() -> None:
    graph = mlp_graph(4, width=16, batch=8)
    np.testing.assert_array_equal(Costs.of(graph, DEVICE, 8).stash_before, [0, 512, 1024, 1536, 2048])


@pytest.mark.parametrize(
    ("batch", "count", "rows"), [(8, 5, (2, 2, 2, 1, 1)), (8, 8, (1,) * 8), (8, 1, (8,)), (7, 2, (4, 3))]
)
def test_micro_batches_are_divided_as_tensor_split_does(batch: int, count: int, rows: tuple[int, ...]) -> None:
    assert microbatch_rows(batch, count) == rows
    assert rows == tuple(len(part) for part in torch.arange(batch).tensor_split(count))
    assert rows_of(batch, count) == rows[0]


def test_there_are_twice_as_many_micro_batches_as_stages() -> None:
    assert [default_microbatches(8, stages) for stages in (1, 2, 4, 16)] == [2, 4, 8, 8]
