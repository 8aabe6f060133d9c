"""The one place that imports timm: its backbones by name, and what it knows of each.

A torchvision built for another torch (a CUDA wheel beside a CPU torch, as package managers like to leave it)
fails on import with "operator torchvision::nms does not exist", and timm fails with it. Nothing here uses
that operator, so its declaration is enough for both to work.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from showtell.errors import ConfigError, EncoderError, did_you_mean
from showtell.images import INTERPOLATIONS, Preprocessing

_OPERATORS = ("nms", "qnms")  # those that torchvision's import asks for
_MADE_OF_PATHS = ("hf-hub:", "hf_hub:", "local-dir:", "timm:")  # timm's own ways to name what is no backbone


def import_torchvision() -> None:
    """Imports torchvision, also one whose compiled operators do not fit this torch.

    Raises:
        RuntimeError, ImportError: whatever else keeps torchvision from being imported.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        # Only now: where torchvision's own library loads, a second definition would be an error.
        for operator in _OPERATORS:
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
        importlib.import_module("torchvision")


import_torchvision()
import timm  # noqa: E402  # only after torchvision can be imported
from timm.models import PretrainedCfg, group_parameters  # noqa: E402
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]  # noqa: E402


@functools.cache
def backbone_names() -> tuple[str, ...]:
    """Returns the names of all backbones, without the tags of their weights."""
    return tuple(timm.list_models())


def check_backbone(name: str) -> None:
    """Raises ConfigError unless timm has a backbone of this name (a tag of its weights may follow a dot)."""
    base, dot, tag = name.partition(".")
    if name.startswith(_MADE_OF_PATHS) or base not in backbone_names():
        raise ConfigError(
            f"encoder.name: timm {timm.__version__} has no backbone {name!r}."
            f"{did_you_mean(base, backbone_names())} It has {len(backbone_names())}, resnet50 and "
            "inception_v3 among them: python -c \"import timm; print(timm.list_models('*resnet*'))\" lists "
            "them."
        )
    if dot:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
        if tag not in tags:
            raise ConfigError(
                f"encoder.name: {base} has no weights tagged {tag!r}.{did_you_mean(tag, tags)} "
                f"Its tags: {', '.join(tags) or 'none'}."
            )


