"""The report: its rules, what it holds, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reported import SAID, photographed, spoil, write_captions
from showtell import __version__
from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.cli.report import name_models
from showtell.data.records import CaptionedImage
from showtell.errors import DataError, SplitError, UsageError
from showtell.files import open_atomically
from showtell.metrics import CorpusIdf, score
from showtell.outputs.sheet import shrink_to_webp
from showtell.report import KINDS, Nouns, Report, find_mistakes, judge, judge_models
from showtell.report.cards import Cards
from showtell.report.files import check_folder, write_report
from showtell.report.markup import element, join, percent
from showtell.report.mistakes import SEVERAL, Mistake, count_things
from showtell.report.page import write_page
from showtell.report.people import People, judge_people
from showtell.report.scores import compare_with_people, show_scores
from showtell.report.sections import show_mistakes, show_usage
from showtell.report.summary import describe_p, show_summary
from showtell.report.usage import Favourite, measure_usage
from showtell.text import Vocabulary, tokenize

Capture = pytest.CaptureFixture[str]
CORPUS = [
    "a dog is in the grass",
    "the dog with a ball",
    "two dogs are on the beach",
    "a dog has a red ball in its mouth",
    "a young man in a blue shirt",
    "the man is on a beach",
    "two men and a woman with a dog",
    "a woman is in the water",
    "a young woman in a red shirt",
    "three men in the water",
    "a ball is on the grass",
    "the playing dog has a shirt",
    "a man is playing with the ball in the grass",
    "a young dog is playing on a beach",
    "people are playing in the water",
    "a man is playing",
    "dogs are playing",
    "the woman is playing",
]


@pytest.fixture(scope="module")
def nouns() -> Nouns:
    return Nouns([tokenize(caption) for caption in CORPUS])


@pytest.fixture(scope="module")
def report(exported_model: str, photographs: list[Path]) -> Report:
    """Two captioners on six photographs: one that knows something, and one that knows nothing."""
    models = {"compact": Captioner.load("compact"), "tiny": Captioner.load(exported_model)}
    return judge_models(models, photographed(photographs), split="dev", examples=2, resamples=50)


# rules


def test_nouns_are_told_from_adjectives_and_verbs(nouns: Nouns) -> None:
    assert {"dog", "man", "woman", "ball", "grass", "beach", "water", "shirt"} <= nouns.words
    assert nouns.words.isdisjoint({"young", "playing", "red", "is", "in", "the"})
    assert [nouns.find(word) for word in ("dogs", "men", "dog", "young")] == ["dog", "man", "dog", None]


@pytest.mark.parametrize(
    ("caption", "counts"),
    [
        ("two young dogs on the beach", {"dog": 2, "beach": 1}),
        ("dogs in the water", {"dog": SEVERAL, "water": 1}),
        ("a man and another man", {"man": 2}),
        ("a dog with a ball chases the dog", {"dog": 1, "ball": 1}),
        ("water and grass", {}),
        ("a couple of dogs", {"dog": 2}),
    ],
)
def test_things_are_counted(caption: str, counts: dict[str, int], nouns: Nouns) -> None:
    assert {noun: count for noun, (count, _) in count_things(tokenize(caption), nouns).items()} == counts


@pytest.mark.parametrize(
    ("caption", "references", "found"),
    [
        ("a dog is in the grass", ["a dog in the grass", "the dog is in grass"], {}),
        ("a dog and a dog", ["a dog runs", "the dog and a dog"], {}),
        ("the ball on the ball", ["a ball", "the ball"], {"repeated": ("ball",)}),
        ("a a ball", ["a ball", "the ball"], {"repeated": ("a",)}),
        ("two dogs", ["a dog", "one dog"], {"counts": ("dogs",)}),
        ("two dogs", ["a dog", "two dogs"], {}),
        ("three dogs", ["dogs are playing", "some dogs"], {}),
        ("a dog", ["dogs are playing", "two dogs"], {"counts": ("dog",)}),
        ("two dogs", ["a dog"], {}),
        ("a red ball", ["a blue ball", "a white ball"], {"colours": ("red",)}),
        ("a grey ball", ["a gray ball", "a gray ball"], {}),
        ("a red ball", ["a blue ball", "a ball"], {}),
        ("a man is playing", ["a woman is playing", "the girl plays"], {"gender": ("man",)}),
        ("a girl is playing", ["the boy is playing", "a young man plays"], {"gender": ("girl",)}),
        ("a man and a woman", ["a woman is playing", "the girl plays"], {}),
        ("a man is playing", ["a woman is playing", "the man plays"], {}),
        ("", [], {}),
    ],
)
def test_rules_find_what_they_say(
    caption: str, references: list[str], found: dict[str, tuple[str, ...]], nouns: Nouns
) -> None:
    mistakes = find_mistakes(tokenize(caption), [tokenize(one) for one in references], nouns)
    assert {one.kind: one.words for one in mistakes if one.kind != "missing"} == found
    assert all(one.reason for one in mistakes)


@pytest.mark.parametrize(
    ("caption", "references", "missing"),
    [
        ("it is nice", ["a dog in the grass", "the dog", "dogs"], ["dog (3 of 3 people)"]),
        ("a dog", ["a dog and a ball", "the dog has a ball", "a dog"], ["ball (2 of 3 people)"]),
        ("a dog", ["a dog and a ball", "a dog", "a dog", "a ball"], []),
        ("two dogs", ["a dog", "the dog"], []),
        ("a puppy", ["a dog", "the dog"], []),
        ("a person", ["a man", "the man"], []),
        ("a boy", ["people are here", "two people"], []),
        ("it is nice", ["a dog"], []),
    ],
)
def test_what_most_people_name_is_missed(
    caption: str, references: list[str], missing: list[str], nouns: Nouns
) -> None:
    mistakes = find_mistakes(tokenize(caption), [tokenize(one) for one in references], nouns)
    assert [one.reason for one in mistakes if one.kind == "missing"] == missing


def test_usage_knows_captions_of_the_training_data() -> None:
    vocabulary = Vocabulary(["a", "dog", "cat", "runs", "bird"])
    captions = [["a", "dog"], ["a", "dog"], ["a", "cat"]]
    people = [[["a", "dog", "runs"], ["a", "bird"]]] * 3
    usage = measure_usage(captions, people, vocabulary, Counter({"a dog": 7}))
    assert (usage.captions, usage.distinct, usage.copied, usage.words) == (3, 2, 2, 3)
    assert usage.vocabulary == 5
    assert [(one.caption, one.times, one.in_training) for one in usage.favourites] == [("a dog", 2, 7)]
    assert [one.word for one in usage.overused] == ["cat", "dog"]
    assert [one.word for one in usage.underused] == ["runs", "bird"]
    unknown = measure_usage(captions, people, vocabulary, None)
    assert unknown.copied is None
    assert [(one.caption, one.in_training) for one in unknown.favourites] == [("a dog", None)]


def test_copies_of_training_are_told_however_rare_they_are() -> None:
    captions = [[word] for word in "abcdefghijklmnopqrst"]
    usage = measure_usage(captions, [[["a"]]] * 20, Vocabulary(["a"]), Counter({"s": 1, "t": 2}))
    assert usage.copied == 2
    assert [(one.caption, one.times, one.in_training) for one in usage.favourites] == [
        ("s", 1, 1),
        ("t", 1, 2),
    ]


def test_what_training_has_is_not_told_where_nobody_knows(report: Report) -> None:
    one = report.models[0]

    def show(copied: int | None, favourites: tuple[Favourite, ...]) -> str:
        usage = replace(one.usage, copied=copied, favourites=favourites)
        return show_usage(replace(report, models=(replace(one, usage=usage),)))

    assert "In training" in show(0, (Favourite("a dog", 2, 0),))
    assert "In training" not in show(None, (Favourite("a dog", 2, None),))
    assert "twice, and none stands in the training data" in show(0, ())
    assert "No caption is said twice.<" in show(None, ())


# people


def test_people_are_judged_by_the_others_of_the_same_picture(nouns: Nouns) -> None:
    references = {
        "agreed": ["a dog in the grass"] * 3,
        "unlike": ["a man on the beach", "two women with shirts"],
        "alone": ["the ball is red"],
    }
    people = judge_people(references, nouns, metrics=("Bleu", "CIDEr"))
    assert people.images == 2
    # The first picture's caption is that of the others, word for word; the second's shares no word with the other.
    idf = CorpusIdf.from_references(references)
    twins = {"agreed": references["agreed"][1:], "unlike": references["unlike"][:1]}
    said = {"agreed": references["agreed"][0], "unlike": references["unlike"][1]}
    assert people.scores == score(twins, said, metrics=("Bleu", "CIDEr"), corpus_idf=idf).corpus
    assert people.scores["CIDEr"] == pytest.approx(5)
    assert judge_people({"alone": ["a ball"]}, nouns, metrics=("CIDEr",)) == People()


def test_people_are_blamed_only_where_two_others_can_agree(nouns: Nouns) -> None:
    told = ["a red ball", "a blue ball", "the blue ball"]
    people = judge_people({"three": told, "two": told[:2]}, nouns, metrics=("CIDEr",))
    assert (people.images, people.judged) == (2, 1)
    assert people.mistakes["colours"] == people.mistaken == pytest.approx(1 / 3)
    few = judge_people({"two": told[:2]}, nouns, metrics=("CIDEr",))
    assert (few.images, few.judged, few.mistakes, few.mistaken) == (1, 0, {}, None)


def test_mistakes_of_a_model_and_of_people_are_compared_on_the_same_images(report: Report) -> None:
    """On one image of six, where the model is wrong; elsewhere there are too few references to tell."""
    shared, *others = report.images
    wrong = (Mistake("colours", ("red",), "red is said"),)
    found = {image.id: wrong if image is shared else () for image in report.images}
    model = replace(report.models[0], mistakes=found)
    alone = tuple(replace(image, references=image.references[:2]) for image in others)
    people = replace(report.people, judged=1, mistakes=dict.fromkeys(KINDS, 0.25), mistaken=0.25)
    mixed = replace(report, images=(shared, *alone), models=(model,), comparisons=(), people=people)
    told = "".join(read(show_summary(mixed)).texts)
    where = "on the 1 image with 3 references or more"
    assert (
        f"1 has a probable mistake, {percent(1 / 6)} ({where} {percent(1)}, people {percent(0.25)})" in told
    )
    assert f"colours {percent(1 / 6, 1)}." in told
    rows = read(show_mistakes(mixed, Cards(mixed))).texts
    assert [f"{model.label} {where}", f"people {where}"] == [text for text in rows if where in text]
    place = rows.index("Colours")
    assert [text for text in rows[place : place + 6] if "%" in text] == [
        f"1 ({percent(1 / 6, 1)}) ",
        percent(1, 1),
        percent(0.25, 1),
    ]
    all_judged = read(show_mistakes(replace(mixed, images=report.images), Cards(mixed))).texts
    assert not [text for text in all_judged if where in text]


def test_a_calibrated_captioner_that_says_nothing(report: Report) -> None:
    model = replace(report.models[0], worth=None)
    assert "It says nothing." in "".join(read(show_summary(replace(report, models=(model,)))).texts)


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (0.001, "next to nothing of what"),
        (0.1, "about one tenth of what"),
        (0.5, "about half of what"),
        (0.7, "about seven tenths of what"),
        (0.95, "about nine tenths of what"),
        (1.0, "about what"),
        (1.2, "more than what"),
    ],
)
def test_a_model_stands_beside_people_in_words(ours: float, words: str, report: Report) -> None:
    changed = replace(report, people=replace(report.people, scores={"CIDEr": 1.0}))
    per_image = {image.id: {"CIDEr": ours} for image in report.images}
    evaluation = replace(report.models[0].evaluation, scores={"CIDEr": ours}, per_image=per_image)
    assert compare_with_people(changed, evaluation) == f"{words} people reach among themselves"
    assert compare_with_people(replace(report, people=People()), evaluation) is None


def test_a_model_and_people_are_compared_on_the_same_images(report: Report) -> None:
    shared, *others = report.images
    alone = [replace(image, references=image.references[:1]) for image in others]
    mixed = replace(
        report, images=(shared, *alone), people=replace(report.people, images=1, scores={"CIDEr": 1.0})
    )
    per_image = {image.id: {"CIDEr": 0.7 if image is shared else 0.0} for image in mixed.images}
    evaluation = replace(report.models[0].evaluation, scores={"CIDEr": 0.1}, per_image=per_image)
    assert (
        compare_with_people(mixed, evaluation) == "about seven tenths of what people reach among themselves"
    )
    scores = {**report.people.scores, "CIDEr": 1.0}
    told = "".join(read(show_scores(replace(mixed, people=replace(mixed.people, scores=scores)))).texts)
    assert "one reference of each image that has two or more (1 of 6; " in told


def test_the_scores_say_what_people_reach(report: Report) -> None:
    text = "".join(read(show_scores(report)).texts)
    assert f"{100 * report.people.scores['CIDEr']:.1f}" in text
    assert "by one reference fewer than the models" in text
    assert "Nobody looked for copies" in text
    assert "could not be looked for" in "".join(read(show_scores(replace(report, trained=False))).texts)
    unknown = "".join(read(show_scores(replace(report, people=People()))).texts)
    assert "no image has two references" in unknown
    assert "by one reference fewer" not in unknown


# in words


@pytest.mark.parametrize(
    ("p_value", "resamples", "told"),
    [
        (2 / 1001, 1000, "at most 0.002"),
        (4 / 1001, 1000, "0.004"),
        (2 / 51, 50, "at most 0.040"),
        (2 / 100_001, 100_000, "at most 0.00002"),
        (1.0, 1, "at most 1.000"),
        (1.0, 1000, "1.000"),
    ],
)
def test_a_p_that_is_the_least_possible_is_at_most_that(p_value: float, resamples: int, told: str) -> None:
    assert describe_p(p_value, resamples) == told


def test_the_summary_says_it_in_words(report: Report) -> None:
    told = "".join(read(show_summary(report)).texts)
    assert "6 images; captions by compact and tiny." in told
    for model in report.models:
        having = sum(bool(found) for found in model.mistakes.values())
        assert f"Of 6 captions, {having} have a probable mistake" in told
        assert f"{model.label}: CIDEr {100 * model.evaluation.scores['CIDEr']:.1f} [" in told
    assert f"(people {percent(report.people.mistakes['missing'], 1)})" in told
    assert "Its confidence in a caption is off by" in told
    assert "It does not say how sure it is." in told
    assert "CIDEr of tiny minus that of compact is -" in told
    alone = replace(report, models=report.models[:1], comparisons=(), people=People())
    assert "people 0" not in "".join(read(show_summary(alone)).texts)


def test_no_text_of_the_page_is_raw(report: Report) -> None:
    page = read(write_page(report))
    script = page.texts.index(next(text for text in page.texts if "use strict" in text))
    assert not any("`" in text for place, text in enumerate(page.texts) if place != script)
    assert "showtell calibrate" in page.texts


# what it holds


def test_the_scores_are_those_of_evaluate(report: Report, photographs: list[Path]) -> None:
    captioner = Captioner.load("compact")
    alone = captioner.evaluate(photographed(photographs), split="dev", resamples=50)
    written = json.loads(json.dumps(report.to_dict()))["models"][0]["evaluation"]
    expected = json.loads(json.dumps(alone.to_dict()))
    for one in (written, expected):
        one.pop("seconds")
    assert written == expected
    assert all(one["confidence"] is not None for one in written["captions"])


def test_models_are_compared_on_the_same_images(report: Report) -> None:
    [comparison] = report.comparisons
    assert (comparison.label, comparison.against) == ("tiny", "compact")
    first, second = (model.evaluation for model in report.models)
    assert comparison.gains.keys() == first.per_image.keys() == second.per_image.keys()
    difference = comparison.differences["CIDEr"]
    assert difference.value == pytest.approx(second.scores["CIDEr"] - first.scores["CIDEr"])
    assert sum(comparison.wins) == len(report.images) == 6
    assert difference.better < 0.5


def test_every_side_is_looked_at(report: Report) -> None:
    compact, tiny = report.models
    assert compact.worth is not None
    assert compact.worth.images == 6
    assert tiny.worth is None
    assert tiny.probabilities is not None
    assert len(compact.explained) == 4
    words = [word.word for word in compact.explained[compact.rank()[0]].words]
    assert words == compact.evaluation.captions[compact.rank()[0]][0].words
    assert compact.usage.copied == 0
    assert report.people.mistakes.keys() == KINDS.keys()
    written = report.to_dict()
    assert written["models"][0]["mistakes"]["images"].keys() == KINDS.keys()
    json.dumps(written, allow_nan=False)


class Reader(HTMLParser):
    """Every element and its attributes, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_the_page_needs_nothing_else(report: Report) -> None:
    page = read(write_page(report))
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base")
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        source = attributes.get("src") or ""
        assert source == "" or source.startswith("data:image/webp;base64,")
        assert (attributes.get("href") or "#").startswith("#")
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    links = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert {link[1:] for link in links if link} <= set(identifiers)
    assert sum(attributes.get("class") == "card" for _, attributes in page.elements) == 6


