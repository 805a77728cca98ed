"""Runs `torch.export` on the user's model and leaves the model as it was."""

import inspect
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils import _pytree as pytree

from pipelab.arguments import shown
from pipelab.errors import InputError, PipelabError, TraceError

# torch specialises a dimension of size 1, so a batch of one row is traced as two.
SMALLEST_TRACED_BATCH = 2


@dataclass(frozen=True)
class Call:
    """A call of the model, the same however its arguments were written.

    Attributes:
        args: Positional arguments, as `inspect.BoundArguments.args` gives them.
        kwargs: The others by name.
        names: The parameters of `forward` that were given.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    names: tuple[str, ...]

    def flatten(self) -> tuple[list[Any], pytree.TreeSpec]:
        """The leaves of all arguments, and their structure."""
        return pytree.tree_flatten((self.args, dict(self.kwargs)))


def bind_call(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """The call by `forward`'s signature, without arguments that are None as by default.

    Raises:
        InputError: `forward` does not take these arguments.
        TraceError: It is no module of Python's own.
    """
    if not isinstance(model, nn.Module):
        found = f"the class itself: make one, {model.__name__}(...)" if isinstance(model, type) else shown(model)
        raise TraceError(f"trace takes a torch.nn.Module, then what it is called with; this is {found}.")
    try:
        signature = inspect.signature(model.forward)
    except ValueError as error:
        raise TraceError(
            f"{type(model).__name__} was compiled by TorchScript: trace the model it was made of."
        ) from error
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"{type(model).__name__}.forward does not take these arguments: {error}.") from error
    for name, parameter in signature.parameters.items():
        if name in bound.arguments and bound.arguments[name] is None and parameter.default is None:
            del bound.arguments[name]
    names = tuple(bound.arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD and name in bound.arguments:
            # In one order, however they were written: it is the order of the program's inputs.
            bound.arguments[name] = dict(sorted(bound.arguments[name].items()))
            names = (*(n for n in names if n != name), *bound.arguments[name])
    if "use_cache" in signature.parameters and "use_cache" not in bound.arguments:
        # A cache would become a second output of the traced program.
        bound.arguments["use_cache"] = False
        order = list(signature.parameters)
        bound.arguments = dict(sorted(bound.arguments.items(), key=lambda item: order.index(item[0])))
    return Call(bound.args, bound.kwargs, names)


def batch_size_of(leaves: Sequence[Any]) -> int:
    """Dimension 0 of the first tensor that has one.

    Raises:
        TraceError: No argument is such a tensor.
    """
    for leaf in leaves:
        if isinstance(leaf, Tensor) and (reason := unlike_dense(leaf)):
            raise TraceError(f"An input {reason}")
    for leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.ndim:
            if leaf.shape[0] == 0:
                raise TraceError("The batch is empty: pass at least one row.")
            return leaf.shape[0]
    if any(type(leaf).__module__ == "numpy" for leaf in leaves):
        raise TraceError("An input is an array of numpy: pass a tensor, as torch.from_numpy(array) makes it.")
    others = {type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor | int | float | str | None)}
    unknown = (
        f" (a {' and a '.join(sorted(others))} must be registered: torch.export.register_dataclass)" if others else ""
    )
    raise TraceError(
        f"No input is a tensor with a batch dimension{unknown}: pass what the model is called with, as in "
        "pipelab.trace(model, batch)."
    )


def unlike_dense(tensor: Tensor) -> str:
    """Why a tensor is not simply numbers in rows, and what to do, as the end of a sentence; empty if it is."""
    if tensor.is_nested or tensor.layout is not torch.strided:
        return f"is laid out as {tensor.layout}: pass a dense tensor, as `to_dense` makes it."
    if tensor.is_quantized:
        return "is quantised: pass what `dequantize` makes of it."
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return f"is a {type(tensor).__name__}, which holds its numbers in a way of its own: pass a plain tensor."
    return ""


def capture(
    model: nn.Module, call: Call, batch_size: int, opened: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> ExportedProgram:
    """The exported program, with dimension 0 of every batched input left open.

    Args:
        model: The user's model; untouched afterwards, also after an error.
        call: The call to trace.
        batch_size: Dimension 0 of the inputs that are batched.
        opened: Other dimensions that are left open, by the name of a keyword.

    Raises:
        TraceError: torch cannot trace the model; says why, in torch's own words.
    """
    dims_of = {id(call.kwargs[name]): dims for name, dims in opened.items()}
    shapes = ShapesCollection()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def with_open_rows(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        dims = (0, *dims_of.get(id(leaf), ()))
        leaf = leaf.detach()
        batched = leaf.ndim > 0 and leaf.shape[0] == batch_size
        if batched and batch_size < SMALLEST_TRACED_BATCH:
            leaf = leaf.expand(SMALLEST_TRACED_BATCH, *leaf.shape[1:])
        if 0 in leaf.stride():
            # An expanded value travels once; in another call what is equal in this one may differ.
            leaf = leaf.contiguous()
        if not batched:
            return leaf
        shapes[leaf] = dict.fromkeys(dims, Dim.AUTO)
        return leaf

    args, kwargs = pytree.tree_map(with_open_rows, (call.args, dict(call.kwargs)))
    with _untouched(model), _without_caches(model), torch.no_grad():
        _name_keywords(model, call)
        try:
            dynamic = shapes.dynamic_shapes(model, args, kwargs)  # type: ignore[no-untyped-call]  # the same
            return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=False)
        except Exception as error:  # whatever the model's own code, or torch, raises
            raise TraceError(_explain(model, error)) from error


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation behaviour inside; every attribute of every module as it was afterwards."""
    before = {module: dict(vars(module)) for module in model.modules()}
    held = [
        (value, dict(value))
        for attributes in before.values()
        for value in attributes.values()
        if type(value) in (dict, OrderedDict)
    ]
    if any(module.training for module in before):
        warnings.warn(
            f"{type(model).__name__} is in training mode; it is traced as in evaluation (no dropout). "
            "Its training flags are kept.",
            stacklevel=6,
        )
    # Not model.eval(): a model may override it.
    for module in before:
        module.training = False
    try:
        yield
    finally:
        # Not the flags alone: export puts copies in the place of lists and dicts.
        for module, attributes in before.items():
            vars(module).clear()
            vars(module).update(attributes)
        # Hooks lie in such dicts; transformers adds some when hidden states are first asked for.
        for holder, content in held:
            holder.clear()
            holder.update(content)


