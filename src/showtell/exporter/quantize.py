"""An exported captioner in 8 bits.

The encoder computes with whole numbers, scaled by what real pictures show: NNCF inserts the rounding where the
processor multiplies 8-bit numbers, takes each activation's range from calibration pictures, and corrects the shift of
the mean that rounding causes (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction", section 4.2).

Of the decoder only the weights are stored in 8 bits, each row of a matrix with its own scale: one word of one caption
reads every weight once and does little with it, so reading is what takes the time.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from showtell.errors import ConfigError, ImageError
from showtell.files import write_atomically
from showtell.images import ImageSource, Preprocessing, read_ahead
from showtell.telemetry import refuse_telemetry

CALIBRATION_IMAGES = 300  # more change the ranges little and cost a second each


def read_calibration(
    images: Sequence[ImageSource],
    preprocessing: Preprocessing,
    on_bad_image: Callable[[ImageError], object] | None = None,
    *,
    limit: int = CALIBRATION_IMAGES,
) -> list[npt.NDArray[np.uint8]]:
    """Reads pictures to calibrate with.

    Args:
        images: of the kind that will be captioned; at most `limit` of them, spread evenly, are looked at.
        preprocessing: of the encoder.
        on_bad_image: called for each that cannot be read.
        limit: of pictures.

    Returns:
        Pictures, each uint8 (1, height, width, 3).

    Raises:
        ConfigError: fewer than ten can be read.
    """
    chosen = [images[place] for place in np.linspace(0, len(images) - 1, min(limit, len(images))).astype(int)]
    pictures = []
    for result in read_ahead(chosen, preprocessing.read):
        if not isinstance(result, ImageError):
            pictures.append(result[None])
        elif on_bad_image is not None:
            on_bad_image(result)
    if len(pictures) < 10:
        raise ConfigError(
            f"{len(pictures)} of {len(chosen)} calibration images can be read; quantising needs at least 10, better "
            f"{CALIBRATION_IMAGES}, of the kind that will be captioned."
        )
    return pictures


def quantize_encoder(graph: Path, pictures: Sequence[npt.NDArray[np.uint8]]) -> None:
    """Replaces an exported encoder by its 8-bit form.

    Args:
        graph: encoder.onnx.
        pictures: to calibrate with, from `read_calibration`.
    """
    with _quiet():
        refuse_telemetry()
        import nncf  # it logs and warns while it is imported

        model = nncf.quantize(
            onnx.load(graph),
            nncf.Dataset(pictures, lambda picture: {"pixels": picture}),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(pictures),
        )
    write_atomically(graph, model.SerializeToString())


def compress_weights(graph: Path) -> None:
    """Replaces a graph by one whose matrices are stored in 8 bits; states and products stay floating-point."""
    with _quiet():
        refuse_telemetry()
        import nncf

        model = nncf.compress_weights(onnx.load(graph), mode=nncf.CompressWeightsMode.INT8_SYM)
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