def test_captions_and_names_cannot_break_out(report: Report) -> None:
    evil = "x\"'><script>alert(1)</script><img src=x onerror=alert(2)></textarea>-->\udcff\u202e"
    shown = f"{evil[:-2]}\\xff\\u202e"
    spoiled = write_page(spoil(report, evil))
    page, plain = read(spoiled), read(write_page(report))
    assert Counter(tag for tag, _ in page.elements)["script"] == 1
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements} | {"mark"}
    texts = "".join(page.texts)
    kinds = ("caption", "reason", "reference", "dataset", "split", "left", "why", "lit", "word")
    for kind in (*kinds, "compact", "tiny", report.images[0].id):
        assert f"{kind} {shown}" in texts, kind
    assert ("mark", {}) in page.elements
    spoiled.encode("utf-8")


def test_markup_escapes_what_is_no_markup() -> None:
    assert element("p", "<b>", element("b", "&"), class_="a", data_x='"', hidden=True, id=None) == (
        '<p class="a" data-x="&quot;" hidden>&lt;b&gt;<b>&amp;</b></p>'
    )
    assert join(["a", ["<", None]]) == "a&lt;"
    assert element("br") == "<br>"
    assert [percent(0.001), percent(0.5), percent(0.1234, 1)] == ["<1\u00a0%", "50\u00a0%", "12.3\u00a0%"]


