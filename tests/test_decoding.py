"""Greedy decoding and beam search against brute force, a naive reference and the known bugs of others."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.decoding import DecodingSettings, Hypothesis, SpecialTokens, StepResult, decode
from showtell.decoding.distribution import top_tokens
from showtell.errors import ConfigError, ShowtellError, UsageError

SPECIAL = SpecialTokens()
FIRST_WORD = 4
quick = settings(max_examples=60, deadline=None)


def absorb(hashes: Any, tokens: Any) -> Any:
    return (hashes * 1_000_003 + tokens * 7_919 + 12_345) % 2_147_483_647


def scatter(hashes: np.ndarray, width: int, salt: int) -> np.ndarray:
    """(rows,) -> (rows, width) numbers in [0, 1) that look random and depend on the row's hash alone."""
    return hashes[:, None] * (np.arange(width) * 48_271 + salt) % 2_147_483_647 % 10_007 / 10_007


class ToyStepper:
    """A recurrent model whose state is a hash of the image and the whole prefix, exact in any batch."""

    cells = 5

    def __init__(
        self, image_seeds: list[int], vocab: int = 7, *, bias: dict[int, float] | None = None
    ) -> None:
        self.images = len(image_seeds)
        self.vocab_size = vocab
        self.image_seeds = np.array(image_seeds, dtype=np.int64)
        self.bias = bias or {}
        self.rows: list[int] = []  # how many rows each step had
        self.attention_buffer = np.zeros((0, self.cells), dtype=np.float32)

    def logits(self, hashes: np.ndarray) -> np.ndarray:
        logits = (scatter(hashes, self.vocab_size, 17) * 4).astype(np.float32)
        for token, extra in self.bias.items():
            logits[:, token] += extra
        return logits

    def look(self, hashes: np.ndarray) -> np.ndarray:
        weights = scatter(hashes, self.cells, 31).astype(np.float32) + 0.1
        return weights / weights.sum(axis=1, keepdims=True)

    def start(self, owners: np.ndarray) -> Any:
        return owners, self.image_seeds[owners] * 65_537 + 1

    def step(self, tokens: np.ndarray, state: Any) -> StepResult:
        owners, hashes = state
        assert tokens.dtype == np.int64
        assert len(tokens) == len(owners) > 0
        assert (np.diff(owners) >= 0).all()  # an image's rows lie together, images in order
        assert SPECIAL.end not in tokens.tolist()  # a finished caption is never extended
        self.rows.append(len(tokens))
        hashes = absorb(hashes, tokens)
        self.attention_buffer[:] = -1  # what was returned before is overwritten, as some runtimes do
        self.attention_buffer = self.look(hashes)
        return StepResult(self.logits(hashes), (owners, hashes), self.attention_buffer)

    def select(self, state: Any, rows: np.ndarray) -> Any:
        return tuple(part[rows] for part in state)


class ScriptedStepper:
    """Logits that depend on the image and the step alone: `script[image][step]` is a row of them."""

    def __init__(self, script: np.ndarray) -> None:
        self.script = np.asarray(script, dtype=np.float32)
        self.images, _, self.vocab_size = self.script.shape
        self.rows: list[int] = []

    def start(self, owners: np.ndarray) -> Any:
        return owners, np.zeros_like(owners)

    def step(self, tokens: np.ndarray, state: Any) -> StepResult:
        owners, steps = state
        self.rows.append(len(tokens))
        return StepResult(self.script[owners, steps], (owners, steps + 1), None)

    def select(self, state: Any, rows: np.ndarray) -> Any:
        return tuple(part[rows] for part in state)


def next_log_probs(stepper: ToyStepper, image: int, prefix: tuple[int, ...]) -> dict[int, float]:
    """The model's distribution after a prefix, in plain Python."""
    value = int(stepper.image_seeds[image]) * 65_537 + 1
    for token in (SPECIAL.start, *prefix):
        value = absorb(value, token)
    logits = stepper.logits(np.array([value]))[0].tolist()
    allowed = [*([SPECIAL.end] if prefix else []), *range(FIRST_WORD, stepper.vocab_size)]
    peak = max(logits[token] for token in allowed)
    total = math.fsum(math.exp(logits[token] - peak) for token in allowed)
    return {token: logits[token] - peak - math.log(total) for token in allowed}


