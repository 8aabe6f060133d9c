"""A frozen network's batch norms, multiplied into the convolutions before them.

In evaluation mode a batch norm is one multiplication and one addition per channel, which the convolution
before it can do for free (Jacob et al. 2018, section 3.2). On a CPU this makes MobileNets about a third
faster.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_TOLERANCE = 1e-3  # relative to the largest feature; what rounding does is a hundred times smaller


@torch.no_grad()
def fold_batch_norms(backbone: nn.Module, probe: Tensor) -> nn.Module:
    """Returns a copy of a backbone in evaluation mode, its batch norms folded where that changes nothing.

    Which batch norm follows which convolution is seen from one forward pass, not guessed from names; and the
    folded network must give the same features on `probe`, or the copy is returned unfolded.

    Args:
        backbone: with `forward_features`; it is not changed.
        probe: float (images, 3, height, width), an input to compare on.
    """
    plain = copy.deepcopy(backbone).eval().requires_grad_(False)
    folded = copy.deepcopy(plain)
    pairs = _find_pairs(folded, probe)
    for convolution, norm in pairs:
        _fold(folded, convolution, norm)
    expected: Tensor = plain.forward_features(probe)  # type: ignore[operator]  # the caller's contract
    received: Tensor = folded.forward_features(probe)  # type: ignore[operator]
    error = (received - expected).abs().max()
    return folded if bool(error <= _TOLERANCE * expected.abs().max()) else plain


def _find_pairs(network: nn.Module, probe: Tensor) -> list[tuple[str, str]]:
    """Returns (convolution, batch norm) by name, where the norm's input is the convolution's output."""
    makers: dict[int, tuple[str, Tensor]] = {}  # keeps the tensors, so that no two have the same id
    pairs: list[tuple[str, str]] = []
    calls: Counter[str] = Counter()

    def note_convolution(name: str, output: Any) -> None:
        calls[name] += 1
        makers[id(output)] = (name, output)

    def note_norm(name: str, inputs: tuple[Any, ...]) -> None:
        calls[name] += 1
        if inputs and id(inputs[0]) in makers:
            pairs.append((makers[id(inputs[0])][0], name))

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(
                module.register_forward_hook(lambda _m, _i, out, name=name: note_convolution(name, out))
            )
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            hooks.append(
                module.register_forward_pre_hook(lambda _m, inputs, name=name: note_norm(name, inputs))
            )
    try:
        network.forward_features(probe)  # type: ignore[operator]
    finally:
        for hook in hooks:
            hook.remove()
    used = Counter(convolution for convolution, _ in pairs)
    return [
        (convolution, norm)
        for convolution, norm in pairs
        if calls[convolution] == calls[norm] == used[convolution] == 1
    ]


def _fold(network: nn.Module, convolution_name: str, norm_name: str) -> None:
    convolution = network.get_submodule(convolution_name)
    norm = network.get_submodule(norm_name)
    if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        return
    if norm.running_mean is None or norm.running_var is None:
        return
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    # timm's batch norms carry the activation that follows them.
    rest = [
        getattr(norm, part) for part in ("drop", "act") if isinstance(getattr(norm, part, None), nn.Module)
    ]
    parent, _, child = norm_name.rpartition(".")
    network.get_submodule(parent)._modules[child] = nn.Sequential(
        *(part for part in rest if not isinstance(part, nn.Identity))
    )