# bad input


def test_images_that_cannot_be_used_are_listed(
    exported_model: str, photographs: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(photographs[0].read_bytes()[:3000])
    dataset = photographed(photographs)
    more = (
        CaptionedImage("broken.jpg", tmp_path / "broken.jpg", ("a dog",), "dev"),
        CaptionedImage("gone.jpg", tmp_path / "gone.jpg", ("a dog",), "dev"),
        CaptionedImage("silent.jpg", photographs[0], (), "dev"),
    )
    mixed = replace(dataset, images=(*more, *dataset.images))
    captioner = Captioner.load(exported_model)
    found = judge_models({"tiny": captioner}, mixed, split="dev", examples=1, resamples=0, pictures=2)
    assert [one.id for one in found.left_out] == ["broken.jpg", "gone.jpg", "silent.jpg"]
    assert [one.id for one in found.images] == [path.name for path in photographs]
    assert sum(bool(image.thumbnail) for image in found.images) == 2
    assert [one.reason.partition(":")[0] for one in found.left_out[:2]] == ["broken.jpg", "gone.jpg"]
    assert "truncated" in found.left_out[0].reason
    page = write_page(found)
    assert str(tmp_path) not in page
    assert str(tmp_path) not in json.dumps(found.to_dict())
    assert "3 images are not in the scores" in page
    single = write_page(replace(found, left_out=found.left_out[:1]))
    assert "1 image is not in the scores" in single
    assert "it has no references" in page
    unreferenced = replace(dataset, images=(more[2],))
    with pytest.raises(DataError, match=r"None of the 1 images .* silent.jpg: it has no references"):
        judge_models({"tiny": captioner}, unreferenced, split="dev")
    with pytest.raises(SplitError, match="no images in split 'test'"):
        judge_models({"tiny": captioner}, dataset, split="test")
    with pytest.raises(UsageError, match="at least one model"):
        judge_models({}, dataset, split="dev")
    with pytest.raises(UsageError, match=r"CIDEr, so it must be among the metrics\. Received: Bleu"):
        judge_models({"tiny": captioner}, dataset, split="dev", metrics=("Bleu",))


@pytest.mark.parametrize(("pictures", "examples", "drawn"), [(0, 0, 0), (2, 0, 2), (1, 1, 2), (100, 1, 6)])
def test_only_pictures_that_can_be_shown_are_drawn(
    pictures: int,
    examples: int,
    drawn: int,
    exported_model: str,
    photographs: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sides = []

    def shrink(*words: Any) -> bytes:
        sides.append(words[1])
        return shrink_to_webp(*words)

    monkeypatch.setattr(judge, "shrink_to_webp", shrink)
    captioner = Captioner.load(exported_model)
    found = judge_models(
        {"tiny": captioner},
        photographed(photographs),
        split="dev",
        examples=examples,
        resamples=0,
        pictures=pictures,
    )
    shown = [image for image in found.images if image.thumbnail]
    assert len(shown) == min(pictures, 6)
    assert len(sides) <= drawn
    assert all(max(image.size) == judge.SIDE for image in shown)
    if examples and pictures == 1:
        assert [image.id for image in shown] == found.models[0].rank()[:1]


def test_an_earlier_report_is_replaced_and_nothing_else(report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "report"
    page = write_report(report, folder)
    assert page == folder / "report.html"
    before = page.read_bytes()
    assert write_report(report, folder).read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
    with open_atomically(page) as file:
        torn = Path(file.name)
    page.write_bytes(before)
    torn.touch()  # as a kill would leave it
    assert write_report(report, folder).read_bytes() == before
    assert not torn.exists()
    (folder / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"holds something else \('notes.txt'\). Give a new or empty folder"):
        write_report(report, folder)
    (folder / "notes.txt").unlink()
    (folder / "report.json").write_text('{"scores": {}}')
    with pytest.raises(UsageError, match="named like a report that are none"):
        check_folder(folder)


def test_the_command_writes_both_files(
    exported_model: str, photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    data = write_captions(tmp_path, photographs)
    words = ["report", exported_model, "--data", str(data), "--split", "dev", "--examples", "1"]
    words += ["--no-double-words", "--no-overlap"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'out' / 'report.html'}\n"
    assert "CIDEr" in printed.err
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert numbers["images"] == 6
    assert numbers["models"][0]["model"] == Path(exported_model).name
    assert numbers["comparisons"] == []
    assert numbers["options"] == {
        "--data": "captions.csv",
        "--split": "dev",
        "--examples": "1",
        "--no-double-words": "",
        "--no-overlap": "",
    }
    page = (tmp_path / "out" / "report.html").read_text()
    assert str(tmp_path) not in page
    foot = "".join(read(page[page.index("<footer>") : page.index("</footer>")]).texts)
    assert f"Written by Showtell {__version__} on {numbers['made'][:10]} (UTC)" in foot
    assert f"of {Path(exported_model).name} on captions" in foot
    assert "--no-double-words" in foot


def test_where_an_image_lies_is_not_told_whatever_its_name_is(
    exported_model: str, photographs: list[Path], tmp_path: Path
) -> None:
    names = ["folder", "odd\x00name.jpg", 'a "\x00.jpg', "long" * 99 + ".jpg"]
    place = tmp_path / "it's"
    (place / "folder").mkdir(parents=True)
    dataset = photographed(photographs)
    bad = [CaptionedImage(name, place / name, ("a dog",), "dev") for name in names]
    found = judge_models(
        {"tiny": Captioner.load(exported_model)},
        replace(dataset, images=(dataset.images[0], *bad)),
        split="dev",
        examples=0,
        resamples=0,
    )
    assert [one.id for one in found.left_out] == names
    assert not any(str(tmp_path) in one.reason for one in found.left_out)
    assert found.left_out[0].reason == "folder is a folder, not an image file"


@pytest.mark.parametrize("command", ["report", "evaluate"])
def test_a_place_that_must_not_be_written_is_refused_before_the_work(
    command: str, photographs: list[Path], capsys: Capture
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # one that others may look into
        table = Path(name) / "captions.csv"
        table.write_text("image,caption,split\na.jpg,a dog,dev\n")
        (Path(name) / "a.jpg").write_bytes(photographs[0].read_bytes())
        Path(name).chmod(0o555)
        words = [command, "compact", "--data", str(table), "--split", "dev"]
        output = Path(name) / ("report" if command == "report" else "scores.json")
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)  # nobody, who may not do what root may
        try:
            code = main([*words, "--output", str(output)])
        finally:
            if root:
                os.seteuid(0)
        Path(name).chmod(0o755)
        assert not output.exists()
    said = capsys.readouterr()
    assert (code, said.out) == (1, "")
    assert said.err.startswith(f"showtell: error: not allowed to read or write: '{name}' (Permission denied)")


def test_models_of_one_name_are_told_apart_by_as_little_as_possible(
    exported_model: str, tmp_path: Path
) -> None:
    copies = [tmp_path / folder / "deep" / "mine" for folder in ("one", "two")]
    for copy in copies:
        shutil.copytree(exported_model, copy)
    assert list(name_models([*copies])) == ["one/deep/mine", "two/deep/mine"]
    assert list(name_models([copies[0]])) == ["mine"]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["MODEL", "MODEL"], "A model is given twice"),
        (["MODEL", "MODEL/../tiny-exported"], "A model is given twice"),
        (["MODEL", "COPY"], "tiny-exported and copy are the same model"),
        (["MODEL", "."], "not a bundle"),
        (["DAMAGED"], "damaged"),
        (["nosuch"], "no such file or folder: 'nosuch'"),
    ],
)
def test_the_command_refuses_models_before_it_captions(
    models: list[str],
    message: str,
    exported_model: str,
    photographs: list[Path],
    tmp_path: Path,
    capsys: Capture,
) -> None:
    shutil.copytree(exported_model, tmp_path / "copy")
    shutil.copytree(exported_model, tmp_path / "damaged")
    manifest = json.loads((tmp_path / "damaged" / "portable.json").read_text())
    (tmp_path / "damaged" / "portable.json").write_text(json.dumps({**manifest, "files": []}))
    places = {
        "MODEL": exported_model,
        "COPY": str(tmp_path / "copy"),
        "DAMAGED": str(tmp_path / "damaged"),
    }
    data = write_captions(tmp_path, photographs)
    given = [re.sub("^[A-Z]+", lambda match: places[match[0]], one) for one in models]
    words = ["report", *given, "--data", str(data), "--split", "dev", "--output", str(tmp_path / "out")]
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_wrong_with_the_data(
    exported_model: str, photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    data = write_captions(tmp_path, photographs)
    words = ["report", exported_model, "--data", str(data), "--split"]
    assert main([*words, "test", "--output", str(tmp_path / "out")]) == 2
    assert "has no images in split 'test'" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    assert main([*words, "dev", "--output", str(tmp_path / "other")]) == 2
    assert "holds something else ('file')" in capsys.readouterr().err
    assert main([*words, "dev", "--output", str(data)]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err
    text = data.read_text()
    data.write_text(f"{text}gone\x1b[31m.jpg,{SAID['cat'][0]},dev\n")
    assert main([*words, "dev", "--no-overlap", "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "left out: gone\\x1b[31m.jpg: " in said
    assert "\x1b" not in said
    assert json.loads((tmp_path / "out" / "report.json").read_text())["left_out"]
