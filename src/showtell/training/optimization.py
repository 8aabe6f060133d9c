"""The optimiser, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from showtell.config import TrainingConfig
from showtell.encoders import Encoder, zoo


def create_optimizer(
    decoder: nn.Module, encoder: Encoder | None, config: TrainingConfig, *, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """Returns Adam or AdamW over the decoder and, where it is trained, the encoder with its own rate.

    Biases, normalisation and word embeddings are not decayed: decay is for matrices that multiply activations.
    Source: Kingma and Ba 2015; Loshchilov and Hutter 2019.

    Args:
        decoder: the decoder.
        encoder: a trainable encoder, or None.
        config: `optimizer`, `learning_rate`, `encoder_learning_rate` and `weight_decay`.
        layer_decay: how fast a layer of the encoder learns, as a share of the layer above it (Bao et al. 2022).
    """
    embeddings = {
        id(parameter)
        for module in decoder.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    groups = []
    for module, rate in ((decoder, config.learning_rate), (encoder, config.encoder_learning_rate)):
        if module is None:
            continue
        if module is encoder and layer_decay < 1:
            for member in encoder.members:
                for group in zoo.group_by_layer(
                    member.backbone, weight_decay=config.weight_decay, layer_decay=layer_decay
                ):
                    peak = rate * group.pop("lr_scale")
                    groups.append({**group, "peak": peak, "lr": peak})
            continue
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        decayed = [p for p in parameters if p.ndim > 1 and id(p) not in embeddings]
        kept = [p for p in parameters if p.ndim <= 1 or id(p) in embeddings]
        for members, decay in ((decayed, config.weight_decay), (kept, 0.0)):
            if members:
                groups.append({"params": members, "peak": rate, "lr": rate, "weight_decay": decay})
    kind: type[torch.optim.Adam] = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, fused=True)


def learning_rate_factor(step: int, total: int, config: TrainingConfig) -> float:
    """Returns what the peak learning rate is multiplied with at a step.

    A function of the step alone: nothing needs to be stored to resume it.

    Args:
        step: from 0.
        total: steps of the whole run.
        config: `schedule` and `warmup`.
    """
    warm = config.warmup * total
    if config.schedule == "onecycle":
        # Smith 2018: a cosine from 1/25 of the peak up to it, and down to nearly nothing.
        if step < warm:
            return _cosine(1 / 25, 1.0, step / warm)
        return _cosine(1.0, 1e-4, (step - warm) / max(1.0, total - warm))
    if step < warm:
        return (step + 1) / (warm + 1)
    if config.schedule == "cosine":
        return _cosine(1.0, 0.0, (step - warm) / max(1.0, total - warm))
    return 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Sets the rate of every group to its peak times `factor`; returns the decoder's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(optimizer.param_groups[0]["lr"])


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
