"""What a measurement was made on: processor, cores, threads, load."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


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
            flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in lines.get("flags", "").split()
        ]
    return {
        "processor": model,
        "flags": flags,
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "python": platform.python_version(),
        "system": platform.system(),
        "load": round(os.getloadavg()[0], 1),
    }
