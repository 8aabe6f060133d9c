"""Batch normalisation over a batch that several processes share.

torch's own SyncBatchNorm does this on GPUs alone and by putting other modules in the place of those of a network. Here
the operation itself is intercepted, wherever a network calls it, so that modules, their names and their checkpoints
stay as they are, and a CPU computes what one process with the whole batch does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import batch_norm
from torch.overrides import TorchFunctionMode

Add = Callable[[Tensor], None]  # adds up a tensor over all processes, in place


class JointBatchNorms(TorchFunctionMode):
    """While it is active, batch norms in training mode take mean and variance over the parts of all processes.

    All processes must compute the same layers in the same order.

    Args:
        add: adds up a tensor over all processes, in place.
        counts: whether this process's part belongs to the batch; where not, it is normalised and nothing more.
    """

    def __init__(self, add: Add, *, counts: bool) -> None:
        super().__init__()
        self._add = add
        self._counts = counts

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls torch's function, or, for a batch norm in training mode, the joint one."""
        options = options or {}
        if function is batch_norm and options.get("training"):
            return self._normalise(*arguments, **options)
        return function(*arguments, **options)

    def _normalise(
        self,
        inputs: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        *,
        weight: Tensor | None,
        bias: Tensor | None,
        momentum: float,
        eps: float,
        training: bool,
    ) -> Tensor:
        axes = [axis for axis in range(inputs.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(inputs.ndim)]
        values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        own = values if self._counts else values[:0]
        number = own.new_tensor([own.numel() / own.shape[1]])
        sums: Tensor = _Sum.apply(torch.cat([own.sum(axes), number]), self._add)  # type: ignore[no-untyped-call]
        number = sums[-1].detach()
        if number <= 1:
            # In torch's words, which callers know.
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {inputs.shape}"
            )
        mean = sums[:-1] / number
        centred = values - mean.view(shape)
        # From the differences: the mean of the squares less the squared mean would lose digits.
        squares = (centred if self._counts else centred[:0]).square().sum(axes)
        variance: Tensor = _Sum.apply(squares, self._add) / number  # type: ignore[no-untyped-call]
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((variance * number / (number - 1)).to(running_var.dtype), momentum)
        normalised = centred * torch.rsqrt(variance + eps).view(shape)
        if weight is not None:
            normalised = normalised * weight.view(shape)
        if bias is not None:
            normalised = normalised + bias.view(shape)
        return normalised.to(inputs.dtype)


class _Sum(torch.autograd.Function):
    """A sum over processes. All of their losses depend on it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, own: Tensor, add: Add) -> Tensor:
        context.add = add
        total = own.clone()
        add(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        context.add(total)
        return total, None
