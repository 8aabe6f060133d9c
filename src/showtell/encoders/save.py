"""Writes an encoder's weights as a file that says how to build and feed it (`showtell.encoders.metadata`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from showtell.files import write_atomically
from showtell.images import Preprocessing


def write_weights(
    path: Path,
    weights: Mapping[str, npt.NDArray[Any]],
    name: str,
    preprocessing: Preprocessing,
    *,
    source: str,
) -> None:
    """Writes a file for `encoder.weights`, in float16.

    Args:
        path: the file.
        weights: by timm's names.
        name: of the backbone in timm.
        preprocessing: of the encoder.
        source: where the weights come from, one line.

    Raises:
        OSError: the disk is full.
    """
    tensors = {
        key: np.array(array, dtype=np.float16 if array.dtype.kind == "f" else None, order="C")
        for key, array in weights.items()
    }
    metadata = {
        "timm": f"create_model({name!r})",
        "mean": ", ".join(f"{value:g}" for value in preprocessing.mean),
        "std": ", ".join(f"{value:g}" for value in preprocessing.std),
        "input": f"RGB {preprocessing.height}x{preprocessing.width}",
        "source": source,
    }
    write_atomically(path, _with_sorted_header(safetensors.numpy.save(tensors, metadata)))


def _with_sorted_header(data: bytes) -> bytes:
    """Returns a safetensors file with its entries in order: the library's change from run to run, and so its digest."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8 bytes, as the format asks
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
