"""A torchvision built for another torch refuses to be imported; timm and transformers then refuse, too.

The same repair as in `showtell.encoders.zoo`, written again so that rivals carry nothing of Showtell in their memory:
the operators that torchvision's import asks for, and nobody here uses, are declared.
"""

from __future__ import annotations

import importlib

import torch

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> None:
    """Imports torchvision, whether or not it fits."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for operator in OPERATORS:
            torch.library.define(f"torchvision::{operator}", SCHEMA)
        importlib.import_module("torchvision")
