"""An encoder that a bundle includes, in fewer bits."""

from __future__ import annotations

from dataclasses import replace

from showtell.bundle import Bundle
from showtell.encoders import WeightsSource, restore_encoder
from showtell.packing import halve
from showtell.training.model import to_tensors


def compress_encoder(bundle: Bundle) -> Bundle:
    """Returns the bundle with the weights of an encoder that it includes in float16.

    The encoder is then another one, if only in the fourth digit, and so has another fingerprint.

    Raises:
        BundleError: a weight is too large for float16.
    """
    if bundle.encoder_weights is None:
        return bundle
    halved = {
        name: halve(name, weights) if weights.dtype.kind == "f" else weights
        for name, weights in bundle.encoder_weights.items()
    }
    config = replace(bundle.recipe.encoder, trainable=False)  # as it is opened for captioning
    source = WeightsSource.from_dict(bundle.encoder.source)
    encoder = restore_encoder(config, source, bundle.preprocessing, to_tensors(halved))
    record = replace(bundle.encoder, fingerprint=encoder.fingerprint)
    return replace(bundle, encoder=record, encoder_weights=halved, confidence=None)
