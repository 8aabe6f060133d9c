"""What a measurement was made on: processor, cores, threads, load; and how much memory a process has used."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("showtell", "torch", "timm", "openvino", "onnxruntime", "transformers", "pillow", "numpy")


def describe_machine() -> dict[str, Any]:
    """Returns JSON-serialisable facts about this machine; the load tells whether it was idle."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    flags: list[str] = []
    if information.is_file():
        entries = (line.partition(":") for line in information.read_text().splitlines())
        lines = {key.strip(): value.strip() for key, _, value in entries}
        model = lines.get("model name", model)
        flags = [
            flag
            for flag in ("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
            if flag in lines.get("flags", "").split()
        ]
    return {
        "processor": model,
        "flags": flags,
        "cores": count_cores(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "python": platform.python_version(),
        "system": platform.system(),
        "load": round(os.getloadavg()[0], 1),
    }


def describe_versions() -> dict[str, str]:
    """Returns the versions of the packages that take part, those that are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def count_cores() -> int:
    """Returns how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_matrix_units() -> bool:
    """Returns whether the processor multiplies bf16 matrices in hardware of their own (AMX)."""
    return "amx_bf16" in describe_machine()["flags"]


def peak_memory() -> float:
    """Returns the largest resident size of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: there a new process starts with the peak of the one that started it.
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return round(int(fields["VmHWM"].split()[0]) / 1024, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)
