"""Weights in fewer bits, to give away. They are computed with in float32 again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from showtell.bundle import Bundle, Weights
from showtell.errors import BundleError

_SCALE = "|scale"  # behind the name of a matrix in 8 bits: what each of its rows is multiplied by; no module has a "|"


def compress(bundle: Bundle, bits: int) -> Bundle:
    """Returns the bundle with its decoder's weights in 16 or 8 bits; what is smaller already stays.

    16: float16. 8: each row of a matrix in whole numbers from -127 to 127 and a scale of its own (symmetric, per
    channel: Jacob et al. 2018, sections 2.1 and 3), everything else in float16. An encoder in the bundle: see
    `showtell.training.packed_encoder`.

    Args:
        bundle: any.
        bits: 16 or 8.

    Raises:
        BundleError: a weight is too large for float16.
    """
    packed: dict[str, npt.NDArray[np.generic]] = {}
    for name, weights in bundle.decoder_weights.items():
        if weights.dtype.kind != "f" or name.endswith(_SCALE):  # counters, and what has few bits already
            packed[name] = weights
        elif bits == 8 and weights.ndim == 2:
            wide = weights.astype(np.float32)
            scale = np.maximum(np.abs(wide).max(axis=1, keepdims=True, initial=0) / 127, np.float32(1e-12))
            packed[name] = np.rint(wide / scale).astype(np.int8)
            packed[name + _SCALE] = scale
        else:
            packed[name] = halve(name, weights, ", or with --bits 8" if weights.ndim == 2 else "")
    return replace(bundle, decoder_weights=packed, confidence=None)  # which was fitted to the weights before


def halve(name: str, weights: npt.NDArray[Any], otherwise: str = "") -> npt.NDArray[np.float16]:
    """Returns weights in float16.

    Raises:
        BundleError: one is too large; the message names the weights, and what to do `otherwise`.
    """
    largest = float(np.abs(weights).max(initial=0))
    if largest > float(np.finfo(np.float16).max):
        raise BundleError(
            f"{name} has weights up to {largest:.3g}, which float16 cannot hold. Pack the bundle without "
            f"--bits{otherwise}."
        )
    return weights.astype(np.float16)


def expand(weights: Weights) -> Weights:
    """Returns weights as they are computed with: those in 8 bits as float32, all others as they are."""
    return {
        name: array * weights[name + _SCALE] if name + _SCALE in weights else array
        for name, array in weights.items()
        if not name.endswith(_SCALE)
    }


def count_bits(weights: Weights) -> int:
    """Returns how many bits most of the numbers have."""
    return 8 * max(weights.values(), key=lambda array: array.size).itemsize
