"""Weights that no checkpoint holds, such as rotary frequencies: computed again, as the model's class computes them."""

import copy
import re
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import LaunchError


def left_out(model: Any, name: str) -> bool:
    """Whether a parameter's class leaves it out of checkpoints, because it computes it."""
    return any(re.search(pattern, name) for pattern in model._keys_to_ignore_on_load_missing or ())


def recomputed(model: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    """These weights of a transformers model on the meta device, on the CPU.

    Raises:
        LaunchError: The class does not compute one; names it.
    """
    if not names:
        return {}
    # Whatever nobody sets keeps what it was filled with.
    first, second = (_initialised(model, names, filling) for filling in (0, 1))
    for name in names:
        if not torch.equal(first[name], second[name]):
            raise LaunchError(
                f"Weight {name!r} of {type(model).__name__} is in no file of the checkpoint, and the class does not "
                "compute it. Load the model with from_pretrained, and pass it to pipelab.trace."
            )
    return first


def _initialised(model: nn.Module, names: Collection[str], filling: int) -> dict[str, Tensor]:
    """The weights, after the class has set up a copy of the model that has no other memory.

    All of it, as transformers does it: a part may have a class of its own, or be set up by what it is part of.
    """
    own: Any = copy.deepcopy(model)
    for module in own.modules():
        module.__dict__.pop("_is_hf_initialized", None)
    for tensor in (*own.parameters(), *own.buffers()):
        tensor._is_hf_initialized = True  # transformers leaves it as it is
    held = {name: _holder(own, name) for name in names}
    for own_name, tensors in held.values():
        known = tensors[own_name]
        fresh = torch.full(known.shape, filling, dtype=known.dtype, device="cpu")
        tensors[own_name] = nn.Parameter(fresh, requires_grad=False) if isinstance(known, nn.Parameter) else fresh
    own.initialize_weights()
    return {name: tensors[own_name].detach() for name, (own_name, tensors) in held.items()}


def _holder(model: nn.Module, name: str) -> tuple[str, dict[str, Any]]:
    """A weight's name in its module, and the dict there that holds it."""
    path, _, own_name = name.rpartition(".")
    module = model.get_submodule(path)
    return own_name, module._parameters if own_name in module._parameters else module._buffers
