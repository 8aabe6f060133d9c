"""OpenVINO and NNCF report to a web service that they were imported, unless the package for it is missing."""

from __future__ import annotations

import sys


def refuse_telemetry() -> None:
    """Makes that package missing for this process, before OpenVINO or NNCF is imported.

    Captioning works offline and tells nobody. Without the package both fall back on reporting nothing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what `import` takes for missing
