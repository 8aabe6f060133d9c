"""A small data set of real photographs, for reports: what people could say of each."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from showtell.data.records import CaptionedImage, Dataset
from showtell.report import Report
from showtell.report.contents import Judged, LeftOut
from showtell.report.mistakes import Mistake
from showtell.text import tokenize

SAID = {
    "astronaut": (
        "A woman in an orange space suit is smiling in front of a flag.",
        "An astronaut in an orange suit poses with her helmet.",
        "A smiling woman wears an orange suit.",
        "The woman in the orange suit is an astronaut.",
        "A woman is standing in front of an american flag.",
    ),
    "cat": (
        "A cat is looking at the camera.",
        "A brown cat with green eyes is lying on a blanket.",
        "The face of a brown cat.",
        "A cat with long whiskers looks up.",
        "A close picture of a brown cat.",
    ),
    "china": (
        "A palace with a golden roof stands in front of blue sky.",
        "A large temple with trees in front of it.",
        "A chinese temple with two roofs.",
        "A building with a curved roof and a tree.",
        "A temple behind green trees.",
    ),
    "coffee": (
        "A cup of coffee on a wooden table.",
        "A white cup of coffee with a spoon on a saucer.",
        "A cup and a spoon on a plate.",
        "A cup of coffee is on the table.",
        "A small cup of black coffee.",
    ),
    "flower": (
        "An orange flower in a garden.",
        "A large flower with many orange petals.",
        "A pink and orange flower with green leaves behind it.",
        "The flower has a yellow middle.",
        "A close picture of an orange flower.",
    ),
    "rocket": (
        "A rocket stands on a launch pad at night.",
        "A white rocket is on the ground between two towers.",
        "A rocket is ready for its start.",
        "Smoke is coming from a rocket.",
        "A tall rocket next to a tower at night.",
    ),
}


def photographed(photographs: list[Path], *, split: str = "dev") -> Dataset:
    """The data set, all of it in one split, with what is said of the cat in training, too."""
    images = [CaptionedImage(path.name, path, SAID[path.stem], split) for path in photographs]
    trained = CaptionedImage("trained.jpg", photographs[1], SAID["cat"], "train")
    return Dataset("photographs", "table", (*images, trained))


def write_captions(folder: Path, photographs: list[Path]) -> Path:
    """Writes the same as a table with the photographs beside it, and returns its path."""
    for path in photographs:
        shutil.copy(path, folder)
    rows = [f"{path.name},{caption},dev" for path in photographs for caption in SAID[path.stem]]
    table = folder / "captions.csv"
    table.write_text("image,caption,split\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return table


def spoil(report: Report, evil: str) -> Report:
    """Returns a report that has an evil text behind each text that is not ours, the kind of text before it.

    So a page of it shows `f"caption {evil}"`, `f"reason {evil}"`, and so on, where it is safe.
    """

    def rename(values: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{identifier} {evil}": value for identifier, value in values.items()}

    def spoil_model(model: Judged) -> Judged:
        text = f"caption {evil}"
        captions = {
            identifier: [replace(captions[0], text=text)]
            for identifier, captions in model.evaluation.captions.items()
        }
        wrong = Mistake("colours", tuple(tokenize(evil)[:1]), f"reason {evil}")
        return replace(
            model,
            label=f"{model.label} {evil}",
            mistakes=rename(dict.fromkeys(model.mistakes, (wrong,))),
            evaluation=replace(
                model.evaluation,
                captions=rename(captions),
                per_image=rename(model.evaluation.per_image),
            ),
            usage=replace(
                model.usage,
                favourites=tuple(replace(one, caption=text) for one in model.usage.favourites),
                underused=tuple(replace(one, word=f"word {evil}") for one in model.usage.underused),
            ),
            explained={
                identifier: replace(one, words=tuple(replace(word, word=f"lit {evil}") for word in one.words))
                for identifier, one in rename(model.explained).items()
            },
        )

    return replace(
        report,
        dataset=f"dataset {evil}",
        split=f"split {evil}",
        images=tuple(
            replace(one, id=f"{one.id} {evil}", references=(f"reference {evil}",) * 3)
            for one in report.images
        ),
        left_out=(LeftOut(f"left {evil}", f"why {evil}"),),
        models=tuple(map(spoil_model, report.models)),
        comparisons=tuple(
            replace(
                one,
                label=f"{one.label} {evil}",
                against=f"{one.against} {evil}",
                gains=rename(one.gains),
            )
            for one in report.comparisons
        ),
    )
