"""An exported encoder in 8 bits: weights and activations as whole numbers, scaled by what real pictures show.

NNCF inserts the rounding where the processor multiplies 8-bit numbers, takes each activation's range from
calibration pictures, and corrects the shift of the mean that rounding causes (Nagel et al. 2019, "Data-Free
Quantization Through Weight Equalization and Bias Correction", section 4.2). The decoder stays in float32.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from showtell.errors import ConfigError, ImageError, MissingExtraError
from showtell.files import write_atomically
from showtell.images import ImageSource, Preprocessing, read_ahead

CALIBRATION_IMAGES = 300  # more change the ranges little and cost a second each


def quantize_encoder(
    graph: Path,
    images: Sequence[ImageSource],
    preprocessing: Preprocessing,
    *,
    limit: int = CALIBRATION_IMAGES,
) -> None:
    """Replaces an exported encoder by its 8-bit form.

    Args:
        graph: encoder.onnx.
        images: of the kind that will be captioned; at most `limit` of them, spread evenly, are looked at.
        preprocessing: of the encoder.
        limit: of calibration pictures.

    Raises:
        ConfigError: fewer than ten of the images can be read.
        MissingExtraError: NNCF is not installed.
    """
    try:
        import onnx

        with _quiet():
            import nncf
    except ImportError as error:
        raise MissingExtraError(error.name or "nncf", "export", "Quantising to 8 bits") from None
    chosen = [images[place] for place in np.linspace(0, len(images) - 1, min(limit, len(images))).astype(int)]
    pixels = [
        result[None]
        for result in read_ahead(chosen, preprocessing.read)
        if not isinstance(result, ImageError)
    ]
    if len(pixels) < 10:
        raise ConfigError(
            f"{len(pixels)} of {len(chosen)} calibration images can be read; quantising needs at least 10, better "
            f"{CALIBRATION_IMAGES}, of the kind that will be captioned."
        )
    with _quiet():
        model = nncf.quantize(
            onnx.load(graph),
            nncf.Dataset(pixels, lambda picture: {"pixels": picture}),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(pixels),
        )
    write_atomically(graph, model.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws progress bars and warns of frameworks that are not its own matter here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
