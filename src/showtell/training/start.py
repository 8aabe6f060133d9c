"""A run that starts from a captioner that is there already, instead of from random weights.

So self-critical training is tried several times from one finished run, or a decoder that was trained on frozen features
goes on with an encoder that learns.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from showtell.bundle import Bundle, find_bundle, load_bundle
from showtell.decoders import check_decoder
from showtell.encoders import Encoder
from showtell.errors import TrainingError
from showtell.recipes import Recipe
from showtell.text import Vocabulary
from showtell.training.model import CaptionModel, to_tensors


def start_from(
    model: CaptionModel, path: Path, recipe: Recipe, vocabulary: Vocabulary, encoder: Encoder
) -> str:
    """Puts the weights of a bundle into a new model.

    Args:
        model: with random weights.
        path: a bundle, or a run, whose best one is taken.
        recipe: of the new run.
        vocabulary: of the new run.
        encoder: of the new run.

    Returns:
        The bundle's digest.

    Raises:
        BundleError: no such bundle, or it is damaged.
        TrainingError: its words, its decoder or its encoder are not those of the new run.
    """
    folder = find_bundle(path)
    bundle = load_bundle(folder)
    _check_fit(folder, bundle, recipe, vocabulary)
    if model.encoder is not None and bundle.encoder_weights is not None:
        _load_encoder(folder, bundle, model.encoder)
    elif bundle.encoder_weights is not None and bundle.recipe.encoder.trainable:
        raise TrainingError(
            f"{folder}: its encoder was trained, too, and the recipe's is frozen with the weights that it came with. "
            "Set encoder.trainable = true; with self_critical.trains_encoder = false it stays as it is."
        )
    elif bundle.encoder.fingerprint != encoder.fingerprint:
        raise TrainingError(
            f"{folder}: was trained on the features of another encoder, {bundle.encoder.source.get('name')!r} "
            f"(fingerprint {bundle.encoder.fingerprint[:12]}...), than the recipe's {recipe.encoder.name!r} "
            f"({encoder.fingerprint[:12]}...): other weights, another size of pictures or other preprocessing. "
            "Give the recipe the same [encoder]."
        )
    model.decoder.load_state_dict(to_tensors(bundle.decoder_weights))
    return bundle.digest


def _load_encoder(folder: Path, bundle: Bundle, encoder: Encoder) -> None:
    theirs, ours = bundle.recipe.encoder, encoder.config
    different = [
        f"encoder.{key} ({getattr(theirs, key)!r}, here {getattr(ours, key)!r})"
        for key in ("name", "output", "output_stride")
        if getattr(theirs, key) != getattr(ours, key)
    ]
    if bundle.preprocessing != encoder.preprocessing:
        different.append(
            f"the preprocessing ({bundle.preprocessing.to_dict()}, here {encoder.preprocessing.to_dict()})"
        )
    if different:
        raise TrainingError(
            f"{folder}: has another encoder than the recipe. Different: {'; '.join(different)}. Give the recipe the "
            "same [encoder]."
        )
    try:
        encoder.load_state_dict(to_tensors(bundle.encoder_weights or {}))
    except RuntimeError as error:
        raise TrainingError(
            f"{folder}: the weights of its encoder do not fit {ours.name!r} here: {error}"
        ) from None


def _check_fit(folder: Path, bundle: Bundle, recipe: Recipe, vocabulary: Vocabulary) -> None:
    theirs = bundle.recipe
    if theirs.decoder != recipe.decoder:
        raise TrainingError(
            f"{folder}: its decoder is {theirs.decoder!r}, the recipe's is {recipe.decoder!r}. To start from it, give "
            "the recipe the same [decoder]."
        )
    # Through the decoder's own options, so that a default that is written out is no difference.
    old, new = (
        asdict(check_decoder(one.decoder, one.decoder_options, features=one.encoder.output))
        for one in (theirs, recipe)
    )
    different = [
        f"decoder.{key} ({old[key]!r}, here {new[key]!r})"
        for key in new
        if old[key] != new[key] and key != "dropout"  # which has no weights
    ]
    if different:
        raise TrainingError(
            f"{folder}: has another decoder than the recipe. Different: {'; '.join(different)}. To start from it, give "
            "the recipe the same [decoder]."
        )
    if bundle.vocabulary.fingerprint() != vocabulary.fingerprint():
        ours, other = (set(words.words) for words in (vocabulary, bundle.vocabulary))
        raise TrainingError(
            f"{folder}: has another vocabulary: {len(bundle.vocabulary)} ids, and the training captions with the "
            f"recipe's [text] give {len(vocabulary)}; {len(other - ours)} of its words are missing here and "
            f"{len(ours - other)} are new. Its weights would say other words than were meant. Train with the same "
            "captions and the same [text]."
        )
