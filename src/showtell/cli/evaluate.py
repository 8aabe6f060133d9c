"""`showtell evaluate`: one model, one split, each image decoded once, one report."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from showtell.cli.arguments import Commands, add_command, integer, model, writable_file
from showtell.cli.data_options import SPLIT, add_data_options, add_split_options, read_split_data
from showtell.cli.decoding_options import add_decoding_options, read_decoding_settings
from showtell.cli.engine_options import add_engine_options, load_captioner
from showtell.cli.output import log, print_json, write_json
from showtell.cli.progress import show_progress
from showtell.cli.score import RESAMPLES, add_metric_options
from showtell.errors import MissingExtraError

if TYPE_CHECKING:
    from showtell.data.records import Dataset
    from showtell.evaluation import EvaluationReport

LISTED = 5  # images that are in training, too, that are named


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        summary="caption one split of a data set and score the captions",
        description="Captions every image of a split once and scores the captions.\n"
        "Prints one JSON object, the scores, as the last line.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="+",
        type=model,
        help="an exported model, a bundle, a run folder (its best checkpoint), or a name; several caption together",
    )
    parser.add_argument("--split", metavar="S", type=SPLIT, required=True, help="train, dev or test")
    parser.add_argument("--max-images", metavar="N", type=integer(minimum=1), help="only the first N images")
    parser.add_argument(
        "--output",
        metavar="REPORT.json",
        type=writable_file,
        help="write scores, settings, captions, vocabulary coverage and digests to this file",
    )
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


def run(arguments: argparse.Namespace) -> int:
    """Evaluates, and prints the scores as the last line."""
    dataset = read_split_data(arguments)
    dataset.split(arguments.split)  # a split that is not there should not wait for the model to be loaded

    from showtell.metrics import CorpusIdf

    corpus_idf = None if arguments.idf is None else CorpusIdf.load(arguments.idf)
    captioner = load_captioner(arguments)
    copies = None if arguments.no_overlap else find_copies(dataset, arguments.split)
    with show_progress("captions", "images") as progress:
        report = captioner.evaluate(
            dataset,
            split=arguments.split,
            settings=read_decoding_settings(arguments, captioner.settings, count=1),
            metrics=arguments.metrics,
            corpus_idf=corpus_idf,
            max_images=arguments.max_images,
            resamples=arguments.resamples,
            copies=copies,
            progress=progress,
        )
    describe(report)
    if arguments.output is not None:
        write_json(arguments.output, report.to_dict())
        log(f"the report is in {arguments.output}")
    print_json(dict(report.scores))
    return 0


def find_copies(dataset: Dataset, split: str) -> dict[str, tuple[str, ...]] | None:
    """Returns the images of the split that training has, too; None where there is no training split, or no way to
    compare pictures."""
    from showtell.data.overlap import find_training_copies

    if split == "train" or "train" not in dataset.counts():
        return None
    try:
        with show_progress("near-duplicates", "images") as progress:
            return find_training_copies(dataset, split, progress=progress)
    except MissingExtraError as error:
        log(f"{error} Without it nobody looks for images that training has, too.")
        return None


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
