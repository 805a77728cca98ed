"""Operators by name: how a table writes them, and how a rank finds them again."""

import operator as python_operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from pipelab.errors import LaunchError

# Operators that a stage runs as another one that computes the same.
_RUN_AS = {
    # Without gradients nothing is left of it but the alias, and it refuses views.
    "aten.detach_.default": "aten.detach.default",
    # What transformers' experts call only while they are traced; untraced they call the other, as ranks
    # can, who know no operator of transformers.
    "transformers.grouped_mm_fallback.default": "aten._grouped_mm.default",
}


def _histc(values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`histc` of integers, as a model on an accelerator calls it, on the CPU, which counts none but floats."""
    counted = values if values.device.type != "cpu" or values.is_floating_point() else values.float()
    return torch.histc(counted, *args, **kwargs).to(values.dtype)


def target_name(node: fx.Node) -> str:
    """The operator of a node: "aten.add.Tensor", "_operator.getitem", "higher_order.cond"."""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        return _RUN_AS.get(str(target), str(target))
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order.{target.__name__}"
    return f"{target.__module__}.{target.__name__}"


def operator(target: str) -> Callable[..., Any]:
    """The operator of a name.

    Raises:
        LaunchError: This process has no such operator (it was registered in another one).
    """
    if target == "aten.histc.default":
        return _histc
    namespace, *rest = target.split(".")
    found: Any = python_operator if namespace == "_operator" else getattr(torch.ops, namespace)
    try:
        for name in rest:
            found = getattr(found, name)
    except AttributeError as error:
        raise LaunchError(f"This process has no operator {target!r}.") from error
    return found  # type: ignore[no-any-return]  # found by name
