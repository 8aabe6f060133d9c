"""An exported captioner in one folder: three ONNX graphs and what is needed to use them without torch.

::

    EXPORT/
        portable.json      what is here: format, bundle, recipe, preprocessing, shapes, digest of every other file
        vocabulary.json
        consensus.safetensors  as in the bundle, where that has one
        encoder.onnx       pixels uint8 (images, height, width, 3) -> features; normalisation is inside
        start.onnx         features -> the memory of the images, and the state before the first word
        step.onnx          tokens (images, width), state, memory -> logits, state, attention

Memory is what depends on the image alone; it is computed once, and the rows of an image share it (`BlockStepper`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from showtell import __version__
from showtell.bundle import (
    CONSENSUS,
    EXPORTED,
    Weights,
    check_digest,
    describe_confidence,
    find_bundle,
    read_confidence,
    read_manifest,
    read_weights,
    write_weights,
)
from showtell.confidence import Confidence
from showtell.errors import BundleError, ShowtellError
from showtell.files import digest_file, write_json
from showtell.images import Preprocessing
from showtell.recipes import Recipe
from showtell.text import Vocabulary

FORMAT_VERSION = 1
MANIFEST = EXPORTED
ENCODER, START, STEP = "encoder.onnx", "start.onnx", "step.onnx"
GRAPHS = (ENCODER, START, STEP)
WEIGHTS = ("float32", "int8")


@dataclass(frozen=True)
class PortableModel:
    """What the runtime knows of an exported captioner."""

    recipe: Recipe
    vocabulary: Vocabulary
    preprocessing: Preprocessing
    grid: tuple[int, int]  # rows and columns of the feature map; (1, 1) for pooled features
    feature_shape: tuple[int, ...]  # of one image: (cells, channels) or (channels,)
    memory: tuple[str, ...]  # names of the memory's parts, as `start` gives and `step` takes them
    state: tuple[str, ...]  # names of the state's parts
    attends: bool  # whether `step` gives attention as its last output
    dynamic_size: bool = False  # whether the encoder takes pictures of other sizes
    weights: str = (
        "float32"  # or "int8": the encoder computes in 8 bits, and the decoder's weights are stored so
    )
    bundle_digest: str = ""  # of the bundle that was exported
    split_fingerprint: str = ""
    scores: Mapping[str, Any] = field(default_factory=dict)
    consensus: Weights | None = None  # what people said of the training pictures
    confidence: Confidence | None = None  # how sure its captions are
    folder: Path = Path()  # where the graphs are
    digest: str = ""  # of portable.json


def is_portable(model: Path) -> bool:
    """Returns whether a folder is an exported captioner."""
    return (model / MANIFEST).is_file()


def find_model(model: Path) -> Path:
    """Returns the folder that MODEL means: an exported captioner, a bundle, or the best bundle of a run.

    Raises:
        BundleError: none of them.
    """
    return model if is_portable(model) else find_bundle(model)


def save_manifest(model: PortableModel, folder: Path) -> str:
    """Writes portable.json and the consensus next to the graphs and the vocabulary, and returns the manifest's digest.

    The manifest comes last.
    """
    files = ["vocabulary.json", *GRAPHS]
    if model.consensus is not None:
        write_weights(folder / CONSENSUS, model.consensus)
        files.append(CONSENSUS)
    write_json(
        folder / MANIFEST,
        {
            "format_version": FORMAT_VERSION,
            "showtell": __version__,
            "recipe": model.recipe.to_dict(),
            "preprocessing": model.preprocessing.to_dict(),
            "grid": list(model.grid),
            "feature_shape": list(model.feature_shape),
            "memory": list(model.memory),
            "state": list(model.state),
            "attends": model.attends,
            "dynamic_size": model.dynamic_size,
            "weights": model.weights,
            "bundle_digest": model.bundle_digest,
            "split_fingerprint": model.split_fingerprint,
            "scores": dict(model.scores),
            **describe_confidence(model.confidence),
            "vocabulary_size": len(model.vocabulary),
            "files": {name: digest_file(folder / name) for name in files},
        },
    )
    return digest_file(folder / MANIFEST)


def load_portable(folder: Path) -> PortableModel:
    """Reads an exported captioner and checks that its parts belong together; the graphs are not opened.

    Raises:
        BundleError: a part is missing, damaged, of a newer format, or belongs to another export.
    """
    path = folder / MANIFEST
    manifest = read_manifest(
        path,
        FORMAT_VERSION,
        kind="an exported captioner",
        name="export",
        remedy="Update Showtell, or export the model again.",
    )
    try:
        remembers = CONSENSUS in manifest["files"]
        for name in ("vocabulary.json", *GRAPHS, *([CONSENSUS] if remembers else [])):
            check_digest(folder / name, manifest["files"][name])
        vocabulary = Vocabulary.load(folder / "vocabulary.json")
        if len(vocabulary) != manifest["vocabulary_size"]:
            raise BundleError(
                f"{folder}: the vocabulary has {len(vocabulary)} ids, but the decoder was exported with "
                f"{manifest['vocabulary_size']}. They belong to different exports."
            )
        if manifest["weights"] not in WEIGHTS:
            raise BundleError(
                f"{path}: damaged: weights must be one of {WEIGHTS}. Received: {manifest['weights']!r}"
            )
        return PortableModel(
            recipe=Recipe.from_dict(manifest["recipe"], f"{path}: recipe"),
            vocabulary=vocabulary,
            preprocessing=Preprocessing.from_dict(manifest["preprocessing"]),
            grid=_two(manifest["grid"]),
            feature_shape=tuple(int(size) for size in manifest["feature_shape"]),
            memory=_names(manifest["memory"]),
            state=_names(manifest["state"]),
            attends=bool(manifest["attends"]),
            dynamic_size=bool(manifest["dynamic_size"]),
            weights=manifest["weights"],
            bundle_digest=str(manifest["bundle_digest"]),
            split_fingerprint=str(manifest["split_fingerprint"]),
            scores=dict(manifest["scores"]),
            consensus=read_weights(folder / CONSENSUS) if remembers else None,
            confidence=read_confidence(manifest),
            folder=folder,
            digest=digest_file(path),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path}: damaged: {error!r}") from None
    except BundleError:
        raise
    except ShowtellError as error:
        raise BundleError(f"{folder}: {error}") from None


def _two(values: Sequence[Any]) -> tuple[int, int]:
    rows, columns = (int(value) for value in values)
    return rows, columns


def _names(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
