"""English words that the rules of the report know: subjects, genders, colours and numbers."""

from __future__ import annotations

from collections.abc import Mapping


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


# Words of one line mean the same subject, as far as a caption is concerned.
SUBJECTS: Mapping[str, frozenset[str]] = {
    name: frozenset(_split(words))
    for name, words in {
        "man": "man men boy boys guy guys gentleman male",
        "woman": "woman women girl girls lady ladies female",
        "child": "child children boy boys girl girls kid kids baby toddler",
        "dog": "dog dogs puppy puppies",
        "cat": "cat cats kitten kittens",
        "horse": "horse horses",
        "water": "water ocean sea lake pool river wave waves",
        "ball": "ball soccer football basketball baseball tennis",
        "bike": "bike bikes bicycle bicycles motorcycle motorcycles",
        "food": "food pizza plate cake meal sandwich dish",
    }.items()
}
GENDERS = ("man", "woman")  # of the subjects
ANYBODY = frozenset({"person", "people"})  # said of whoever is a man, a woman or a child
AGREEING = 2  # people whose words make something shown

COLOURS: Mapping[str, str] = {  # spelling -> colour
    **{
        name: name
        for name in _split(
            "red orange yellow green blue purple pink brown black white gray gold silver tan beige"
        )
    },
    "grey": "gray",
    "golden": "gold",
    "violet": "purple",
    "maroon": "red",
    "turquoise": "blue",
    "blond": "blond",
    "blonde": "blond",
}
NUMBERS: Mapping[str, int] = {
    **{
        word: number
        for number, word in enumerate(
            _split("one two three four five six seven eight nine ten eleven twelve"), start=1
        )
    },
    **{str(number): number for number in range(1, 13)},
    "both": 2,
    "pair": 2,
    "couple": 2,
    "a": 1,
    "an": 1,
    "another": 1,
}
SINGULARS: Mapping[str, str] = {  # of plurals that do not end in s
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "policemen": "policeman",
    "firemen": "fireman",
    "fishermen": "fisherman",
    "snowmen": "snowman",
}
# What follows these words is named or described.
DETERMINERS = frozenset(
    _split("a an the this that these those some another several many his her its their my")
)
# Nouns that name no thing in the picture.
PLACES = frozenset(
    _split(
        "front back top bottom side middle center background foreground edge left right inside "
        "outside area scene picture "
        "photo photograph image camera day lot set number line couple pair group others other "
        "distance end part kind type "
        "way time next one air something someone body"
    )
)
