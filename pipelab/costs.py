"""Floating-point operations of each op, by torch's own counter on tensors without memory."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

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
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or not _is_counted(target):
            return 0
        key = (target, _key(node.args, self._sizes), _key(node.kwargs, self._sizes))
        if key not in self._known:
            args, kwargs = (fx.node.map_aggregate(a, self._meta) for a in (node.args, node.kwargs))
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                target(*args, **kwargs)  # type: ignore[misc]
            self._known[key] = counter.get_total_flops()
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


def _is_counted(target: Any) -> bool:
    name = target.overloadpacket.__name__.lstrip("_")
    return target.namespace == "aten" and name.startswith(_COUNTED)


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
