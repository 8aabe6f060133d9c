"""A run that starts from a captioner that is there already, instead of from random weights.

So self-critical training is tried several times from one finished run, a decoder that was trained on frozen features
goes on with an encoder that learns, or a captioner is adapted to pictures of another kind.
"""

from __future__ import annotations

from pathlib import Path

from showtell.bundle import Bundle, find_bundle, load_bundle
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
        model.encoder.load_state_dict(to_tensors(bundle.encoder_weights))
    elif bundle.encoder.fingerprint != encoder.fingerprint:
        raise TrainingError(
            f"{folder}: was trained on the features of another encoder, {bundle.encoder.source.get('name')!r} "
            f"(fingerprint {bundle.encoder.fingerprint[:12]}...), than the recipe's {recipe.encoder.name!r} "
            f"({encoder.fingerprint[:12]}...): other weights, another size of pictures or other preprocessing. "
            "Give the recipe the same [encoder]."
        )
    model.decoder.load_state_dict(to_tensors(bundle.decoder_weights))
    return bundle.digest


def _check_fit(folder: Path, bundle: Bundle, recipe: Recipe, vocabulary: Vocabulary) -> None:
    theirs = bundle.recipe
    if (theirs.decoder, theirs.decoder_options) != (recipe.decoder, recipe.decoder_options):
        raise TrainingError(
            f"{folder}: its decoder is {theirs.decoder!r} with {theirs.decoder_options}, the recipe's is "
            f"{recipe.decoder!r} with {recipe.decoder_options}. To start from it, give the recipe the same [decoder]."
        )
    if bundle.vocabulary.fingerprint() != vocabulary.fingerprint():
        ours, other = (set(words.words) for words in (vocabulary, bundle.vocabulary))
        raise TrainingError(
            f"{folder}: has another vocabulary: {len(bundle.vocabulary)} ids, and the training captions with the "
            f"recipe's [text] give {len(vocabulary)}; {len(other - ours)} of its words are missing here and "
            f"{len(ours - other)} are new. Its weights would say other words than were meant. Train with the same "
            "captions and the same [text]."
        )
