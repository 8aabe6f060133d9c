"""Captions that may not repeat themselves: against brute force, in every method, alone and in batches."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.decoding import DecodingSettings, decode
from showtell.decoding.bans import Bans
from showtell.errors import ConfigError
from test_decoding import SEARCHES, SPECIAL, ToyStepper, enumerate_captions

quick = settings(max_examples=60, deadline=None)
constraints = st.fixed_dictionaries(
    {"no_repeat_ngram": st.integers(0, 4), "no_double_words": st.booleans()}
).filter(any)


def repeats(tokens: tuple[int, ...], setup: dict[str, Any]) -> bool:
    """Whether a caption says what it may not, in plain Python."""
    order = setup["no_repeat_ngram"]
    ngrams = [tokens[place : place + order] for place in range(len(tokens) - order + 1)] if order else []
    doubles = setup["no_double_words"] and any(one == other for one, other in itertools.pairwise(tokens))
    return doubles or len(set(ngrams)) < len(ngrams)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("doubles", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_full_width_beam_is_brute_force_without_repetitions(
    seed: int, order: int, doubles: bool, penalty: float
) -> None:
    stepper = ToyStepper([seed], vocab=6)  # two words
    setup = {"no_repeat_ngram": order, "no_double_words": doubles}
    everything = enumerate_captions(stepper, 0, max_steps=6, penalty=penalty)
    allowed = {tokens: score for tokens, score in everything.items() if not repeats(tokens, setup)}
    assert 0 < len(allowed) < len(everything)
    width = len(everything)
    (captions,) = decode(
        stepper,
        DecodingSettings(beam=width, count=width, max_steps=6, length_penalty=penalty, **setup),
        SPECIAL,
    )
    assert len(captions) == len(allowed)
    assert {caption.tokens for caption in captions} == set(allowed)
    for caption in captions:  # the scores are the model's own, as without constraints
        assert caption.score == pytest.approx(allowed[caption.tokens], abs=1e-5)


@quick
@given(
    seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=4),
    vocab=st.integers(5, 8),
    method=st.sampled_from(SEARCHES),
    setup=constraints,
    end=st.floats(-6, 1),
)
def test_no_method_repeats_and_batches_are_as_one_by_one(
    seeds: list[int], vocab: int, method: dict[str, Any], setup: dict[str, Any], end: float
) -> None:
    bias = {SPECIAL.end: end}
    chosen = DecodingSettings(max_steps=12, **method, **setup)
    together = decode(ToyStepper(seeds, vocab, bias=bias), chosen, SPECIAL, image_seeds=seeds)
    for seed, captions in zip(seeds, together, strict=True):
        alone = decode(ToyStepper([seed], vocab, bias=bias), chosen, SPECIAL, image_seeds=[seed])
        assert [captions] == alone
        for caption in captions:
            assert not repeats(caption.tokens, setup)


@quick
@given(
    seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=3),
    method=st.sampled_from(SEARCHES),
    order=st.integers(5, 8),
)
def test_a_constraint_that_never_applies_changes_nothing(
    seeds: list[int], method: dict[str, Any], order: int
) -> None:
    free = DecodingSettings(max_steps=order, **method)
    bound = replace(free, no_repeat_ngram=order)
    assert decode(ToyStepper(seeds), free, SPECIAL) == decode(ToyStepper(seeds), bound, SPECIAL)


@quick
@given(seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=3), setup=constraints)
def test_a_constrained_beam_of_one_is_greedy(seeds: list[int], setup: dict[str, Any]) -> None:
    beam = DecodingSettings(method="beam", beam=1, max_steps=10, **setup)
    greedy = replace(beam, method="greedy")
    assert decode(ToyStepper(seeds), beam, SPECIAL) == decode(ToyStepper(seeds), greedy, SPECIAL)


def test_a_caption_that_can_say_nothing_new_ends() -> None:
    stepper = ToyStepper([3, 4], vocab=6, bias={SPECIAL.end: -50.0})  # two words, and it never wants to end
    for method in SEARCHES:
        chosen = DecodingSettings(max_steps=9, no_repeat_ngram=1, **method)  # type: ignore[arg-type]
        for captions in decode(stepper, chosen, SPECIAL):
            assert {len(caption.tokens) for caption in captions} <= {1, 2}
            assert captions[0].finished


def test_logits_are_not_copied_where_nothing_is_forbidden() -> None:
    logits = np.zeros((2, 6), dtype=np.float32)
    bans = Bans(DecodingSettings(no_repeat_ngram=2), 2)
    assert bans.forbid(logits) is logits
    for tokens in ([4, 5], [5, 4], [4, 4]):
        bans.extend(np.arange(2), np.array(tokens))
    allowed = bans.forbid(logits)  # 4 5 4, where 5 came after 4; and 5 4 4, where 4 did
    assert np.argwhere(np.isneginf(allowed)).tolist() == [[0, 5], [1, 4]]
    assert not np.isneginf(logits).any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"no_repeat_ngram": -1}, "no_repeat_ngram to be a whole number >= 0. Received: -1"),
        ({"no_repeat_ngram": 2.0}, "no_repeat_ngram to be a whole number >= 0. Received: 2.0"),
        ({"no_repeat_ngram": True}, "no_repeat_ngram to be a whole number >= 0. Received: True"),
        ({"no_double_words": 1}, "no_double_words to be true or false. Received: 1"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecodingSettings(**values)
