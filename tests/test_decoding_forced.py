"""Judging captions that are given: the probabilities of the search, for the captions that it found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.decoding import DecodingSettings, EnsembleStepper, Stepper, Voice, decode, judge_captions
from showtell.errors import ShowtellError, UsageError
from test_decoding import FIRST_WORD, SPECIAL, ScriptedStepper, ToyStepper, next_log_probs, quick

METHODS = (
    DecodingSettings(method="greedy", max_steps=8),
    DecodingSettings(method="beam", beam=3, count=3, max_steps=8),
    DecodingSettings(method="beam", beam=3, count=2, max_steps=8, no_repeat_ngram=2, no_double_words=True),
    DecodingSettings(method="sample", count=4, max_steps=8, seed=5),
)


def make(kind: str) -> Stepper:
    seeds = [3, 1, 4, 15]
    if kind == "one":
        return ToyStepper(seeds, 9)
    return EnsembleStepper([Voice(ToyStepper(seeds, 9), looks=True), Voice(ToyStepper([2, 7, 1, 8], 9))])


@pytest.mark.parametrize("kind", ["one", "ensemble"])
@pytest.mark.parametrize("settings", METHODS)
def test_what_the_search_found_is_judged_as_the_search_did(settings: DecodingSettings, kind: str) -> None:
    found = decode(make(kind), settings, SPECIAL)
    captions = [caption for image in found for caption in image]
    owners = np.array([owner for owner, image in enumerate(found) for _ in image])
    lengths = {len(caption.tokens) for caption in captions}
    assert len(lengths) > 1
    judged = judge_captions(make(kind), [caption.tokens for caption in captions], SPECIAL, owners=owners)
    for caption, one in zip(captions, judged, strict=True):
        assert one.token_log_probs.shape == (len(caption.tokens) + 1,)
        known = caption.token_log_probs
        np.testing.assert_allclose(one.token_log_probs[: len(known)], known, rtol=1e-6)
        np.testing.assert_allclose(one.attention, caption.attention, rtol=1e-6)


@quick
@given(
    st.lists(st.lists(st.integers(FIRST_WORD, 8), min_size=1, max_size=5), min_size=1, max_size=6), st.data()
)
def test_any_caption_is_judged_as_word_by_word(captions: list[list[int]], data: st.DataObject) -> None:
    owners = sorted(data.draw(st.lists(st.integers(0, 2), min_size=len(captions), max_size=len(captions))))
    stepper = ToyStepper([5, 9, 2], 9)
    judged = judge_captions(stepper, captions, SPECIAL, owners=np.array(owners))
    for caption, owner, one in zip(captions, owners, judged, strict=True):
        for place, token in enumerate([*caption, SPECIAL.end]):
            expected = next_log_probs(stepper, owner, tuple(caption[:place]))[token]
            assert one.token_log_probs[place] == pytest.approx(expected, abs=1e-5)
        assert math.fsum(one.token_log_probs) < 0
        assert one.attention is not None
        assert one.attention.shape == (len(caption), ToyStepper.cells)


def test_captions_leave_when_they_end() -> None:
    stepper = ToyStepper([1, 2, 3], 9)
    judge_captions(stepper, [[4, 5, 6, 7], [4], [5, 6]], SPECIAL)
    assert stepper.rows == [3, 3, 2, 1, 1]


def test_a_decoder_without_attention_gives_none() -> None:
    [judged] = judge_captions(ScriptedStepper(np.zeros((1, 4, 7))), [[4, 5]], SPECIAL)
    assert judged.attention is None
    np.testing.assert_allclose(np.exp(judged.token_log_probs), [1 / 3, 1 / 4, 1 / 4], rtol=1e-6)
    assert judge_captions(ToyStepper([]), [], SPECIAL) == []


@pytest.mark.parametrize("token", [SPECIAL.pad, SPECIAL.start, SPECIAL.end, SPECIAL.unknown, 9, -1])
def test_what_can_never_come_out_is_refused(token: int) -> None:
    with pytest.raises(UsageError, match=rf"ids below 9 and none of the special ones .*Received: {token}\."):
        judge_captions(ToyStepper([1], 9), [[4, token]], SPECIAL)


def test_captions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="An empty caption has no words to judge"):
        judge_captions(ToyStepper([1, 2]), [[4], []], SPECIAL)
    with pytest.raises(UsageError, match="There are 1 captions for 2 places"):
        judge_captions(ToyStepper([1, 2]), [[4]], SPECIAL)
    damaged = ScriptedStepper(np.full((1, 3, 7), np.nan))
    with pytest.raises(ShowtellError, match="non-finite logits at step 1"):
        judge_captions(damaged, [[4]], SPECIAL)
