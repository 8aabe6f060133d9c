"""One trained captioner in one folder: weights, vocabulary, preprocessing, recipe, scores. Never pickle.

::

    BUNDLE/
        bundle.json            what is here: format, recipe, encoder, scores, digest of every other file
        vocabulary.json
        decoder.safetensors
        encoder.safetensors    only where the encoder was trained, or its weights were included on request
        consensus.safetensors  only where it asks what people said of similar pictures (`showtell.consensus`)

A frozen backbone that came from elsewhere is referenced by name and digest, not copied. Loading checks that the
parts belong together before any weight is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from showtell import __version__
from showtell.confidence import Confidence
from showtell.config import FROM
from showtell.decoding.settings import DecodingSettings
from showtell.errors import BundleError, ShowtellError
from showtell.files import digest_file, write_atomically, write_json
from showtell.images import Preprocessing
from showtell.recipes import Recipe
from showtell.text import Vocabulary

FORMAT_VERSION = 1
CONSENSUS = "consensus.safetensors"
EXPORTED = "portable.json"  # what an exported captioner has instead of bundle.json (`showtell.portable`)
Weights = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class EncoderRecord:
    """What a bundle knows about its encoder."""

    source: Mapping[str, Any]  # where the weights come from: name, kind, digest, file name, how to get it
    fingerprint: str  # of architecture, weights and preprocessing; features with another one do not fit
    channels: int
    cells: int


@dataclass(frozen=True)
class Bundle:
    """A captioner's parts, in memory."""

    recipe: Recipe
    vocabulary: Vocabulary
    preprocessing: Preprocessing
    encoder: EncoderRecord
    decoder_weights: Weights
    encoder_weights: Weights | None = None  # None: referenced by `encoder.source`
    consensus: Weights | None = None  # what `showtell.consensus.build_consensus` gave
    split_fingerprint: str = ""  # of the data it was trained on
    scores: Mapping[str, Any] = field(default_factory=dict)  # by split, with the settings that gave them
    tuning: Mapping[str, Any] = field(default_factory=dict)  # how recipe.decoding was chosen; {}: it was not
    confidence: Confidence | None = None  # how sure its captions are, fitted on captions that people wrote
    digest: str = ""  # of bundle.json, set by `load_bundle` and `save_bundle`

    def starting_recipe(self) -> Recipe:
        """Returns the recipe of which others take sections that go on from this captioner (`base = "from"`)."""
        if self.encoder_weights is None:
            return self.recipe
        return replace(self.recipe, encoder=replace(self.recipe.encoder, weights=FROM))


def save_bundle(bundle: Bundle, folder: Path) -> str:
    """Writes a bundle and returns its digest; bundle.json comes last, so a half-written folder is no bundle.

    Raises:
        BundleError: the folder already holds something.
        OSError: the disk is full; what was written is left without a bundle.json.
    """
    check_is_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    bundle.vocabulary.save(folder / "vocabulary.json")
    weights = {"decoder.safetensors": bundle.decoder_weights}
    if bundle.encoder_weights is not None:
        weights["encoder.safetensors"] = bundle.encoder_weights
    if bundle.consensus is not None:
        weights[CONSENSUS] = bundle.consensus
    for name, tensors in weights.items():
        write_weights(folder / name, tensors)
    files = {name: digest_file(folder / name) for name in ("vocabulary.json", *weights)}
    write_json(
        folder / "bundle.json",
        {
            "format_version": FORMAT_VERSION,
            "showtell": __version__,
            "recipe": bundle.recipe.to_dict(),
            "preprocessing": bundle.preprocessing.to_dict(),
            "encoder": {
                "source": dict(bundle.encoder.source),
                "fingerprint": bundle.encoder.fingerprint,
                "channels": bundle.encoder.channels,
                "cells": bundle.encoder.cells,
                "included": bundle.encoder_weights is not None,
            },
            "vocabulary": {"size": len(bundle.vocabulary), "fingerprint": bundle.vocabulary.fingerprint()},
            "split_fingerprint": bundle.split_fingerprint,
            "scores": dict(bundle.scores),
            "tuning": dict(bundle.tuning),
            **describe_confidence(bundle.confidence),
            "files": files,
        },
    )
    return digest_file(folder / "bundle.json")


def check_is_free(folder: Path) -> None:
    """Raises BundleError where a new bundle would be written over something."""
    if folder.exists() and any(folder.iterdir()):
        raise BundleError(f"{folder}: not empty. Choose a new folder for the bundle.")


