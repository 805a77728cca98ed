"""Devices by their data sheet, and what is asked of hardware that cannot be had."""

from dataclasses import replace

import numpy as np
import pytest
from graphs import gpt2_graph, mlp_graph

from pipelab.errors import InputError
from pipelab.hardware import Hardware, Measurement, describe, devices_of, has_costs, measurement_of, remember
from pipelab.presets import PRESETS

DEVICE = Hardware(
    "test", 1e9, {"float32": 1e12}, 1e11, link_bytes_per_s=1e9, link_latency_s=1e-3, op_s=1e-6,
    flops_efficiency=0.5, memory_efficiency=0.5,
)  # fmt: skip


def measurement(graph, rows=(1, 2, 8), per_row_s=1e-3, fixed_s=1e-3):
    alone = np.array([[fixed_s + per_row_s * count] * len(graph.ops) for count in rows])
    return Measurement(
        name="a machine", num_ops=len(graph.ops), rows=rows, alone_s=alone, loaded_s=2 * alone, parallel=2,
        microbatch_s=0.0, memory_bytes=1e9, link_bytes_per_s=1e9, link_latency_s=1e-4, num_slots=2, overlap=False,
        reserve_bytes=0, device="cpu", num_threads=1,
    )  # fmt: skip


def test_a_measurement_shows_itself_in_a_line() -> None:
    text = repr(measurement(mlp_graph(2)))
    assert text.startswith("Measurement(a machine, measured with 1 thread per rank: 2 ops, each for 1, 2, 8 rows; ")
    assert text.endswith("links carry 1.00 GB per second)")


def test_an_op_takes_the_longer_of_computing_and_moving() -> None:
    graph = mlp_graph(2, width=16, batch=8)  # an op: 256 flops by hand, 8 x 16 floats in and out, 16 x 17 weights
    moved = 4 * (8 * 16 + 8 * 16 + 16 * 17)
    flops = graph.ops[0].flops
    expected = max(flops / 0.5e12, moved / 0.5e11) + 1e-6
    np.testing.assert_allclose(DEVICE.op_times_s(graph, 8), [expected, expected])


def test_half_the_rows_take_more_than_half_the_time() -> None:
    graph = gpt2_graph()
    whole, half = (DEVICE.op_times_s(graph, rows).sum() for rows in (graph.batch_size, graph.batch_size // 2))
    assert whole / 2 < half < whole


def test_a_view_takes_no_time() -> None:
    import torch

    import pipelab

    traced = pipelab.trace(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)).eval(), torch.ones(2, 3, 4))
    times = DEVICE.op_times_s(traced.graph, 2)
    assert times[0] == 0
    assert times[1] > 0


def test_a_transfer_takes_latency_and_bandwidth() -> None:
    assert DEVICE.transfer_s(1e9) == pytest.approx(1.001)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_its_source_and_has_plausible_rates(name: str) -> None:
    device = PRESETS[name]
    assert device.name == name
    assert device.source
    assert device.flops_per_s["bfloat16"] >= device.flops_per_s["float32"] / 2
    assert device.link_bytes_per_s < device.memory_bytes_per_s
    assert f"{device.memory_bytes / 1e9:.0f}gb" in name


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 12])
def test_measured_times_are_interpolated_between_rows_never_divided(rows: int) -> None:
    graph = mlp_graph(3)
    np.testing.assert_allclose(measurement(graph).op_times_s(graph, rows), [1e-3 + 1e-3 * rows] * 3)


def test_one_measured_size_cannot_tell_of_another() -> None:
    graph = mlp_graph(3)
    with pytest.raises(InputError, match="more than half the time"):
        measurement(graph, rows=(8,)).op_times_s(graph, 4)


def test_a_measurement_is_of_one_model() -> None:
    with pytest.raises(InputError, match="3 ops; MLP has 4"):
        measurement(mlp_graph(3)).op_times_s(mlp_graph(4), 8)


def test_hardware_is_a_name_a_device_or_one_per_stage() -> None:
    graph = mlp_graph(4)
    assert devices_of("t4-16gb", graph, 2) == (PRESETS["t4-16gb"],) * 2
    assert devices_of([DEVICE, "t4-16gb"], graph, 2) == (DEVICE, PRESETS["t4-16gb"])
    assert describe(devices_of([DEVICE, DEVICE], graph, 2)) == "test, by its data sheet"


def test_without_a_name_it_is_this_machine_where_that_was_measured() -> None:
    graph = mlp_graph(4)
    assert not has_costs(graph)
    assert devices_of(None, graph, 1)[0].name == "h100-80gb"
    measured = measurement(graph)
    remember(graph, measured)
    assert measurement_of(graph) is measured
    assert devices_of(None, graph, 2) == (measured, measured)


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        ("h100", "h100-80gb"),
        (3, "pipelab.Hardware"),
        (["t4-16gb"], "1 device for 2 stages"),
    ],
)
def test_unknown_hardware_is_refused_with_what_there_is(hardware: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        devices_of(hardware, mlp_graph(4), 2)


def test_a_device_without_memory_or_rates_is_refused() -> None:
    with pytest.raises(InputError, match=r"memory_bytes of 'broken' must be a number, 1 to 1e\+18; it is 0"):
        Hardware("broken", 0, {"float32": 1e12}, 1e11, 1e9, 1e-3)
    with pytest.raises(InputError, match="float32"):
        Hardware("broken", 1e9, {"bfloat16": 1e12}, 1e11, 1e9, 1e-3)


@pytest.mark.parametrize("field", ["link_latency_s", "op_s", "reserve_bytes"])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_what_takes_less_than_nothing_is_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field} of 'test' must be a number, 0 to "):
        replace(DEVICE, **{field: value})
