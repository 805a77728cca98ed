"""Which ops write to what they are given: what they leave alone may be handed to them where it lies."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelab.operators import operator
from pipelab.program import Row, Table

# Operators without a schema that write nothing.
_ONLY_READ = frozenset({"_operator.getitem", "aten.histc.default"})


def written(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments that an operator with a schema writes to.

    Schemas tell, but for the running statistics of norms: those are written to in training, and no schema says so.
    """
    names = [argument.name for argument in op._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    found = [argument.name for argument in op._schema.arguments if argument.alias_info and argument.alias_info.is_write]
    if "running_mean" in names and given.get("training", given.get("use_input_stats", True)):
        found += ["running_mean", "running_var"]
    return [given[name] for name in dict.fromkeys(found) if given.get(name) is not None]


def leaves_inputs(table: Table) -> bool:
    """Whether no op of a program writes anything: then what it is given stays as it was, in shape as well."""
    return not any(map(_writes, table.rows))


def _writes(row: Row) -> bool:
    branches = list(_tables((row.args, row.kwargs)))
    if branches or row.target in _ONLY_READ:
        return not all(map(leaves_inputs, branches))
    op = operator(row.target)
    return not hasattr(op, "_schema") or bool(written(op, row.args, row.kwargs))


def _tables(argument: Any) -> Iterable[Table]:
    """The branches among an op's arguments."""
    if isinstance(argument, Table):
        yield argument
    elif isinstance(argument, list | tuple):
        for item in argument:
            yield from _tables(item)
    elif isinstance(argument, Mapping):
        for item in argument.values():
            yield from _tables(item)
