"""Encoder and decoder together: the module that is trained, and the torch backend that captions.

`TorchBackend` implements `showtell.captioning.Backend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from showtell.bundle import CONSENSUS, Bundle, EncoderRecord, Weights
from showtell.captioning import Features
from showtell.config import SEPARATOR
from showtell.consensus import Consensus, open_consensus
from showtell.decoders import Decoder, TorchStepper, create_decoder
from showtell.encoders import Encoder, WeightsSource, build_encoder, restore_encoder
from showtell.errors import BundleError, ConfigError
from showtell.images import DEFAULT_MAX_PIXELS, ImageSource, Preprocessing
from showtell.packing import expand
from showtell.recipes import Recipe
from showtell.text import Vocabulary
from showtell.training.run_folder import find_training_weights


class CaptionModel(nn.Module):
    """What the optimiser sees: the decoder, and the encoder where it is trained.

    Args:
        decoder: the decoder.
        encoder: a trainable encoder, or None where features come from a cache.
    """

    def __init__(self, decoder: Decoder, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.decoder = decoder
        self.encoder = encoder

    def encode(self, inputs: Tensor) -> Tensor:
        """Returns the features of a batch.

        Args:
            inputs: features, or normalised pixels (images, 3, height, width) where the encoder is trained.
        """
        features: Tensor = inputs if self.encoder is None else self.encoder(inputs)
        return features


class TorchBackend:
    """The networks of one captioner in torch, in evaluation mode.

    Args:
        encoder: gives features of pictures; None where only `bind` is used.
        decoder: the decoder.
        preprocessing: what the encoder was trained with.
        vocabulary: of the decoder.
        grid: rows and columns of the feature map.
        consensus: what people said of the training pictures, or None.
    """

    def __init__(
        self,
        encoder: Encoder | None,
        decoder: Decoder,
        *,
        preprocessing: Preprocessing,
        vocabulary: Vocabulary,
        grid: tuple[int, int],
        consensus: Consensus | None = None,
    ) -> None:
        self.consensus = consensus
        self.encoder = encoder
        self.decoder = decoder.eval()
        self.attends = decoder.attends
        self.preprocessing = preprocessing
        self.vocabulary = vocabulary
        self.grid = grid
        self._device = next(decoder.parameters()).device

    def identify_encoder(self) -> str:
        """Returns what is equal only for encoders that give equal features for equal pictures."""
        if self.encoder is None:
            return ""
        return f"torch {self.encoder.fingerprint} {self.encoder.precision}"

    def read(self, source: ImageSource, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> npt.NDArray[np.uint8]:
        """Returns one picture at the encoder's size, (height, width, 3)."""
        return self.preprocessing.read(source, max_pixels=max_pixels)

    def encode(self, pixels: npt.NDArray[np.uint8]) -> Features:
        """Returns the features of resized pictures (images, height, width, 3)."""
        if self.encoder is None:
            raise ConfigError(
                "This captioner was opened without its encoder, so it can caption features only."
            )
        return self.encoder.encode(pixels)

    def bind(self, features: Features) -> TorchStepper:
        """Returns a stepper over a batch of features."""
        tensor = torch.from_numpy(np.asarray(features, dtype=np.float32)).to(self._device)
        return TorchStepper(self.decoder, tensor, vocab_size=len(self.vocabulary))


