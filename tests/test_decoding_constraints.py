"""Words that captions must and must not hold: against brute force, in narrow beams and in batches."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.decoding import Constraints, DecodingSettings, Hypothesis, decode
from showtell.decoding.constraints import build_machine
from showtell.errors import ConfigError
from showtell.text import Vocabulary, tokenize
from test_decoding import (
    FIRST_WORD,
    SEARCHES,
    SPECIAL,
    ScriptedStepper,
    ToyStepper,
    enumerate_captions,
    next_log_probs,
)

WORDS = ("red", "shirt", "dog", "a", "cat", "small", "the", "hat")
quick = settings(max_examples=80, deadline=None)
Words = tuple[str, ...]


def vocabulary(words: int) -> Vocabulary:
    return Vocabulary(WORDS[:words])


def search(seeds: list[int], words: int, setup: DecodingSettings, **bias: float) -> list[list[Hypothesis]]:
    stepper = ToyStepper(seeds, FIRST_WORD + words, bias={SPECIAL.end: bias["end"]} if bias else None)
    constraints = Constraints.read(setup, vocabulary(words))
    return decode(stepper, setup, SPECIAL, image_seeds=seeds, constraints=constraints)


def says(words: Words, phrase: list[str]) -> bool:
    return any(list(words[place : place + len(phrase)]) == phrase for place in range(len(words)))


def keeps(words: Words, setup: DecodingSettings) -> bool:
    """Whether a caption has what it must have and nothing that it must not have, in plain Python."""
    order = setup.no_repeat_ngram
    ngrams = [words[place : place + order] for place in range(len(words) - order + 1)] if order else []
    return (
        all(any(says(words, tokenize(text)) for text in entry.split("|")) for entry in setup.include)
        and not any(says(words, tokenize(entry)) for entry in setup.exclude)
        and not (setup.no_double_words and any(one == two for one, two in itertools.pairwise(words)))
        and len(set(ngrams)) == len(ngrams)
    )


def spell(tokens: tuple[int, ...]) -> Words:
    return tuple(WORDS[token - FIRST_WORD] for token in tokens)


@functools.lru_cache(maxsize=32)
def everything(seed: int, words: int, steps: int, penalty: float) -> dict[Words, float]:
    found = enumerate_captions(ToyStepper([seed], FIRST_WORD + words), 0, steps, penalty)
    return {spell(tokens): score for tokens, score in found.items()}


def phrases(words: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(WORDS[:words]), min_size=1, max_size=3).map(" ".join)


def entries(words: int) -> st.SearchStrategy[tuple[str, ...]]:
    one = st.lists(phrases(words), min_size=1, max_size=3).map("|".join)
    return st.lists(one, min_size=1, max_size=3).map(tuple)


rules = st.fixed_dictionaries(
    {"no_repeat_ngram": st.sampled_from([0, 0, 1, 2, 3]), "no_double_words": st.booleans()}
)


# ---------------------------------------------------------------- against brute force


@settings(max_examples=200, deadline=None)
@given(data=st.data(), seed=st.integers(0, 5), words=st.integers(2, 3), rule=rules)
def test_a_full_width_beam_finds_every_caption_that_keeps_the_constraints(
    data: st.DataObject, seed: int, words: int, rule: dict[str, Any]
) -> None:
    steps, penalty = 5, data.draw(st.sampled_from([0.0, 1.0]))
    captions = everything(seed, words, steps, penalty)
    width = len(captions)
    wanted = {
        "include": data.draw(entries(words)),
        "exclude": tuple(data.draw(st.lists(phrases(words), max_size=2))),
        **rule,
    }
    free = DecodingSettings(beam=width, count=width, max_steps=steps, length_penalty=penalty)
    # The plain-Python rules read the fields alone, so they can judge what DecodingSettings refuses.
    asked = type("Asked", (), {**{name: getattr(free, name) for name in free.to_dict()}, **wanted})
    allowed = {words: score for words, score in captions.items() if keeps(words, asked)}  # type: ignore[arg-type]
    if not allowed:  # and only then
        with pytest.raises(ConfigError):
            search([seed], words, replace(free, **wanted))
        return
    setup = replace(free, **wanted)
    (found,) = search([seed], words, setup)
    assert len(found) == len(allowed)
    assert {spell(caption.tokens) for caption in found} == set(allowed)
    for caption in found:  # the scores are the model's own, as without constraints
        assert caption.score == pytest.approx(allowed[spell(caption.tokens)], abs=1e-5)
        assert caption.finished is (len(caption.tokens) < steps)
    (best,) = search([seed], words, replace(setup, count=1))
    assert best == found[:1]


@pytest.mark.parametrize(
    ("include", "held", "lacking"),
    [
        ("red", "a red shirt", "a shirt"),
        ("red shirt", "a red red shirt a", "red a shirt"),
        ("a a", "red a a", "a red a"),
        ("dog|cat", "a cat", "a red shirt"),
        ("small dog|cat", "a small dog", "a dog"),
        ("Red Shirt!", "a red shirt", "shirt red"),
    ],
)
def test_what_counts_as_included(include: str, held: str, lacking: str) -> None:
    machine = build_machine(Constraints.read(DecodingSettings(include=(include,)), Vocabulary(WORDS)).include)
    for text, expected in ((held, True), (lacking, False)):
        node = met = 0
        words = machine.words.tolist()
        for token in Vocabulary(WORDS).encode(text):
            node = machine.after[node, words.index(token) + 1 if token in words else 0]
            met |= machine.meets[node]
        assert (machine.missing[node, met] == 0) is np.bool_(expected)
        assert keeps(tuple(text.split()), DecodingSettings(include=(include,))) is expected


@pytest.mark.parametrize(
    ("include", "least"),
    [
        (("red", "red shirt"), 2),  # one holds the other
        (("red shirt", "shirt dog"), 3),  # one begins where the other ends
        (("a a", "a"), 2),
        (("a a", "a red a"), 4),
        (("red dog|cat", "red hat|dog"), 2),
        (("Dog", "dog", "dog.", "cat|dog"), 1),
        (("dog", "cat", "small hat"), 4),
    ],
)
def test_phrases_share_words(include: tuple[str, ...], least: int) -> None:
    setup = DecodingSettings(include=include, max_steps=least)
    assert build_machine(Constraints.read(setup, Vocabulary(WORDS)).include).least == least
    (found,) = search([3], 8, setup)
    assert all(keeps(spell(caption.tokens), setup) for caption in found)
    if least > 1:
        message = (
            rf"is {least} words long at least.*decoding\.max_steps = {least - 1}\. Include less, or raise"
        )
        with pytest.raises(ConfigError, match=message):
            search([3], 8, replace(setup, max_steps=least - 1))


# ---------------------------------------------------------------- narrow beams


def count_missing(words: Words, setup: DecodingSettings) -> int:
    """The least number of words after which a caption has everything, by trying all."""
    useful = sorted({word for entry in setup.include for text in entry.split("|") for word in text.split()})
    wanted = replace(setup, exclude=(), no_repeat_ngram=0, no_double_words=False)
    for more in itertools.count():
        if any(keeps((*words, *rest), wanted) for rest in itertools.product(useful, repeat=more)):
            return more
    raise AssertionError


def search_naively(seed: int, words: int, setup: DecodingSettings) -> list[tuple[Words, float]]:
    """A beam for each number of missing words, as lists, without a stopping rule or a second search."""
    stepper = ToyStepper([seed], FIRST_WORD + words)
    forbidding = replace(setup, include=())
    beams: list[tuple[float, Words, float, bool]] = [(0.0, (), 0.0, False)]
    for steps in range(1, setup.max_steps + 1):
        candidates = [entry for entry in beams if entry[3]]
        for _, said, log_prob, ended in beams:
            if ended:
                continue
            chances = next_log_probs(stepper, 0, tuple(FIRST_WORD + WORDS.index(word) for word in said))
            lacking = count_missing(said, setup)
            possible = {
                token: (said if token == SPECIAL.end else (*said, *spell((token,)))) for token in chances
            }
            for token, after in list(possible.items()):
                if (token == SPECIAL.end and lacking) or not keeps(after, forbidding):
                    del possible[token]
            ranked = sorted(possible, key=lambda token: -chances[token])
            helps = [
                token for token in ranked[setup.beam :] if count_missing(possible[token], setup) < lacking
            ]
            for token in [*ranked[: setup.beam], *helps]:
                total = log_prob + chances[token]
                score = total / steps**setup.length_penalty
                if count_missing(possible[token], setup) <= setup.max_steps - steps:
                    candidates.append((score, possible[token], total, token == SPECIAL.end))
        candidates.sort(key=lambda entry: -entry[0])
        beams = []
        for _, group in itertools.groupby(
            sorted(candidates, key=lambda entry: count_missing(entry[1], setup)),
            key=lambda entry: count_missing(entry[1], setup),
        ):
            beams += list(group)[: setup.beam]
    best = sorted(
        (entry for entry in beams if not count_missing(entry[1], setup)), key=lambda entry: -entry[0]
    )
    return [(said, score) for score, said, _, _ in best[: setup.count]]


@quick
@given(
    data=st.data(),
    seed=st.integers(0, 10_000),
    words=st.integers(2, 4),
    beam=st.integers(1, 4),
    steps=st.integers(4, 6),
    rule=rules,
    penalty=st.sampled_from([0.0, 0.7, 1.0]),
)
def test_the_beams_are_those_of_a_naive_search(
    data: st.DataObject, seed: int, words: int, beam: int, steps: int, rule: dict[str, Any], penalty: float
) -> None:
    include = data.draw(st.lists(phrases(words), min_size=1, max_size=2).map(tuple))
    try:
        setup = DecodingSettings(
            beam=beam, count=beam, max_steps=steps, length_penalty=penalty, include=include, **rule
        )
        (found,) = search([seed], words, setup)
    except ConfigError:
        return
    expected = search_naively(seed, words, setup)
    if expected:  # or else it has searched again
        assert [caption.score for caption in found] == pytest.approx(
            [score for _, score in expected], abs=1e-5
        )


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=3),
    words=st.integers(2, 5),
    beam=st.integers(1, 3),
    steps=st.integers(1, 9),
    rule=rules,
    end=st.floats(-3, 4),
)
def test_every_caption_of_a_narrow_beam_keeps_the_constraints_and_batches_are_as_one_by_one(
    data: st.DataObject, seeds: list[int], words: int, beam: int, steps: int, rule: dict[str, Any], end: float
) -> None:
    wanted = {
        "include": data.draw(entries(words)),
        "exclude": data.draw(st.lists(phrases(words), max_size=3)),
    }
    try:
        setup = DecodingSettings(beam=beam, count=beam, max_steps=steps, **wanted, **rule)
        together = search(seeds, words, setup, end=end)
    except ConfigError:
        return
    for seed, captions in zip(seeds, together, strict=True):
        assert captions
        assert all(keeps(spell(caption.tokens), setup) for caption in captions)
        assert len({caption.tokens for caption in captions}) == len(captions)
        (alone,) = search([seed], words, setup, end=end)
        assert alone == captions
        for one, other in zip(alone, captions, strict=True):
            np.testing.assert_array_equal(one.attention, other.attention)


def test_a_search_that_ends_in_a_dead_end_begins_again() -> None:
    # The model says "a" first. "a dog" and "a cat" then need one word more, but neither may follow the other.
    script = np.full((2, 3, FIRST_WORD + 5), -9.0)
    script[:, 0, FIRST_WORD + WORDS.index("a")] = 9
    script[:, 1, FIRST_WORD + WORDS.index("dog")] = 9
    script[1, 0] = script[1, 1] = 0
    script[1, 0, FIRST_WORD + WORDS.index("dog")] = script[1, 1, FIRST_WORD] = 9  # the other says "dog red"
    setup = DecodingSettings(beam=1, max_steps=3, include=("dog", "cat"), exclude=("dog cat", "cat dog"))
    stepper = ScriptedStepper(script)
    starts: list[list[int]] = []
    start = stepper.start
    stepper.start = lambda owners: starts.append(owners.tolist()) or start(owners)  # type: ignore[func-returns-value,method-assign]
    found = decode(stepper, setup, SPECIAL, constraints=Constraints.read(setup, vocabulary(5)))
    assert starts == [[0, 1], [0]]
    assert [spell(caption.tokens) for (caption,) in found] == [("dog", "red", "cat"), ("dog", "red", "cat")]


def test_included_words_come_where_the_model_would_say_them() -> None:
    # It says "a small dog", perhaps "a small cat", and of a shirt only when it has named the animal.
    script = np.full((1, 6, FIRST_WORD + 6), -8.0)
    for step, word in enumerate(("a", "small", "dog")):
        script[0, step, FIRST_WORD + WORDS.index(word)] = 4
    script[0, 2, FIRST_WORD + WORDS.index("cat")] = script[0, 4, FIRST_WORD + WORDS.index("shirt")] = 0
    script[0, 3:, SPECIAL.end] = 4
    stepper = ScriptedStepper(script)
    for include, expected in (
        ((), "a small dog"),
        (("cat",), "a small cat"),
        (("red shirt",), "a small dog red shirt"),
        (("cat|red shirt",), "a small cat"),
    ):
        setup = DecodingSettings(beam=3, max_steps=6, include=include, length_penalty=0.0)
        ((caption,),) = decode(stepper, setup, SPECIAL, constraints=Constraints.read(setup, vocabulary(6)))
        assert " ".join(spell(caption.tokens)) == expected


def test_an_image_has_a_beam_for_each_number_of_missing_words() -> None:
    setup = DecodingSettings(beam=3, max_steps=9, include=("red shirt", "dog"))
    stepper = ToyStepper([1, 2], FIRST_WORD + 8)
    decode(stepper, setup, SPECIAL, constraints=Constraints.read(setup, vocabulary(8)))
    assert stepper.rows[0] == 2
    assert max(stepper.rows) <= 2 * 3 * 4
    free, bound = ToyStepper([1, 2], FIRST_WORD + 8), ToyStepper([1, 2], FIRST_WORD + 8)
    decode(free, replace(setup, include=()), SPECIAL)
    decode(bound, setup, SPECIAL, constraints=Constraints(exclude=((FIRST_WORD, FIRST_WORD, FIRST_WORD),)))
    assert max(free.rows) <= 2 * 3 >= max(bound.rows)


# ---------------------------------------------------------------- excluded words, in every method


@quick
@given(
    seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=4),
    words=st.integers(2, 6),
    method=st.sampled_from(SEARCHES),
    data=st.data(),
    rule=rules,
)
def test_no_method_says_what_is_excluded_and_batches_are_as_one_by_one(
    seeds: list[int], words: int, method: dict[str, Any], data: st.DataObject, rule: dict[str, Any]
) -> None:
    exclude = data.draw(st.lists(phrases(words), min_size=1, max_size=6))
    setup = DecodingSettings(max_steps=8, exclude=tuple(exclude), **method, **rule)
    if set(WORDS[:words]) <= set(exclude):
        with pytest.raises(
            ConfigError, match=r"decoding\.exclude names every word of the model's vocabulary"
        ):
            search(seeds, words, setup)
        return
    together = search(seeds, words, setup)
    for seed, captions in zip(seeds, together, strict=True):
        assert [captions] == search([seed], words, setup)
        for caption in captions:
            assert keeps(spell(caption.tokens), setup)
            said = [
                next_log_probs(ToyStepper([seed], FIRST_WORD + words), 0, caption.tokens[:step])[token]
                for step, token in enumerate(caption.tokens)
            ]
            assert caption.token_log_probs[: len(said)] == pytest.approx(said, abs=1e-5)


@pytest.mark.parametrize("method", SEARCHES)
def test_a_caption_that_can_say_nothing_else_ends(method: dict[str, Any]) -> None:
    setup = DecodingSettings(max_steps=9, exclude=("red red", "red shirt", "shirt"), **method)
    for captions in search([3, 4], 2, setup, end=-50.0):
        assert captions[0].tokens == (FIRST_WORD,)
        assert captions[0].finished


def test_words_that_the_vocabulary_lacks_are_excluded_for_nothing() -> None:
    setup = DecodingSettings(exclude=("zebra", "red zebra"))
    assert Constraints.read(setup, vocabulary(4)) == Constraints()
    assert search([1, 2], 4, setup) == search([1, 2], 4, DecodingSettings())


@quick
@given(seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=3), method=st.sampled_from(SEARCHES))
def test_an_exclusion_that_never_applies_changes_nothing(seeds: list[int], method: dict[str, Any]) -> None:
    free = DecodingSettings(max_steps=3, **method)
    assert search(seeds, 6, free) == search(seeds, 6, replace(free, exclude=("red shirt dog a",)))
