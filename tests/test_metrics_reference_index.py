"""The reusable index of references: what it scores, what it remembers, how quick it is, what it refuses."""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.errors import MetricError, UsageError
from showtell.metrics import CorpusIdf, ReferenceIndex, reference_index, rouge, score
from showtell.metrics.ngrams import Captions
from showtell.text.tokenizer import tokenize

REFERENCES = {
    "1": ["A dog runs through the snow.", "The dog is running in the snow", "1 1/2 dogs"],
    "2": ["Two girls play with a ball in the park", "Girls playing"],
    "3": ["A man rides a red bicycle."],
}
WORDS = ("a", "dog", "the", "snow", "girls", "in", "red", "zebra", "purple", "1\xa01/2")


def assert_as_in_score(
    index: ReferenceIndex,
    references: dict[str, list[str]],
    images: list[str],
    hypotheses: list[str],
    idf: CorpusIdf,
) -> None:
    found = index.score(images, hypotheses)
    for place, (image, hypothesis) in enumerate(zip(images, hypotheses, strict=True)):
        alone = score({image: references[image]}, {image: hypothesis}, corpus_idf=idf).per_image[image]
        got = {key: values[place] for key, values in found.per_hypothesis.items()}
        assert got == pytest.approx(alone, abs=1e-9, rel=0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(REFERENCES)), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_batches_score_as_each_hypothesis_alone(batch: list[tuple[str, str]]) -> None:
    images, hypotheses = [list(column) for column in zip(*batch, strict=True)]
    idf = CorpusIdf.from_references(REFERENCES)
    assert_as_in_score(ReferenceIndex(REFERENCES), REFERENCES, images, hypotheses, idf)


@pytest.mark.shared
def test_sampled_captions_score_as_in_the_whole_corpus(shared: Path) -> None:
    lines = (shared / "data/flickr8k/Flickr8k.token.txt").read_text(encoding="utf-8").splitlines()[:1500]
    references: dict[str, list[str]] = {}
    for line in lines:
        name, caption = line.split("\t")
        references.setdefault(name.split("#")[0], []).append(caption)
    generator = random.Random(0)
    names = list(references)
    chosen = {name: references[generator.choice(names)][0] for name in names}
    whole = score(references, chosen)
    images = generator.choices(names, k=120)
    found = ReferenceIndex(references).score(images, [tokenize(chosen[image]) for image in images])
    for key, values in found.per_hypothesis.items():
        assert values.tolist() == pytest.approx([whole.per_image[image][key] for image in images], abs=1e-12)
    everything = ReferenceIndex(references).score(names, [chosen[name] for name in names])
    assert everything.corpus == whole.corpus


def test_word_lists_are_taken_as_they_are() -> None:
    index = ReferenceIndex(REFERENCES)
    text = index.score(["1"], ["A dog runs through the snow."])
    words = index.score(["1"], [["a", "dog", "runs", "through", "the", "snow"]])
    untokenised = index.score(["1"], [("A", "dog", "runs", "through", "the", "snow.")])
    for key, values in text.per_hypothesis.items():
        assert words.per_hypothesis[key].tolist() == values.tolist()
        assert untokenised.per_hypothesis[key][0] < values[0]


def test_a_corpus_idf_replaces_the_rarity_of_the_references() -> None:
    corpus = CorpusIdf.from_references({**REFERENCES, **{str(image): ["a dog here"] for image in range(9)}})
    index = ReferenceIndex(REFERENCES, corpus_idf=corpus)
    assert_as_in_score(index, REFERENCES, ["1", "3"], ["a dog here", "a red dog"], corpus)
    own = ReferenceIndex(REFERENCES).score(["1"], ["a dog here"], metrics=["CIDEr"])
    assert index.score(["1"], ["a dog here"], metrics=["CIDEr"]).corpus != pytest.approx(own.corpus)


def test_words_that_only_the_corpus_has_are_not_rare() -> None:
    # "here" is in no reference of image 1, but in nearly all of the corpus: it takes less away than a rare word does.
    corpus = CorpusIdf.from_references({**REFERENCES, **{str(image): ["here"] for image in range(9, 30)}})
    index = ReferenceIndex(REFERENCES, corpus_idf=corpus)
    frequent, rare = index.score(
        ["1", "1"], ["the dog here", "the dog zebra"], metrics=["CIDEr"]
    ).per_hypothesis["CIDEr"]
    assert frequent > rare


def test_many_hypotheses_go_in_parts_and_score_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    index = ReferenceIndex(REFERENCES)
    images = ["1", "2", "3", "3", "1", "2", "1"]
    hypotheses = ["a dog", "", "a man rides", "zebra zebra", "the snow the snow", "girls", "x"]
    whole = index.score(images, hypotheses)
    monkeypatch.setattr(reference_index, "_AT_ONCE", 2)
    parts = index.score(images, hypotheses)
    assert parts.corpus == whole.corpus
    for key, values in whole.per_hypothesis.items():
        assert parts.per_hypothesis[key].tolist() == values.tolist()