@contextmanager
def _without_caches(model: nn.Module) -> Iterator[None]:
    """Has no config ask for a cache, which would become an output: not every `forward` has a `use_cache` to say so."""
    configs = [vars(module).get("config") for module in model.modules()]
    settings = [vars(config) for config in configs if hasattr(config, "__dict__") and not isinstance(config, type)]
    asking = [found for found in settings if found.get("use_cache") is True]
    for found in asking:
        found["use_cache"] = False
    try:
        yield
    finally:
        for found in asking:
            found["use_cache"] = True


def _name_keywords(model: nn.Module, call: Call) -> None:
    """Write out a `**kwargs` of forward by the names of this call: export counts it and them (torch 2.13)."""
    signature = inspect.signature(model.forward)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    extra = [name for name in call.kwargs if name not in {p.name for p in parameters}]
    if not extra:
        return
    forward = model.forward

    def named(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in extra]
    named.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # inspect reads it
    model.forward = named  # `_untouched` takes it away again


def _explain(model: nn.Module, error: BaseException) -> str:
    """The whole chain of causes: export's outer message hides the reason."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain and not isinstance(cause, PipelabError):
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    name = type(model).__name__
    where = _user_line(error)
    if any("DataDependent" in type(item).__name__ for item in chain):
        remedy = "Use torch.where or torch.cond there, or trace the parts before and after it by themselves."
        if "site-packages" in where:
            remedy = "That is its class's own code: trace its parts by themselves, or take another class."
        if "torch.float16" in where:  # transformers looks for overflows so
            remedy = "It does so in float16 alone: load it in bfloat16 or float32."
        return (
            f"{name} cannot be traced: it decides by the values of a tensor{where}, and a trace must hold for all "
            f"values. {remedy}"
        )
    if any("device" in str(item) and "meta" in str(item) and "cpu" in str(item) for item in chain):
        return (
            f"{name} cannot be traced without weights, because its forward makes a tensor on the CPU{where}. Load the "
            "model, and pass it to pipelab.trace."
        )
    reasons = "\n  caused by ".join(
        f"{type(item).__name__}: {str(item).strip().splitlines()[0]}" for item in chain if str(item).strip()
    )
    advice = f"If {name} does not run on these inputs either, that is why: pass those it needs."
    return f"{name} cannot be traced by torch.export: {reasons}{where}\n{advice}"


def _user_line(error: BaseException) -> str:
    """The line of the model's own code that the error came from."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "/torch/" not in frame.filename and "pipelab" not in frame.filename:
            return f" ({frame.filename}:{frame.lineno}: {frame.line})"
    return ""
