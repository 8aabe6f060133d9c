"""The words a captioner knows: counted on the training split alone, stored as JSON, never pickled.

Special tokens are ids, not words. The four lowest ids are theirs; in the file they stand apart from the word
list, so a caption that contains the characters `<start>` gets at most an ordinary word that looks like it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from showtell.errors import VocabularyError
from showtell.text.tokenizer import tokenize

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The ids that are not words."""

    pad: int = 0  # fills short captions in a batch; never counted in the loss
    start: int = 1  # fed before the first word
    end: int = 2  # predicted after the last word
    unknown: int = 3  # stands for words outside the vocabulary; fed in training, never written out


SPECIAL = SpecialTokens()
FIRST_WORD = 4  # ids from here on are words


class Vocabulary:
    """Words and their ids.

    Args:
        words: the words, most frequent first; word i has the id `i + 4`.
        rule: how the words were chosen, kept for the record, as `{"min_count": 5}`.

    Raises:
        VocabularyError: no words, a word twice, or something that is not a non-empty string.
    """

    def __init__(self, words: Sequence[str], rule: dict[str, Any] | None = None) -> None:
        if not words:
            raise VocabularyError(
                "The vocabulary has no words. Lower text.min_count, raise text.max_words, or check that the "
                "training split has captions."
            )
        for word in words:
            if not isinstance(word, str) or not word:
                raise VocabularyError(f"A vocabulary word must be a non-empty string. Received: {word!r}")
        self.words = tuple(words)
        self.rule = dict(rule or {})
        self._ids = {word: FIRST_WORD + index for index, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise VocabularyError(f"The vocabulary lists the word {twice!r} more than once.")

    @classmethod
    def from_captions(
        cls,
        captions: Iterable[str],
        *,
        min_count: int = 1,
        max_words: int | None = None,
        base: Vocabulary | None = None,
    ) -> Vocabulary:
        """Counts words and keeps the frequent ones; ties are ordered alphabetically, so the result is stable.

        Args:
            captions: the captions of the *training* split, as written.
            min_count: a word must occur this often.
            max_words: at most this many words are kept (the most frequent); None keeps all.
            base: of a captioner that is gone on with: its words come first, with their ids, and then what is counted
                and it has not, which may be nothing.

        Raises:
            VocabularyError: a threshold below 1, no word at all, or without `base` none that reaches the threshold.
        """
        if min_count < 1:
            raise VocabularyError(f"min_count must be at least 1. Received: {min_count}")
        if max_words is not None and max_words < 1:
            raise VocabularyError(f"max_words must be at least 1. Received: {max_words}")
        counts = Counter(word for caption in captions for word in tokenize(caption))
        frequent = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        rule = {"min_count": min_count, "max_words": max_words}
        if counts and not frequent:
            if base is not None:
                return base
            most = max(counts.values())
            raise VocabularyError(
                f"No word occurs at least {min_count} times in the training captions (the most frequent occurs "
                f"{most} times). Lower text.min_count."
            )
        found = cls([word for _, word in frequent][:max_words], rule)
        return found if base is None else base.extended(found)

    def extended(self, other: Vocabulary) -> Vocabulary:
        """Returns these words with their ids, and behind them those of `other` that are missing here.

        Args:
            other: its rule becomes the rule of the result, with the number of words that were there before.
        """
        new = [word for word in other.words if word not in self]
        return Vocabulary((*self.words, *new), {**other.rule, "extended": len(self.words)}) if new else self

    def __len__(self) -> int:
        """Returns the number of ids, special tokens included: the width of a decoder's logits."""
        return FIRST_WORD + len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def encode(self, caption: str) -> list[int]:
        """Returns the ids of the caption's words, `unknown` for words outside; no start and no end token."""
        return [self._ids.get(word, SPECIAL.unknown) for word in tokenize(caption)]

    def decode(self, tokens: Iterable[int]) -> str:
        """Returns the words of the ids joined by spaces; special tokens are left out.

        Raises:
            VocabularyError: an id outside the vocabulary.
        """
        return " ".join(self.word(token) for token in tokens if not 0 <= token < FIRST_WORD)

    def word(self, token: int) -> str:
        """Returns the word of one id.

        Raises:
            VocabularyError: the id is a special token's or outside the vocabulary.
        """
        if not FIRST_WORD <= token < len(self):
            raise VocabularyError(
                f"A word's id must be from {FIRST_WORD} to {len(self) - 1}. Received: {token}. "
                "The decoder and the vocabulary do not belong together."
            )
        return self.words[token - FIRST_WORD]

    def coverage(self, captions: Iterable[str]) -> float:
        """Returns the share of running words of `captions` that the vocabulary has, 0 to 1 (1 if there are none)."""
        known = total = 0
        for caption in captions:
            for word in tokenize(caption):
                total += 1
                known += word in self._ids
        return known / total if total else 1.0

    def fingerprint(self) -> str:
        """Returns a digest of the words in their order."""
        return hashlib.sha256("\n".join(self.words).encode("utf-8", "surrogatepass")).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Returns what `from_dict` reads; special tokens stand apart from the words."""
        return {
            "format_version": FORMAT_VERSION,
            "special_tokens": asdict(SPECIAL),
            "rule": self.rule,
            "words": list(self.words),
        }

    @classmethod
    def from_dict(cls, data: Any, where: str = "vocabulary") -> Vocabulary:
        """Reads what `to_dict` gave.

        Raises:
            VocabularyError: not a vocabulary, a newer format, or other special tokens than this version uses.
        """
        if not isinstance(data, dict) or not isinstance(data.get("words"), list):
            raise VocabularyError(f"{where}: not a Showtell vocabulary (a JSON object with a list 'words').")
        version = data.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise VocabularyError(
                f"{where}: format version {version!r}, but this Showtell reads up to {FORMAT_VERSION}. Update Showtell."
            )
        if data.get("special_tokens") != asdict(SPECIAL):
            raise VocabularyError(
                f"{where}: special tokens {data.get('special_tokens')!r}, expected {asdict(SPECIAL)!r}."
            )
        rule = data.get("rule")
        if rule is not None and not isinstance(rule, dict):
            raise VocabularyError(f"{where}: 'rule' must be a JSON object. Received: {rule!r}")
        return cls(data["words"], rule)

    def save(self, path: Path) -> None:
        """Writes the vocabulary as JSON."""
        path.write_text(json.dumps(self.to_dict(), ensure_ascii=True, indent=0), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Reads a vocabulary from JSON.

        Raises:
            VocabularyError: the file is missing or is not a vocabulary.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise VocabularyError(f"{path}: no such vocabulary file.") from None
        except (OSError, ValueError, RecursionError) as error:
            raise VocabularyError(f"{path}: cannot be read as a vocabulary: {error}") from None
        return cls.from_dict(data, str(path))
