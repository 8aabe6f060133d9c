"""Bootstrap intervals: against corpora that are really drawn and scored, and against known statistics."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from showtell.errors import MetricError, UsageError
from showtell.metrics import CorpusIdf, Scores, bootstrap_intervals, compare_paired, describe_score, score
from showtell.metrics.bootstrap import Interval, _draw

WORDS = [*"abcdefghij", "dog", "cat", "man", "woman", "runs", "sits", "jumps", "on", "grass", "red"]


def write_captions(images: int, seed: int, length: int = 8) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, size=length)) for _ in range(images)]


def score_some(
    images: int = 30, seed: int = 0, quality: float = 0.5
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Random references, and hypotheses that copy the first half of some of them."""
    references = {
        str(image): [first, second]
        for image, (first, second) in enumerate(
            zip(write_captions(images, seed), write_captions(images, seed + 1), strict=True)
        )
    }
    noise = write_captions(images, seed + 2)
    good = np.random.default_rng(seed + 3).random(images) < quality
    hypotheses = {
        key: " ".join(texts[0].split()[:5] + noise[row].split()[:3]) if good[row] else noise[row]
        for row, (key, texts) in enumerate(references.items())
    }
    return references, hypotheses


def test_every_drawn_corpus_has_the_score_of_its_images() -> None:
    references, hypotheses = score_some(12)
    idf = CorpusIdf.from_references(references)
    found = score(references, hypotheses, corpus_idf=idf)
    resamples = 40
    by_hand: dict[str, list[float]] = {}
    for shares in _draw(12, resamples, 5):
        for row in shares:
            assert row.sum() == 12
            drawn = [key for key, count in zip(references, row, strict=True) for _ in range(int(count))]
            again = {f"{key} {place}": references[key] for place, key in enumerate(drawn)}
            written = {f"{key} {place}": hypotheses[key] for place, key in enumerate(drawn)}
            for key, value in score(again, written, corpus_idf=idf).corpus.items():
                by_hand.setdefault(key, []).append(value)
    intervals = bootstrap_intervals(found, resamples=resamples, confidence=0.8, seed=5)
    assert list(intervals) == list(found.corpus) == list(by_hand)
    for key, values in by_hand.items():
        assert intervals[key].low == pytest.approx(np.quantile(values, 0.1), abs=1e-9)
        assert intervals[key].high == pytest.approx(np.quantile(values, 0.9), abs=1e-9)


def test_an_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).random(500)
    scores = Scores(
        {"ROUGE_L": float(values.mean())},
        {str(row): {"ROUGE_L": float(one)} for row, one in enumerate(values)},
    )
    interval = bootstrap_intervals(scores, resamples=4000)["ROUGE_L"]
    error = float(values.std() / np.sqrt(len(values)))
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    found = score(*score_some())
    assert bootstrap_intervals(found) == bootstrap_intervals(found)
    assert bootstrap_intervals(found, seed=1) != bootstrap_intervals(found)
    # More corpora begin with the same ones: blocks do not matter.
    assert bootstrap_intervals(found, resamples=150) != bootstrap_intervals(found, resamples=100)


def test_a_thousand_resamples_of_five_thousand_images_take_little() -> None:
    references, hypotheses = score_some(5000)
    found = score(references, hypotheses)
    started = time.process_time()
    bootstrap_intervals(found)
    assert time.process_time() - started < 5  # about half a second


def test_one_system_beats_another_only_where_it_does() -> None:
    references, good = score_some(200, quality=0.8)
    _, bad = score_some(200, quality=0.4)
    ours, theirs = score(references, good), score(references, bad)
    found = compare_paired(ours, theirs)
    for key in ours.corpus:
        assert found[key].value == ours.corpus[key] - theirs.corpus[key]
        assert found[key].interval.low < found[key].value < found[key].interval.high
        assert found[key].better > 0.99
        assert found[key].p_value < 0.02
    reverse = compare_paired(theirs, ours)
    for key, one in found.items():
        assert reverse[key].value == -one.value
        assert reverse[key].better == pytest.approx(1 - one.better)
        assert reverse[key].p_value == one.p_value
    same = compare_paired(ours, ours)["CIDEr"]
    assert (same.value, same.better, same.p_value) == (0.0, 0.5, 1.0)
    assert same.interval == Interval(0.0, 0.0)


def test_a_pair_is_compared_on_the_same_drawn_images() -> None:
    references, hypotheses = score_some(40)
    ours = score(references, hypotheses, metrics=["ROUGE_L"])
    less = {key: {"ROUGE_L": one["ROUGE_L"] - 0.01} for key, one in ours.per_image.items()}
    theirs = replace(ours, corpus={"ROUGE_L": ours.corpus["ROUGE_L"] - 0.01}, per_image=less)
    found = compare_paired(ours, theirs, resamples=99)["ROUGE_L"]
    assert found.interval.low == pytest.approx(0.01)
    assert found.interval.high == pytest.approx(0.01)
    assert found.p_value == pytest.approx(2 / 100)


def test_metrics_of_one_side_alone_are_left_out() -> None:
    references, hypotheses = score_some()
    both = score(references, hypotheses)
    one = score(references, hypotheses, metrics=["CIDEr"])
    assert list(compare_paired(both, one)) == ["CIDEr"]
    with_meteor = replace(one, corpus={**one.corpus, "METEOR": 0.2})
    assert list(bootstrap_intervals(with_meteor)) == ["CIDEr"]


def test_what_cannot_be_drawn_is_refused() -> None:
    found = score(*score_some(3))
    with pytest.raises(UsageError, match=r"needs at least 1 resample\. Received: 0"):
        bootstrap_intervals(found, resamples=0)
    with pytest.raises(UsageError, match=r"between 0 and 1\. Received: 95"):
        bootstrap_intervals(found, confidence=95)
    with pytest.raises(MetricError, match="scored on the same images"):
        compare_paired(found, score(*score_some(4)))


def test_scores_are_shown_to_people_times_a_hundred() -> None:
    assert describe_score("CIDEr", 0.49649, Interval(0.471, 0.51999)) == "CIDEr 49.6 [47.1, 52.0]"
    assert describe_score("METEOR", 0.2) == "METEOR 20.0"
