"""The vocabulary: counted on training captions, stable, unforgeable, stored as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.errors import VocabularyError
from showtell.text import FIRST_WORD, SPECIAL, Vocabulary, tokenize

SOUND = Vocabulary(["a", "dog"], {"min_count": 1}).to_dict()


def test_words_are_ordered_by_frequency_then_alphabet() -> None:
    captions = ["the cat sat", "the dog sat", "a cat and a dog", "the end"]
    vocabulary = Vocabulary.from_captions(captions)
    assert vocabulary.words == ("the", "a", "cat", "dog", "sat", "and", "end")
    assert Vocabulary.from_captions(reversed(captions)) == vocabulary
    assert len(vocabulary) == FIRST_WORD + 7
    assert vocabulary.encode("The dog, and a bird.") == [4, 7, 9, 5, SPECIAL.unknown]


@given(st.permutations(["a dog", "the cat", "a man and a dog", "the man", "x y z", "z y x"]))
def test_the_order_of_captions_does_not_matter(captions: list[str]) -> None:
    words = ("a", "dog", "man", "the", "x", "y", "z", "and", "cat")
    assert Vocabulary.from_captions(captions).words == words


def test_threshold_and_size() -> None:
    captions = ["a a a b b c"]
    assert Vocabulary.from_captions(captions, min_count=2).words == ("a", "b")
    assert Vocabulary.from_captions(captions, max_words=1).words == ("a",)
    assert Vocabulary.from_captions(captions, min_count=2, max_words=9).rule == {
        "min_count": 2,
        "max_words": 9,
    }
    with pytest.raises(VocabularyError, match=r"No word occurs at least 4 times .* occurs 3 times"):
        Vocabulary.from_captions(captions, min_count=4)
    with pytest.raises(VocabularyError, match=r"min_count must be at least 1. Received: 0"):
        Vocabulary.from_captions(captions, min_count=0)
    with pytest.raises(VocabularyError, match=r"max_words must be at least 1. Received: 0"):
        Vocabulary.from_captions(captions, max_words=0)


def test_words_of_a_captioner_that_is_gone_on_with_come_first_and_suffice() -> None:
    base = Vocabulary(["b", "x"], {"min_count": 5})
    found = Vocabulary.from_captions(["a a a b b c"], min_count=2, base=base)
    assert found.words == ("b", "x", "a")
    assert found.rule == {"min_count": 2, "max_words": None, "extended": 2}
    assert Vocabulary.from_captions(["a a a b b c"], min_count=4, base=base) is base
    with pytest.raises(VocabularyError, match="The vocabulary has no words"):
        Vocabulary.from_captions([], base=base)


@pytest.mark.parametrize("captions", [[], ["", " . "], ["\x00\x01"]])
def test_a_vocabulary_of_size_zero_is_refused(captions: list[str]) -> None:
    with pytest.raises(VocabularyError, match="The vocabulary has no words"):
        Vocabulary.from_captions(captions)


@pytest.mark.parametrize("words", [["a", ""], ["a", None], ["a", 5]])
def test_words_are_strings(words: list[Any]) -> None:
    with pytest.raises(VocabularyError, match=r"must be a non-empty string. Received: "):
        Vocabulary(words)


@given(st.lists(st.text(), min_size=1))
def test_no_text_gives_the_id_of_a_special_token(captions: list[str]) -> None:
    captions += ["<start> a <end> <pad> <unk>", "start end pad unknown", "0 1 2 3"]
    vocabulary = Vocabulary.from_captions(captions)
    for caption in captions:
        tokens = vocabulary.encode(caption)
        assert all(FIRST_WORD <= token < len(vocabulary) for token in tokens)
        assert vocabulary.decode(tokens) == " ".join(tokenize(caption))
    other = Vocabulary(["zzz"])
    for caption in captions:
        assert set(other.encode(caption)) <= {SPECIAL.unknown, FIRST_WORD}


def test_written_markup_is_an_ordinary_word() -> None:
    vocabulary = Vocabulary.from_captions(["<start> a dog <end>"])
    assert "<start>" in vocabulary
    assert sorted(vocabulary.encode("<start> a dog <end>")) == [4, 5, 6, 7]


def test_special_tokens_are_never_written() -> None:
    vocabulary = Vocabulary(["a", "dog"])
    assert vocabulary.decode([SPECIAL.start, 4, SPECIAL.unknown, 5, SPECIAL.end, SPECIAL.pad]) == "a dog"
    for token in (0, 3, 6, -1):
        with pytest.raises(VocabularyError, match=f"from 4 to 5. Received: {token}"):
            vocabulary.word(token)
    with pytest.raises(VocabularyError, match="do not belong together"):
        vocabulary.decode([4, 6])
    with pytest.raises(VocabularyError, match="do not belong together"):
        vocabulary.decode([-1])


def test_coverage_counts_running_words() -> None:
    vocabulary = Vocabulary(["a", "dog"])
    assert vocabulary.coverage(["a dog", "a cat runs"]) == 3 / 5
    assert vocabulary.coverage([]) == 1.0


@given(st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_json_gives_back_every_word(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    path = tmp_path_factory.mktemp("words") / "vocabulary.json"
    vocabulary = Vocabulary(words, {"min_count": 3})
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert loaded.words == tuple(words)
    assert loaded.rule == {"min_count": 3}
    assert loaded.fingerprint() == vocabulary.fingerprint()
    assert hash(loaded) == hash(vocabulary)


def test_fingerprints_tell_words_and_order_apart() -> None:
    prints = [Vocabulary(words).fingerprint() for words in (["a", "b"], ["b", "a"], ["ab"], ["a"])]
    assert len(set(prints)) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as a vocabulary"),
        ('{"words": ["a"', "cannot be read as a vocabulary"),
        ("[" * 100_000, "cannot be read as a vocabulary"),
        ("[1, 2]", "not a Showtell vocabulary"),
        ('{"words": "abc"}', "not a Showtell vocabulary"),
        (
            json.dumps({**SOUND, "format_version": 2}),
            "format version 2, but this Showtell reads up to 1. Update",
        ),
        (json.dumps({**SOUND, "format_version": None}), "format version None"),
        (
            json.dumps({**SOUND, "special_tokens": {"pad": 9}}),
            "special tokens {'pad': 9}, expected {'pad': 0",
        ),
        (json.dumps({**SOUND, "words": ["a", "b", "a"]}), "lists the word 'a' more than once"),
        (json.dumps({**SOUND, "words": []}), "has no words"),
        (json.dumps({**SOUND, "words": [["a"]]}), r"non-empty string. Received: \['a'\]"),
        (json.dumps({**SOUND, "rule": "all"}), "'rule' must be a JSON object. Received: 'all'"),
    ],
)
def test_damaged_files_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text(content)
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.load(path)


def test_files_that_are_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="no such vocabulary file"):
        Vocabulary.load(tmp_path / "none.json")
    with pytest.raises(VocabularyError, match="cannot be read as a vocabulary"):
        Vocabulary.load(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VocabularyError, match="cannot be read as a vocabulary"):
        Vocabulary.load(tmp_path / "bytes.json")
