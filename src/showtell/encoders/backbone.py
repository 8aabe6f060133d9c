"""The encoder: any timm backbone, as a grid of feature vectors or as their mean, frozen or trainable."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from showtell.config import FROM, KINDS_OF_WEIGHTS, EncoderConfig
from showtell.encoders import metadata, weights, zoo
from showtell.encoders.folding import fold_batch_norms
from showtell.encoders.layouts import check_stride, find_layout, to_cells
from showtell.encoders.precision import resolve_precision
from showtell.encoders.weights import WeightsSource
from showtell.errors import ConfigError, EncoderError
from showtell.images import Preprocessing

FloatArray = npt.NDArray[np.float32]
# `encode` changes for a moment how many cores torch uses, which is one number for the whole process: another thread
# that looked at it meanwhile would go on with the wrong one, and round otherwise.
_cores = threading.Lock()
_PIECE = 16  # images that go through the network at once in `encode`: more fall out of the processor's cache


class Encoder(nn.Module):
    """A backbone and everything that must not be mixed up with it.

    Pooled features are the plain mean over the grid's cells. For ResNets, Inceptions and EfficientNets that
    is what their own classifiers see; backbones that normalise or project after pooling (ConvNeXt,
    MobileNetV3) are taken before that.

    A frozen encoder stays in evaluation mode whatever `train()` says, so its batch norms never move.

    Attributes:
        output: "grid" or "pooled".
        grid: (rows, columns) of cells in the backbone's last feature map.
        cells: feature vectors per image: rows x columns, or 1 where the output is pooled.
        channels: the length of a feature vector.
        preprocessing: what must happen to a picture before.
        source: where the weights come from.
        fingerprint: of architecture, weights, preprocessing and output, as they were when the encoder was
            built: equal fingerprints give equal features, up to the precision of the arithmetic.
        precision: "bf16" or "float32", of `encode`.
        trainable: whether it takes part in training.
        fixed: modules of a trainable encoder that stay in evaluation mode whatever `train()` says, too.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        config: EncoderConfig,
        source: WeightsSource,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.source = source
        self.preprocessing = preprocessing
        self.output = config.output
        self.trainable = config.trainable
        self.precision = resolve_precision(config.precision)
        self.layout, self.grid, self.channels = self._measure()
        self.cells = self.grid[0] * self.grid[1] if self.output == "grid" else 1
        self.fingerprint = self.compute_fingerprint()
        self.fixed: list[nn.Module] = []
        self._fast: list[nn.Module] = []  # in lists, so that they are no submodules and no part of the state
        self._taught: list[nn.Module] = []
        self.register_load_state_dict_post_hook(_forget_stale_copies)  # type: ignore[no-untyped-call]
        if not self.trainable:
            self.requires_grad_(False)
        self.train(self.trainable)

    @property
    def members(self) -> tuple[Encoder, ...]:
        """The encoders of one backbone each that this one is made of: itself, unless it is a `FusedEncoder`."""
        return (self,)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image's features: (cells, channels), or (channels,) where the output is pooled."""
        return (self.cells, self.channels) if self.output == "grid" else (self.channels,)

    def train(self, mode: bool = True) -> Encoder:
        """Sets training mode; a frozen encoder, and what is fixed of another, stays in evaluation mode."""
        super().train(mode and self.trainable)
        for module in self.fixed:
            module.train(False)
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Computes features; without gradients where the encoder is frozen.

        Args:
            pixels: float (images, 3, height, width), normalised as `preprocessing` says.

        Returns:
            (images, cells, channels), row by row, or (images, channels) where the output is pooled.

        Raises:
            ConfigError: one image alone in training, which the backbone's batch norms cannot take.
        """
        if self.trainable:
            # Convolutions train almost twice as fast so. Only the pixels: moments of the optimiser that a
            # checkpoint gives back would not fit weights in this layout.
            try:
                network = self._taught[0] if self._taught else self.backbone
                return self._features(network, pixels.contiguous(memory_format=torch.channels_last))
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise ConfigError(
                    f"The backbone {self.config.name} shrinks images of {self.preprocessing.width}x"
                    f"{self.preprocessing.height} to a single cell, and this batch has a single image, so its batch "
                    "normalisation has nothing to take a mean over. Raise encoder.image_size, put more images into "
                    "a batch (training.batch_size), or set encoder.trainable = false."
                ) from None
        with torch.no_grad():
            return self._features(self.backbone, pixels)

    def freeze(self, parts: Sequence[nn.Module], learning: Collection[nn.Parameter]) -> None:
        """Fixes parts of a trainable encoder until the next call; what is frozen runs faster, its batch norms folded.

        Must be called again after weights of frozen parts have changed.

        Args:
            parts: modules that stay in evaluation mode whatever `train()` says.
            learning: the parameters of whole stages that learn.
        """
        self.fixed = list(parts)
        self._taught.clear()
        if not set(learning).issuperset(self.backbone.parameters()):
            self._taught.append(fold_batch_norms(self.backbone, self._probe(), learning=learning))
        self.train(self.training)

    def encode(self, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> FloatArray:
        """Computes features outside of training: evaluation mode, no gradients, the fastest precision.

        Calls on several threads take turns; each uses all cores.

        Args:
            pixels: uint8 (images, height, width, 3) as `preprocessing.resize` gives them, or float32
                (images, 3, height, width), normalised.

        Returns:
            float32 (images, cells, channels), or (images, channels) where the output is pooled.

        Raises:
            EncoderError: pixels of another type or shape, or features that are not finite.
        """
        with _cores:
            network = self._inference_network()
            was_training = self.training
            if self.trainable:
                super().train(False)
            try:
                pieces = self._encode_pieces(network, pixels)
            finally:
                self.train(was_training)
        if not pieces:
            return np.empty((0, *self.shape), dtype=np.float32)
        features = np.concatenate(pieces)
        if not np.isfinite(features).all():
            raise EncoderError(
                f"The backbone {self.config.name} gives features that are not finite. Try precision = "
                '"float32", '
                "and check the weights."
            )
        return features

    def _measure(self) -> tuple[str, tuple[int, int], int]:
        """Returns the layout of the backbone's features, its grid and its channels."""
        layout, grid, channels = find_layout(self.backbone, self.preprocessing, self.config.name)
        check_stride(self.config, self.preprocessing, grid)
        return layout, grid, channels

    def _encode_pieces(self, network: nn.Module, pixels: npt.NDArray[Any]) -> list[FloatArray]:
        """Runs pieces of a batch side by side, each on one processor core.

        Splitting every single convolution over the cores instead makes them wait for each other hundreds of times
        per batch, which is four times slower where other programs use the cores too.
        """
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        size = max(1, min(_PIECE, -(-len(pixels) // threads)))
        pieces = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        if threads == 1 or len(pieces) < 2:
            return [self._encode_piece(network, piece) for piece in pieces]
        try:
            with ThreadPoolExecutor(threads, "encode", initializer=_use_one_core) as pool:
                return list(pool.map(lambda piece: self._encode_piece(network, piece), pieces))
        finally:
            torch.set_num_threads(
                threads
            )  # what threads set for themselves also becomes the default for new ones

    @torch.inference_mode()
    def _encode_piece(self, network: nn.Module, pixels: npt.NDArray[Any]) -> FloatArray:
        batch = self._to_input(pixels)
        if self.precision == "bf16" and self.trainable:
            with torch.autocast(self.device.type, torch.bfloat16):
                features = self._features(network, batch)
        else:
            features = self._features(network, batch.bfloat16() if self.precision == "bf16" else batch)
        array: FloatArray = features.float().cpu().numpy()
        return array

    def _to_input(self, pixels: npt.NDArray[Any]) -> Tensor:
        """Returns float (images, 3, height, width), channels last in memory: convolutions like that."""
        height, width = self.preprocessing.height, self.preprocessing.width
        if pixels.dtype == np.uint8 and pixels.shape[1:] == (height, width, 3):
            batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
            mean = torch.tensor(self.preprocessing.mean, device=self.device).view(3, 1, 1)
            std = torch.tensor(self.preprocessing.std, device=self.device).view(3, 1, 1)
            return batch.div_(255.0).sub_(mean).div_(std)
        if pixels.dtype == np.float32 and pixels.shape[1:] == (3, height, width):
            return torch.from_numpy(pixels).to(self.device).contiguous(memory_format=torch.channels_last)
        raise EncoderError(
            f"pixels must be uint8 (images, {height}, {width}, 3), or normalised float32 (images, 3, "
            f"{height}, {width}). Received: {pixels.dtype} {tuple(pixels.shape)}"
        )

    def _features(self, network: nn.Module, pixels: Tensor) -> Tensor:
        grid = to_cells(network.forward_features(pixels), self.layout, network)  # type: ignore[operator]
        return grid if self.output == "grid" else grid.mean(dim=1)

    def _inference_network(self) -> nn.Module:
        """Returns what `encode` runs: the backbone itself where it is trained, else a faster copy."""
        if self.trainable:
            return self.backbone
        if not self._fast:
            fast = self.fold_backbone()
            fast = fast.to(dtype=torch.bfloat16) if self.precision == "bf16" else fast
            self._fast.append(fast.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        return self._fast[0]

    def fold_backbone(self) -> nn.Module:
        """Returns a copy of the backbone for inference, its batch norms folded into the convolutions."""
        return fold_batch_norms(self.backbone, self._probe())

    def _probe(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        size = (self.preprocessing.height, self.preprocessing.width)
        return torch.rand(2, 3, *size, generator=generator).to(self.device)

    def _apply(self, *arguments: Any, **options: Any) -> Encoder:
        self._forget_copies()  # `.to(device)` and the like come through here
        super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]
        self.precision = resolve_precision(self.config.precision, self.device)
        return self

    def _forget_copies(self) -> None:
        self._fast.clear()
        self._taught.clear()

    def compute_fingerprint(self) -> str:
        """Returns the fingerprint of the encoder as it is now: another one after training."""
        facts: dict[str, Any] = {
            "name": self.source.name,
            "arguments": [[key, value] for key, value in self.source.arguments],
            "identities": [list(path) for path in self.source.identities],
            "tensors": weights.digest_tensors(self.backbone.state_dict()),
            "preprocessing": self.preprocessing.fingerprint(),
            "output": self.output,
        }
        if self.config.output_stride:  # the same tensors with other strides give other features
            facts["output_stride"] = self.config.output_stride
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def build_single(
    config: EncoderConfig,
    *,
    seed: int = 0,
    source: WeightsSource | None = None,
    search: Sequence[Path] = (),
) -> Encoder:
    """Builds an encoder of one backbone; arguments and errors are those of `showtell.encoders.build_encoder`."""
    name = config.name
    if source is not None:
        if source.name != name:
            raise EncoderError(
                f"The encoder is {name!r} by its configuration, but its weights are of {source.name!r}."
            )
        zoo.check_backbone(name)
        kind, seed = source.kind, source.seed
        path = Path()
        if kind == "file":
            path = weights.find_weights(
                source.digest, extra=search, file_name=source.file_name, address=source.address
            )
    else:
        if config.weights == FROM:
            raise ConfigError(
                f"encoder.weights = {FROM!r} is for runs that start from a captioner. Name it with --from MODEL."
            )
        zoo.check_backbone(name)
        kind = config.weights if config.weights in KINDS_OF_WEIGHTS else "file"
        path = weights.locate_weights(config.weights)
    if kind == "file":
        encoder = _build_from_file(config, path)
    else:
        encoder = _build_from_timm(config, kind, seed)
    if source is not None and encoder.source.digest != source.digest:
        raise EncoderError(
            f"The {kind} weights of {name} are not the ones that were used: sha256 "
            f"{encoder.source.digest[:12]}..., expected {source.digest[:12]}... Another version of timm or "
            "torch gives other weights. Include the backbone in the bundle instead of referring to it."
        )
    return encoder


def restore_single(
    config: EncoderConfig,
    source: WeightsSource,
    preprocessing: Preprocessing,
    tensors: Mapping[str, Tensor],
) -> Encoder:
    """Builds an encoder of one backbone whose weights are at hand; see `showtell.encoders.restore_encoder`.

    Args:
        config: of the encoder.
        source: the record of the weights that it started from; no file is looked for.
        preprocessing: of the encoder.
        tensors: `encoder.state_dict()`.

    Raises:
        ConfigError: timm has no such backbone.
        EncoderError: the tensors do not fit.
    """
    backbone = _build_backbone(config, dict(source.arguments), 0, preprocessing.height)
    for path in source.identities:
        metadata.replace_by_identity(backbone, path, "the encoder's record")
    own = {name.removeprefix("backbone."): value for name, value in tensors.items()}
    weights.load_tensors(backbone, own, where="the encoder's weights")
    return Encoder(backbone, config=config, source=source, preprocessing=preprocessing)


def _use_one_core() -> None:
    torch.get_num_threads()  # torch sets a thread up on first use, and would undo the next line then
    torch.set_num_threads(1)


def _forget_stale_copies(encoder: Encoder, _keys: object) -> None:
    encoder._forget_copies()  # they were made of the weights before


def _build_from_timm(config: EncoderConfig, kind: str, seed: int) -> Encoder:
    preprocessing = zoo.published_preprocessing(config.name, image_size=config.image_size, fit=config.fit)
    backbone = _build_backbone(config, {}, seed, config.image_size, pretrained=kind == "imagenet")
    source = WeightsSource(
        name=config.name,
        kind=kind,
        digest=weights.digest_tensors(backbone.state_dict()),
        file_name=zoo.hub_name(config.name) or "" if kind == "imagenet" else "",
        address=zoo.hub_address(config.name) if kind == "imagenet" else "",
        seed=seed if kind == "random" else 0,
    )
    return Encoder(backbone, config=config, source=source, preprocessing=preprocessing)


def _build_from_file(config: EncoderConfig, path: Path) -> Encoder:
    file = weights.read_weights(path)
    where = str(path)
    notes = metadata.BuildNotes(config.name)
    if "timm" in file.metadata:
        notes = metadata.parse_build(file.metadata["timm"], where)
        if notes.name.partition(".")[0] != config.name.partition(".")[0]:
            raise EncoderError(
                f"{where}: these weights are of the backbone {notes.name!r}, but {config.name!r} is asked "
                f"for. Use --encoder {notes.name} (encoder.name), or another weights file."
            )
    feed = metadata.parse_feed(file.metadata, where)
    published = zoo.published_preprocessing(config.name, image_size=config.image_size, fit=config.fit)
    height, width = (
        (config.image_size,) * 2 if config.image_size else feed.size or (published.height, published.width)
    )
    try:
        preprocessing = Preprocessing(
            height=height,
            width=width,
            mean=feed.mean or published.mean,
            std=feed.std or published.std,
            interpolation=published.interpolation,
            fit=config.fit,
        )
    except ConfigError as error:
        raise EncoderError(f"{where}: the metadata cannot be right: {error}") from None
    backbone = _build_backbone(config, dict(notes.arguments), 0, height)
    for identity in notes.identities:
        metadata.replace_by_identity(backbone, identity, where)
    weights.load_tensors(backbone, file.tensors, where=where, ignored=zoo.classifier_prefixes(config.name))
    source = WeightsSource(
        name=config.name,
        kind="file",
        digest=file.digest,
        file_name=path.name,
        address=file.metadata.get("source", ""),
        arguments=notes.arguments,
        identities=notes.identities,
    )
    return Encoder(backbone, config=config, source=source, preprocessing=preprocessing)


def _build_backbone(
    config: EncoderConfig,
    arguments: Mapping[str, Any],
    seed: int,
    image_size: int,
    *,
    pretrained: bool = False,
) -> nn.Module:
    arguments = {**zoo.size_arguments(config.name, image_size), **arguments}
    if config.output_stride:
        arguments["output_stride"] = config.output_stride
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return zoo.create_backbone(config.name, arguments, pretrained=pretrained)
