"""Several backbones as one encoder: what each sees in a cell stands side by side in that cell's vector.

Backbones that were trained differently make different mistakes, and a decoder that reads both is better than with
either. All get the same resized pixels; each normalises them in its own way. The features of each are cached apart,
under the same fingerprint as those of an encoder of that backbone alone, so they are computed once for all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from showtell.config import SEPARATOR, EncoderConfig
from showtell.encoders.backbone import Encoder, FloatArray, build_single, restore_single
from showtell.encoders.cache_contents import JOURNAL, MANIFEST
from showtell.encoders.weights import MemberSource, WeightsSource
from showtell.errors import CacheError, ConfigError, EncoderError
from showtell.images import Preprocessing


class FusedEncoder(Encoder):
    """Encoders of one backbone each, frozen or all trainable, their features joined along the channels.

    `preprocessing` only scales pixels to 0..1: each member normalises for itself.

    Args:
        members: in the order of their channels; the same output, size of pictures and, for grids, cells.
        config: that names all of them.

    Raises:
        ConfigError: the members take pictures of different sizes, or give grids of different sizes.
    """

    def __init__(self, members: Sequence[Encoder], *, config: EncoderConfig) -> None:
        seen = _share_pixels(members)
        super().__init__(
            nn.ModuleList(members), config=config, source=_join_sources(members), preprocessing=seen
        )

    @property
    def members(self) -> tuple[Encoder, ...]:
        """The encoders of one backbone each, in the order of their channels."""
        return tuple(cast(Encoder, member) for member in self.backbone.children())

    def forward(self, pixels: Tensor) -> Tensor:
        """Computes features; without gradients where the encoder is frozen.

        Args:
            pixels: float (images, 3, height, width), 0..1.

        Returns:
            (images, cells, channels), row by row, or (images, channels) where the output is pooled.

        Raises:
            ConfigError: one image alone in training, which a backbone's batch norms cannot take.
        """
        features = []
        for member in self.members:
            mean = pixels.new_tensor(member.preprocessing.mean).view(3, 1, 1)
            std = pixels.new_tensor(member.preprocessing.std).view(3, 1, 1)
            features.append(member((pixels - mean) / std))
        return torch.cat(features, dim=-1)

    def encode(self, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> FloatArray:
        """Computes features as each member's `encode` does, and joins them.

        Args:
            pixels: uint8 (images, height, width, 3) as `preprocessing.resize` gives them, or float32
                (images, 3, height, width), 0..1.

        Raises:
            EncoderError: pixels of another type or shape, or features that are not finite.
        """
        return np.concatenate([member.encode(_normalise(pixels, member)) for member in self.members], axis=-1)

    def freeze(self, parts: Sequence[nn.Module], learning: Collection[nn.Parameter]) -> None:
        """Fixes parts of the members, as `Encoder.freeze` does for one."""
        for member in self.members:
            own = set(member.backbone.modules())
            member.freeze([part for part in parts if part in own], learning)
        self.train(self.training)

    def compute_fingerprint(self) -> str:
        """Returns the fingerprint: of those of the members as they are now, in their order."""
        # Those of frozen ones stay, and to digest all weights again would only make opening slower.
        facts = {
            "fused": [
                member.compute_fingerprint() if self.trainable else member.fingerprint
                for member in self.members
            ]
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _measure(self) -> tuple[str, tuple[int, int], int]:
        grids = {member.grid for member in self.members}
        if self.output == "grid" and len(grids) > 1:
            sizes = [f"{m.source.name} has {m.grid[0]}x{m.grid[1]}" for m in self.members]
            raise ConfigError(
                f"The backbones of encoder.name = {self.config.name!r} give grids of different sizes: "
                f"{', '.join(sizes)} cells. Take backbones with the same pixels per cell, another "
                'encoder.image_size, or encoder.output = "pooled".'
            )
        grid = self.members[0].grid if len(grids) == 1 else (1, 1)
        return "tokens", grid, sum(member.channels for member in self.members)


def build_encoder(
    config: EncoderConfig,
    *,
    seed: int = 0,
    source: WeightsSource | None = None,
    search: Sequence[Path] = (),
) -> Encoder:
    """Builds the encoder that a configuration asks for, of one backbone or several.

    Args:
        config: backbones, output, weights, input size, frozen or not.
        seed: of random weights (`weights = "random"`); torch's own generator is not touched.
        source: the record of an encoder built before: its weights are found again by digest, wherever the
            files are now, and checked.
        search: folders where weights files may be, beside those of `weights_folders`.

    Raises:
        ConfigError: timm has no such backbone, or several do not fit together.
        EncoderError: the weights cannot be had, are damaged, belong to another backbone, or are not the ones
            of `source`.
    """
    alone = config.backbones()
    if len(alone) == 1:
        return build_single(config, seed=seed, source=source, search=search)
    sources: Sequence[WeightsSource | None] = [None] * len(alone)
    if source is not None:
        _check_members(config, source)
        sources = [member.source for member in source.members]
    members = [
        build_single(one, seed=seed, source=own, search=search)
        for one, own in zip(alone, sources, strict=True)
    ]
    return FusedEncoder(_see_alike(members), config=config)


def restore_encoder(
    config: EncoderConfig,
    source: WeightsSource,
    preprocessing: Preprocessing,
    tensors: Mapping[str, Tensor],
) -> Encoder:
    """Builds an encoder whose weights are at hand, as in a bundle that includes them or a checkpoint.

    Args:
        config: of the encoder.
        source: the record of the weights that it started from; no file is looked for.
        preprocessing: of the encoder.
        tensors: `encoder.state_dict()`.

    Raises:
        ConfigError: timm has no such backbone.
        EncoderError: the tensors do not fit.
    """
    alone = config.backbones()
    if len(alone) == 1:
        return restore_single(config, source, preprocessing, tensors)
    _check_members(config, source)
    members = []
    for place, (one, member) in enumerate(zip(alone, source.members, strict=True)):
        prefix = f"backbone.{place}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        members.append(restore_single(one, member.source, member.preprocessing, own))
    return FusedEncoder(members, config=config)


def list_caches(encoder: Encoder, folder: Path) -> list[tuple[Encoder, Path]]:
    """Returns what is cached where in the folder that a user names: each member and the folder of its cache.

    Several backbones have a folder each in it, called as the backbone is. The cache of a single one is the folder
    itself, unless it holds such folders already and one of them is for this backbone.

    Raises:
        CacheError: the folder is the cache of a single backbone, and the encoder has several.
    """
    is_cache = _is_cache(folder)
    own = folder / encoder.source.name
    if len(encoder.members) == 1:
        return [(encoder, own if not is_cache and _is_cache(own) else folder)]
    if is_cache:
        names = " and ".join(member.source.name for member in encoder.members)
        raise CacheError(
            f"{folder}: the feature cache of a single backbone, and the encoder has {len(encoder.members)}. Give a "
            f"folder that holds one cache for each of them, in folders called {names}."
        )
    return [(member, folder / member.source.name) for member in encoder.members]


def _is_cache(folder: Path) -> bool:
    return any((folder / name).exists() for name in (MANIFEST, JOURNAL))


def _see_alike(members: Sequence[Encoder]) -> list[Encoder]:
    """Returns the members, those that would resize in another way than the first with its interpolation instead."""
    interpolation = members[0].preprocessing.interpolation
    return [
        member
        if member.preprocessing.interpolation == interpolation
        else Encoder(
            member.backbone,
            config=member.config,
            source=member.source,
            preprocessing=replace(member.preprocessing, interpolation=interpolation),
        )
        for member in members
    ]


def _share_pixels(members: Sequence[Encoder]) -> Preprocessing:
    """Returns what happens to a picture before the members part ways."""
    plain = [member.preprocessing.without_colours() for member in members]
    if any(seen != plain[0] for seen in plain):
        sizes = [f"{m.source.name} takes {seen.width}x{seen.height}" for m, seen in zip(members, plain)]
        raise ConfigError(
            f"The backbones take pictures of different sizes: {', '.join(sizes)}. Set encoder.image_size to one that "
            "suits all of them."
        )
    return plain[0]


def _join_sources(members: Sequence[Encoder]) -> WeightsSource:
    digests = [member.source.digest for member in members]
    if len(set(digests)) < len(digests):
        names = SEPARATOR.join(member.source.name for member in members)
        raise ConfigError(f"encoder.name = {names!r} has the same backbone with the same weights twice.")
    return WeightsSource(
        name=SEPARATOR.join(member.source.name for member in members),
        kind="fused",
        digest=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        members=tuple(MemberSource(member.source, member.preprocessing) for member in members),
    )


def _check_members(config: EncoderConfig, source: WeightsSource) -> None:
    names = [member.source.name for member in source.members]
    if names != [one.name for one in config.backbones()]:
        raise EncoderError(
            f"The encoder is {config.name!r} by its configuration, but its weights are of "
            f"{SEPARATOR.join(names) or source.name!r}."
        )


def _normalise(pixels: npt.NDArray[Any], member: Encoder) -> npt.NDArray[Any]:
    if pixels.dtype != np.float32:
        return pixels  # the member itself normalises pixels, and refuses what it cannot take
    mean = np.array(member.preprocessing.mean, dtype=np.float32).reshape(3, 1, 1)
    std = np.array(member.preprocessing.std, dtype=np.float32).reshape(3, 1, 1)
    return (pixels - mean) / std
