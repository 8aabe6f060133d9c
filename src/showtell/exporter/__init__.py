"""From a trained captioner to graphs that run without torch. Needs torch, as training does."""

from __future__ import annotations

from showtell.exporter.export import export_model

__all__ = ["export_model"]
