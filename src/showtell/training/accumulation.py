"""Several batches for one step of the optimiser.

The gradient of a step is that of one batch with all the captions: each batch's loss counts by its share of the tokens,
not as one of so many. What a batch does to itself stays its own: batch norms in training mode normalise each apart, and
dropout draws other numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from showtell.training.batches import EncodedCaption


@dataclass(frozen=True)
class Share:
    """The place of one batch in its step."""

    tokens: int  # of the whole step
    captions: int  # of the whole step
    begins: bool = True  # the first batch of its step
    ends: bool = True  # the last one


def count_steps(batches: int, accumulate: int) -> int:
    """Returns how many steps so many batches are; the last one may have fewer of them."""
    return -(-batches // accumulate)


def plan_shares(
    plan: Sequence[Sequence[int]], captions: Sequence[EncodedCaption], accumulate: int
) -> list[Share]:
    """Returns the share of each batch of an epoch.

    Args:
        plan: of the whole epoch, as `plan_epoch` gives it.
        captions: all training captions.
        accumulate: batches per step.
    """
    shares = []
    for start in range(0, len(plan), accumulate):
        members = plan[start : start + accumulate]
        tokens = sum(len(captions[index].targets) for batch in members for index in batch)
        total = sum(map(len, members))
        shares += [
            Share(tokens, total, begins=number == 0, ends=number == len(members) - 1)
            for number in range(len(members))
        ]
    return shares
