"""`export_model`: a bundle in, an exported captioner out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from showtell.bundle import CONSENSUS, find_bundle, load_bundle
from showtell.errors import BundleError, ImageError, require_packages
from showtell.images import ImageSource
from showtell.portable import (
    ENCODER,
    GRAPHS,
    MANIFEST,
    START,
    STEP,
    PortableModel,
    save_manifest,
)
from showtell.training.model import open_backend

_UNFINISHED = ".showtell-export-"  # how the names of folders begin that are not complete yet


def export_model(
    model: str | Path,
    output: str | Path,
    *,
    calibrate: Sequence[ImageSource] = (),
    on_bad_image: Callable[[ImageError], object] | None = None,
) -> PortableModel:
    """Exports a bundle, or the best bundle of a run, to a folder that runs without torch.

    The folder appears whole or not at all.

    Args:
        model: a bundle folder or a run folder.
        output: a folder that does not exist yet, or is empty.
        calibrate: pictures of the kind that will be captioned, a few hundred: the encoder is then quantised to
            8 bits, and the decoder's weights are stored in 8 bits. Without them both stay in float32.
        on_bad_image: called for each calibration picture that cannot be read; the others are used.

    Returns:
        The record of the exported captioner.

    Raises:
        BundleError: no such model, its parts do not fit together, or `output` holds something.
        EncoderError: the backbone cannot be found.
        ExportError: torch cannot export a network.
        ConfigError: too few calibration pictures can be read.
        MissingExtraError: a package of the extra `export` is not installed.
    """
    require_packages("export", "Exporting", "onnx", "onnxscript")
    if calibrate:
        require_packages("export", "Quantising to 8 bits", "nncf", "onnxruntime")
    # Imported here: they import onnx.
    from showtell.exporter.graphs import write_decoder, write_encoder
    from showtell.exporter.quantize import compress_weights, quantize_encoder, read_calibration

    folder, output = find_bundle(Path(model)), Path(output).resolve()
    for left_over in output.glob(_UNFINISHED + "*"):  # of an export that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BundleError(f"{output}: not an empty folder. Choose a new folder for the export.")
    bundle = load_bundle(folder)
    backend = open_backend(bundle, folder)
    encoder = backend.encoder
    if encoder is None:
        raise BundleError(f"{folder}: has no encoder to export.")
    pictures = read_calibration(calibrate, bundle.preprocessing, on_bad_image) if calibrate else []
    # An empty folder that exists may be a link or the current folder: it is filled, not replaced.
    existed = output.exists()
    around = output if existed else output.parent
    around.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=around))
    unfinished.chmod(0o755)  # mkdtemp's folders are hidden from everybody else
    try:
        dynamic = write_encoder(encoder, unfinished / ENCODER)
        if pictures:
            quantize_encoder(unfinished / ENCODER, pictures)
        memory, state = write_decoder(
            backend.decoder, encoder.shape, len(bundle.vocabulary), unfinished, (START, STEP)
        )
        if pictures:
            for graph in (START, STEP):
                compress_weights(unfinished / graph)
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
            weights="int8" if pictures else "float32",
            bundle_digest=bundle.digest,
            split_fingerprint=bundle.split_fingerprint,
            scores=bundle.scores,
            consensus=bundle.consensus,
            confidence=None if pictures else bundle.confidence,  # 8 bits change what it was fitted to
            folder=output,
        )
        digest = save_manifest(portable, unfinished)
        if existed:
            # The manifest last: without it the folder is no exported captioner.
            for file in sorted(unfinished.iterdir(), key=lambda file: file.name == MANIFEST):
                file.replace(output / file.name)
            unfinished.rmdir()
        else:
            unfinished.replace(output)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if existed:
            for name in (*GRAPHS, "vocabulary.json", CONSENSUS):
                (output / name).unlink(missing_ok=True)
        raise
    return replace(portable, digest=digest)
