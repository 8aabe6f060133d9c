"""A run that starts from a captioner that is there already, instead of from random weights.

So a captioner is fine-tuned for a domain, self-critical training is tried several times from one finished run, or a
decoder that was trained on frozen features goes on with an encoder that learns.

The captioner's words stay with their ids and weights; words that only the new captions have come behind them. Such a
word begins as the mean of all words (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models"):
then it is neither as likely as the likeliest words nor unlike them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from showtell.bundle import Bundle, find_bundle, load_bundle
from showtell.config import FROM, EncoderConfig, TrainingConfig
from showtell.data import Dataset, draw_images, join_datasets
from showtell.data.readers.gathering import listing
from showtell.data.source import find_straddling
from showtell.decoders import check_decoder
from showtell.encoders import Encoder, WeightsSource, build_encoder, restore_encoder
from showtell.errors import ConfigError, DataError, TrainingError, count
from showtell.images import Preprocessing
from showtell.recipes import Recipe
from showtell.text import FIRST_WORD, Vocabulary
from showtell.training.model import CaptionModel, to_tensors
from showtell.training.schedule import count_rehearsed

_ENCODER_KEYS = ("name", "output", "output_stride")


@dataclass(frozen=True)
class Start:
    """The captioner that a run starts from."""

    folder: Path
    bundle: Bundle

    @classmethod
    def open(cls, model: Path) -> Start:
        """Reads it.

        Args:
            model: a bundle, or a run, whose best one is taken.

        Raises:
            BundleError: no such bundle, or it is damaged.
        """
        folder = find_bundle(model)
        return cls(folder, load_bundle(folder))

    def build_encoder(self, config: EncoderConfig, seed: int) -> Encoder:
        """Returns the encoder of the new run: its own one where the configuration says so, else as without a start.

        Raises:
            TrainingError: it has no weights of an encoder.
            ConfigError, EncoderError: the configured encoder cannot be built.
        """
        if config.weights != FROM:
            return build_encoder(config, seed=seed)
        if self.bundle.encoder_weights is None:
            raise TrainingError(
                f"{self.folder}: refers to its encoder and does not include it, so encoder.weights = {FROM!r} finds "
                "nothing. Give the encoder's own weights with --weights FILE."
            )
        source = WeightsSource.from_dict(self.bundle.encoder.source)
        preprocessing = self.bundle.preprocessing
        self._check_encoder(config, (*_ENCODER_KEYS, "image_size", "fit"), preprocessing)
        return restore_encoder(config, source, preprocessing, to_tensors(self.bundle.encoder_weights))

    def load_into(
        self, model: CaptionModel, recipe: Recipe, vocabulary: Vocabulary, encoder: Encoder
    ) -> None:
        """Puts its weights into a new model.

        Args:
            model: with random weights.
            recipe: of the new run.
            vocabulary: of the new run: this captioner's, and what was added.
            encoder: of the new run.

        Raises:
            TrainingError: its decoder or its encoder are not those of the new run.
        """
        self._check_decoder(recipe)
        weights = self.bundle.encoder_weights
        if recipe.encoder.weights == FROM:
            pass  # `build_encoder` gave it this captioner's
        elif model.encoder is not None and weights is not None:
            self._check_encoder(recipe.encoder, _ENCODER_KEYS, encoder.preprocessing)
            _load(self.folder, encoder, to_tensors(weights))
        elif self.bundle.encoder.fingerprint == encoder.fingerprint:
            pass  # frozen, and the very one
        elif weights is not None and self.bundle.recipe.encoder.trainable:
            raise TrainingError(
                f"{self.folder}: its encoder was trained, too, and the recipe's is frozen with the weights that it "
                "came with. Set encoder.trainable = true (with self_critical.trains_encoder = false it stays as it "
                f'is), or encoder.weights = "{FROM}".'
            )
        else:
            raise TrainingError(
                f"{self.folder}: was trained on the features of another encoder, "
                f"{self.bundle.encoder.source.get('name')!r} (fingerprint {self.bundle.encoder.fingerprint[:12]}...), "
                f"than the recipe's {recipe.encoder.name!r} ({encoder.fingerprint[:12]}...): other weights, another "
                "size of pictures or other preprocessing. Give the recipe the same [encoder]."
            )
        old = to_tensors(self.bundle.decoder_weights)
        sizes = len(self.bundle.vocabulary), len(vocabulary)
        shapes = {name: tensor.shape for name, tensor in model.decoder.state_dict().items()}
        model.decoder.load_state_dict(
            {
                name: tensor if tensor.shape == shapes.get(name) else _extend(tensor, *sizes)
                for name, tensor in old.items()
            }
        )

    def _check_encoder(
        self, config: EncoderConfig, keys: Sequence[str], preprocessing: Preprocessing
    ) -> None:
        """Raises TrainingError where the encoder of the new run is not of this one's kind."""
        theirs = self.bundle.recipe.encoder
        different = [
            f"encoder.{key} ({getattr(theirs, key)!r}, here {getattr(config, key)!r})"
            for key in keys
            if getattr(theirs, key) != getattr(config, key)
        ]
        if preprocessing != self.bundle.preprocessing:
            different.append(
                f"the preprocessing ({self.bundle.preprocessing.to_dict()}, here {preprocessing.to_dict()})"
            )
        if different:
            raise TrainingError(
                f"{self.folder}: has another encoder than the recipe. Different: {'; '.join(different)}. Give the "
                "recipe the same [encoder]."
            )

    def _check_decoder(self, recipe: Recipe) -> None:
        folder, theirs = self.folder, self.bundle.recipe
        if theirs.decoder != recipe.decoder:
            raise TrainingError(
                f"{folder}: its decoder is {theirs.decoder!r}, the recipe's is {recipe.decoder!r}. To start from it, "
                "give the recipe the same [decoder]."
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
                f"{folder}: has another decoder than the recipe. Different: {'; '.join(different)}. To start from it, "
                "give the recipe the same [decoder]."
            )


