"""The options with which every command reads data sets, and the reading itself."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from showtell.cli.arguments import Parser, existing, integer, one_of, real
from showtell.cli.output import log
from showtell.cli.progress import show_progress
from showtell.errors import UsageError

if TYPE_CHECKING:
    from showtell.data.records import Dataset

MOST_PROBLEMS = 5  # of a data set, that a command mentions before it goes on
SPLIT = one_of("train", "dev", "test", val="dev", valid="dev", validation="dev")


def add_data_options(parser: Parser, *, positional: bool) -> None:
    """Adds the data sets, as arguments or as repeatable `--data`, and how to read them."""
    help_text = "a folder or file in any supported layout; several are joined"
    if positional:
        parser.add_argument("data", metavar="DATA", nargs="+", type=existing, help=help_text)
    group = parser.add_argument_group("data")
    if not positional:
        group.add_argument(
            "--data",
            metavar="DATA",
            action="append",
            required=True,
            type=existing,
            help=f"{help_text} (give --data again)",
        )
    group.add_argument(
        "--format",
        metavar="NAME",
        type=one_of("coco", "karpathy", "flickr", "table", "folder", csv="table", tsv="table", jsonl="table"),
        help="coco, karpathy, flickr, table (CSV, TSV, JSON lines) or folder; guessed where not given",
    )
    group.add_argument(
        "--images",
        metavar="FOLDER",
        type=existing,
        help="where the images are, if the data do not say",
    )
    group.add_argument(
        "--restval",
        metavar="train|drop",
        type=one_of("train", "drop"),
        help="what Karpathy's split `restval` becomes",
    )
    for column in ("image", "caption", "split"):
        group.add_argument(
            f"--{column}-column", metavar="NAME", help=f"the column of a table with the {column}"
        )


def add_split_options(parser: Parser) -> None:
    """Adds what becomes of images that have no split."""
    group = parser.add_argument_group("images without a split")
    group.add_argument(
        "--unsplit",
        metavar="CHOICE",
        default="error",
        type=one_of(
            "error", "split", "train", "dev", "test", "drop", val="dev", valid="dev", validation="dev"
        ),
        help="what to do with them: error (the default), split (by image, seeded, near-duplicates together), "
        "all into train, dev or test, or drop; holds for each data set that has such images",
    )
    group.add_argument(
        "--dev-fraction",
        metavar="F",
        type=real(minimum=0, maximum=1),
        default=0.1,
        help="with split (default 0.1)",
    )
    group.add_argument(
        "--test-fraction",
        metavar="F",
        type=real(minimum=0, maximum=1),
        default=0.1,
        help="with split (default 0.1)",
    )
    group.add_argument(
        "--split-seed", metavar="N", type=integer(minimum=0), default=0, help="with split (default 0)"
    )
    group.add_argument(
        "--splits",
        metavar="FILE",
        type=existing,
        help="the splits.json of a run: the same images in the same splits as there, whatever the data say; "
        "images that it does not name are an error, or left out with --unsplit drop",
    )


def read_data(arguments: argparse.Namespace) -> Dataset:
    """Reads the data sets that the options name, and joins them; splits stay as they are in the data."""
    return _read(arguments, resolve=False)


def read_split_data(arguments: argparse.Namespace) -> Dataset:
    """Reads and joins the data sets and gives every image a split, as `--unsplit` says."""
    return _read(arguments, resolve=True)


def _read(arguments: argparse.Namespace, *, resolve: bool) -> Dataset:
    from showtell.data import join_datasets, read_dataset

    columns = {
        column: name
        for column in ("image", "caption", "split")
        if (name := getattr(arguments, f"{column}_column")) is not None
    }
    datasets = [
        read_dataset(
            path,
            format=arguments.format,
            images=arguments.images,
            restval=arguments.restval,
            columns=columns or None,
        )
        for path in arguments.data
    ]
    # Joined before images are divided, so that a near-duplicate in another set is found, too.
    dataset = datasets[0] if len(datasets) == 1 else join_datasets(datasets)
    if not resolve:
        return dataset
    _log_problems(dataset)
    return _resolve(dataset, arguments)


def _resolve(dataset: Dataset, arguments: argparse.Namespace) -> Dataset:
    from showtell.data.duplicates import find_duplicates
    from showtell.data.splits import apply_splits, load_splits, resolve_splits

    if arguments.splits is not None:
        if arguments.unsplit not in ("error", "drop"):
            raise UsageError(
                f"--splits says where every image goes, so --unsplit {arguments.unsplit} contradicts it. Give one of "
                "them; --unsplit drop leaves out images that the file does not name."
            )
        unlisted = "drop" if arguments.unsplit == "drop" else "error"
        return apply_splits(dataset, load_splits(arguments.splits).splits, unlisted=unlisted)
    fractions = {"dev": arguments.dev_fraction, "test": arguments.test_fraction}
    splitting = arguments.unsplit == "split" and None in dataset.counts()
    groups: list[tuple[str, ...]] = []
    if splitting:
        with show_progress("near-duplicates", "images") as progress:
            groups = find_duplicates(dataset, progress=progress)
    return resolve_splits(
        dataset,
        unsplit=arguments.unsplit,
        fractions={split: fraction for split, fraction in fractions.items() if fraction > 0},
        seed=arguments.split_seed,
        groups=groups,
    )


def _log_problems(dataset: Dataset) -> None:
    for problem in dataset.problems[:MOST_PROBLEMS]:
        log(f"{problem.severity}: {problem.where}: {problem.message}")
    if len(dataset.problems) > MOST_PROBLEMS:
        more = len(dataset.problems) - MOST_PROBLEMS
        log(f"and {more:,} more problems of {dataset.name}; `showtell data check` lists them")
