"""A table as a flat function: what it runs, when it tells, what it lets go."""

import weakref
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelab.operators import operator
from pipelab.program import DeviceHere, Ref, Row, Table
from pipelab.stage_module import StageModule

ADD = "aten.add.Tensor"


def interpreted(table: Table, weights: dict[str, Tensor], values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a table means, row by row."""
    env: dict[str, Any] = {**weights, **dict(zip(table.inputs, values, strict=True))}

    def filled(argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return type(argument)(filled(item) for item in argument)
        return env[argument.name] if isinstance(argument, Ref) else argument

    for row in table.rows:
        kwargs = {key: filled(value) for key, value in row.kwargs.items()}
        env[row.name] = operator(row.target)(*filled(row.args), **kwargs)
    return tuple(env[name] for name in table.outputs)


def test_every_kind_of_argument() -> None:
    table = Table(
        inputs=("del", "on_op"),  # names of a model's values need not be names in Python
        rows=(
            Row("v0", "aten.cat.default", "", ([Ref("del"), Ref("on_op"), Ref("import")],), {"dim": 0}),
            Row("run", "aten.index.Tensor", "", (Ref("v0"), [None, Ref("4")]), {}),
            Row("c", "aten.full.default", "", ([3, 2], float("inf")), {"dtype": torch.float32}),
            Row("a b", ADD, "", (Ref("run"), Ref("import")), {"alpha": 2}),
        ),
        outputs=("a b", "c", "del", "import"),
        weights=("import", "4"),
    )
    weights = {"import": torch.ones(1, 2), "4": torch.tensor([1, 0])}
    values = (torch.randn(1, 2), torch.randn(2, 2))
    found = StageModule(table, weights)(*values)
    for got, want in zip(found, interpreted(table, weights, values), strict=True):
        assert torch.equal(got, want)
    assert found[2] is values[0]
    assert found[3] is weights["import"]


def test_a_keyword_that_python_keeps_for_itself() -> None:
    table = Table(("x",), (Row("y", "aten.random.from", "", (Ref("x"),), {"from": 3, "to": 4}),), ("y",))
    (found,) = StageModule(table, {})(torch.zeros(2))
    assert found.tolist() == [3.0, 3.0]


def test_another_name_of_a_weight() -> None:
    table = Table(("x",), (Row("y", ADD, "", (Ref("x"), Ref("tied")), {}),), ("y",), ("first",), {"tied": "first"})
    assert StageModule(table, {"first": torch.ones(1)})(torch.ones(1))[0].item() == 2


def test_devices_are_those_of_the_stage() -> None:
    table = Table((), (Row("y", "aten.zeros.default", "", ([2],), {"device": DeviceHere()}),), ("y",))
    assert StageModule(table, {}, "meta")()[0].device.type == "meta"


def chain(length: int) -> Table:
    names = [f"x{index}" for index in range(length + 1)]
    rows = [Row(new, ADD, "", (Ref(old), 1.0), {}, (old,)) for old, new in pairwise(names)]
    return Table(("x0",), tuple(rows), (names[-1],))


def test_it_tells_after_every_op_and_stops_where_it_is_told_to() -> None:
    module, seen = StageModule(chain(5), {}), []

    def on_op(index: int) -> None:
        seen.append(index)
        if index == 3:
            raise InterruptedError

    module.on_op = on_op
    with pytest.raises(InterruptedError):
        module(torch.zeros(1))
    assert seen == [0, 1, 2, 3]
    module.on_op = None
    assert module(torch.zeros(1))[0].item() == 5


def test_values_go_as_soon_as_nobody_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def add(value: Tensor, other: float) -> Tensor:
        result = value + other
        alive.append(weakref.ref(result))
        return result

    monkeypatch.setattr("pipelab.stage_module.operator", lambda _: add)
    module = StageModule(chain(6), {})

    def on_op(_: int) -> None:
        nonlocal most
        most = max(most, sum(reference() is not None for reference in alive))

    module.on_op = on_op
    module(torch.zeros(1))
    assert most == 1


def test_weights_go_with_the_module() -> None:
    """A function that lies among its own globals lives, with all they hold, until the next garbage collection."""
    weight = torch.ones(1)
    table = Table(("x",), (Row("y", ADD, "", (Ref("x"), Ref("w")), {}),), ("y",), ("w",))
    module = StageModule(table, {"w": weight})
    module(torch.ones(1))
    module.on_op = lambda _: None
    module(torch.ones(1))
    gone = weakref.ref(weight)
    del weight, module
    assert gone() is None


def test_the_wrong_number_of_values_is_refused() -> None:
    with pytest.raises(TypeError):
        StageModule(chain(1), {})(torch.ones(1), torch.ones(1))
