"""Buffers that no checkpoint holds, such as rotary frequencies: computed again, as the model's class computes them."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import LaunchError


def recomputed(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """These buffers of a transformers model on the meta device, on the CPU.

    Raises:
        LaunchError: The class does not compute one; names it.
    """
    return {name: _buffer(model, name) for name in names}


def _buffer(model: Any, name: str) -> Tensor:
    path, _, own_name = name.rpartition(".")
    module = model.get_submodule(path)
    # Whatever nobody sets keeps what it was filled with.
    first, second = (_initialised(model, module, own_name, filling) for filling in (0, 1))
    if not torch.equal(first, second):
        raise LaunchError(
            f"Buffer {name!r} of {type(model).__name__} is in no file of the checkpoint, and the class does not "
            "compute it. Load the model with from_pretrained, and pass it to pipelab.trace."
        )
    return first


def _initialised(model: Any, module: nn.Module, name: str, filling: int) -> Tensor:
    """The buffer, after the class has set up a copy of its module that has no other memory."""
    own = copy.copy(module)
    own._parameters = {key: _known(parameter) for key, parameter in module._parameters.items()}
    own._buffers = {key: _filled(buffer, filling) for key, buffer in module._buffers.items()}
    with torch.no_grad():
        model._init_weights(own)
    found = own._buffers[name]
    assert found is not None, "it was asked for because it is there"
    return found


def _known(parameter: nn.Parameter | None) -> nn.Parameter | None:
    """A parameter that transformers leaves as it is, on the meta device."""
    if parameter is None:
        return None
    known = nn.Parameter(parameter.detach(), requires_grad=False)
    known._is_hf_initialized = True  # type: ignore[attr-defined]  # transformers'
    return known


def _filled(buffer: Tensor | None, filling: int) -> Tensor | None:
    return None if buffer is None else torch.full(buffer.shape, filling, dtype=buffer.dtype)