def create_backbone(name: str, arguments: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    """Builds a backbone without its classifier.

    Args:
        name: as timm lists it.
        arguments: further keyword arguments of `timm.create_model`.
        pretrained: fetch ImageNet weights through timm's hub; random weights otherwise.

    Raises:
        ConfigError: there is no such backbone.
        EncoderError: the backbone does not take these arguments, or its weights cannot be fetched.
    """
    check_backbone(name)
    hub = hub_name(name)
    if pretrained and hub is None:
        raise EncoderError(
            f"timm publishes no ImageNet weights for {name}. Give a weights file (--weights FILE, or "
            'encoder.weights = "FILE"), or encoder.weights = "random".'
        )
    if "output_stride" in arguments:
        _check_strides(name, arguments)
    try:
        return _as_module(timm.create_model(name, pretrained=pretrained, **{**arguments, "num_classes": 0}))
    except Exception as error:  # the hub's clients raise classes of their own, which change between releases
        if pretrained:
            raise EncoderError(
                f"The ImageNet weights of {name} ({hub}) could not be fetched: {_first_line(error)}. Check "
                "the network or the proxy; or fetch the weights elsewhere "
                f"(python -c \"import timm; timm.create_model('{name}', pretrained=True)\", or "
                f"{hub_address(name)}) and give the file with --weights FILE."
            ) from error
        raise EncoderError(
            f"The backbone {name} cannot be built with {dict(arguments)!r}: {_first_line(error)}"
        ) from error


def hub_name(name: str) -> str | None:
    """Returns where timm fetches the default weights of a backbone, or None where there are none."""
    settings = timm.get_pretrained_cfg(name)
    if settings is None:
        return None
    return str(settings.hf_hub_id or settings.url or "") or None


def hub_address(name: str) -> str:
    """Returns the web address of a backbone's published weights; "" where there are none."""
    hub = hub_name(name)
    if hub is None or hub.startswith("http"):
        return hub or ""
    return f"https://huggingface.co/{hub}"


def published_preprocessing(name: str, *, image_size: int, fit: str) -> Preprocessing:
    """Returns the preprocessing that timm gives for a backbone.

    Args:
        name: of the backbone.
        image_size: height and width in pixels; 0 is the backbone's own.
        fit: "squash" or "crop".

    Raises:
        EncoderError: the backbone is not for RGB images.
    """
    settings = timm.get_pretrained_cfg(name) or PretrainedCfg()
    channels, height, width = settings.input_size
    if channels != 3:
        raise EncoderError(
            f"The backbone {name} takes {channels} channels; Showtell feeds RGB images, which have 3."
        )
    return Preprocessing(
        height=image_size or height,
        width=image_size or width,
        mean=(settings.mean[0], settings.mean[1], settings.mean[2]),
        std=(settings.std[0], settings.std[1], settings.std[2]),
        interpolation=settings.interpolation if settings.interpolation in INTERPOLATIONS else "bicubic",
        fit=fit,
    )


def size_arguments(name: str, image_size: int) -> dict[str, Any]:
    """Returns what a backbone must be told on building where its input size is part of it (ViT, Swin)."""
    settings = timm.get_pretrained_cfg(name)
    if settings is None or not settings.fixed_input_size or image_size in (0, settings.input_size[1]):
        return {}
    return {"img_size": image_size}


def classifier_prefixes(name: str) -> tuple[str, ...]:
    """Returns the names of the classifiers, auxiliary ones too, in a backbone's full checkpoints."""
    settings = timm.get_pretrained_cfg(name)
    names = settings.classifier if settings is not None else None
    listed = (names,) if isinstance(names, str) else tuple(names or ())
    return (*listed, "AuxLogits")


def group_into_stages(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """Returns a backbone's parameters by stage, from the picture up; one stage where timm knows none."""
    if not hasattr(backbone, "group_matcher"):
        return [list(backbone.parameters())]
    try:
        stages = group_parameters(backbone, backbone.group_matcher(coarse=True))  # type: ignore[operator]
    except AssertionError:  # timm's way to say that it does not know them
        return [list(backbone.parameters())]
    return [[backbone.get_parameter(name) for name in names] for _, names in sorted(stages.items())]


def group_by_layer(backbone: nn.Module, *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Returns groups for an optimiser of a backbone's parameters that learn: a rate for each layer.

    Args:
        backbone: whose layers are timm's: blocks, mostly.
        weight_decay: of matrices; vectors are not decayed.
        layer_decay: the rate of a layer as a share of the rate of the layer above it.

    Returns:
        Groups with "params", "weight_decay", and in "lr_scale" their share of the rate; the top layer's is 1.
    """
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        backbone, weight_decay=weight_decay, layer_decay=layer_decay
    )
    return groups


def recompute_activations(backbone: nn.Module, name: str) -> None:
    """Makes a backbone compute the activations inside its blocks again when gradients need them.

    Raises:
        ConfigError: the backbone cannot do that.
    """
    try:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (
        AttributeError,
        AssertionError,
        NotImplementedError,
        TypeError,
    ):  # backbones refuse in their own ways
        raise ConfigError(
            f"fine_tuning.recompute = true: the backbone {name} cannot compute its activations again. Set it to false, "
            "and lower training.batch_size and raise training.accumulate where memory is short."
        ) from None


def _check_strides(name: str, arguments: Mapping[str, Any]) -> None:
    """Raises EncoderError unless the backbone can be built with this output stride."""
    try:
        with torch.device("meta"):  # shapes alone: nothing is computed or fetched
            timm.create_model(name, pretrained=False, **{**arguments, "num_classes": 0})
    except Exception as error:  # backbones refuse arguments in their own ways
        raise EncoderError(
            f"The backbone {name} cannot be built with encoder.output_stride = {arguments['output_stride']}: "
            f"{_first_line(error)}. Leave it at 0 for the backbone's own, or take a ResNet."
        ) from error


def _as_module(backbone: Any) -> nn.Module:
    if not isinstance(backbone, nn.Module) or not callable(getattr(backbone, "forward_features", None)):
        raise TypeError("it has no forward_features")
    return backbone


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__
