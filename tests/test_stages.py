"""Stages in order equal the model exactly, whatever the cut, with values passed by copy."""

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, library, nn
from torch.utils import _pytree as pytree

import pipelab
from pipelab.errors import LaunchError, SplitError
from pipelab.program import StageTable
from pipelab.stage_module import StageModule
from pipelab.stages import stage_tables, whole_table


def by_value(tables: Sequence[StageTable], weights: dict[str, Tensor], values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run stages one after another, every value copied to a buffer of its own in between, as a link does."""
    for stage in tables:
        buffers = [torch.full((spec.num_bytes,), 171, dtype=torch.uint8) for spec in stage.inputs]
        for spec, value, buffer in zip(stage.inputs, values, buffers, strict=True):
            spec.pack(value, buffer)
        arrived = [spec.unpack(buffer) for spec, buffer in zip(stage.inputs, buffers, strict=True)]
        values = tuple(value.clone() for value in StageModule(stage.table, weights)(*arrived))
        for buffer in buffers:  # what a stage returned must not lie in its slots any more
            buffer.fill_(171)
    return tuple(values)


def rows(traced: pipelab.Trace, inputs: dict[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    named = zip(inputs.items(), traced.batched, strict=True)
    return {name: tensor[start:stop].clone() if batched else tensor for (name, tensor), batched in named}


def call(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    extra = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    return model(**inputs, **extra)


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


@pytest.fixture(scope="module", params=list(zoo.ALL))
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, dict[str, Tensor], pipelab.Trace]:
    model, inputs = zoo.build(request.param)
    return model, inputs, pipelab.trace(model, **inputs)


@torch.no_grad()
def test_every_legal_cut_equals_the_model(case: tuple[nn.Module, dict[str, Tensor], pipelab.Trace]) -> None:
    """All cuts at once, where each hands on copies of what is alive; and each, or some of many, by itself."""
    model, inputs, traced = case
    part = rows(traced, inputs, 2, 5)
    expected = tensors(call(model, part))
    legal = traced.graph.legal
    assert legal
    for cuts in (legal, *((cut,) for cut in legal[:: max(1, len(legal) // 16)]), legal[-1:]):
        plan = pipelab.Plan(traced.graph, cuts)
        found = by_value(stage_tables(traced, plan, 3), traced.weights(), traced.bind((), part))
        for got, want in zip(found, expected, strict=True):
            labels = [traced.graph.label_at(cut) for cut in cuts]
            torch.testing.assert_close(got, want, rtol=0, atol=0, msg=f"cut {labels}")


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 2, 8])
def test_one_op_list_for_every_batch_size(case: tuple[nn.Module, dict[str, Tensor], pipelab.Trace], size: int) -> None:
    model, inputs, traced = case
    part = rows(traced, inputs, 0, size)
    plan = pipelab.Plan(traced.graph, traced.graph.legal[:: max(1, len(traced.graph.legal) // 4)])
    found = by_value(stage_tables(traced, plan, size), traced.weights(), traced.bind((), part))
    for got, want in zip(found, tensors(call(model, part)), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_specs_carry_the_bytes_the_plan_shows(
    case: tuple[nn.Module, dict[str, Tensor], pipelab.Trace],
) -> None:
    _, _, traced = case
    plan = pipelab.Plan(traced.graph, traced.graph.legal[:: max(1, len(traced.graph.legal) // 5)])
    tables = stage_tables(traced, plan, traced.graph.batch_size)
    for stage, boundary in zip(tables, plan.boundaries, strict=False):
        assert sum(spec.num_bytes for spec in stage.outputs) == boundary.num_bytes
        assert [spec.name for spec in stage.outputs] == [tensor.name for tensor in boundary.tensors]


@torch.no_grad()
def test_outputs_keep_the_models_own_type() -> None:
    model, inputs = zoo.build("dict_output")
    traced = pipelab.trace(model, **inputs)
    values = by_value([whole_table(traced, 8)], traced.weights(), traced.bind((), inputs))
    output, expected = traced.unflatten(values), model(**inputs)
    assert list(output) == list(expected)
    assert output["none"] is None
    assert output["number"] == 3
    assert isinstance(output["pair"], tuple)


@torch.no_grad()
def test_model_output_class_is_rebuilt() -> None:
    model, inputs = zoo.build("gpt2")
    traced = pipelab.trace(model, **inputs)
    values = by_value([whole_table(traced, 8)], traced.weights(), traced.bind((), inputs))
    output, expected = traced.unflatten(values), model(**inputs, use_cache=False)
    assert type(output) is type(expected)
    torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=0)


def test_tied_weight_lies_in_each_stage_that_reads_it() -> None:
    model, inputs = zoo.build("tied")
    traced = pipelab.trace(model, **inputs)
    first, *_, last = stage_tables(traced, pipelab.uniform(traced, num_stages=3), 4)
    assert first.table.weights[0] == last.table.weights[-1] == "embed.weight"
    assert last.table.aliases == {"head.weight": "embed.weight"}


@torch.no_grad()
def test_a_stage_runs_again_with_the_same_result() -> None:
    """A pickled GraphModule froze `zeros` and summed into it from call to call."""
    model, inputs = zoo.build("in_place")
    traced = pipelab.trace(model, **inputs)
    stage = whole_table(traced, 8)
    module = StageModule(stage.table, traced.weights())
    first = module(*(x.clone() for x in traced.bind((), inputs)))
    again = module(*(x.clone() for x in traced.bind((), inputs)))
    torch.testing.assert_close(first, again, rtol=0, atol=0)


def test_plan_of_another_trace_is_refused() -> None:
    model, inputs = zoo.build("mlp")
    traced, other = pipelab.trace(model, **inputs), pipelab.trace(model, **inputs)
    with pytest.raises(SplitError, match="another trace"):
        stage_tables(traced, pipelab.uniform(other, num_stages=2), 4)


@library.custom_op("zoo::cube", mutates_args=())
def cube(x: Tensor) -> Tensor:
    return x**3


@cube.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Cube(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return cube(x + 1)


def test_operator_of_this_process_is_refused_by_name() -> None:
    traced = pipelab.trace(Cube().eval(), torch.zeros(2, 2))
    with pytest.raises(LaunchError, match=r"zoo\.cube\.default.*torch functions"):
        stage_tables(traced, pipelab.Plan(traced.graph, ()), 2)