def enumerate_captions(
    stepper: ToyStepper, image: int, max_steps: int, penalty: float
) -> dict[tuple[int, ...], float]:
    """Every caption that is possible, with its score."""
    found: dict[tuple[int, ...], float] = {}

    def extend(prefix: tuple[int, ...], log_prob: float) -> None:
        steps = len(prefix) + 1
        for token, value in next_log_probs(stepper, image, prefix).items():
            if token == SPECIAL.end:
                found[prefix] = (log_prob + value) / steps**penalty
            elif steps == max_steps:
                found[*prefix, token] = (log_prob + value) / steps**penalty
            else:
                extend((*prefix, token), log_prob + value)

    extend((), 0.0)
    return found


def search_naively(
    stepper: ToyStepper, image: int, setup: DecodingSettings
) -> tuple[list[tuple[tuple[int, ...], float]], list[int]]:
    """One image, one list, no stopping rule: the captions with their scores, and how many were extended."""
    beam: list[tuple[float, tuple[int, ...], float, bool]] = [(0.0, (), 0.0, False)]
    extended = []
    for steps in range(1, setup.max_steps + 1):
        going_on = [entry for entry in beam if not entry[3]]
        if not going_on:
            break
        extended.append(len(going_on))
        candidates = [entry for entry in beam if entry[3]]
        for _, prefix, log_prob, _ in going_on:
            for token, value in next_log_probs(stepper, image, prefix).items():
                ended = token == SPECIAL.end
                tokens = prefix if ended else (*prefix, token)
                total = log_prob + value
                candidates.append((total / steps**setup.length_penalty, tokens, total, ended))
        beam = sorted(candidates, key=lambda entry: -entry[0])[: setup.beam]
    return [(tokens, score) for score, tokens, _, _ in beam][: setup.count], extended


def beam_setup(**values: Any) -> DecodingSettings:
    return DecodingSettings(method="beam", **values)


def decode_one(stepper: Any, setup: DecodingSettings) -> list[Hypothesis]:
    (captions,) = decode(stepper, setup, SPECIAL)
    return captions


GREEDY = DecodingSettings(method="greedy")


# ---------------------------------------------------------------- greedy


@quick
@given(seed=st.integers(0, 10_000), vocab=st.integers(5, 12), steps=st.integers(1, 12), end=st.floats(-3, 3))
def test_greedy_takes_the_likeliest_token_at_every_step(
    seed: int, vocab: int, steps: int, end: float
) -> None:
    stepper = ToyStepper([seed], vocab, bias={SPECIAL.end: end})
    (caption,) = decode_one(stepper, replace(GREEDY, max_steps=steps))

    prefix: tuple[int, ...] = ()
    expected: list[float] = []
    finished = False
    while len(expected) < steps and not finished:
        choices = next_log_probs(stepper, 0, prefix)
        best = max(choices, key=lambda token: choices[token])
        expected.append(choices[best])
        finished = best == SPECIAL.end
        prefix = prefix if finished else (*prefix, best)
    assert caption.tokens == prefix
    assert caption.finished is finished
    assert caption.token_log_probs == pytest.approx(expected, abs=1e-5)


@quick
@given(
    seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=4),
    vocab=st.integers(5, 12),
    steps=st.integers(1, 12),
    penalty=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
)
def test_a_beam_of_one_is_greedy(seeds: list[int], vocab: int, steps: int, penalty: float) -> None:
    common = {"max_steps": steps, "length_penalty": penalty}
    greedy = decode(ToyStepper(seeds, vocab), DecodingSettings(method="greedy", **common), SPECIAL)
    beam = decode(ToyStepper(seeds, vocab), beam_setup(beam=1, **common), SPECIAL)
    assert greedy == beam


