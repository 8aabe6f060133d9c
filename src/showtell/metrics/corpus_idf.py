"""How rare each n-gram is in a corpus, for CIDEr."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeGuard

from showtell.errors import MetricError
from showtell.files import write_json
from showtell.metrics.ngrams import MAX_ORDER, Ngram, split_again
from showtell.text.tokenizer import tokenize

_FORMAT = "showtell-corpus-idf"
_VERSION = 1


@dataclass(frozen=True)
class CorpusIdf:
    """In how many images of a corpus each n-gram occurs: it makes CIDEr meaningful for few images, or one."""

    document_frequency: Mapping[Ngram, int]  # n-gram -> number of images with a reference that has it
    images: int  # number of images in the corpus

    @classmethod
    def from_references(cls, references: Mapping[str, Sequence[str]]) -> CorpusIdf:
        """Counts the n-grams of a corpus.

        Args:
            references: image id -> its captions, as people wrote them.

        Raises:
            MetricError: there is no image.
        """
        if not references:
            raise MetricError("Document frequencies cannot be counted: there are no references.")
        frequency: Counter[Ngram] = Counter()
        for captions in references.values():
            tokens = [tokenize(caption) for caption in captions]
            words = split_again(tokens, chain.from_iterable(tokens))
            frequency.update({ngram for caption in words for ngram in _list_ngrams(caption)})
        return cls(frequency, len(references))

    def save(self, path: Path) -> None:
        """Writes the frequencies as JSON, atomically. The words of an n-gram are joined by spaces."""
        frequency = {" ".join(ngram): count for ngram, count in sorted(self.document_frequency.items())}
        write_json(
            path,
            {
                "format": _FORMAT,
                "version": _VERSION,
                "images": self.images,
                "document_frequency": frequency,
            },
        )

    @classmethod
    def load(cls, path: Path) -> CorpusIdf:
        """Reads what `save` wrote.

        Raises:
            MetricError: the file is missing, is not such a file, or comes from a newer version.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise MetricError(
                f"Document frequencies cannot be read from {path}: {error.strerror}."
            ) from error
        except (ValueError, RecursionError) as error:
            raise MetricError(
                f"Document frequencies cannot be read from {path}: not JSON ({error})."
            ) from error
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise MetricError(
                f'{path} holds no document frequencies (no "format": "{_FORMAT}"). '
                "Make such a file with CorpusIdf.from_references(...).save(path)."
            )
        if data.get("version") != _VERSION:
            raise MetricError(
                f"{path} has format version {data.get('version')!r}, this Showtell reads version {_VERSION}. "
                "Make the file anew, or use the Showtell that wrote it."
            )
        images, frequency = data.get("images"), data.get("document_frequency")
        if (
            not _is_count(images)
            or not isinstance(frequency, dict)
            or not all(map(_is_count, frequency.values()))
        ):
            raise MetricError(
                f'{path} is damaged: "images" and "document_frequency" must hold counts of 1 or more.'
            )
        if max(frequency.values(), default=0) > images:
            raise MetricError(
                f"{path} is damaged: an n-gram is said to occur in more images than the {images} there are."
            )
        return cls({tuple(ngram.split(" ")): count for ngram, count in frequency.items()}, images)


def _list_ngrams(words: Sequence[str]) -> Iterator[Ngram]:
    for order in range(1, MAX_ORDER + 1):
        yield from zip(*(words[start:] for start in range(order)), strict=False)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
