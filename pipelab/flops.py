"""Floating-point operations of each op, by torch's own counter on tensors without memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from pipelab.operators import operator, target_name
from pipelab.sizes import Sizes

# Only these cost anything in torch's counter; the others are not worth running.
_COUNTED = (
    "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "bilinear", "conv", "scaled_dot_product",
    "tensordot", "inner", "grouped_mm", "multi_head_attention",
)  # fmt: skip


class FlopCounter:
    """Counts an op once per distinct shapes: 63 times for the 544 ops of GPT-2.

    Args:
        sizes: The batch the figures are for.
    """

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._known: dict[Any, int] = {}

    def __call__(self, node: fx.Node) -> int:
        """FLOPs of a node, 2 for a multiply-add (`torch.utils.flop_counter`)."""
        name = target_name(node)
        if not name.startswith("aten.") or not name.removeprefix("aten.").lstrip("_").startswith(_COUNTED):
            return 0
        key = (name, _key(node.args, self._sizes), _key(node.kwargs, self._sizes))
        if key not in self._known:
            args: Any = fx.node.map_aggregate(node.args, self._meta)
            kwargs: Any = fx.node.map_aggregate(node.kwargs, self._meta)
            self._known[key] = _grouped(*args[:2]) if "grouped_mm" in name else _counted(operator(name), args, kwargs)
        return self._known[key]

    def _meta(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            value = argument.meta["val"]
            if isinstance(value, list | tuple):
                return [self._empty(item) for item in value]
            return self._empty(value)
        return "meta" if isinstance(argument, torch.device) else argument

    def _empty(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return self._sizes(value)
        shape = [self._sizes(size) for size in value.shape]
        strides = [self._sizes(stride) for stride in value.stride()]
        return torch.empty_strided(shape, strides, dtype=value.dtype, device="meta")


def _counted(operator: Callable[..., Any], args: Any, kwargs: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        operator(*args, **kwargs)
    return int(counter.get_total_flops())


def _grouped(rows: Tensor, experts: Tensor) -> int:
    """Each row meets one expert; torch's counter has no formula, and its shape check wants bfloat16."""
    return 2 * rows.shape[0] * experts.shape[-2] * experts.shape[-1]


def _key(argument: Any, sizes: Sizes) -> Any:
    """A hashable key of an argument: tensors by shape and dtype."""
    if isinstance(argument, fx.Node):
        return _key(argument.meta["val"], sizes)
    if isinstance(argument, Tensor):
        return (tuple(sizes(s) for s in argument.shape), tuple(sizes(s) for s in argument.stride()), argument.dtype)
    if isinstance(argument, list | tuple):
        return tuple(_key(item, sizes) for item in argument)
    if isinstance(argument, dict):
        return tuple((name, _key(item, sizes)) for name, item in argument.items())
    return sizes(argument)
