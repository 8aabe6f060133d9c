"""`showtell evaluate`: one model, one split, each image decoded once, one report."""

from __future__ import annotations

import argparse

from showtell.cli.arguments import Commands, add_command, existing, integer, writable_file
from showtell.cli.data_options import SPLIT, add_data_options, add_split_options, read_split_data
from showtell.cli.decoding_options import add_decoding_options, read_decoding_settings
from showtell.cli.engine_options import add_engine_options, load_captioner
from showtell.cli.output import log, print_json, write_json
from showtell.cli.progress import show_progress
from showtell.cli.score import add_metric_options


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
        type=existing,
        help="an exported model, a bundle, or a run folder (its best checkpoint); several caption together",
    )
    parser.add_argument("--split", metavar="S", type=SPLIT, required=True, help="train, dev or test")
    parser.add_argument("--max-images", metavar="N", type=integer(minimum=1), help="only the first N images")
    parser.add_argument(
        "--output",
        metavar="REPORT.json",
        type=writable_file,
        help="write scores, settings, captions, vocabulary coverage and digests to this file",
    )
    add_metric_options(parser)
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
    with show_progress("captions", "images") as progress:
        report = captioner.evaluate(
            dataset,
            split=arguments.split,
            settings=read_decoding_settings(arguments, captioner.settings, count=1),
            metrics=arguments.metrics,
            corpus_idf=corpus_idf,
            max_images=arguments.max_images,
            progress=progress,
        )
    for note in report.notes:
        log(note)
    if arguments.output is not None:
        write_json(arguments.output, report.to_dict())
        log(f"the report is in {arguments.output}")
    print_json(dict(report.scores))
    return 0
