"""Words to include and exclude, as people write them: read, refused with a reason, and kept by real captioners."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.consensus import Consensus, build_consensus
from showtell.decoding import Constraints, DecodingSettings, decode
from showtell.decoding.constraints import build_machine, find_opening
from showtell.errors import ConfigError, UsageError
from showtell.text import Vocabulary
from test_decoding import FIRST_WORD, SPECIAL, ToyStepper
from test_decoding_constraints import WORDS, keeps, spell
from tiny_runs import exported_run, shared_dataset, trained_run

# ---------------------------------------------------------------- settings and messages


def test_settings_keep_words_as_they_were_written() -> None:
    setup = DecodingSettings.from_dict({"include": ["Dog|puppy", "red shirt"], "exclude": ["Man"]})
    assert setup.include == ("Dog|puppy", "red shirt")
    assert setup.exclude == ("Man",)
    assert DecodingSettings.from_dict(json.loads(json.dumps(setup.to_dict()))) == setup
    assert isinstance(hash(setup), int)
    without = {
        key: value for key, value in DecodingSettings().to_dict().items() if key not in ("include", "exclude")
    }
    assert DecodingSettings.from_dict(without) == DecodingSettings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"include": "dog"},
            r'needs include to be a list, as in include = \["dog", .*\]\. Received: \'dog\'',
        ),
        ({"exclude": {"dog": 1}}, r"needs exclude to be a list.* Received: \{'dog': 1\}"),
        ({"include": [3]}, r"needs words in include, as in include = .* Received: 3"),
        ({"exclude": [None]}, r"needs words in exclude.* Received: None"),
        ({"include": [""]}, r"needs words in include\. Received: '', which has none"),
        ({"include": ["dog|"]}, r"needs words in include\. Received: 'dog\|', which has none"),
        ({"exclude": [" ... "]}, r"needs words in exclude\. Received: ' \.\.\. ', which has none"),
        ({"exclude": ["dog|cat"]}, r"each word alone, without '\|'\. Received: 'dog\|cat'\. .* as 2 entries"),
        ({"include": ["dog, cat"]}, r"include as an entry of its own, without commas.* Received: 'dog, cat'"),
        (
            {"include": ["dog"], "exclude": ["Dog"]},
            r"cannot include 'dog' and exclude 'Dog'\. Drop one of them",
        ),
        ({"include": ["red dog"], "exclude": ["cat", "dog"]}, r"cannot include 'red dog' and exclude 'dog'"),
        (
            {"include": ["dog|red cat"], "exclude": ["cat", "dog"]},
            r"'dog\|red cat': exclude = \('cat', 'dog'\) forbids",
        ),
        (
            {"include": ["a a"], "no_double_words": True},
            r"cannot include 'a a': no_double_words = true forbids it",
        ),
        (
            {"include": ["a red a"], "no_repeat_ngram": 1},
            r"cannot include 'a red a': no_repeat_ngram = 1 forbids it",
        ),
        (
            {"include": ["dog" + "|cat" * 199] * 9},
            r"cannot include 1,800 words in 9 entries.* Name fewer alternatives",
        ),
        ({"include": ["dog"] * 11}, r"can include 10 words or phrases\. Received: 11.* 'dog\|puppy'"),
        (
            {"include": ["dog"], "method": "greedy"},
            r"can include words only with method 'beam' \(--beam K\).* Received: 'greedy'",
        ),
        ({"include": ["dog"], "method": "sample"}, r"only with method 'beam'.* Received: 'sample'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecodingSettings(**values)


def test_an_alternative_that_is_excluded_leaves_the_others() -> None:
    setup = DecodingSettings(include=("dog|red cat|zebra",), exclude=("cat",))
    constraints = Constraints.read(setup, Vocabulary(WORDS))
    assert constraints.include == (((FIRST_WORD + WORDS.index("dog"),),),)
    assert DecodingSettings(include=("1,000 dogs",)).include


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "shirts",
            r"asks for 'shirts', but the model's vocabulary of 8 words lacks 'shirts'\. Did you mean 'shirt'\?",
        ),
        ("red dogs", r"asks for 'red dogs'.* lacks 'dogs'\. Did you mean 'dog'\?"),
        (
            "qqq|zzz",
            r"asks for 'qqq\|zzz'.* lacks 'qqq' and 'zzz'\. It can say only words of its training captions",
        ),
    ],
)
def test_words_that_the_vocabulary_lacks_cannot_be_included(entry: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Constraints.read(DecodingSettings(include=(entry,)), Vocabulary(WORDS))


def test_constraints_that_no_caption_can_keep_are_refused_before_the_search() -> None:
    setup = DecodingSettings(include=("red dog", "red cat"), no_repeat_ngram=1, max_steps=30)
    stepper = ToyStepper([1], FIRST_WORD + 8)
    message = (
        r"No caption was found that has everything .* keeps max_steps = 30, no_repeat_ngram = 1\. Include"
    )
    with pytest.raises(ConfigError, match=message):
        decode(stepper, setup, SPECIAL, constraints=Constraints.read(setup, Vocabulary(WORDS)))
    assert stepper.rows == []
    setup = DecodingSettings(
        include=("dog", "cat"), exclude=("dog cat", "cat dog"), no_double_words=True, max_steps=2
    )
    with pytest.raises(ConfigError, match=r"keeps max_steps = 2, no_double_words, exclude\. Include"):
        decode(stepper, setup, SPECIAL, constraints=Constraints.read(setup, Vocabulary(WORDS)))


def test_an_opening_holds_everything_and_keeps_the_rules() -> None:
    setup = DecodingSettings(
        include=("dog", "cat", "red shirt|hat", "a small"),
        exclude=("dog cat", "cat dog", "cat hat", "shirt"),
        no_repeat_ngram=2,
        no_double_words=True,
    )
    constraints = Constraints.read(setup, Vocabulary(WORDS))
    machine = build_machine(constraints.include)
    opening = find_opening(machine, setup, constraints.exclude, SPECIAL, vocab_size=FIRST_WORD + len(WORDS))
    assert len(opening) == machine.least == 5
    assert keeps(spell(opening), setup)


@pytest.mark.parametrize("bad", [0, SPECIAL.end, SPECIAL.unknown, 8, -1])
def test_ids_of_another_vocabulary_are_refused(bad: int) -> None:
    for constraints in (Constraints(exclude=((bad,),)), Constraints(include=(((4, bad),),))):
        with pytest.raises(
            ConfigError, match=rf"have the ids \[{bad}\], which are no words of the decoder's 8 tokens"
        ):
            decode(ToyStepper([1], 8), DecodingSettings(), SPECIAL, constraints=constraints)


def test_decode_wants_the_ids_of_the_words() -> None:
    for setup in (DecodingSettings(include=("dog",)), DecodingSettings(method="greedy", exclude=("dog",))):
        with pytest.raises(UsageError, match=r"have ids only in a vocabulary.* Constraints\.read\(settings"):
            decode(ToyStepper([1]), setup, SPECIAL)
    with pytest.raises(ConfigError, match="only with method 'beam'"):
        decode(
            ToyStepper([1]),
            DecodingSettings(method="greedy"),
            SPECIAL,
            constraints=Constraints(include=(((4,),),)),
        )


# ---------------------------------------------------------------- real captioners

BOUND = DecodingSettings(
    beam=3,
    count=3,
    max_steps=12,
    include=("Triangle|circle", "red"),
    exclude=("blue", "a"),
    no_double_words=True,
)


def pictures() -> list[Path]:
    return [image.path for image in shared_dataset().images][:9]


def check_captions(captioner: Captioner, **changes: Any) -> list[str]:
    texts = []
    for setup in (BOUND, replace(BOUND, count=1), replace(BOUND, beam=1, count=1)):
        setup = replace(setup, **changes)
        for picture in captioner.caption(pictures(), setup):
            assert len(picture.captions) == setup.count
            assert all(keeps(tuple(caption.words), setup) for caption in picture.captions)
            texts.append(picture.text)
    return texts


def test_a_trained_captioner_says_what_it_must() -> None:
    captioner = Captioner.load(trained_run())
    together = check_captions(captioner)
    alone = [next(captioner.caption([path], BOUND)).text for path in pictures()]
    assert together[: len(alone)] == alone
    free = [picture.text for picture in captioner.caption(pictures(), replace(BOUND, include=(), exclude=()))]
    assert free != alone


def test_a_consensus_chooses_among_captions_that_say_what_they_must() -> None:
    captioner = Captioner.load(trained_run())
    images = [image for image in shared_dataset().images if image.path in pictures()]
    features = list(captioner.encode(image.path for image in images))
    said = [image.captions for image in images]
    arrays = build_consensus(features, said, captioner.backend.vocabulary)
    captioner.backend.consensus = Consensus(arrays, captioner.backend.vocabulary)  # type: ignore[misc]
    check_captions(captioner, consensus=5.0)
    (plain,), (ranked,) = (
        [picture.captions for picture in captioner.caption(pictures()[:1], replace(BOUND, consensus=weight))]
        for weight in (0.0, 5.0)
    )
    assert sorted(caption.text for caption in plain) == sorted(caption.text for caption in ranked)
    assert [caption.score for caption in plain] != [caption.score for caption in ranked]


def test_an_ensemble_and_an_exported_captioner_say_what_they_must() -> None:
    alone = check_captions(Captioner.load(trained_run()))
    assert check_captions(Captioner.load([trained_run(), trained_run()])) == alone
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    for engine in ("openvino", "onnxruntime"):
        assert check_captions(Captioner.load(exported_run(), engine=engine)) == alone


def test_the_command_line_includes_and_excludes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, model = str(pictures()[0]), str(trained_run())
    words = ["caption", picture, "--model", model, "--format", "jsonl", "--beam", "3", "--count", "2"]
    assert main([*words, "--include", "triangle|circle", "--include", "red", "--exclude", "blue"]) == 0
    record = json.loads(capsys.readouterr().out)
    setup = DecodingSettings(include=("triangle|circle", "red"), exclude=("blue",))
    assert [keeps(tuple(one["caption"].split()), setup) for one in record["captions"]] == [True, True]
    assert main([*words, "--include", "circl"]) == 2
    assert "lacks 'circl'. Did you mean 'circle'?" in capsys.readouterr().err
    assert main(["caption", picture, "--model", model, "--greedy", "--include", "red"]) == 2
    assert "only with method 'beam' (--beam K)" in capsys.readouterr().err
