"""What a captioner is fond of saying: subjects that it names too often, and the gender that it gives to people.

A picture shows a subject where at least two of its people named it; a word for a man or a woman where at least two
said one and nobody said the other. Captions are found with the captioner's own search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from benchmarks.sides import print_line, shorten
from showtell import Captioner
from showtell.cli.arguments import Parser
from showtell.cli.data_options import add_data_options, add_split_options, read_split_data
from showtell.report.words import AGREEING, GENDERS, SUBJECTS
from showtell.text import tokenize


def main(argv: Sequence[str] | None = None) -> int:
    """Captions a split, and prints one JSON line."""
    parser = Parser(prog="python -m benchmarks words", description=__doc__)
    parser.add_argument("--model", default="compact", help="a captioner (compact)")
    parser.add_argument("--split", default="dev", help="of the data set (dev)")
    add_data_options(parser, positional=False)
    add_split_options(parser)
    arguments = parser.parse_args(argv)
    images = read_split_data(arguments).split(arguments.split).images
    pictures = Captioner.load(arguments.model).caption(image.path for image in images)
    texts = [picture.text for picture in pictures]
    said = [set(tokenize(text)) for text in texts]
    references = [[set(tokenize(text)) for text in image.captions] for image in images]
    print_line(
        "words",
        model=arguments.model,
        data=[path.name for path in arguments.data],
        images=len(images),
        distinct_captions=len(set(texts)),
        words_used=len(set().union(*said)),
        subjects={name: judge_subject(words, said, references) for name, words in SUBJECTS.items()},
        gender=judge_gender(said, references),
    )
    return 0


def judge_subject(
    words: AbstractSet[str], said: Sequence[set[str]], references: Sequence[Sequence[set[str]]]
) -> dict[str, Any]:
    """Returns how often a subject is shown and said, and how often rightly."""
    shown = [sum(bool(words & one) for one in people) >= AGREEING for people in references]
    named = [bool(words & caption) for caption in said]
    both = sum(one and other for one, other in zip(shown, named))
    return {
        "shown": shorten(sum(shown) / len(shown)),
        "said": shorten(sum(named) / len(named)),
        "precision": shorten(both / max(1, sum(named))),
        "recall": shorten(both / max(1, sum(shown))),
    }


def judge_gender(said: Sequence[set[str]], references: Sequence[Sequence[set[str]]]) -> dict[str, Any]:
    """Returns what is said of pictures with men or boys only, and with women or girls only."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in GENDERS}
    for caption, people in zip(said, references, strict=True):
        by = {name: sum(bool(SUBJECTS[name] & one) for one in people) for name in counts}
        for name, other in (GENDERS, GENDERS[::-1]):
            if by[name] >= AGREEING and not by[other]:
                right, wrong = bool(SUBJECTS[name] & caption), bool(SUBJECTS[other] & caption)
                kind = "neither or both" if right == wrong else "right" if right else "wrong"
                counts[name][kind] += 1
    return {
        name: {kind: found[kind] for kind in ("right", "wrong", "neither or both")}
        for name, found in counts.items()
    }


if __name__ == "__main__":
    raise SystemExit(main())