def build_decoder(recipe: Recipe, *, channels: int, vocab_size: int) -> Decoder:
    """Builds the recipe's decoder with random weights, seeded by `training.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        return create_decoder(
            recipe.decoder,
            recipe.decoder_options,
            features=recipe.encoder.output,
            channels=channels,
            vocab_size=vocab_size,
        )


def make_bundle(
    recipe: Recipe,
    model: CaptionModel,
    encoder: Encoder,
    vocabulary: Vocabulary,
    *,
    split_fingerprint: str,
    scores: Mapping[str, Any],
    include_encoder: bool = False,
) -> Bundle:
    """Returns the bundle of a trained model; a trained encoder is always included."""
    include = include_encoder or recipe.encoder.trainable
    if any(member.source.kind == "file" for member in encoder.members):
        # A bundle may be given away: it need not tell the folders of its maker.
        names = [Path(one.weights).name for one in recipe.encoder.backbones()]
        recipe = replace(recipe, encoder=replace(recipe.encoder, weights=SEPARATOR.join(names)))
    # Until the training pictures are added, which is done once, at the end of a run.
    recipe = replace(recipe, decoding=replace(recipe.decoding, consensus=0.0))
    return Bundle(
        recipe=recipe,
        vocabulary=vocabulary,
        preprocessing=encoder.preprocessing,
        encoder=EncoderRecord(
            encoder.source.to_dict(),
            # A trained encoder's own fingerprint is of the weights that it started from.
            encoder.compute_fingerprint() if recipe.encoder.trainable else encoder.fingerprint,
            encoder.channels,
            encoder.cells,
        ),
        decoder_weights=_to_numpy(model.decoder),
        encoder_weights=_to_numpy(encoder) if include else None,
        split_fingerprint=split_fingerprint,
        scores=scores,
    )


def open_backend(bundle: Bundle, where: Path, *, threads: int = 0) -> TorchBackend:
    """Builds the networks of a bundle.

    Args:
        bundle: what `load_bundle` gave.
        where: its folder, for messages.
        threads: of torch, for the whole process; 0 leaves them as they are.

    Raises:
        BundleError: the weights do not fit the recipe or the vocabulary, or the encoder is another one.
        EncoderError: the referenced backbone cannot be found; the message names its digest and where to get it.
    """
    if threads:
        torch.set_num_threads(threads)
    recipe = bundle.recipe
    path = where / "decoder.safetensors"
    try:
        decoder = build_decoder(recipe, channels=bundle.encoder.channels, vocab_size=len(bundle.vocabulary))
    except ConfigError as error:
        raise BundleError(f"{where / 'bundle.json'}: the recipe's decoder cannot be built: {error}") from None
    try:
        decoder.load_state_dict(to_tensors(bundle.decoder_weights))
    except RuntimeError as error:
        raise BundleError(f"{path}: the weights do not fit the recipe and the vocabulary: {error}") from None
    source = WeightsSource.from_dict(bundle.encoder.source)
    if bundle.encoder_weights is None:
        encoder = build_encoder(recipe.encoder, source=source, search=find_training_weights(where, recipe))
    else:
        tensors = to_tensors(bundle.encoder_weights)
        # For captioning it is frozen, which is also faster: batch norms are folded.
        frozen = replace(recipe.encoder, trainable=False)
        encoder = restore_encoder(frozen, source, bundle.preprocessing, tensors)
    if encoder.fingerprint != bundle.encoder.fingerprint:
        raise BundleError(
            f"{where}: the encoder {source.name!r} built here (fingerprint {encoder.fingerprint[:12]}...) is not "
            f"the one that the decoder was trained with ({bundle.encoder.fingerprint[:12]}...). "
            "Another version of timm may build it differently."
        )
    if encoder.preprocessing != bundle.preprocessing:
        raise BundleError(
            f"{where / 'bundle.json'}: the preprocessing is not the encoder's: {bundle.preprocessing.to_dict()}, and "
            f"{source.name!r} was trained with {encoder.preprocessing.to_dict()}. They belong to different bundles."
        )
    encoder.eval()
    return TorchBackend(
        encoder,
        decoder,
        preprocessing=bundle.preprocessing,
        vocabulary=bundle.vocabulary,
        grid=encoder.grid,
        consensus=open_consensus(
            bundle.consensus, bundle.vocabulary, bundle.encoder.channels, where / CONSENSUS
        ),
    )


def _to_numpy(module: nn.Module) -> Weights:
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}


def to_tensors(weights: Weights) -> dict[str, Tensor]:
    """Returns the weights of a bundle as a state dict."""
    return {name: torch.from_numpy(np.array(array)) for name, array in expand(weights).items()}
