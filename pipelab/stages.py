"""Builds the stages of a plan: the program of each, as a table, with values relayed from stage to stage."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import fx

from pipelab.errors import LaunchError, SplitError
from pipelab.operators import target_name
from pipelab.plan import Plan
from pipelab.program import DeviceHere, Ref, Row, StageTable, Table, ValueSpec
from pipelab.recording import Program, is_op
from pipelab.sizes import Sizes, meanings
from pipelab.tracing import Trace

# What a rank knows without importing anything but torch.
_KNOWN_NAMESPACES = ("aten", "prims", "_operator", "higher_order")


def stage_tables(traced: Trace, plan: Plan, microbatch_size: int) -> tuple[StageTable, ...]:
    """The stages of a plan for one micro-batch size.

    Args:
        traced: The model.
        plan: Where it is cut; its graph must be the trace's.
        microbatch_size: Rows of the batch each stage is made for.

    Returns:
        One table per stage. The first takes the model's tensor inputs, the last returns its tensor outputs.

    Raises:
        SplitError: The plan is of another graph.
        LaunchError: An operator of the model is not known to other processes.
        InputError: The model was traced into a branch that this micro-batch size does not take.
    """
    if plan.graph is not traced.graph:
        raise SplitError(
            f"The plan was made for another trace of {plan.graph.model}. Make it from this trace, or move it with "
            "split_at(traced, plan.split_points)."
        )
    _check_operators(traced.program)
    if traced.graph.caches and plan.num_stages > 1:
        raise LaunchError(
            f"This is one decode step of {traced.graph.model}, whose caches have no contents: it can be planned, "
            "simulated and measured, not run in stages. Run a trace of whole sequences (without cache_len)."
        )
    bounds = plan.without_empty_stage().bounds
    builder = _Builder(traced, Sizes(microbatch_size))
    tables = tuple(builder.stage(index, start, stop) for index, (start, stop) in enumerate(bounds))
    _check_coverage(traced, tables)
    return tables


def whole_table(traced: Trace, microbatch_size: int) -> StageTable:
    """The unsplit model as one stage."""
    _check_operators(traced.program)
    return _Builder(traced, Sizes(microbatch_size)).stage(0, 0, len(traced.graph.ops))


def step_tables(traced: Trace, cuts: Sequence[int], shapes: Mapping[str, tuple[int, ...]]) -> tuple[StageTable, ...]:
    """The stages of one step of generation, each with the caches it keeps.

    Args:
        traced: The step.
        cuts: Where it is cut, ascending; a stage between equal cuts passes on what it is given.
        shapes: The shape of each input.

    Raises:
        LaunchError: An operator is not known to other processes.
        InputError: The model was traced into a branch that these shapes do not take.
    """
    _check_operators(traced.program)
    names = [info.name for info in traced.graph.inputs]
    nodes = traced.program.inputs
    others = meanings((node.meta["val"].shape, shapes[name]) for node, name in zip(nodes, names, strict=True))
    builder = _Builder(traced, Sizes(shapes[names[0]][0], others))
    bounds = pairwise((0, *cuts, len(traced.graph.ops)))
    tables = tuple(builder.stage(index, start, stop, keeps=True) for index, (start, stop) in enumerate(bounds))
    _check_coverage(traced, tables)
    return tables


class _Builder:
    """Copies nodes into rows, with integers for sizes."""

    def __init__(self, traced: Trace, sizes: Sizes) -> None:
        traced.check_rows(sizes.num_rows, sizes.others)
        self.traced = traced
        self.sizes = sizes
        self.graph = traced.graph
        self.nodes: dict[int, fx.Node] = dict(enumerate(traced.program.ops))
        self.nodes.update({-1 - k: node for k, node in enumerate(traced.program.inputs)})

    def stage(self, index: int, start: int, stop: int, *, keeps: bool = False) -> StageTable:
        """The ops from `start` to `stop`; `keeps`: neither caches nor inputs that no op reads travel."""
        inputs, outputs = (self._values_at(position, all_inputs=not keeps) for position in (start, stop))
        kept = self.graph.caches_between(start, stop) if keeps else ()
        names = [name for op in self.graph.ops[start:stop] for name in op.weights]
        aliases = {name: self.graph.weight_by_name[name].tied_to for name in dict.fromkeys(names)}
        frees = self._frees((*inputs, *kept), outputs, start, stop)
        table = Table(
            inputs=tuple(self._name(value) for value in (*inputs, *kept)),
            rows=tuple(self._row(op, frees.get(op, ())) for op in range(start, stop)),
            outputs=tuple(self._name(value) for value in outputs),
            weights=tuple(dict.fromkeys(aliases.values())),
            aliases={name: first for name, first in aliases.items() if name != first},
            written=tuple(dict.fromkeys(aliases[name] for name in aliases if name in self.traced.program.written)),
        )
        specs = [tuple(self._spec(value) for value in values) for values in (inputs, outputs, kept)]
        return StageTable(index, self.sizes.num_rows, table, *specs)

    def _values_at(self, position: int, all_inputs: bool) -> tuple[int, ...]:
        if position == 0 and all_inputs:
            return tuple(-1 - k for k in range(len(self.graph.inputs)))
        return self.graph.outputs if position == len(self.graph.ops) else self.graph.values_at(position)

    def _name(self, value: int) -> str:
        return self.nodes[value].name

    def _frees(
        self, inputs: Sequence[int], outputs: Sequence[int], start: int, stop: int
    ) -> dict[int, tuple[str, ...]]:
        """The values each op is the last to read, so that memory is given back as early as the model does."""
        last: dict[int, int] = dict.fromkeys(inputs, start)
        for index in range(start, stop):
            last[index] = index
            last.update(dict.fromkeys(self.graph.ops[index].args, index))
        frees: dict[int, list[str]] = {}
        for value, index in last.items():
            if value not in outputs:
                frees.setdefault(index, []).append(self._name(value))
        return {index: tuple(names) for index, names in frees.items()}

    def _row(self, index: int, frees: tuple[str, ...]) -> Row:
        node = self.nodes[index]
        args = tuple(self._argument(argument) for argument in node.args)
        kwargs = {name: self._argument(argument) for name, argument in node.kwargs.items()}
        return Row(node.name, target_name(node), self.graph.ops[index].module, args, kwargs, frees)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self._reference(argument)
        if isinstance(argument, torch.device):
            return DeviceHere()
        if isinstance(argument, list | tuple):
            return type(argument)(self._argument(item) for item in argument)
        if isinstance(argument, slice):
            return slice(*(self._argument(item) for item in (argument.start, argument.stop, argument.step)))
        if isinstance(argument, dict):
            return {key: self._argument(item) for key, item in argument.items()}
        return self.sizes(argument)

    def _reference(self, node: fx.Node) -> Any:
        key = self.traced.program.key_of.get(node)
        if isinstance(key, str):
            return Ref(key)
        if key is not None:
            return Ref(node.name)
        if node.op == "get_attr":
            branch = getattr(node.graph.owning_module, str(node.target))
            return self._branch(branch)
        return self.sizes(node.meta["val"])

    def _branch(self, module: fx.GraphModule) -> Table:
        """A branch of a higher-order op, such as `torch.cond`."""
        inputs: list[str] = []
        rows: list[Row] = []
        outputs: tuple[str, ...] = ()
        known = self.traced.program.key_of
        for node in module.graph.nodes:
            if node.op == "placeholder":
                inputs.append(node.name)
                known[node] = 0
            elif node.op == "call_function" and is_op(node):
                known[node] = 0
                args = tuple(self._argument(argument) for argument in node.args)
                kwargs = {name: self._argument(argument) for name, argument in node.kwargs.items()}
                rows.append(Row(node.name, target_name(node), "", args, kwargs))
            elif node.op == "output":
                if isinstance(node.args[0], fx.Node):
                    raise LaunchError("Of torch's control flow only torch.cond can be run in stages; use that.")
                outputs = tuple(item.name for item in node.args[0])
        return Table(tuple(inputs), tuple(rows), outputs)

    def _spec(self, value: int) -> ValueSpec:
        tensor = self.nodes[value].meta["val"]
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = tuple(self.sizes(size) for size in tensor.shape)
        strides = tuple(self.sizes(stride) for stride in tensor.stride())
        return ValueSpec(self.nodes[value].name, dtype, shape, strides)


def _check_operators(program: Program) -> None:
    for node in program.ops:
        name = target_name(node)
        if name.partition(".")[0] not in _KNOWN_NAMESPACES:
            raise LaunchError(
                f"Operator {name!r} was registered in this process; the processes of a pipeline know only torch's "
                "own. Write it with torch functions (then it is traced through), and trace the model again."
            )


def _check_coverage(traced: Trace, tables: Iterable[StageTable]) -> None:
    """Every op lies in one stage, in order, and every weight in each stage that reads it."""
    names = [row.name for stage in tables for row in stage.table.rows]
    assert names == [op.name for op in traced.graph.ops], "the stages do not cover the model's ops in order"
    for stage in tables:
        known = {*stage.table.weights, *(stage.table.aliases or {}), *stage.table.inputs}
        for row in stage.table.rows:
            missing = set(_references((row.args, dict(row.kwargs)))) - known
            assert not missing, f"stage {stage.index} does not hold {missing}, which {row.name} reads"
            known.add(row.name)


def _references(argument: Any) -> Iterable[str]:
    if isinstance(argument, Ref):
        yield argument.name
    elif isinstance(argument, list | tuple):
        for item in argument:
            yield from _references(item)
    elif isinstance(argument, Mapping):
        for item in argument.values():
            yield from _references(item)
