"""The module that runs a stage: its table, written as one flat Python function.

An interpreter of tables costs a microsecond or two per op, as much as a small op itself. What is written of a
table is only its shape; every operator, weight and constant is bound to a name made up here:

    v2 = f1(v0, w1, w2)      # linear(x, weight, bias)
    del v0
    on_op(0)
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from keyword import iskeyword
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.operators import operator
from pipelab.program import DeviceHere, Ref, Row, Table


class StageModule(nn.Module):
    """A stage as a plain module: `forward(*values) -> tuple of values`.

    It fits `torch.distributed.pipelining.PipelineStage` as well as pipelab's own ranks.

    Args:
        table: The program.
        weights: Tensors by first name; only those the table reads are kept.
        device: Where it runs; device arguments of ops are set to it.

    Attributes:
        on_op: Called with its index after every op, once the values nobody reads any more are gone; may raise.
    """

    def __init__(self, table: Table, weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.table = table
        self.device = torch.device(device)
        self.on_op: Callable[[int], None] | None = None
        # Here, so that an operator this process lacks is found before the first step.
        self._program = _Program(table, weights, self.device)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Run every op in order."""
        if self.on_op is None:
            return self._program.run(*values)
        return self._program.run_and_tell(self.on_op, *values)


class _Branch:
    """A nested program as the callable a higher-order op wants."""

    def __init__(self, module: StageModule) -> None:
        self.module = module

    def __call__(self, *values: Tensor) -> tuple[Tensor, ...]:
        return self.module(*values)  # type: ignore[no-any-return]  # any module's call


class _Program:
    """The function of a table, as source and as what its names are bound to.

    Args:
        table: The program.
        weights: Tensors by first name.
        device: Where it runs.
    """

    def __init__(self, table: Table, weights: Mapping[str, Tensor], device: torch.device) -> None:
        self._bound: dict[str, Any] = {}
        self._weights = {name: weights[name] for name in table.weights}
        self._device = device
        self._names = {name: self._bind("w", weight) for name, weight in self._weights.items()}
        self._names.update({alias: self._names[name] for alias, name in (table.aliases or {}).items()})
        self._names.update({name: f"v{index}" for index, name in enumerate(table.inputs)})
        self._inputs = [self._names[name] for name in table.inputs]
        self._ops = [self._op(len(table.inputs) + index, row) for index, row in enumerate(table.rows)]
        self._results = "".join(f"{self._names[name]}, " for name in table.outputs)

    @cached_property
    def run(self) -> Callable[..., tuple[Tensor, ...]]:
        """The function of the inputs."""
        return self._compiled(self._inputs, [line for op in self._ops for line in op])

    @cached_property
    def run_and_tell(self) -> Callable[..., tuple[Tensor, ...]]:
        """The same, given first what to call after every op."""
        lines = [line for index, op in enumerate(self._ops) for line in (*op, f"on_op({index})")]
        return self._compiled(["on_op", *self._inputs], lines)

    def _compiled(self, inputs: list[str], lines: list[str]) -> Callable[..., tuple[Tensor, ...]]:
        source = "\n    ".join([f"def run({', '.join(inputs)}):", *lines, f"return ({self._results})"])
        names = dict(self._bound)
        exec(compile(source, "<stage>", "exec"), names)
        # Taken out: a function among its own globals would keep the weights until the next garbage collection.
        function: Callable[..., tuple[Tensor, ...]] = names.pop("run")
        return function

    def _op(self, index: int, row: Row) -> list[str]:
        """The lines of an op."""
        arguments = [self._expression(argument) for argument in row.args]
        arguments += [_keyword(name, self._expression(argument)) for name, argument in row.kwargs.items()]
        call = f"{self._bind('f', operator(row.target))}({', '.join(arguments)})"
        self._names[row.name] = f"v{index}"
        freed = ", ".join(self._names[name] for name in row.frees)
        return [f"v{index} = {call}", *([f"del {freed}"] if freed else [])]

    def _expression(self, argument: Any) -> str:
        """An argument in the source: a name, or a list, tuple or dict of names."""
        if isinstance(argument, Ref):
            return self._names[argument.name]
        if not _has_reference(argument):
            return self._bind("c", _constant(argument, self._weights, self._device))
        if isinstance(argument, dict):
            return "{" + ", ".join(f"{self._bind('c', k)}: {self._expression(v)}" for k, v in argument.items()) + "}"
        items = "".join(f"{self._expression(item)}, " for item in argument)
        return f"[{items}]" if isinstance(argument, list) else f"({items})"

    def _bind(self, kind: str, value: Any) -> str:
        name = f"{kind}{len(self._bound)}"
        self._bound[name] = value
        return name


def _constant(argument: Any, weights: Mapping[str, Tensor], device: torch.device) -> Any:
    """An argument without a `Ref`, with devices and nested tables in place."""
    if isinstance(argument, DeviceHere):
        return device
    if isinstance(argument, Table):
        return _Branch(StageModule(argument, weights, device))
    if isinstance(argument, list | tuple):
        items = [_constant(item, weights, device) for item in argument]
        return items if isinstance(argument, list) else tuple(items)
    if isinstance(argument, dict):
        return {key: _constant(item, weights, device) for key, item in argument.items()}
    return argument


def _keyword(name: str, expression: str) -> str:
    """An operator's keyword argument; some operators have one that is called `from`."""
    is_plain = name.isidentifier() and not iskeyword(name)
    return f"{name}={expression}" if is_plain else f"**{{{name!r}: {expression}}}"


def _has_reference(argument: Any) -> bool:
    if isinstance(argument, dict):
        return any(map(_has_reference, argument.values()))
    return isinstance(argument, Ref) or (isinstance(argument, list | tuple) and any(map(_has_reference, argument)))
