"""A caption becomes alt text: length, lead-ins, case, ends, confidence, escaping."""

from __future__ import annotations

import html
import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from showtell.alt_text import MAX_CHARACTERS, REVIEW_BELOW, AltText, escape_attribute, write_alt_text
from showtell.errors import UsageError

LONG = (
    "a man standing next to a large brown horse in a green field with a red barn and a white fence behind it under a "
    "very blue sky with a few clouds"
)


def text_of(caption: str) -> str:
    return write_alt_text(caption).text


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("a dog runs on the grass", "A dog runs on the grass."),
        ("a dog runs on the grass.", "A dog runs on the grass."),
        ("a dog runs on the grass .", "A dog runs on the grass."),
        ("two  dogs ,\n one ball", "Two dogs, one ball."),
        ("what is it?", "What is it?"),
        ("the New York skyline", "The New York skyline."),
        ("iPhone on a table", "iPhone on a table."),
        ("and then i saw i'm late, i think", "And then I saw I'm late, I think."),
        ("a sign that says 'stop.'", "A sign that says 'stop.'"),
        ('"stop" says the sign', '"Stop" says the sign.'),
        ("2 men in hi-fi shops", "2 men in hi-fi shops."),
        ("ǆungla", "ǅungla."),
        ("bell\x07 and \u202ereversed\ud800 text", "Bell and reversed text."),
        ("一只狗在草地上奔跑", "一只狗在草地上奔跑。"),
        ("", ""),
        (" ... ", ""),
        ("\x00", ""),
    ],
)
def test_a_caption_becomes_one_tidy_sentence(caption: str, text: str) -> None:
    assert text_of(caption) == text


@pytest.mark.parametrize(
    "lead_in",
    [
        "a picture of",
        "An image of",
        "a photo of",
        "A photograph showing",
        "the image shows",
        "this is a picture of",
        "there is an image of",
        "it's a photo of",
        "a nice stock photo of",
        "picture of",
        "Image:",
        "a snapshot that shows",
        "a photo taken of",
        "this photo depicts",
        "a picture of a photo of",
    ],
)
def test_no_text_says_that_it_is_a_picture(lead_in: str) -> None:
    assert text_of(f"{lead_in} a dog with a ball") == "A dog with a ball."


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        (
            "a black and white photo of a man",
            "A black and white photo of a man.",
        ),  # the medium says something
        ("an aerial photograph of a town", "An aerial photograph of a town."),
        ("a man takes a picture of a dog", "A man takes a picture of a dog."),
        ("a picture frame on a wall", "A picture frame on a wall."),
        ("a photo of", "A photo."),  # nothing else is left
    ],
)
def test_what_only_looks_like_a_lead_in_stays(caption: str, text: str) -> None:
    assert text_of(caption) == text


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("a dog with a", "A dog."),
        ("a dog in the", "A dog."),
        ("a dog and", "A dog."),
        ("two dogs and two of the", "Two dogs."),
        ("a dog,", "A dog."),
        ("a dog chasing another", "A dog chasing another."),  # written to its end
        ("a man with a helmet on", "A man with a helmet on."),
        ("a", "A."),
    ],
)
def test_no_text_ends_in_the_middle_of_a_phrase(caption: str, text: str) -> None:
    assert text_of(caption) == text


def test_a_long_caption_ends_after_a_whole_phrase() -> None:
    expected = (
        "A man standing next to a large brown horse in a green field with a red barn and a white fence "
        "behind it."
    )
    assert text_of(LONG) == expected


def test_a_long_caption_ends_after_a_whole_sentence_if_there_is_one() -> None:
    sentence = "A dog runs over the grass of a large garden with a ball."
    assert text_of(f"{sentence} {LONG}") == sentence
    # One that is too short would leave out nearly everything.
    assert text_of(f"a dog. {LONG}").startswith("A dog. a man standing next to")


def test_a_long_caption_without_phrases_ends_after_a_word_that_can_end_it() -> None:
    text = text_of("very " * 20 + "big and " * 20)
    assert text.endswith("big.")
    assert len(text) <= MAX_CHARACTERS


@pytest.mark.parametrize("caption", ["x" * 500, "日本語" * 100, "e\u0301" * 200, "a" + "\u0301" * 300])
def test_what_has_no_spaces_is_cut_between_characters(caption: str) -> None:
    text = text_of(caption)
    assert 0 < len(text) <= MAX_CHARACTERS
    rest = caption[len(text) - 1 :]
    assert not rest or caption.startswith("a\u0301") or rest[0] != "\u0301"


def test_a_text_of_just_the_limit_is_whole() -> None:
    words = "a dog " + "runs " * 23
    caption = (words + "fast")[: MAX_CHARACTERS - 1]
    assert len(caption) == MAX_CHARACTERS - 1
    assert text_of(caption) == "A" + caption[1:] + "."
    assert text_of(caption + ".") == "A" + caption[1:] + "."


WORDS = (
    "a the dog man i in on with and of very red photo picture image is runs standing , . iPhone 2 other two"
)
words = st.sampled_from(WORDS.split())


@given(st.lists(words, max_size=60).map(" ".join))
@example("a " * 100)
def test_every_caption_keeps_the_rules(caption: str) -> None:
    text = text_of(caption)
    assert len(text) <= MAX_CHARACTERS
    assert "  " not in text
    assert text == text.strip()
    assert not re.search(r"\bi\b", text)
    assert (not text) == (not any(one.isalnum() for one in caption))
    if text:
        assert text[-1] in ".!?"
        assert text[0].isdigit() or not text[0].isalpha() or text[0].isupper() or text.startswith("iPhone")
        # Whole words only: those of the caption, in their order.
        said = re.findall(r"\w+", text.lower())
        written = iter(re.findall(r"\w+", caption.lower()))
        assert all(word in written for word in said)


@given(st.text(max_size=400))
def test_any_text_is_survived(caption: str) -> None:
    text = text_of(caption)
    assert len(text) <= MAX_CHARACTERS
    assert text.isprintable() or not caption.isprintable()
    text.encode("utf-8")
    assert html.unescape(escape_attribute(text)) == text


def test_how_sure_says_who_must_look() -> None:
    assert write_alt_text("a dog") == AltText("A dog.", True, None)  # nobody knows how sure
    assert write_alt_text("a dog", confidence=0.9) == AltText("A dog.", False, 0.9)
    assert write_alt_text("a dog", confidence=REVIEW_BELOW) == AltText("A dog.", False, REVIEW_BELOW)
    assert write_alt_text("a dog", confidence=0.49) == AltText("A dog.", True, 0.49)
    assert write_alt_text("a dog", confidence=0.9, review_below=0.95).needs_review
    assert not write_alt_text("a dog", confidence=0.0, review_below=0.0).needs_review
    assert write_alt_text("", confidence=1.0) == AltText("", True, 1.0)  # an empty text must not be written


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_impossible_confidences_are_refused(value: float) -> None:
    with pytest.raises(
        UsageError, match=rf"confidence must be from 0 to 1\. Received: {re.escape(repr(value))}"
    ):
        write_alt_text("a dog", confidence=value)
    with pytest.raises(
        UsageError, match=rf"review_below must be from 0 to 1\. Received: {re.escape(repr(value))}"
    ):
        write_alt_text("a dog", review_below=value)


def test_attributes_are_escaped_for_quotes_of_both_kinds() -> None:
    assert escape_attribute("""a "b" & 'c' <d>""") == "a &quot;b&quot; &amp; &#x27;c&#x27; &lt;d&gt;"
