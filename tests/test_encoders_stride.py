"""encoder.output_stride: a finer grid where the backbone can give one."""

from __future__ import annotations

import numpy as np
import pytest

from showtell.config import EncoderConfig
from showtell.encoders import Encoder, build_encoder, restore_encoder
from showtell.errors import ConfigError, EncoderError


def random_encoder(name: str, **settings: object) -> Encoder:
    settings = {"precision": "float32", "weights": "random", "image_size": 64, **settings}
    return build_encoder(EncoderConfig(name=name, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["test_resnet", "resnet10t", "test_efficientnet", "convnext_atto"])
@pytest.mark.parametrize(("stride", "side"), [(0, 2), (16, 4), (8, 8)])
def test_the_stride_sets_the_grid(name: str, stride: int, side: int) -> None:
    encoder = random_encoder(name, output_stride=stride)
    assert encoder.grid == (side, side)
    assert encoder.encode(np.zeros((1, 64, 64, 3), dtype=np.uint8)).shape == (
        1,
        side * side,
        encoder.channels,
    )


def test_the_stride_changes_the_fingerprint_although_the_weights_are_the_same() -> None:
    fingerprints = {random_encoder("test_resnet", output_stride=stride).fingerprint for stride in (0, 8, 16)}
    assert len(fingerprints) == 3
    assert random_encoder("test_resnet", output_stride=8).fingerprint in fingerprints


def test_a_restored_encoder_has_its_stride() -> None:
    encoder = random_encoder("test_resnet", output_stride=8)
    again = restore_encoder(encoder.config, encoder.source, encoder.preprocessing, encoder.state_dict())
    assert again.grid == (8, 8)
    assert again.fingerprint == encoder.fingerprint


@pytest.mark.parametrize("name", ["inception_v3", "vgg11", "vit_tiny_patch16_224"])
def test_a_backbone_without_strides_is_refused(name: str) -> None:
    with pytest.raises(
        EncoderError,
        match=f"The backbone {name} (cannot be built with|does not heed) encoder.output_stride = 8.*Leave it at 0",
    ):
        random_encoder(name, output_stride=8, image_size=96)


@pytest.mark.parametrize("stride", [-1, 4, 32])
def test_other_strides_are_refused(stride: int) -> None:
    with pytest.raises(ConfigError, match=f"output_stride must be 8, 16, or 0 .*Received: {stride}"):
        EncoderConfig(output_stride=stride)