# ---------------------------------------------------------------- beam search


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_full_width_beam_is_brute_force(seed: int, penalty: float) -> None:
    stepper = ToyStepper([seed], vocab=7)
    everything = enumerate_captions(stepper, 0, max_steps=4, penalty=penalty)
    width = len(everything)
    assert (
        width == 3 + 9 + 27 + 81
    )  # three words: captions that end after 1, 2 and 3 words, and those cut at 4

    captions = decode_one(stepper, beam_setup(beam=width, count=width, max_steps=4, length_penalty=penalty))
    assert {caption.tokens for caption in captions} == set(everything)
    for caption in captions:
        assert caption.score == pytest.approx(everything[caption.tokens], abs=1e-5)
        assert caption.finished is (len(caption.tokens) < 4)
    assert math.fsum(math.exp(caption.log_prob) for caption in captions) == pytest.approx(1, abs=1e-5)

    best = decode_one(stepper, beam_setup(beam=width, count=1, max_steps=4, length_penalty=penalty))
    assert best[0].score == pytest.approx(max(everything.values()), abs=1e-5)
    greedy = decode_one(stepper, replace(GREEDY, max_steps=4, length_penalty=penalty))
    assert best[0].score >= greedy[0].score - 1e-9


@quick
@given(
    seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=3),
    vocab=st.integers(5, 9),
    beam=st.integers(1, 8),
    steps=st.integers(1, 7),
    penalty=st.sampled_from([0.0, 0.7, 1.0, 1.5]),
    end=st.floats(-2, 4),
)
def test_the_beam_is_that_of_a_naive_search(
    seeds: list[int], vocab: int, beam: int, steps: int, penalty: float, end: float
) -> None:
    stepper = ToyStepper(seeds, vocab, bias={SPECIAL.end: end})
    setup = beam_setup(beam=beam, count=beam, max_steps=steps, length_penalty=penalty)
    found = decode(stepper, setup, SPECIAL)
    rows = [0] * steps
    for image, captions in enumerate(found):
        expected, extended = search_naively(stepper, image, setup)
        assert [caption.score for caption in captions] == pytest.approx(
            [score for _, score in expected], abs=1e-5
        )
        for step, count in enumerate(extended):
            rows[step] += count
    # Finished captions, and images whose captions are all finished, cost nothing more.
    assert stepper.rows == [count for count in rows if count]


@quick
@given(
    seed=st.integers(0, 10_000),
    beam=st.integers(1, 6),
    data=st.data(),
    penalty=st.sampled_from([0.0, 0.7, 1.0]),
    end=st.floats(-2, 6),
)
def test_stopping_early_changes_no_result(
    seed: int, beam: int, data: st.DataObject, penalty: float, end: float
) -> None:
    count = data.draw(st.integers(1, beam))
    setup = beam_setup(beam=beam, count=beam, max_steps=9, length_penalty=penalty)
    every, fewer = (ToyStepper([seed], 9, bias={SPECIAL.end: end}) for _ in range(2))
    expected = decode_one(every, setup)[:count]
    assert decode_one(fewer, replace(setup, count=count)) == expected
    assert sum(fewer.rows) <= sum(every.rows)


def test_the_search_stops_when_nothing_better_can_come() -> None:
    script = np.zeros((1, 9, 8))
    script[0, 0, 4] = 4
    script[0, 1:, SPECIAL.end] = 3
    every, best = ScriptedStepper(script), ScriptedStepper(script)
    setup = beam_setup(beam=4, count=4, max_steps=9, length_penalty=0.0)
    expected = decode_one(every, setup)
    assert decode_one(best, replace(setup, count=1)) == expected[:1]
    assert expected[0].tokens == (4,)
    assert every.rows[:3] == [1, 4, 3]  # beside the best, three were left to extend
    assert best.rows == [1, 4]


def test_length_normalisation_lets_a_longer_caption_win() -> None:
    script = np.full((1, 4, 6), -20.0)
    script[0, 0, 4] = 0
    script[0, 1] = np.log([1e-9, 1e-9, 0.5, 1e-9, 1e-9, 0.5])
    script[0, 2, 5] = 0
    script[0, 3, SPECIAL.end] = 0
    setup = beam_setup(beam=3, max_steps=4)
    normalised = decode_one(ScriptedStepper(script), setup)[0]
    assert normalised.tokens == (4, 5, 5)
    assert normalised.log_prob == pytest.approx(math.log(0.5), abs=1e-5)
    assert normalised.score == pytest.approx(math.log(0.5) / 4, abs=1e-5)
    # Without normalisation both have probability one half, and the one that was found first stays.
    assert decode_one(ScriptedStepper(script), replace(setup, length_penalty=0.0))[0].tokens == (4,)


