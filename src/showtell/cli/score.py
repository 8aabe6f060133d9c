"""`showtell score`: captions that anybody's system wrote, scored as coco-caption scores them."""

from __future__ import annotations

import argparse

from showtell.cli.arguments import Commands, add_command, existing, writable_file
from showtell.cli.output import log, print_json, write_json
from showtell.errors import did_you_mean

METRICS = ("Bleu", "ROUGE_L", "CIDEr", "METEOR")
DEFAULT_METRICS = ("Bleu", "ROUGE_L", "CIDEr")  # METEOR needs Java


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "score",
        run,
        summary="score captions against references, both in COCO's JSON",
        description="Scores captions as coco-caption does, without Java (METEOR needs it).\n"
        "Prints one JSON object: the corpus scores.",
    )
    parser.add_argument(
        "references",
        metavar="REFERENCES",
        type=existing,
        help='COCO annotations: {"images": [], "annotations": []}',
    )
    parser.add_argument(
        "hypotheses",
        metavar="HYPOTHESES",
        type=existing,
        help='COCO results: [{"image_id": 1, "caption": "..."}]',
    )
    add_metric_options(parser)
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=writable_file,
        help="write corpus and per-image scores to this JSON file",
    )
    parser.add_argument(
        "--save-idf",
        metavar="FILE",
        type=writable_file,
        help="save the document frequencies of these references, for --idf",
    )


def add_metric_options(parser: argparse.ArgumentParser) -> None:
    """Adds the choice of metrics, which `showtell evaluate` has too."""
    parser.add_argument(
        "--metrics",
        metavar="NAMES",
        type=metric_names,
        default=DEFAULT_METRICS,
        help=f"some of {','.join(METRICS)}, joined by commas (default {','.join(DEFAULT_METRICS)})",
    )
    parser.add_argument(
        "--idf",
        metavar="FILE",
        type=existing,
        help="CIDEr's document frequencies saved from a corpus, so that few images can be scored",
    )


def metric_names(text: str) -> tuple[str, ...]:
    """An argument type: names of metrics joined by commas; upper and lower case are the same."""
    spellings = {name.lower(): name for name in METRICS}
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name.lower() not in spellings:
            raise argparse.ArgumentTypeError(
                f"unknown metric {name!r}.{did_you_mean(name.lower(), spellings)} "
                f"Choose from: {', '.join(METRICS)}"
            )
    if not names:
        raise argparse.ArgumentTypeError(f"no metric was named. Choose from: {', '.join(METRICS)}")
    return tuple(dict.fromkeys(spellings[name.lower()] for name in names))


def run(arguments: argparse.Namespace) -> int:
    """Prints the corpus scores as the last line."""
    from showtell.metrics import CorpusIdf, read_hypotheses, read_references, score

    references = read_references(arguments.references)
    hypotheses = read_hypotheses(arguments.hypotheses)
    corpus_idf = None if arguments.idf is None else CorpusIdf.load(arguments.idf)
    scores = score(references, hypotheses, metrics=arguments.metrics, corpus_idf=corpus_idf)
    for note in scores.notes:
        log(note)
    if arguments.save_idf is not None:
        CorpusIdf.from_references(references).save(arguments.save_idf)
    if arguments.output is not None:
        write_json(arguments.output, {"scores": scores.corpus, "images": scores.per_image})
    print_json(scores.corpus)
    return 0
