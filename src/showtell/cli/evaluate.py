"""`showtell evaluate`: one model, one split, each image decoded once, one report."""

from __future__ import annotations

import argparse

from showtell.cli.arguments import Commands, add_command, model, writable_file
from showtell.cli.decoding_options import read_decoding_settings
from showtell.cli.engine_options import load_captioner
from showtell.cli.output import log, print_json, write_json
from showtell.cli.progress import show_progress
from showtell.cli.scoring_options import (
    add_notes,
    add_scoring_options,
    describe,
    find_copies,
    find_learnt,
    read_scoring_data,
)


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
    add_scoring_options(parser)
    parser.add_argument(
        "--output",
        metavar="REPORT.json",
        type=writable_file,
        help="write scores, settings, captions, vocabulary coverage and digests to this file",
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluates, and prints the scores as the last line."""
    from showtell.files import require_writable

    if arguments.output is not None:
        require_writable(arguments.output.resolve().parent)
    dataset, corpus_idf = read_scoring_data(arguments)
    seen = find_learnt(arguments, dataset, arguments.model)
    captioner = load_captioner(arguments.model, arguments)
    copies = find_copies(arguments, dataset)
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
    report = add_notes(report, seen)
    describe(report)
    if arguments.output is not None:
        write_json(arguments.output, report.to_dict())
        log(f"the report is in {arguments.output}")
    print_json(dict(report.scores))
    return 0
