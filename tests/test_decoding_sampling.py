"""Sampling draws from the distribution that its settings describe, and a seed reproduces it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.decoding import DecodingSettings, SpecialTokens, StepResult, decode
from showtell.decoding.rollout import draw_tokens

SPECIAL = SpecialTokens()
SAMPLE = DecodingSettings(method="sample")


class EvenStepper:
    """Every word is equally likely at every step, and the end is as likely as one of them."""

    def __init__(self, images: int, vocab: int = 24) -> None:
        self.images = images
        self.vocab_size = vocab

    def start(self, owners: np.ndarray) -> Any:
        return owners

    def step(self, tokens: np.ndarray, state: Any) -> StepResult:
        return StepResult(np.zeros((len(tokens), self.vocab_size), dtype=np.float32), state, None)

    def select(self, state: Any, rows: np.ndarray) -> Any:
        return state[rows]


def cut_naively(probabilities: list[float], setup: DecodingSettings) -> dict[int, float]:
    """Temperature, then top_k, then top_p over what is left, in plain Python."""
    heated = [probability ** (1 / setup.temperature) for probability in probabilities]
    order = sorted(range(len(heated)), key=lambda token: (-heated[token], token))
    order = [token for token in order if heated[token] > 0][: setup.top_k or None]
    total = math.fsum(heated[token] for token in order)
    kept: list[int] = []
    while math.fsum(heated[token] for token in kept) < setup.top_p * total - 1e-12:
        kept.append(order[len(kept)])
    return {token: heated[token] / math.fsum(heated[other] for other in kept) for token in kept}


PROBABILITIES = [0.0, 0.05, 0.3, 0.0, 0.1, 0.22, 0.2, 0.08, 0.05]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_k": 1},
        {"top_k": 1_000},
        {"top_p": 0.7},
        {"top_p": 0.4},
        {"top_k": 4, "top_p": 0.6},
        {"temperature": 1.7, "top_p": 0.6},
        {"temperature": 0.6, "top_k": 5, "top_p": 0.9},
    ],
    ids=str,
)
def test_frequencies_are_those_of_the_renormalised_distribution(values: dict[str, Any]) -> None:
    setup = replace(SAMPLE, **values)
    expected = cut_naively(PROBABILITIES, setup)
    draws = 40_000
    with np.errstate(divide="ignore"):
        logits = np.tile(np.log(np.array(PROBABILITIES)), (draws, 1)).astype(np.float32)
    tokens = draw_tokens(logits, np.random.default_rng(5).random(draws), setup)
    counts = Counter(tokens.tolist())
    assert set(counts) == set(expected)
    for token, probability in expected.items():
        spread = math.sqrt(draws * probability * (1 - probability))
        assert abs(counts[token] - draws * probability) <= 4.5 * spread + 1e-9, token


def test_the_nucleus_is_cut_after_the_temperature() -> None:
    logits = np.tile(np.log(np.array([0.5, 0.3, 0.2])), (2_000, 1)).astype(np.float32)
    draws = np.random.default_rng(1).random(2_000)
    assert set(draw_tokens(logits, draws, replace(SAMPLE, top_p=0.6)).tolist()) == {0, 1}
    # At temperature 0.5 the first has 0.25 / 0.38 = 0.66 and is the whole nucleus.
    assert set(draw_tokens(logits, draws, replace(SAMPLE, top_p=0.6, temperature=0.5)).tolist()) == {0}


def test_a_wide_nucleus_in_a_large_vocabulary() -> None:
    vocab = 5_000
    logits = np.zeros((2_000, vocab), dtype=np.float32)
    tokens = draw_tokens(logits, np.random.default_rng(3).random(2_000), replace(SAMPLE, top_p=0.5))
    assert tokens.max() < vocab // 2  # of equals the lowest ids
    assert len(set(tokens.tolist())) > 1_200  # 2,000 draws of 2,500: about 1,377 different ones


def test_the_nucleus_is_a_share_of_the_whole_vocabulary() -> None:
    weights = np.full(2_000, 100 / 1_900)
    weights[1_000:1_100] = 1  # these hundred hold one half
    logits = np.tile(np.log(weights), (3_000, 1)).astype(np.float32)
    draws = np.random.default_rng(3).random(3_000)
    assert set(draw_tokens(logits, draws, replace(SAMPLE, top_p=0.4999)).tolist()) == set(range(1_000, 1_100))


@settings(max_examples=100, deadline=None)
@given(
    logits=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=40),
    forbidden=st.integers(0, 39),
    draw=st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 1 - 2**-53])),
    temperature=st.sampled_from([1e-300, 0.01, 1.0, 50.0, 1e300]),
    top_k=st.integers(0, 50),
    top_p=st.sampled_from([1e-300, 0.3, 0.999999, 1.0]),
)
def test_a_draw_is_always_an_allowed_token(
    logits: list[float], forbidden: int, draw: float, temperature: float, top_k: int, top_p: float
) -> None:
    row = np.array([[*logits, 0.0]], dtype=np.float32)
    row[0, forbidden % row.shape[1]] = -np.inf
    setup = replace(SAMPLE, temperature=temperature, top_k=top_k, top_p=top_p)
    token = int(draw_tokens(row, np.array([draw]), setup)[0])
    assert row[0, token] > -np.inf
    if top_k == 1 or top_p == 1e-300:
        assert token == int(row[0].argmax())


def test_a_seed_reproduces_and_another_differs() -> None:
    setup = replace(SAMPLE, count=3, max_steps=10, seed=4)
    first, again = (decode(EvenStepper(6), setup, SPECIAL) for _ in range(2))
    assert first == again
    other = decode(EvenStepper(6), replace(setup, seed=5), SPECIAL)
    assert all(one != two for one, two in zip(first, other))


def test_images_and_samples_have_streams_of_their_own() -> None:
    groups = decode(EvenStepper(40), replace(SAMPLE, count=5, max_steps=12), SPECIAL)
    long = [caption.tokens for group in groups for caption in group if len(caption.tokens) > 3]
    assert len(long) > 100
    assert len(set(long)) == len(long)
    alike = decode(EvenStepper(3), replace(SAMPLE, max_steps=12), SPECIAL, image_seeds=[7, 8, 7])
    assert alike[0] == alike[2] != alike[1]


def test_large_seeds_do_not_run_into_each_other() -> None:
    setup = replace(SAMPLE, max_steps=12)
    (one,) = decode(EvenStepper(1), replace(setup, seed=1), SPECIAL, image_seeds=[5])
    (two,) = decode(EvenStepper(1), replace(setup, seed=1 + 5 * 2**32), SPECIAL, image_seeds=[0])
    (three,) = decode(EvenStepper(1), replace(setup, seed=1), SPECIAL, image_seeds=[5 + 2**40])
    assert one != two
    assert one != three


def test_a_higher_limit_only_lengthens_what_was_cut() -> None:
    short = decode(EvenStepper(20, 6), replace(SAMPLE, max_steps=3), SPECIAL)
    long = decode(EvenStepper(20, 6), replace(SAMPLE, max_steps=30), SPECIAL)
    assert all(one.tokens == two.tokens[:3] for (one,), (two,) in zip(short, long))
    assert any(len(two.tokens) > 3 for (two,) in long)


def test_first_words_are_drawn_evenly_over_images() -> None:
    groups = decode(EvenStepper(3_000, 14), replace(SAMPLE, max_steps=1), SPECIAL)
    counts = Counter(caption.tokens[0] for (caption,) in groups)
    assert set(counts) == set(range(4, 14))
    assert all(abs(count - 300) < 4.5 * math.sqrt(300 * 0.9) for count in counts.values())


def test_samples_come_with_the_best_score_first() -> None:
    setup = replace(SAMPLE, count=6, max_steps=8, length_penalty=0.0)
    groups = decode(EvenStepper(5), setup, SPECIAL)
    for group in groups:
        scores = [caption.score for caption in group]
        assert len(scores) == 6
        assert scores == sorted(scores, reverse=True)
    assert len({caption.score for group in groups for caption in group}) > 1


def test_log_probabilities_are_the_models_own() -> None:
    setup = replace(SAMPLE, max_steps=1, temperature=0.3, top_k=2, top_p=0.5)
    ((caption,),) = decode(EvenStepper(1, vocab=12), setup, SPECIAL)
    assert caption.log_prob == pytest.approx(-math.log(8), rel=1e-6)
