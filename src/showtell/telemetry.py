"""Libraries that would report their use to a web service do not.

OpenVINO and NNCF report that they were imported, unless the package for it is missing. ONNX Runtime, from 1.29 on,
keeps an identifier of the machine in the user's home folder and reports processes and models, unless a variable
forbids it. Ray reports clusters, their size and the libraries that they use, unless a variable forbids it.
"""

from __future__ import annotations

import os
import sys

_VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "ORT_TELEMETRY_DISABLED": "1",  # for a while between two releases
    "RAY_USAGE_STATS_ENABLED": "0",
}


def refuse_telemetry() -> None:
    """Keeps them from it in this process. Called before any of them is imported; later is too late.

    Captioning works offline and tells nobody.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what `import` takes for missing
    for variable, value in _VARIABLES.items():
        os.environ.setdefault(variable, value)
