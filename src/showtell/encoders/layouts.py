"""How a backbone lays out its last feature map, and that map as cells by channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from showtell.config import EncoderConfig
from showtell.errors import EncoderError
from showtell.images import Preprocessing


def find_layout(
    backbone: nn.Module, preprocessing: Preprocessing, name: str
) -> tuple[str, tuple[int, int], int]:
    """Returns how the backbone lays out features ("nchw", "nhwc", "tokens"), its grid and its channels."""
    was_training = backbone.training
    backbone.eval()
    probe = torch.zeros(1, 3, preprocessing.height, preprocessing.width)
    try:
        with torch.no_grad():
            features = backbone.forward_features(probe)  # type: ignore[operator]
    except Exception as error:  # networks fail in their own ways on sizes that they cannot take
        raise EncoderError(
            f"The backbone {name} cannot take images of {preprocessing.width}x{preprocessing.height}: {error}"
        ) from error
    finally:
        backbone.train(was_training)
    if isinstance(features, Tensor) and features.ndim == 4:
        channels = getattr(backbone, "num_features", None)
        _, second, third, last = features.shape
        last_is_channels = last == channels and second != channels
        if last_is_channels or (second == last and getattr(backbone, "output_fmt", "") == "NHWC"):
            return "nhwc", (second, third), last
        return "nchw", (third, last), second
    if isinstance(features, Tensor) and features.ndim == 3:
        cells = to_cells(features, "tokens", backbone)
        return "tokens", _token_grid(backbone, cells.shape[1]), cells.shape[2]
    shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    raise EncoderError(f"The backbone {name} gives no grid of features that Showtell knows: {shape}")


def check_stride(config: EncoderConfig, preprocessing: Preprocessing, grid: tuple[int, int]) -> None:
    """Raises EncoderError where a backbone took the output stride without heeding it."""
    # Not exactly: backbones differ in how they round at the border. One that does not heed it has half the cells.
    if config.output_stride and grid[0] < 0.75 * preprocessing.height / config.output_stride:
        raise EncoderError(
            f"The backbone {config.name} does not heed encoder.output_stride = {config.output_stride}: images of "
            f"{preprocessing.width}x{preprocessing.height} give {grid[0]}x{grid[1]} cells. Leave it at 0, or take a "
            "ResNet."
        )


def to_cells(features: Tensor, layout: str, backbone: nn.Module) -> Tensor:
    """Returns (images, cells, channels)."""
    if layout == "nchw":
        return features.flatten(2).transpose(1, 2)
    if layout == "nhwc":
        return features.flatten(1, 2)
    prefix = getattr(backbone, "num_prefix_tokens", 0)
    return features[:, int(prefix if isinstance(prefix, int) else 0) :]


def _token_grid(backbone: nn.Module, cells: int) -> tuple[int, int]:
    size = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    if isinstance(size, tuple) and len(size) == 2 and size[0] * size[1] == cells:
        return size
    side = round(cells**0.5)
    return (side, side) if side * side == cells else (1, cells)
