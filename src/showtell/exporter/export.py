"""`export_model`: a bundle in, an exported captioner out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from showtell.bundle import find_bundle, load_bundle
from showtell.errors import BundleError
from showtell.exporter.graphs import write_decoder, write_encoder
from showtell.exporter.quantize import quantize_encoder
from showtell.images import ImageSource
from showtell.portable import ENCODER, START, STEP, PortableModel, is_portable, save_manifest
from showtell.training.model import open_backend


def export_model(
    model: str | Path, output: str | Path, *, calibrate: Sequence[ImageSource] = ()
) -> PortableModel:
    """Exports a bundle, or the best bundle of a run, to a folder that runs without torch.

    The folder appears whole or not at all.

    Args:
        model: a bundle folder or a run folder.
        output: a folder that does not exist yet, or is empty.
        calibrate: pictures of the kind that will be captioned, a few hundred: the encoder is then quantised to
            8 bits. Without them it stays in float32.

    Returns:
        The record of the exported captioner.

    Raises:
        BundleError: no such model, its parts do not fit together, or `output` holds something.
        EncoderError: the backbone cannot be found, or torch cannot export it.
        ConfigError: too few calibration pictures can be read.
        MissingExtraError: onnx, onnxscript or nncf is not installed.
    """
    model, output = Path(model), Path(output)
    if is_portable(model):
        raise BundleError(f"{model}: is exported already. Give the bundle or the run that it was made from.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BundleError(f"{output}: not an empty folder. Choose a new folder for the export.")
    folder = find_bundle(model)
    bundle = load_bundle(folder)
    backend = open_backend(bundle, folder)
    encoder = backend.encoder
    if encoder is None:
        raise BundleError(f"{folder}: has no encoder to export.")
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    unfinished.chmod(0o755)  # mkdtemp's folders are hidden from everybody else
    try:
        dynamic = write_encoder(encoder, unfinished / ENCODER)
        if calibrate:
            quantize_encoder(unfinished / ENCODER, calibrate, bundle.preprocessing)
        memory, state = write_decoder(
            backend.decoder, encoder.shape, len(bundle.vocabulary), unfinished, (START, STEP)
        )
        bundle.vocabulary.save(unfinished / "vocabulary.json")
        portable = PortableModel(
            recipe=bundle.recipe,
            vocabulary=bundle.vocabulary,
            preprocessing=bundle.preprocessing,
            grid=backend.grid,
            feature_shape=encoder.shape,
            memory=memory,
            state=state,
            attends=backend.decoder.attends,
            dynamic_size=dynamic,
            weights="int8" if calibrate else "float32",
            bundle_digest=bundle.digest,
            split_fingerprint=bundle.split_fingerprint,
            scores=bundle.scores,
            folder=output,
        )
        digest = save_manifest(portable, unfinished)
        unfinished.replace(output)  # over an empty folder this is allowed
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return replace(portable, digest=digest)
