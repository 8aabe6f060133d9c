"""One report from captions and references: what is scored, what is written down, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from showtell.captioning import Caption
from showtell.data.records import CaptionedImage, Dataset
from showtell.decoding import DecodingSettings
from showtell.errors import MetricError
from showtell.evaluation import EvaluationReport, evaluate_captions
from showtell.metrics import CorpusIdf, score
from showtell.text import Vocabulary

REFERENCES = {
    "a": ("A dog runs on the grass.", "The brown dog is running."),
    "b": ("Two men talk.", "A pair of men are speaking."),
    "c": ("A red ball lies on the street.",),
}
WRITTEN = {"a": ["a dog runs on the grass", "a dog"], "b": ["two men talk"], "c": ["a dog runs on the grass"]}


def make_dataset(*extra: CaptionedImage) -> Dataset:
    images = [CaptionedImage(key, Path(f"{key}.png"), texts, "test") for key, texts in REFERENCES.items()]
    return Dataset("made", "table", (*images, *extra))


def make_caption(text: str, score: float = -1.0) -> Caption:
    length = len(text.split())
    return Caption(text, score, score * length, (score,) * length, np.ones((length, 4), dtype=np.float32) / 4)


def evaluate(
    written: Sequence[Sequence[str]] = tuple(WRITTEN.values()),
    dataset: Dataset | None = None,
    **options: object,
) -> EvaluationReport:
    return evaluate_captions(
        dataset or make_dataset(),
        ([make_caption(text) for text in texts] for texts in written),
        vocabulary=Vocabulary(["a", "dog", "the", "men", "<unk>"]),
        settings=DecodingSettings(beam=3),
        bundle_digest="d1",
        split="test",
        **options,  # type: ignore[arg-type]
    )


def test_the_best_caption_is_scored_as_coco_caption_does() -> None:
    report = evaluate()
    right = score(REFERENCES, {key: texts[0] for key, texts in WRITTEN.items()})
    assert report.scores == right.corpus
    assert report.per_image == right.per_image
    assert list(report.scores) == ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
    assert report.per_image["b"]["ROUGE_L"] == pytest.approx(1.0)


def test_the_report_is_json_and_says_where_the_scores_come_from() -> None:
    report = evaluate()
    table = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert table["scores"] == report.scores
    assert (table["dataset"], table["split"], table["images"]) == ("made", "test", 3)
    assert table["split_fingerprint"] == make_dataset().fingerprint()
    assert table["bundle_digest"] == "d1"
    assert table["settings"] == DecodingSettings(beam=3).to_dict()
    assert table["distinct_captions"] == 2
    assert table["distinct_words"] == 9
    assert table["mean_length"] == pytest.approx((6 + 3 + 6) / 3)
    assert table["seconds"] >= 0
    assert [entry["image_id"] for entry in table["captions"]] == ["a", "b", "c"]
    assert table["captions"][0]["caption"] == "a dog runs on the grass"
    assert table["captions"][0]["others"] == ["a dog"]
    assert table["captions"][0]["metrics"] == report.per_image["a"]


def test_coverage_is_of_the_references_running_words() -> None:
    # a dog the / the dog / men / a men / a the, of 6 + 5 + 3 + 6 + 7 words
    assert evaluate().coverage == pytest.approx(10 / 27)


def test_metrics_and_document_frequencies_can_be_chosen() -> None:
    assert list(evaluate(metrics=["ROUGE_L"]).scores) == ["ROUGE_L"]
    idf = CorpusIdf.from_references({"x": ["something else"], "y": ["a dog"], "z": ["men talk"]})
    right = score(
        REFERENCES, {key: texts[0] for key, texts in WRITTEN.items()}, metrics=["CIDEr"], corpus_idf=idf
    )
    report = evaluate(metrics=["CIDEr"], corpus_idf=idf)
    assert report.scores == right.corpus != evaluate(metrics=["CIDEr"]).scores


def test_what_to_know_before_the_numbers_are_believed_is_in_the_report() -> None:
    image = make_dataset().images[0]
    report = evaluate([["a dog"]], Dataset("made", "table", (image,)))
    assert any("only one image" in note for note in report.to_dict()["notes"])


def test_duplicate_ids_are_refused_before_a_caption_is_asked_for() -> None:
    def never() -> Sequence[Sequence[str]]:
        pytest.fail("captions were asked for")
        yield

    double = CaptionedImage("b", Path("other.png"), ("Another picture.",), "test")
    with pytest.raises(MetricError, match="Data set 'made' has 2 images with the id 'b'"):
        evaluate(never(), make_dataset(double))


def test_images_without_references_are_refused() -> None:
    silent = CaptionedImage("d", Path("d.png"), (), "test")
    with pytest.raises(MetricError, match="d"):
        evaluate([*WRITTEN.values(), ["a dog"]], make_dataset(silent))


@pytest.mark.parametrize("count", [2, 4])
def test_captions_must_be_one_set_per_image(count: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        evaluate([["a dog"]] * count)
