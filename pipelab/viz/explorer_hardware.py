"""The names by which the explorer's browser half chooses hardware."""

from collections.abc import Mapping
from typing import Any

from pipelab.graph import Graph
from pipelab.hardware import Device, Hardware, HardwareLike, Measurement, measurement_of
from pipelab.presets import PRESETS

THIS_MACHINE = "this machine"


def hardware_name(device: Device | None) -> str:
    """What a device is called in the list; empty for none."""
    if device is None:
        return ""
    if isinstance(device, Measurement):
        return THIS_MACHINE
    return device.name if PRESETS.get(device.name, device) == device else f"{device.name} (yours)"


def hardware_choices(graph: Graph, own: Mapping[str, Device]) -> list[dict[str, Any]]:
    """The list: none, this machine, the presets, and what was set from code.

    Args:
        graph: The model; once it is measured there is no way back to no times.
        own: Devices set from code, by name.
    """
    machine = own.get(THIS_MACHINE) or measurement_of(graph)
    choices = [] if measurement_of(graph) else [("", "sizes only, no times")]
    if machine is not None:
        choices.append((THIS_MACHINE, machine.name))
    choices += [(name, name) for name in own if name != THIS_MACHINE]
    choices += [(name, name) for name in PRESETS]
    return [{"name": name, "text": text} for name, text in choices]


def hardware_named(name: str, own: Mapping[str, Device]) -> HardwareLike:
    """What a name of the list stands for: `own`, a preset's name, or None for the measured machine or nothing."""
    device = own.get(name)
    if device is not None:
        return device
    return name if name in PRESETS else None


def remembered(own: Mapping[str, Device], device: Device | None) -> dict[str, Device]:
    """The devices set from code, with one more if it is none of the presets."""
    name = hardware_name(device)
    if device is None or (isinstance(device, Hardware) and name in PRESETS):
        return dict(own)
    return {**own, name: device}
