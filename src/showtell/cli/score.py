"""`showtell score`: captions that anybody's system wrote, scored as coco-caption scores them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from showtell.cli.arguments import Commands, add_command, existing, integer, writable_file
from showtell.cli.output import log, print_json, print_table, write_json
from showtell.errors import did_you_mean

if TYPE_CHECKING:
    from showtell.metrics import Difference

METRICS = ("Bleu", "ROUGE_L", "CIDEr", "METEOR")
DEFAULT_METRICS = ("Bleu", "ROUGE_L", "CIDEr")  # METEOR needs Java
RESAMPLES = 1000  # of a bootstrap, where it was asked for without a number


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
    add_metric_options(parser, resamples=0)
    parser.add_argument(
        "--against",
        metavar="OTHERS",
        type=existing,
        help="other captions of the same images: prints first which are better, and whether chance explains it",
    )
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


def add_metric_options(parser: argparse.ArgumentParser, *, resamples: int) -> None:
    """Adds the choice of metrics, which `showtell evaluate` has too, and of bootstrap intervals."""
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
    parser.add_argument(
        "--resamples",
        metavar="N",
        type=integer(minimum=0),
        default=resamples,
        help="draw the images N times anew for the 95%% intervals of the scores; 0 shows none "
        f"(default {resamples})",
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
    from showtell.metrics import (
        CorpusIdf,
        bootstrap_intervals,
        compare_paired,
        describe_score,
        read_hypotheses,
        read_references,
        score,
    )

    references = read_references(arguments.references)
    corpus_idf = None if arguments.idf is None else CorpusIdf.load(arguments.idf)
    scores, *others = (
        score(references, read_hypotheses(path), metrics=arguments.metrics, corpus_idf=corpus_idf)
        for path in (arguments.hypotheses, arguments.against)
        if path is not None
    )
    for note in scores.notes:
        log(note)
    written = {"scores": scores.corpus, "images": scores.per_image}
    if arguments.resamples:
        intervals = bootstrap_intervals(scores, resamples=arguments.resamples)
        written["intervals"] = {key: [one.low, one.high] for key, one in intervals.items()}
        for key, value in scores.corpus.items():
            log(describe_score(key, value, intervals.get(key)))
    if arguments.save_idf is not None:
        CorpusIdf.from_references(references).save(arguments.save_idf)
    if others:
        differences = compare_paired(scores, others[0], resamples=arguments.resamples or RESAMPLES)
        written["against"] = {
            "scores": others[0].corpus,
            "differences": {key: one.to_dict() for key, one in differences.items()},
        }
        print_differences(scores.corpus, others[0].corpus, differences)
    if arguments.output is not None:
        write_json(arguments.output, written)
    print_json(scores.corpus)
    return 0


def print_differences(
    ours: dict[str, float], theirs: dict[str, float], differences: dict[str, Difference]
) -> None:
    """Prints a table of two systems' scores, times 100, and of what a paired bootstrap says of their differences."""
    rows = [
        (
            key,
            f"{100 * ours[key]:.1f}",
            f"{100 * theirs[key]:.1f}",
            f"{100 * one.value:+.1f}",
            f"[{100 * one.interval.low:+.1f}, {100 * one.interval.high:+.1f}]",
            f"{100 * one.better:.1f} %",
            f"{one.p_value:.3f}",
        )
        for key, one in differences.items()
    ]
    print_table(("metric", "these", "others", "difference", "95% interval", "better in", "p"), rows)
