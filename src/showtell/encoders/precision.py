"""Which number format a processor computes convolutions in fastest."""

from __future__ import annotations

import torch


def default_precision(device: torch.device | str = "cpu") -> str:
    """Returns "bf16" or "float32": the faster one for a frozen convolutional network.

    On a CPU that is bf16 only with matrix units (AMX). AVX512-BF16 alone multiplies bf16 faster, but
    depthwise convolutions and batch norms lose more than that (docs/experiments.md).
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "float32"
    has_matrix_units = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return "bf16" if kind == "cpu" and has_matrix_units is not None and has_matrix_units() else "float32"


def resolve_precision(precision: str, device: torch.device | str = "cpu") -> str:
    """Returns "bf16" or "float32" for a configuration's "auto", "bf16" or "float32"."""
    return default_precision(device) if precision == "auto" else precision
