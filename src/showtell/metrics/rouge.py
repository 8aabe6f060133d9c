"""ROUGE-L as coco-caption computes it (Lin 2004, section 3.1).

The best precision and the best recall may come from different references; recall weighs more (beta = 1.2).
"""

from __future__ import annotations

from collections.abc import Sequence

_BETA_SQUARED = 1.2**2


def score_rouge(
    references: Sequence[Sequence[Sequence[str]]], hypotheses: Sequence[Sequence[str]]
) -> tuple[float, list[float]]:
    """Scores one hypothesis per image.

    Args:
        references: per image, the tokens of its references, at least one.
        hypotheses: per image, the tokens of its hypothesis.

    Returns:
        The mean over the images, and per image; each 0 to 1.
    """
    per_image = [
        _score_image(tokens_of_references, tokens)
        for tokens_of_references, tokens in zip(references, hypotheses, strict=True)
    ]
    return sum(per_image) / len(per_image), per_image


def _score_image(references: Sequence[Sequence[str]], hypothesis: Sequence[str]) -> float:
    # coco-caption splits the empty caption into one empty token.
    tokens = hypothesis or [""]
    precision = recall = 0.0
    for reference in references:
        others = reference or [""]
        common = _longest_common(tokens, others)
        precision = max(precision, common / len(tokens))
        recall = max(recall, common / len(others))
    if precision == 0:
        return 0.0
    return (1 + _BETA_SQUARED) * precision * recall / (recall + _BETA_SQUARED * precision)


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence.

    One row of the usual table is held in the bits of an integer (Hyyro 2004), where zeros mark the places at
    which the length grows.
    """
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    mask = (1 << len(first)) - 1
    row = mask
    for token in second:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & mask
    return len(first) - row.bit_count()
