"""The options of the commands that caption a split and score the captions, `evaluate` and `report`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from showtell.cli.arguments import Parser, integer
from showtell.cli.data_options import SPLIT, add_data_options, add_split_options, read_split_data
from showtell.cli.decoding_options import add_decoding_options
from showtell.cli.engine_options import add_engine_options
from showtell.cli.output import log
from showtell.cli.progress import show_progress
from showtell.cli.score import RESAMPLES, add_metric_options
from showtell.errors import MissingExtraError, SplitError

if TYPE_CHECKING:
    from showtell.data.records import Dataset
    from showtell.evaluation import EvaluationReport
    from showtell.metrics import CorpusIdf

LISTED = 5  # images that are in training, too, that are named


def add_scoring_options(parser: Parser) -> None:
    """Adds which images are captioned, with which search and on what, and how the captions are scored."""
    parser.add_argument("--split", metavar="S", type=SPLIT, required=True, help="train, dev or test")
    parser.add_argument("--max-images", metavar="N", type=integer(minimum=1), help="only the first N images")
    parser.add_argument(
        "--no-overlap",
        action="store_true",
        help="do not look for images that training has, too (which decodes all pictures once)",
    )
    add_metric_options(parser, resamples=RESAMPLES)
    add_decoding_options(parser)
    add_engine_options(parser)
    add_data_options(parser, positional=False)
    add_split_options(parser)


def read_scoring_data(arguments: argparse.Namespace) -> tuple[Dataset, CorpusIdf | None]:
    """Returns the data set, which has the split, and the document frequencies for CIDEr where a file holds them."""
    dataset = read_split_data(arguments)
    dataset.split(arguments.split)  # a split that is not there should not wait for models to be loaded

    from showtell.metrics import CorpusIdf

    return dataset, None if arguments.idf is None else CorpusIdf.load(arguments.idf)


def find_copies(arguments: argparse.Namespace, dataset: Dataset) -> dict[str, tuple[str, ...]] | None:
    """Returns the images of the split that training has, too; None where nobody is to look for them, where there is no
    training split, or no way to compare pictures."""
    from showtell.data.overlap import find_training_copies

    if arguments.no_overlap or arguments.split == "train" or "train" not in dataset.counts():
        return None
    try:
        with show_progress("near-duplicates", "images") as progress:
            return find_training_copies(dataset, arguments.split, progress=progress)
    except MissingExtraError as error:
        log(f"{error} Without it nobody looks for images that training has, too.")
        return None


def find_learnt(
    arguments: argparse.Namespace, dataset: Dataset, models: Sequence[str | Path]
) -> tuple[str, ...]:
    """Returns a note on each model that has seen, as the run says in which it lies, what is to judge it."""
    from showtell.data.splits import SPLITS_FILE, describe_learnt, load_splits
    from showtell.library import locate_model
    from showtell.portable import find_model

    split = arguments.split
    images = [image.id for image in dataset.split(split).images[: arguments.max_images]]
    notes = []
    for model in models:
        bundle = find_model(locate_model(model)).resolve()
        run = bundle.parent.parent
        if bundle.parent.name != "bundles" or not (run / SPLITS_FILE).is_file():
            continue
        try:
            told = describe_learnt(load_splits(run / SPLITS_FILE), images, split)
        except SplitError as error:
            reason = str(error).replace(str(run), run.name)  # where it lies is nobody's business in a report
            told = f"what it was trained on is not known: {reason}"
        if told:
            notes.append(f"{run.name}: {told}")
    return tuple(notes)


def add_notes(report: EvaluationReport, notes: Sequence[str]) -> EvaluationReport:
    """Returns an evaluation with more to know before it is believed."""
    return replace(report, notes=(*report.notes, *notes))


def describe(report: EvaluationReport) -> None:
    """Tells people the scores with their intervals, and what to know before they are believed."""
    from showtell.metrics import describe_score

    for note in report.notes:
        log(note)
    overlap = report.overlap
    for key, value in report.scores.items():
        without = ""
        if overlap is not None and overlap.copies and key in overlap.scores:
            without = f", without copies of training images {100 * overlap.scores[key]:.1f}"
        log(describe_score(key, value, report.intervals.get(key)) + without)
    if overlap is not None and overlap.copies:
        shown = [f"{one} ({', '.join(trained)})" for one, trained in list(overlap.copies.items())[:LISTED]]
        more = f" and {len(overlap.copies) - LISTED:,} more" if len(overlap.copies) > LISTED else ""
        log(f"{len(overlap.copies):,} images show what training images show: {'; '.join(shown)}{more}")