def test_the_n_best_are_distinct_and_sorted() -> None:
    for captions in decode(ToyStepper([1, 2, 3], 12), beam_setup(beam=8, count=8, max_steps=10), SPECIAL):
        assert len({caption.tokens for caption in captions}) == len(captions) == 8
        assert all(before.score >= after.score for before, after in itertools.pairwise(captions))


def test_finished_images_leave_the_batch() -> None:
    script = np.zeros((2, 6, 7))
    script[:, :, SPECIAL.end] = -30
    for image, words in enumerate([1, 4]):
        script[image, words:, SPECIAL.end] = 30
    greedy, beam = ScriptedStepper(script), ScriptedStepper(script)
    captions = decode(greedy, replace(GREEDY, max_steps=6), SPECIAL)
    assert [len(caption.tokens) for (caption,) in captions] == [1, 4]
    assert greedy.rows == [2, 2, 1, 1, 1]
    captions = decode(beam, beam_setup(beam=2, count=2, max_steps=6), SPECIAL)
    assert [[len(caption.tokens) for caption in group] for group in captions] == [[1, 1], [4, 4]]
    assert beam.rows == [2, 4, 2, 2, 2]


def test_a_beam_wider_than_the_vocabulary() -> None:
    captions = decode_one(ToyStepper([5], vocab=6), beam_setup(beam=50, count=50, max_steps=3))
    assert len(captions) == 2 + 4 + 8  # all there are
    assert len(decode_one(ToyStepper([5], vocab=5), beam_setup(beam=50, count=50, max_steps=3))) == 3


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_one_step_gives_one_word(method: Any) -> None:
    (caption, *_) = decode_one(ToyStepper([5]), DecodingSettings(method=method, max_steps=1))
    assert len(caption.tokens) == 1
    assert not caption.finished


# ---------------------------------------------------------------- what every method promises

# For tests that add settings of their own.
SEARCHES: tuple[dict[str, Any], ...] = (
    {"method": "greedy"},
    {"method": "beam", "beam": 4, "count": 4},
    {"method": "sample", "count": 3, "seed": 5},
    {"method": "sample", "count": 2, "top_k": 2},
    {"method": "sample", "count": 2, "top_p": 0.6},
)
METHODS = [
    GREEDY,
    beam_setup(beam=4, count=3),
    beam_setup(beam=3, length_penalty=0.7),
    DecodingSettings(method="sample", count=3, seed=11),
    DecodingSettings(method="sample", top_k=4, top_p=0.8, temperature=1.3),
]
every_method = pytest.mark.parametrize(
    "setup", METHODS, ids=["greedy", "beam-n-best", "beam", "sample", "nucleus"]
)


@every_method
def test_batched_is_one_by_one(setup: DecodingSettings) -> None:
    seeds = [3, 14, 15, 92, 65, 35, 14]
    setup = replace(setup, max_steps=12)
    together = decode(ToyStepper(seeds, 11), setup, SPECIAL, image_seeds=seeds)
    lengths = {len(caption.tokens) for group in together for caption in group}
    assert len(lengths) > 1  # the images finish at different steps, or this would show little
    for seed, captions in zip(seeds, together):
        (alone,) = decode(ToyStepper([seed], 11), setup, SPECIAL, image_seeds=[seed])
        assert alone == captions
        for one, other in zip(alone, captions):
            np.testing.assert_array_equal(one.attention, other.attention)
    backwards = decode(ToyStepper(seeds[::-1], 11), setup, SPECIAL, image_seeds=seeds[::-1])
    assert backwards == together[::-1]


