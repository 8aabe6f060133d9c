"""BLEU, ROUGE-L and CIDEr against coco-caption's own code, and what scoring refuses."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from showtell.errors import MetricError, UsageError
from showtell.metrics import CorpusIdf, Scores, score
from showtell.text.tokenizer import tokenize

KEYS = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr")
REFERENCES = {
    "1": ["A dog runs through the snow.", "The dog is running in the snow"],
    "2": ["Two girls play with a ball in the park", "Girls playing"],
    "3": ["A man rides a red bicycle."],
}
HYPOTHESES = {"1": "A dog runs in the snow.", "2": "A dog runs in the park", "3": "A man rides a bike"}


def score_with_coco_caption(references: dict[str, list[str]], hypotheses: dict[str, str]) -> Scores:
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu", reason="needs pycocoevalcap")
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = {
        key: [" ".join(tokenize(caption)) for caption in captions] for key, captions in references.items()
    }
    found = {key: [" ".join(tokenize(hypotheses[key]))] for key in references}
    totals, columns = bleu.Bleu(4).compute_score(truth, found, verbose=0)
    corpus = dict(zip(KEYS, [*totals, 0, 0], strict=True))
    columns = [*columns]
    for key, scorer in (("ROUGE_L", Rouge()), ("CIDEr", Cider())):
        corpus[key], column = scorer.compute_score(truth, found)
        columns.append(column)
    rows = zip(*columns, strict=True)
    return Scores(
        corpus, {key: dict(zip(KEYS, row, strict=True)) for key, row in zip(references, rows, strict=True)}
    )


def assert_equal(ours: Scores, theirs: Scores) -> None:
    assert list(ours.per_image) == list(theirs.per_image)
    for got, expected in [(ours.corpus, theirs.corpus)] + [
        (ours.per_image[key], theirs.per_image[key]) for key in theirs.per_image
    ]:
        assert got == pytest.approx(expected, abs=1e-6, rel=0)
        assert all(type(value) is float for value in got.values())


def random_caption(generator: random.Random, shortest: int) -> str:
    words = ("a", "dog", "cat", "runs", "the", "snow", "isn't", "red", "1 1/2")
    return " ".join(
        generator.choice(words) for _ in range(generator.choice((shortest, 1, 2, 3, 4, 5, 9, 25)))
    )


@pytest.mark.parametrize("seed", range(60))
def test_random_captions_score_as_in_coco_caption(seed: int) -> None:
    generator = random.Random(seed)
    images = [str(index) for index in range(generator.choice((1, 2, 3, 12)))]
    references = {
        image: [
            random_caption(generator, 1 if number == 0 else 0)
            for number in range(generator.choice((1, 2, 5)))
        ]
        for image in images
    }
    hypotheses = {image: random_caption(generator, 0) for image in reversed(images)}
    assert_equal(score(references, hypotheses), score_with_coco_caption(references, hypotheses))


@pytest.mark.parametrize(
    "hypothesis", ["", ".", "dog", "a dog", "a dog " * 40, "zebra", "a dog runs through the snow"]
)
def test_edge_cases_score_as_in_coco_caption(hypothesis: str) -> None:
    hypotheses = {**HYPOTHESES, "1": hypothesis}
    assert_equal(score(REFERENCES, hypotheses), score_with_coco_caption(REFERENCES, hypotheses))


def test_one_image_with_one_reference_scores_as_in_coco_caption() -> None:
    references, hypotheses = {"1": ["A dog runs."]}, {"1": "A dog sits."}
    assert_equal(score(references, hypotheses), score_with_coco_caption(references, hypotheses))


def test_all_hypotheses_empty_scores_as_in_coco_caption() -> None:
    hypotheses = dict.fromkeys(REFERENCES, "")
    assert_equal(score(REFERENCES, hypotheses), score_with_coco_caption(REFERENCES, hypotheses))


def test_an_empty_reference_scores_as_in_coco_caption() -> None:
    references = {**REFERENCES, "1": ["...", "A dog"]}
    for hypothesis in ("", "a dog"):
        hypotheses = {**HYPOTHESES, "1": hypothesis}
        assert_equal(score(references, hypotheses), score_with_coco_caption(references, hypotheses))


def read_dev(shared: Path) -> dict[str, list[str]]:
    folder = shared / "data/flickr8k"
    captions: dict[str, list[str]] = {}
    for line in (folder / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines():
        name, caption = line.split("\t")
        captions.setdefault(name.split("#")[0], []).append(caption)
    return {name: captions[name] for name in (folder / "Flickr_8k.devImages.txt").read_text().split()}


@pytest.mark.shared
@pytest.mark.parametrize("left_out", range(2))
def test_people_scored_against_people_equals_coco_caption(shared: Path, left_out: int) -> None:
    dev = read_dev(shared)
    hypotheses = {name: captions[left_out] for name, captions in dev.items()}
    references = {
        name: [c for i, c in enumerate(captions) if i != left_out] for name, captions in dev.items()
    }
    ours = score(references, hypotheses)
    assert len(ours.per_image) == 1000
    assert_equal(ours, score_with_coco_caption(references, hypotheses))


@pytest.mark.shared
def test_a_thousand_images_score_in_seconds(shared: Path) -> None:
    dev = read_dev(shared)
    hypotheses = {name: captions[0] for name, captions in dev.items()}
    started = time.process_time()
    score(dev, hypotheses)
    assert time.process_time() - started < 1.5  # about 0.1 on an idle machine


def test_perfect_captions_get_full_marks() -> None:
    hypotheses = {key: captions[0] for key, captions in REFERENCES.items()}
    scores = score(REFERENCES, hypotheses)
    for key in KEYS[:5]:
        assert scores.corpus[key] == pytest.approx(1, abs=1e-6)
    assert scores.per_image["3"]["CIDEr"] == pytest.approx(10)  # its only reference


def test_collapsing_repeated_words_changes_every_score() -> None:
    stuttering = score(REFERENCES, {**HYPOTHESES, "1": "A dog dog dog dog runs in the snow"})
    collapsed = score(REFERENCES, {**HYPOTHESES, "1": "A dog runs in the snow"})
    for key in KEYS:
        assert stuttering.per_image["1"][key] < collapsed.per_image["1"][key]


def test_both_sides_are_tokenised_alike() -> None:
    ours = score(
        {"1": ["THE DOG'S BALL, isn't it?"], "2": ["x y"]}, {"1": "the dog's ball isn't it.", "2": "x y"}
    )
    for key in KEYS[:5]:
        assert ours.per_image["1"][key] == pytest.approx(1, abs=1e-6)


def test_special_tokens_are_not_removed_but_cost_points() -> None:
    clean = score(REFERENCES, HYPOTHESES)
    forged = score(REFERENCES, {**HYPOTHESES, "1": HYPOTHESES["1"] + " <end>"})
    assert forged.per_image["1"]["Bleu_1"] < clean.per_image["1"]["Bleu_1"]


def test_the_order_of_images_and_of_references_does_not_matter() -> None:
    turned = {key: REFERENCES[key][::-1] for key in reversed(REFERENCES)}
    forwards, backwards = score(REFERENCES, HYPOTHESES), score(turned, HYPOTHESES)
    assert forwards.corpus == pytest.approx(backwards.corpus)
    assert list(backwards.per_image) == ["3", "2", "1"]


def test_only_the_metrics_asked_for_are_computed() -> None:
    assert list(score(REFERENCES, HYPOTHESES, metrics=["CIDEr", "Bleu", "CIDEr"]).corpus) == [
        "CIDEr",
        "Bleu_1",
        "Bleu_2",
        "Bleu_3",
        "Bleu_4",
    ]


def test_cider_of_one_image_is_zero_and_says_so() -> None:
    scores = score({"1": ["A dog runs."]}, {"1": "A dog runs."})
    assert scores.corpus["CIDEr"] == 0
    assert len(scores.notes) == 1
    assert "CIDEr is 0 because only one image was scored" in scores.notes[0]
    assert score(REFERENCES, HYPOTHESES).notes == ()
    assert score({"1": ["A dog."]}, {"1": "A dog."}, metrics=["Bleu"]).notes == ()


def test_a_corpus_idf_scores_one_image_as_if_its_corpus_were_there(tmp_path: Path) -> None:
    path = tmp_path / "idf.json"
    CorpusIdf.from_references(REFERENCES).save(path)
    idf = CorpusIdf.load(path)
    assert idf == CorpusIdf.from_references(REFERENCES)
    assert idf.images == 3
    assert idf.document_frequency[("a", "dog")] == 1
    assert idf.document_frequency[("a",)] == 3  # images, not captions
    assert idf.document_frequency[("the", "snow")] == 1
    together = score(REFERENCES, HYPOTHESES)
    for key in REFERENCES:
        alone = score({key: REFERENCES[key]}, {key: HYPOTHESES[key]}, corpus_idf=idf)
        assert alone.per_image[key] == pytest.approx(together.per_image[key])
        assert alone.notes == ()


def test_words_that_the_corpus_idf_never_saw_count_as_rare() -> None:
    idf = CorpusIdf.from_references(REFERENCES)
    scores = score({"1": ["purple zebras"]}, {"1": "purple zebras"}, metrics=["CIDEr"], corpus_idf=idf)
    assert scores.corpus["CIDEr"] == pytest.approx(
        5
    )  # 10 for words, 10 for bigrams, nothing for 3 and 4 of 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "holds no document frequencies"),
        ('{"format": "other"}', "holds no document frequencies"),
        (
            '{"format": "showtell-corpus-idf", "version": 2}',
            "format version 2, this Showtell reads version 1",
        ),
        (
            '{"format": "showtell-corpus-idf", "version": 1, "images": 0, "document_frequency": {}}',
            "is damaged",
        ),
        (
            '{"format": "showtell-corpus-idf", "version": 1, "images": 3, "document_frequency": {"a": 0.5}}',
            "damaged",
        ),
        (
            '{"format": "showtell-corpus-idf", "version": 1, "images": 3, "document_frequency": {"a": 4}}',
            "in more images than the 3 there are",
        ),
    ],
)
def test_a_damaged_corpus_idf_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "idf.json"
    path.write_text(content)
    with pytest.raises(MetricError, match=message):
        CorpusIdf.load(path)


def test_a_corpus_idf_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "idf.json").write_text("[" * 100_000)
    with pytest.raises(MetricError, match="not JSON"):
        CorpusIdf.load(tmp_path / "idf.json")


def test_a_corpus_idf_does_not_replace_a_device() -> None:
    with pytest.raises(OSError, match="No space left"):
        CorpusIdf.from_references({"1": ["A dog."]}).save(Path("/dev/full"))
    assert Path("/dev/full").is_char_device()


def test_a_missing_corpus_idf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match=r"cannot be read from .*idf\.json: No such file"):
        CorpusIdf.load(tmp_path / "idf.json")
    with pytest.raises(MetricError, match="there are no references"):
        CorpusIdf.from_references({})


def test_a_corpus_idf_file_is_readable_json(tmp_path: Path) -> None:
    CorpusIdf.from_references({"1": ["A dog."]}).save(tmp_path / "idf.json")
    data = json.loads((tmp_path / "idf.json").read_text(encoding="utf-8"))
    assert data["document_frequency"] == {"a": 1, "a dog": 1, "dog": 1}


def test_missing_and_extra_ids_are_named_and_counted() -> None:
    references = {str(index): ["a dog"] for index in range(10)}
    hypotheses = {str(index): "a dog" for index in range(5, 11)}
    with pytest.raises(MetricError) as caught:
        score(references, hypotheses)
    assert "5 images have references but no hypothesis: '0', '1', '2' and 2 more" in str(caught.value)
    assert "1 image has a hypothesis but no references: '10'" in str(caught.value)


def test_images_without_references_are_named() -> None:
    with pytest.raises(MetricError, match="1 image has an empty list of references: '2'"):
        score({"1": ["a"], "2": []}, {"1": "a", "2": "a"})
    with pytest.raises(MetricError, match="the references hold no image"):
        score({}, {})


def test_captions_that_are_not_text_are_refused() -> None:
    with pytest.raises(MetricError, match=r"Captions must be text\. Received for image '1': \['a', 'dog'\]"):
        score({"1": ["a dog"]}, {"1": ["a", "dog"]})  # type: ignore[dict-item]
    with pytest.raises(MetricError, match=r"Captions must be text\. Received for image '1': None"):
        score({"1": ["a"]}, {"1": None})  # type: ignore[dict-item]
    with pytest.raises(MetricError, match=r"must be a list of captions\. Received: 'a dog'"):
        score({"1": "a dog"}, {"1": "a"})


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Unknown metric 'Cider'\. Did you mean 'CIDEr'\?"):
        score(REFERENCES, HYPOTHESES, metrics=["Cider"])
    with pytest.raises(UsageError, match=r"Unknown metric 'ROUGE'\. Did you mean 'ROUGE_L'\?"):
        score(REFERENCES, HYPOTHESES, metrics=["ROUGE"])
    with pytest.raises(UsageError, match="must be a sequence of names"):
        score(REFERENCES, HYPOTHESES, metrics="CIDEr")
    with pytest.raises(UsageError, match=r"must be a sequence of names out of .* Received: \[\]"):
        score(REFERENCES, HYPOTHESES, metrics=[])
