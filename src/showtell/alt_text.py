"""Alt text: a caption becomes what a screen reader says in place of a picture.

Notable choices, and where they come from:

- At most 125 characters, the customary limit: some screen readers read longer texts in pieces. What is too long ends
  after a whole sentence, else after a whole phrase, else after a whole word.
- No "a picture of": a screen reader has said "graphic" already (W3C, "Images Tutorial: Tips and Tricks"). A medium that
  says something stays, as in "a black and white photo of".
- A full stop at the end, at which screen readers pause before they go on with the page (New Zealand Government Web
  Standards 2.0, recommendation 5.1.3; Göransson 2017, "Alt-texts: The Ultimate Guide").
- How sure the captioner is may be unknown. Then somebody has to look: unknown is not the same as sure.
"""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass

from showtell.errors import UsageError

MAX_CHARACTERS = 125
REVIEW_BELOW = 0.5  # of calibrated confidences: a text below it is more likely wrong than right

_FULL_STOPS = ".!?…。！？"
_LOOSE_ENDS = " ,;:-–—&/("
_REVERSING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # marks that turn the text after them
_LEAD_IN = re.compile(
    r"(?:(?:this|it|here|there)(?:\s+is|['’]s)\s+)?(?:(?:an?|the|one|this|some)\s+)?"
    # Adjectives that say nothing of what can be seen; "black and white" or "aerial" would.
    r"(?:(?:nice|beautiful|lovely|good|great|cool|amazing|colou?r|digital|stock|sample|profile)\s+)*"
    r"(?:image|picture|photo|photograph|pic|snapshot|snap)s?(?:\s*:\s*|\s+(?:(?:that|which)\s+)?(?:(?:is|was)\s+)?"
    r"(?:taken\s+)?(?:of|shows?|showing|depicts?|depicting|features|featuring)\s+)",
    re.IGNORECASE,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A new phrase begins with one of these, so what stands before it is complete. "And" is not among them, because of
# "black and white", nor is "of", because of "a group of".
_PHRASE_STARTS = _words(
    "about above across after against along among around as at before behind below beneath beside besides between "
    "beyond by during for from in inside into near next on onto outside over past that through to toward towards under "
    "underneath upon where which while who whose with within without"
)
# Texts that were written to their end do not end with these.
_DANGLING = _words(
    "a an the and or but nor of with without at from for to into onto in as while which who whose is are was were "
    "its their my our your very"
)
# Texts that were cut do not end with these either: more would have followed.
_CUT_OPEN = _words(
    "this these those some any each every another other several many few both all no his her front top "
    "one two three four five six seven eight nine ten be being been am has have had does do can could will "
    "would so too than not out up off down"
)
_UNFINISHED = _PHRASE_STARTS | _DANGLING | _CUT_OPEN


@dataclass(frozen=True)
class AltText:
    """What a picture's alt attribute should say, and whether somebody should read it first."""

    text: str  # not escaped; empty where the caption has no words, and then nothing must be written
    needs_review: bool  # the confidence is low, or not known, or there is no text
    confidence: float | None  # that the caption is right, 0 to 1; None where nobody knows


def write_alt_text(
    caption: str, *, confidence: float | None = None, review_below: float = REVIEW_BELOW
) -> AltText:
    """Turns a caption into alt text.

    Args:
        caption: in any case, with or without a full stop.
        confidence: that the caption is right, calibrated, 0 to 1; None where it is not known.
        review_below: a lower confidence needs review, 0 to 1.

    Raises:
        UsageError: a confidence or threshold outside of 0 to 1.
    """
    for name, value in (("confidence", confidence), ("review_below", review_below)):
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{name} must be from 0 to 1. Received: {value!r}")
    text = _end(_shorten(_capitalise(_without_lead_in(_tidy(caption)))))
    needs_review = not text or confidence is None or confidence < review_below
    return AltText(text, needs_review, confidence)


def escape_attribute(text: str) -> str:
    """Escapes a text for an attribute in quotes of either kind, in HTML and in XML."""
    return html.escape(text, quote=True)


def _tidy(caption: str) -> str:
    """Removes what cannot be spoken, doubled spaces, and spaces before punctuation."""
    spoken = "".join(
        " " if unicodedata.category(one) in ("Cc", "Cs") or one in _REVERSING else one for one in caption
    )
    spoken = re.sub(r"\s+([.,;:!?…])", r"\1", " ".join(spoken.split()))
    return spoken.lstrip(_LOOSE_ENDS.replace("(", "") + _FULL_STOPS) if _has_words(spoken) else ""


def _without_lead_in(text: str) -> str:
    while found := _LEAD_IN.match(text):
        if not _has_words(text[found.end() :]):
            break
        text = text[found.end() :]
    return text


def _capitalise(text: str) -> str:
    """Gives a sentence its first letter and the word I; everything else stays, as names and "iPhone" do."""
    text = re.sub(r"(?<![\w.'’-])i(?![\w-]|\.\w)", "I", text)
    word = re.search(r"[^\W_]+", text)
    if word is None or any(one.isupper() for one in word[0]):
        return text
    first = word.start()
    return text[:first] + text[first].title() + text[first + 1 :]


def _shorten(text: str) -> str:
    """Cuts a text so that it has room for a full stop: after a sentence, a phrase, or at least a word."""
    room = MAX_CHARACTERS - 1
    if len(text) <= room or (len(text) == MAX_CHARACTERS and text[-1] in _FULL_STOPS):
        return text
    found = re.finditer(r"[.!?…](?=\s)|[。！？]", text[: MAX_CHARACTERS + 1])
    sentences = [stop.end() for stop in found if room // 3 <= stop.end() <= MAX_CHARACTERS]
    if sentences:
        return text[: sentences[-1]]
    words = [_bare(word) for word in text.split(" ")]
    spaces = [place for place, one in enumerate(text[: room + 1]) if one == " "]
    # (where to cut, the word before, the word after), the longest first
    cuts = [(place, words[number], words[number + 1]) for number, place in enumerate(spaces)][::-1]
    whole_words = [cut for cut in cuts if cut[1] not in _UNFINISHED]
    phrases = [place for place, _, after in whole_words if after in _PHRASE_STARTS and place >= room // 2]
    if phrases or whole_words:
        return text[: phrases[0] if phrases else whole_words[0][0]]
    # One word without end, or a script that has no spaces: only a character can be the limit.
    while room > 1 and (unicodedata.combining(text[room]) or "\u200d" in (text[room], text[room - 1])):
        room -= 1
    return text[:room]


def _end(text: str) -> str:
    """Ends a text with a full stop, unless it has an end already."""
    text = text.rstrip(_LOOSE_ENDS)
    unfinished = _DANGLING
    while text.rpartition(" ")[2].lower() in unfinished and _has_words(text.rpartition(" ")[0]):
        text = text.rpartition(" ")[0].rstrip(_LOOSE_ENDS)
        unfinished = _UNFINISHED
    if not text or text.rstrip("\"'”’)»")[-1:] in tuple(_FULL_STOPS):
        return text
    return text + ("。" if "\u3040" <= text[-1] <= "\u9fff" else ".")


def _has_words(text: str) -> bool:
    return any(one.isalnum() for one in text)


def _bare(word: str) -> str:
    return word.strip("\"'“”‘’().,;:!?").lower()