@every_method
@pytest.mark.parametrize("special", [SPECIAL, SpecialTokens(pad=8, start=1, end=2, unknown=5)])
def test_special_tokens_never_come_out(setup: DecodingSettings, special: SpecialTokens) -> None:
    loud = {special.pad: 30.0, special.start: 25.0, special.unknown: 28.0, special.end: 1.0}
    stepper = ToyStepper(list(range(20)), 10, bias=loud)
    words = set(range(10)) - {special.pad, special.start, special.end, special.unknown}
    for captions in decode(stepper, replace(setup, max_steps=8), special):
        for caption in captions:
            assert set(caption.tokens) <= words
            # What cannot come out takes no probability from what can.
            assert caption.log_prob > -8 * 6


@every_method
def test_no_caption_is_empty(setup: DecodingSettings) -> None:
    for captions in decode(ToyStepper(list(range(20)), 8, bias={SPECIAL.end: 40.0}), setup, SPECIAL):
        for caption in captions:
            assert len(caption.tokens) == 1
            assert caption.finished


@every_method
def test_a_caption_that_never_ends_keeps_its_last_word(setup: DecodingSettings) -> None:
    script = np.full((1, 7, 11), -60.0)
    script[0, np.arange(7), 4 + np.arange(7)] = 0  # word 4, then 5, ..., then 10
    captions = decode_one(ScriptedStepper(script), replace(setup, max_steps=7))
    assert captions[0].tokens == (4, 5, 6, 7, 8, 9, 10)
    assert not captions[0].finished
    assert len(captions[0].token_log_probs) == 7


def test_a_beam_of_unfinished_captions_still_gives_captions() -> None:
    stepper = ToyStepper([1, 2], 9, bias={SPECIAL.end: -40.0})
    for captions in decode(stepper, beam_setup(beam=4, count=4, max_steps=6), SPECIAL):
        assert [len(caption.tokens) for caption in captions] == [6, 6, 6, 6]
        assert not any(caption.finished for caption in captions)


@every_method
def test_attention_belongs_to_the_word_it_produced(setup: DecodingSettings) -> None:
    seeds = [7, 8, 9]
    stepper = ToyStepper(seeds, 11)
    for seed, captions in zip(seeds, decode(stepper, replace(setup, max_steps=10), SPECIAL)):
        for caption in captions:
            assert caption.attention is not None
            assert caption.attention.shape == (len(caption.tokens), stepper.cells)
            value = seed * 65_537 + 1
            for fed, looked in zip((SPECIAL.start, *caption.tokens), caption.attention):
                value = absorb(value, fed)
                np.testing.assert_array_equal(looked, stepper.look(np.array([value]))[0])


def test_a_decoder_without_attention_gives_none() -> None:
    assert decode_one(ScriptedStepper(np.zeros((1, 3, 6))), replace(GREEDY, max_steps=3))[0].attention is None


@every_method
@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
def test_log_probabilities_and_scores_add_up(setup: DecodingSettings, penalty: float) -> None:
    stepper = ToyStepper(list(range(8)), 9)
    setup = replace(setup, max_steps=8, length_penalty=penalty)
    for image, captions in enumerate(decode(stepper, setup, SPECIAL)):
        for caption in captions:
            fed = (*caption.tokens, SPECIAL.end) if caption.finished else caption.tokens
            expected = [
                next_log_probs(stepper, image, caption.tokens[:step])[token] for step, token in enumerate(fed)
            ]
            assert caption.token_log_probs == pytest.approx(expected, abs=1e-5)
            assert caption.log_prob == pytest.approx(math.fsum(expected), abs=1e-4)
            assert caption.score == pytest.approx(caption.log_prob / len(fed) ** penalty, rel=1e-12)


@every_method
def test_nothing_underflows_in_long_improbable_captions(setup: DecodingSettings) -> None:
    vocab, steps = 3_004, 200
    script = np.zeros((1, steps, vocab))
    script[:, :, SPECIAL.end] = -90
    for caption in decode_one(ScriptedStepper(script), replace(setup, max_steps=steps, top_k=0, top_p=1.0)):
        assert len(caption.tokens) == steps
        assert caption.log_prob == pytest.approx(-steps * math.log(vocab - 4), rel=1e-5)
        assert math.exp(caption.log_prob) == 0  # a product of probabilities would have been lost