def test_ids_and_shapes() -> None:
    index = ReferenceIndex(REFERENCES)
    assert index.ids == ("1", "2", "3")
    found = index.score(["3", "1"], ["a man", "a dog"], metrics=["CIDEr", "Bleu"])
    assert list(found.corpus) == ["CIDEr", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4"]
    for values in found.per_hypothesis.values():
        assert values.shape == (2,)
        assert values.dtype == np.float64


def test_scoring_leaves_nothing_behind() -> None:
    index = ReferenceIndex(REFERENCES)
    batches = [[[f"word{number}_{place}" for place in range(12)] for _ in range(60)] for number in range(40)]
    index.score(["1"] * 60, batches[0])
    tracemalloc.start()
    for batch in batches:
        index.score(["1"] * 60, batch)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak > 100_000  # what a batch takes is seen
    assert kept < 20_000


def test_a_batch_of_rewards_costs_a_small_part_of_the_index() -> None:
    """The index is made once per run and the rewards once per step, so these must not touch all references again.

    Measured as the least of several times of this thread alone: other threads of the process may be spinning.
    """
    generator = random.Random(0)
    words = [f"w{number}" for number in range(2000)]
    references = {
        str(image): [" ".join(generator.choices(words, k=11)) for _ in range(5)] for image in range(1000)
    }
    started = time.thread_time()
    index = ReferenceIndex(references)
    making = time.thread_time() - started
    images = generator.choices(index.ids, k=120)
    hypotheses = [generator.choices(words, k=11) for _ in images]
    scoring = []
    for _ in range(10):
        started = time.thread_time()
        index.score(images, hypotheses, metrics=["CIDEr"])
        scoring.append(time.thread_time() - started)
    assert min(scoring) < making / 10


def longest_common(first: list[int], second: list[int]) -> int:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, left in enumerate(first):
        for j, right in enumerate(second):
            best = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else best
    return table[-1][-1]


def encode(captions: list[list[int]]) -> Captions:
    return Captions.encode(
        [[str(word) for word in caption] for caption in captions], {str(word): word for word in range(4)}
    )


@pytest.mark.parametrize("length", [0, 1, 2, 31, 63, 64, 65, 130])
def test_common_subsequences_are_as_long_as_in_the_textbook(length: int) -> None:
    generator = random.Random(length)
    first = [generator.choices(range(4), k=length) for _ in range(5)]
    second = [generator.choices(range(4), k=generator.randrange(90)) for _ in range(5)]
    pairs = [(i, j) for i in range(5) for j in range(5)]
    hypothesis, reference = (np.array(column) for column in zip(*pairs, strict=True))
    for i, j in pairs:
        expected = longest_common(first[i], second[j])
        assert rouge._measure_long(first[i], second[j]) == expected
    if length <= 64:
        got = rouge._measure_common(encode(first), encode(second), hypothesis, reference)
        assert got.tolist() == [longest_common(first[i], second[j]) for i, j in pairs]


def test_what_is_no_batch_is_refused() -> None:
    index = ReferenceIndex(REFERENCES)
    with pytest.raises(MetricError, match=r"Image '4' is not among the 3 images of this reference index\."):
        index.score(["4"], ["a dog"])
    with pytest.raises(MetricError, match=r"image id of each\. Received: 2 ids and 1 hypotheses"):
        index.score(["1", "2"], ["a dog"])
    with pytest.raises(MetricError, match="must be a list of hypotheses"):
        index.score(["1"], "a")
    with pytest.raises(MetricError, match="no hypothesis was given"):
        index.score([], [])
    with pytest.raises(MetricError, match=r"Captions must be text\. Received for image '1': \[1\]"):
        index.score(["1"], [[1]])  # type: ignore[list-item]
    with pytest.raises(MetricError, match=r"Captions must be text\. Received for image '1': None"):
        index.score(["1"], [None])  # type: ignore[list-item]
    with pytest.raises(MetricError, match=r"Captions must be text\. Received for image '2': 5"):
        ReferenceIndex({"1": ["a"], "2": ["a", 5]})  # type: ignore[list-item]
    with pytest.raises(MetricError, match="the references hold no image"):
        ReferenceIndex({})


def test_metrics_that_the_index_does_not_have_are_refused() -> None:
    index = ReferenceIndex(REFERENCES)
    with pytest.raises(
        UsageError, match=r"Unknown metric 'METEOR'\. It needs Java: use showtell\.metrics\.score"
    ):
        index.score(["1"], ["a dog"], metrics=["METEOR"])
    with pytest.raises(UsageError, match=r"Unknown metric 'rouge_l'\. Did you mean 'ROUGE_L'\?"):
        index.score(["1"], ["a dog"], metrics=["rouge_l"])
