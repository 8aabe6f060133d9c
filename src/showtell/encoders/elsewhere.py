"""The same encoder in another process, maybe on another machine: what it takes to build it there, and to be sure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from showtell.config import EncoderConfig
from showtell.encoders.backbone import Encoder, build_single
from showtell.encoders.weights import WeightsSource, locate_weights
from showtell.errors import EncoderError
from showtell.images import Preprocessing


@dataclass(frozen=True)
class EncoderRecord:
    """What an encoder of one backbone is built from; it can be sent."""

    config: EncoderConfig
    source: WeightsSource
    preprocessing: Preprocessing
    fingerprint: str
    search: tuple[Path, ...]  # where its weights lie, on the machine that made the record

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderRecord:
        """Returns the record of an encoder of one backbone, whose precision is settled here for everybody."""
        config = replace(encoder.config, precision=encoder.precision)
        search = (locate_weights(config.weights).absolute().parent,) if encoder.source.kind == "file" else ()
        return cls(config, encoder.source, encoder.preprocessing, encoder.fingerprint, search)

    def build(self, *, threads: int) -> Encoder:
        """Builds the encoder again; weights in a file are found by their digest.

        Args:
            threads: of the processor.

        Raises:
            EncoderError: the weights are not here, or the encoder would be another one.
        """
        use_threads(threads)
        encoder = build_single(self.config, source=self.source, search=self.search)
        if encoder.preprocessing != self.preprocessing:  # one of several backbones that see alike
            encoder = Encoder(
                encoder.backbone,
                config=self.config,
                source=encoder.source,
                preprocessing=self.preprocessing,
            )
        if encoder.fingerprint != self.fingerprint:
            raise EncoderError(
                f"The encoder {self.config.name} is another one here (fingerprint {encoder.fingerprint[:12]}..., and "
                f"{self.fingerprint[:12]}... is asked for): other weights, or other versions of timm or torch."
            )
        return encoder


def use_threads(threads: int) -> None:
    """Sets how many processor threads encoders use, in the whole process."""
    torch.set_num_threads(threads)