@every_method
@pytest.mark.parametrize("extreme", [3e38, 1e-38])
def test_extreme_logits_are_no_error(setup: DecodingSettings, extreme: float) -> None:
    script = np.zeros((1, 4, 8))
    script[:, :, 5], script[:, :, 6] = extreme, -extreme
    for caption in decode_one(ScriptedStepper(script), replace(setup, max_steps=4)):
        assert math.isfinite(caption.log_prob)
        assert caption.log_prob <= 0


def test_ties_go_to_the_lowest_id() -> None:
    script = np.zeros((1, 3, 9))
    script[:, :, SPECIAL.end] = -30
    assert decode_one(ScriptedStepper(script), replace(GREEDY, max_steps=3))[0].tokens == (4, 4, 4)
    captions = decode_one(ScriptedStepper(script), beam_setup(beam=3, count=3, max_steps=2))
    assert [caption.tokens for caption in captions] == [(4, 4), (4, 5), (4, 6)]


@quick
@given(data=st.data(), rows=st.integers(1, 4), vocab=st.integers(1, 30), count=st.integers(1, 35))
def test_top_tokens_is_a_stable_sort(data: st.DataObject, rows: int, vocab: int, count: int) -> None:
    values = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0])
    table = data.draw(
        st.lists(st.lists(values, min_size=vocab, max_size=vocab), min_size=rows, max_size=rows)
    )
    expected = [sorted(range(vocab), key=lambda token: -row[token])[:count] for row in table]
    assert top_tokens(np.array(table, dtype=np.float32), count).tolist() == expected


def test_the_stepper_keeps_its_own_logits() -> None:
    stepper = ScriptedStepper(np.ones((2, 3, 7)))
    before = stepper.script.copy()
    stepper.step = lambda tokens, state: StepResult(stepper.script[:, 0], state, None)  # type: ignore[method-assign]
    decode(stepper, replace(GREEDY, max_steps=3), SPECIAL)
    np.testing.assert_array_equal(stepper.script, before)


def test_no_images_give_no_captions() -> None:
    assert decode(ToyStepper([]), GREEDY, SPECIAL) == []


# ---------------------------------------------------------------- what is refused


@every_method
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(setup: DecodingSettings, bad: float) -> None:
    script = np.zeros((3, 4, 8))
    script[:, :, SPECIAL.end] = -30
    script[1, 2, 5] = bad
    with pytest.raises(
        ShowtellError, match=rf"non-finite logits at step 3 for image 1 of the batch \(the first is {bad}\)"
    ):
        decode(ScriptedStepper(script), replace(setup, max_steps=4), SPECIAL)


def test_logits_of_the_wrong_shape_are_refused() -> None:
    stepper = ScriptedStepper(np.zeros((1, 4, 8)))
    stepper.vocab_size = 9
    with pytest.raises(ShowtellError, match=r"shape \(1, 8\) at step 1, but 1 rows of 9 tokens"):
        decode(stepper, GREEDY, SPECIAL)


@pytest.mark.parametrize(
    "special", [SpecialTokens(end=9), SpecialTokens(pad=-1), SpecialTokens(pad=1), SpecialTokens(unknown=2)]
)
@every_method
def test_special_tokens_that_do_not_fit_are_refused(setup: DecodingSettings, special: SpecialTokens) -> None:
    with pytest.raises(ConfigError, match="four different ids below the decoder's vocabulary size 9"):
        decode(ToyStepper([1], 9), setup, special)


def test_a_vocabulary_without_words_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocabulary of 4 tokens has no words"):
        decode(ToyStepper([1], 4), GREEDY, SPECIAL)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([1], "2 images but 1 image_seeds"),
        ([1, -2], r"must not be negative\. Received: -2"),
        ([1, 2.5], r"must be whole numbers\. Received: \[1, 2\.5\]"),
    ],
)
def test_image_seeds_that_do_not_fit_are_refused(seeds: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decode(ToyStepper([1, 2]), DecodingSettings(method="sample"), SPECIAL, image_seeds=seeds)
