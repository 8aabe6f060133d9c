"""Exported captioners on OpenVINO or ONNX Runtime. Nothing here imports torch."""

from __future__ import annotations

from showtell.runtime.backend import PortableBackend, open_portable
from showtell.runtime.engine import ENGINES, EngineOptions

__all__ = ["ENGINES", "EngineOptions", "PortableBackend", "open_portable"]
