"""Our sides: what Showtell does, through its own interfaces. Everything that opens Showtell for a benchmark is here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.photographs import draw_pixels
from benchmarks.sides import Round

if TYPE_CHECKING:
    from showtell import Captioner
    from showtell.decoding import DecodingSettings


def export(model: str, folder: str) -> Round:
    """Exports a bundle, as `showtell export` does."""

    def write() -> dict[str, Any]:
        from showtell.exporter import export_model

        export_model(Path(model), Path(folder))
        return {"units": 1}

    return write


def open_captioner(model: str, engine: str, precision: str) -> Captioner:
    """Opens a bundle with torch, or an exported folder with one of the two runtimes, on the threads of `Worker`."""
    from showtell import Captioner

    # A bundle's encoder says its own precision, so torch is not told one.
    precision = "auto" if engine == "torch" else precision
    threads = int(os.environ["OMP_NUM_THREADS"])
    return Captioner.load(Path(model), engine=engine, precision=precision, threads=threads)


def precision_of(captioner: Captioner) -> str:
    """Returns what "auto" came to on this machine."""
    backend: Any = captioner.backend
    return str(backend.encoder.precision if hasattr(backend, "encoder") else backend.precision)


def beam_settings(*, beam: int, steps: int, length_penalty: float) -> DecodingSettings:
    """Returns beam search, or greedy search for a beam of one."""
    from showtell.decoding import DecodingSettings

    return DecodingSettings(
        method="beam" if beam > 1 else "greedy", beam=beam, max_steps=steps, length_penalty=length_penalty
    )


def caption(
    model: str,
    engine: str,
    precision: str,
    photographs: list[str],
    *,
    beam: int = 0,
    steps: int = 0,
    length_penalty: float = 0.6,
    together: bool = True,
) -> Round:
    """Captions JPEG files: a folder as it comes, or each one alone (`together` false), as a service would.

    A beam of 0 is the captioner's own search.
    """
    captioner = open_captioner(model, engine, precision)
    settings = beam_settings(beam=beam, steps=steps, length_penalty=length_penalty) if beam else None

    def one_round() -> dict[str, Any]:
        if together:
            texts = [picture.text for picture in captioner.caption(photographs, settings)]
        else:
            texts = [next(captioner.caption(path, settings)).text for path in photographs]
        return {"units": len(photographs), "captions": texts, "precision": precision_of(captioner)}

    return one_round


def encode(model: str, engine: str, precision: str, *, batch: int) -> Round:
    """Computes the features of a batch of resized pictures, from bytes to floating-point numbers."""
    import numpy as np

    captioner = open_captioner(model, engine, precision)
    backend = captioner.backend
    preprocessing = backend.preprocessing
    pixels = draw_pixels(batch, preprocessing.height, preprocessing.width)

    def one_round() -> dict[str, Any]:
        features = np.asarray(backend.encode(pixels))
        rows = features.reshape(batch, -1)[:, :8].tolist()
        return {"units": batch, "features": rows, "precision": precision_of(captioner)}

    return one_round


def decode_features(
    model: str,
    engine: str,
    precision: str,
    *,
    images: int,
    at_once: int,
    beam: int,
    steps: int,
    length_penalty: float = 0.6,
) -> Round:
    """Searches for the captions of images whose features are there, so many at once."""
    import numpy as np

    from showtell.decoding import decode
    from showtell.text import SPECIAL

    captioner = open_captioner(model, engine, precision)
    backend = captioner.backend
    preprocessing = backend.preprocessing
    settings = beam_settings(beam=beam, steps=steps, length_penalty=length_penalty)
    pixels = draw_pixels(images, preprocessing.height, preprocessing.width)
    features = np.concatenate([backend.encode(pixels[start : start + 16]) for start in range(0, images, 16)])

    def one_round() -> dict[str, Any]:
        found = []
        for start in range(0, images, at_once):
            found += decode(backend.bind(features[start : start + at_once]), settings, SPECIAL)
        return {"units": images, "captions": [list(hypotheses[0].tokens) for hypotheses in found]}

    return one_round