def find_bundle(model: Path) -> Path:
    """Returns the bundle folder that MODEL means: itself, or the best one of a run folder.

    Raises:
        BundleError: neither a bundle nor a run that has a checkpoint.
    """
    if (model / "bundle.json").is_file():
        return model
    if (model / "best.json").is_file():
        best = read_json(model / "best.json")
        name = best.get("bundle") if isinstance(best, dict) else None
        if isinstance(name, str) and (model / name / "bundle.json").is_file():
            return model / name
        raise BundleError(f"{model / 'best.json'}: names the bundle {name!r}, which is not there.")
    if not model.exists():
        raise BundleError(f"{model}: no such model. Give a bundle folder or a run folder.")
    if (model / "recipe.json").is_file():
        raise BundleError(
            f"{model}: a run without a finished evaluation yet. Go on training it with --resume."
        )
    if (model / EXPORTED).is_file():
        raise BundleError(f"{model}: is exported already. Give the bundle or the run that it was made from.")
    raise BundleError(f"{model}: not a bundle (no bundle.json) and not a run folder (no best.json).")


def load_bundle(model: Path) -> Bundle:
    """Reads a bundle, or the best one of a run, and checks that its parts fit together.

    Raises:
        BundleError: a part is missing, damaged, of a newer format, or belongs to another bundle.
    """
    folder = find_bundle(model)
    manifest = read_manifest(
        folder / "bundle.json",
        FORMAT_VERSION,
        kind="a Showtell bundle",
        name="bundle",
        remedy="Update Showtell.",
    )
    try:
        included = manifest["encoder"]["included"]
        for name in (
            "vocabulary.json",
            "decoder.safetensors",
            *(["encoder.safetensors"] if included else []),
            *([CONSENSUS] if CONSENSUS in manifest["files"] else []),
        ):
            check_digest(folder / name, manifest["files"][name])
        vocabulary = Vocabulary.load(folder / "vocabulary.json")
        if len(vocabulary) != manifest["vocabulary"]["size"]:
            raise BundleError(
                f"{folder}: the vocabulary has {len(vocabulary)} ids, but the decoder was trained with "
                f"{manifest['vocabulary']['size']}. They belong to different bundles."
            )
        encoder = manifest["encoder"]
        _check_kinds(folder / "bundle.json", manifest)
        return Bundle(
            recipe=Recipe.from_dict(manifest["recipe"], f"{folder / 'bundle.json'}: recipe"),
            vocabulary=vocabulary,
            preprocessing=Preprocessing.from_dict(manifest["preprocessing"]),
            encoder=EncoderRecord(
                encoder["source"], encoder["fingerprint"], encoder["channels"], encoder["cells"]
            ),
            decoder_weights=read_weights(folder / "decoder.safetensors"),
            encoder_weights=read_weights(folder / "encoder.safetensors") if included else None,
            consensus=read_weights(folder / CONSENSUS) if CONSENSUS in manifest["files"] else None,
            split_fingerprint=manifest["split_fingerprint"],
            scores=manifest["scores"],
            tuning=manifest.get("tuning", {}),
            confidence=read_confidence(manifest),
            digest=digest_file(folder / "bundle.json"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder / 'bundle.json'}: damaged: {error!r}") from None
    except BundleError:
        raise
    except ShowtellError as error:
        raise BundleError(f"{folder}: {error}") from None


def fingerprint_parts(folder: Path) -> str:
    """Returns a digest of a bundle's vocabulary and weights: of what a run takes that starts from it.

    It stays the same when the search is tuned, the captioner is calibrated, or what people said is added.

    Args:
        folder: of a bundle that `load_bundle` has checked.
    """
    files = read_json(folder / "bundle.json")["files"]
    parts = sorted((name, digest) for name, digest in files.items() if name != CONSENSUS)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def store_consensus(folder: Path, bundle: Bundle, consensus: Weights, decoding: DecodingSettings) -> str:
    """Adds to a bundle on disk what people said of its training pictures, and returns its new digest.

    What has been tuned stays; the consensus itself is as `decoding` says.

    Args:
        folder: of the bundle.
        bundle: what `load_bundle` gave.
        consensus: what `showtell.consensus.build_consensus` gave.
        decoding: how it searches from now on, unless its search has been tuned.

    Raises:
        BundleError: bundle.json cannot be read.
        OSError: it cannot be written; it is as it was.
    """
    if bundle.tuning:
        weight, neighbours = decoding.consensus, decoding.neighbours
        decoding = replace(bundle.recipe.decoding, consensus=weight, neighbours=neighbours)
    write_weights(folder / CONSENSUS, consensus)
    added = {CONSENSUS: digest_file(folder / CONSENSUS)}
    return _change_manifest(folder, replace(bundle.recipe, decoding=decoding), bundle.tuning, added)


def store_confidence(folder: Path, manifest_name: str, confidence: Confidence) -> str:
    """Changes how sure a captioner on disk says it is, and returns the new digest of its manifest.

    Args:
        folder: of a bundle or an exported captioner.
        manifest_name: "bundle.json" or `EXPORTED`.
        confidence: fitted on its captions.

    Raises:
        BundleError: the manifest cannot be read.
        OSError: it cannot be written; it is as it was.
    """
    path = folder / manifest_name
    manifest = read_json(path)
    write_json(path, {**manifest, **describe_confidence(confidence)})
    return digest_file(path)


def describe_confidence(confidence: Confidence | None) -> dict[str, Any]:
    """Returns the entry of a manifest; none where nothing was fitted."""
    return {} if confidence is None else {"confidence": confidence.to_dict()}


def read_confidence(manifest: Mapping[str, Any]) -> Confidence | None:
    """Returns what `describe_confidence` wrote; raises BundleError where it is damaged."""
    return Confidence.from_dict(manifest["confidence"]) if "confidence" in manifest else None


def store_decoding(folder: Path, decoding: DecodingSettings, tuning: Mapping[str, Any]) -> str:
    """Makes other settings the defaults of a bundle on disk, and returns its new digest.

    Only bundle.json changes, and that at once, so whoever reads the bundle meanwhile reads the old one or the new one.

    Args:
        folder: of the bundle.
        decoding: how it searches from now on.
        tuning: how that was chosen.

    Raises:
        BundleError: the bundle is damaged.
        OSError: it cannot be written; it is as it was.
    """
    return _change_manifest(folder, replace(load_bundle(folder).recipe, decoding=decoding), tuning, {})


def _change_manifest(
    folder: Path, recipe: Recipe, tuning: Mapping[str, Any], added: Mapping[str, str]
) -> str:
    """Writes bundle.json with another recipe, its tuning, and the digests of added files; returns its digest."""
    manifest = read_json(folder / "bundle.json")
    manifest["recipe"] = recipe.to_dict()
    manifest["tuning"] = dict(tuning)
    manifest.pop("confidence", None)  # it was fitted to the search before
    manifest["files"].update(added)
    write_json(folder / "bundle.json", manifest)
    return digest_file(folder / "bundle.json")


def _check_kinds(path: Path, manifest: Mapping[str, Any]) -> None:
    """Raises BundleError where a value that is passed on as it is has another type than it was written with."""
    encoder = manifest["encoder"]
    for name, value, kind in (
        ("encoder.source", encoder["source"], dict),
        ("encoder.fingerprint", encoder["fingerprint"], str),
        ("encoder.channels", encoder["channels"], int),
        ("encoder.cells", encoder["cells"], int),
        ("encoder.included", encoder["included"], bool),
        ("split_fingerprint", manifest["split_fingerprint"], str),
        ("scores", manifest["scores"], dict),
        ("tuning", manifest.get("tuning", {}), dict),
    ):
        if not isinstance(value, kind):
            raise BundleError(f"{path}: damaged: {name} must be of type {kind.__name__}. Received: {value!r}")
    for name in ("channels", "cells"):
        if encoder[name] < 1:
            raise BundleError(
                f"{path}: damaged: encoder.{name} must be at least 1. Received: {encoder[name]}"
            )


def check_digest(path: Path, expected: str) -> None:
    """Checks that a file is the one that its manifest lists.

    Raises:
        BundleError: it is missing, or its content is another.
    """
    if not path.is_file():
        raise BundleError(f"{path}: missing. The bundle is incomplete; copy it again, whole.")
    digest = digest_file(path)
    if digest != expected:
        raise BundleError(
            f"{path}: its content (sha256 {digest[:12]}...) is not what its manifest lists ({str(expected)[:12]}...): "
            "truncated, changed, or from another bundle."
        )


def write_weights(path: Path, tensors: Weights) -> None:
    """Writes arrays to a file that appears whole or not at all."""
    # Not ascontiguousarray: it would turn the counters of batch norms, which have no axis, into vectors.
    arrays = {key: np.asarray(value, order="C") for key, value in tensors.items()}
    write_atomically(path, safetensors.numpy.save(arrays))


def read_weights(path: Path) -> Weights:
    """Returns the arrays of a file.

    Raises:
        BundleError: it cannot be read.
    """
    try:
        return safetensors.numpy.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path}: the weights cannot be read: {error}") from None


def read_manifest(path: Path, newest: int, *, kind: str, name: str, remedy: str) -> dict[str, Any]:
    """Returns what a manifest says, where this Showtell knows its format.

    Args:
        path: of the manifest.
        newest: format that this Showtell reads.
        kind: what should lie there, with its article, for the messages.
        name: of the format.
        remedy: what helps against a newer one.

    Raises:
        BundleError: it cannot be read, is no manifest, or of a newer format.
    """
    manifest = read_json(path)
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if not isinstance(version, int):
        raise BundleError(f"{path}: not {kind} (no format_version).")
    if version > newest:
        raise BundleError(
            f"{path.parent}: {name} format {version}, written by Showtell {manifest.get('showtell')}; this Showtell "
            f"{__version__} reads up to format {newest}. {remedy}"
        )
    found: dict[str, Any] = manifest
    return found


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
        BundleError: it cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last: nested without end
        raise BundleError(f"{path}: cannot be read: {error}") from None
