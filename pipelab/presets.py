"""Devices by name, from their makers' data sheets. Links are one way; their latency is what NCCL needs at least."""

from pipelab.hardware import Hardware

_NVLINK_S = 10e-6
_PCIE_S = 20e-6
_T, _G = 1e12, 1e9


def _table(*devices: Hardware) -> dict[str, Hardware]:
    return {device.name: device for device in devices}


# Dense rates, without sparsity. NVLink's total is halved: the data sheets add both directions.
PRESETS = _table(
    Hardware(
        "b200-180gb", 180 * _G, {"bfloat16": 2250 * _T, "float16": 2250 * _T, "float32": 75 * _T}, 8 * _T,
        900 * _G, _NVLINK_S, source="NVIDIA DGX B200 data sheet, per GPU; NVLink 5",
    ),
    Hardware(
        "h200-141gb", 141 * _G, {"bfloat16": 989 * _T, "float16": 989 * _T, "float32": 67 * _T}, 4.8 * _T,
        450 * _G, _NVLINK_S, source="NVIDIA H200 data sheet, SXM; NVLink 4",
    ),
    Hardware(
        "h100-80gb", 80 * _G, {"bfloat16": 989 * _T, "float16": 989 * _T, "float32": 67 * _T}, 3.35 * _T,
        450 * _G, _NVLINK_S, source="NVIDIA H100 data sheet, SXM; NVLink 4",
    ),
    Hardware(
        "a100-80gb", 80 * _G, {"bfloat16": 312 * _T, "float16": 312 * _T, "float32": 19.5 * _T}, 2.039 * _T,
        300 * _G, _NVLINK_S, source="NVIDIA A100 data sheet, 80 GB SXM; NVLink 3",
    ),
    Hardware(
        "a100-40gb", 40 * _G, {"bfloat16": 312 * _T, "float16": 312 * _T, "float32": 19.5 * _T}, 1.555 * _T,
        300 * _G, _NVLINK_S, source="NVIDIA A100 data sheet, 40 GB SXM; NVLink 3",
    ),
    Hardware(
        "v100-32gb", 32 * _G, {"float16": 125 * _T, "bfloat16": 15.7 * _T, "float32": 15.7 * _T}, 0.9 * _T,
        150 * _G, _NVLINK_S, source="NVIDIA V100 data sheet, SXM2; NVLink 2; no bfloat16 tensor cores",
    ),
    Hardware(
        "l40s-48gb", 48 * _G, {"bfloat16": 362 * _T, "float16": 362 * _T, "float32": 91.6 * _T}, 0.864 * _T,
        32 * _G, _PCIE_S, source="NVIDIA L40S data sheet; PCIe 4.0 x16",
    ),
    Hardware(
        "l4-24gb", 24 * _G, {"bfloat16": 121 * _T, "float16": 121 * _T, "float32": 30.3 * _T}, 0.3 * _T,
        32 * _G, _PCIE_S, source="NVIDIA L4 data sheet; PCIe 4.0 x16",
    ),
    Hardware(
        "t4-16gb", 16 * _G, {"float16": 65 * _T, "bfloat16": 8.1 * _T, "float32": 8.1 * _T}, 0.32 * _T,
        16 * _G, _PCIE_S, source="NVIDIA T4 data sheet; PCIe 3.0 x16; no bfloat16 tensor cores",
    ),
    Hardware(
        "rtx4090-24gb", 24 * _G, {"bfloat16": 165 * _T, "float16": 165 * _T, "float32": 82.6 * _T}, 1.008 * _T,
        32 * _G, _PCIE_S, source="NVIDIA Ada architecture white paper, float32 accumulation; PCIe 4.0 x16",
    ),
    Hardware(
        "rtx3090-24gb", 24 * _G, {"bfloat16": 71 * _T, "float16": 71 * _T, "float32": 35.6 * _T}, 0.936 * _T,
        32 * _G, _PCIE_S, source="NVIDIA GA102 architecture white paper, float32 accumulation; PCIe 4.0 x16",
    ),
    Hardware(
        "mi300x-192gb", 192 * _G, {"bfloat16": 1307 * _T, "float16": 1307 * _T, "float32": 163.4 * _T}, 5.3 * _T,
        64 * _G, _NVLINK_S, source="AMD Instinct MI300X data sheet; one Infinity Fabric link",
    ),
)  # fmt: skip
