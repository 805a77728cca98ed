"""On what a measurement was made: machine, system, versions."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import pipelab
from pipelab.launch.devices import LINKS, Devices, num_cores


def environment(devices: Devices) -> dict[str, Any]:
    """What a measurement depends on, JSON-ready."""
    return {
        "device": devices.kind,
        "device_text": devices.text,
        "gpu": torch.cuda.get_device_name(devices.names[0]) if devices.kind == "cuda" else None,
        "processor": processor(),
        "cores": num_cores(),
        "memory_bytes": memory_bytes(),
        "threads_per_rank": devices.num_threads,
        "links": [LINKS[kind] for kind in devices.links],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pipelab": pipelab.__version__,
        "platform": sys.platform,
        "machine": platform.machine(),
    }


def processor() -> str:
    """The processor's name, as its maker tells it where the system passes that on."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = names[0] if names else ""
    elif sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    else:
        name = platform.processor()
    return " ".join(name.replace("(R)", "").replace("(TM)", "").split()) or platform.machine()


def memory_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