@dataclass(frozen=True)
class RunData:
    """What a run learns.

    Args:
        given: the new data.
        dataset: the same, whose training images are followed by those that the run rehearses.
        new_images: training images before these; None where there are no old data.
        fingerprints: of what was given; they stay the same where epochs, and with them old images, are added to a run.
    """

    given: Dataset
    dataset: Dataset
    new_images: int | None
    fingerprints: Mapping[str, str]


def add_rehearsed(dataset: Dataset, old_data: Dataset | None, config: TrainingConfig) -> RunData:
    """Returns a data set with what a run rehearses, drawn by chance.

    Args:
        dataset: the new data.
        old_data: what the captioner comes from, of which the images in train are drawn from.
        config: `rehearsal` says how many in an epoch, `seed` which. More epochs take others behind those.

    Raises:
        ConfigError: there are no old data to rehearse.
        SplitError: the old data have no images in train.
        DataError: an image file is in train of the one and in dev or test of the other.
    """
    given = {"data": dataset.fingerprint()}
    if old_data is None:
        if not config.rehearsal:
            return RunData(dataset, dataset, None, given)
        raise ConfigError(
            f"training.rehearsal = {config.rehearsal:g} learns pictures again that the captioner was trained on. Name "
            "these data with --old-data DATA, or set training.rehearsal = 0 (the recipe fine-tune needs none)."
        )
    _check_apart(dataset, old_data)
    new = len(dataset.split("train").images)
    if not config.rehearsal:
        return RunData(dataset, dataset, new, given)
    old = old_data.split("train")
    rehearsed = draw_images(old, count_rehearsed(config, new) * max(1, config.epochs), seed=config.seed)
    joined = join_datasets([dataset, rehearsed])
    return RunData(dataset, joined, new, {**given, "old data": old.fingerprint()})


def _check_apart(dataset: Dataset, old_data: Dataset) -> None:
    """Raises DataError where what is learnt with the one data set judges the other."""
    both = [
        f"{old.path.name} ({new.split} in the new, {old.split} in the old)"
        for old, number, new, owner in find_straddling([dataset, old_data])
        if number != owner and new.split and old.split and "train" in (new.split, old.split)
    ]
    if both:
        raise DataError(
            f"--old-data: {count(len(both), 'image file')} in other splits than in the new data: {listing(both)}. What "
            "is learnt must not judge: give both the same splits."
        )


def check_needs_no_start(recipe: Recipe) -> None:
    """Raises ConfigError where a recipe is of no use without a captioner to start from."""
    if not recipe.training.epochs:
        raise ConfigError(
            "training.epochs = 0 leaves only self-critical epochs, which improve a captioner that can write already. "
            "Give it with --from MODEL, or set training.epochs."
        )
    if recipe.training.blend < 1:
        raise ConfigError(
            f"training.blend = {recipe.training.blend} is for runs that start from a captioner. Name it with --from "
            "MODEL, or leave it at 1."
        )


def _load(folder: Path, encoder: Encoder, weights: Mapping[str, Tensor]) -> None:
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainingError(
            f"{folder}: the weights of its encoder do not fit {encoder.config.name!r} here: {error}"
        ) from None


def _extend(weights: Tensor, old: int, new: int) -> Tensor:
    """Returns weights of `new` words whose first `old` ones are these; anything else as it is.

    Args:
        weights: (old, ...), one row for each word: embeddings, or the output's weights or biases.
    """
    if len(weights) != old:
        return weights
    mean = weights[FIRST_WORD:].mean(0, keepdim=True)
    return torch.cat([weights, mean.expand(new - old, *weights.shape[1:])])
