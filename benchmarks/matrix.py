"""The machine's own speed: products of large matrices in each precision, and the operations of a network."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.sides import Round


def multiply(size: int) -> Round:
    """Multiplies square matrices; says the billions of operations per second in float32, bf16 and int8."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    products: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]] = {
        "float32": (torch.mm, left, right),
        "bf16": (torch.mm, left.bfloat16(), right.bfloat16()),
        # Private to PyTorch, but the only one that shows what the processor can do with bytes.
        "int8": (torch._int_mm, (left * 30).clamp(-127, 127).char(), (right * 30).clamp(-127, 127).char()),
    }
    for product, one, other in products.values():
        product(one, other)

    def one_round() -> dict[str, Any]:
        rates = {}
        for name, (product, one, other) in products.items():
            # The best of three: what the machine can do, not what it did while something else ran.
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                product(one, other)
                seconds.append(time.perf_counter() - started)
            rates[name] = 2 * size**3 / min(seconds) / 1e9
        return {"units": 3 * len(products), "rates": rates}

    return one_round


def count_operations(folder: str) -> Round:
    """Counts the floating-point operations of one image in a model's encoder, without a classifier."""
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.rivals.tutorial import build_encoder, read_plain, to_cells

    def one_round() -> dict[str, Any]:
        facts, tensors = read_plain(Path(folder))
        network = build_encoder(facts, tensors)
        size = facts["preprocessing"]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            to_cells(network, torch.zeros(1, 3, size["height"], size["width"]))
        return {"units": 1, "operations": counter.get_total_flops()}

    return one_round
