"""`showtell data check`: the doctor for data sets."""

from __future__ import annotations

import argparse

from showtell.cli.arguments import Commands, Parser, add_command
from showtell.cli.data_options import add_data_options, read_data
from showtell.cli.output import print_json
from showtell.cli.progress import show_progress


def add_parser(commands: Commands) -> None:
    """Adds the command `data` with its own command `check`."""
    data = commands.add_parser(
        "data", help="check a data set", description="What can be done with data sets.", prog="showtell data"
    )
    below: Commands = data.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    data.set_defaults(parser=data, commands=below)
    parser = add_command(
        below,
        "check",
        run,
        summary="say what is in a data set, what is wrong with it and what leaks between its splits",
        description="Reads a data set and every image in it, and reports what is there and what is wrong.\n"
        "The exit code is 1 where errors were found, so that a script can stop.",
    )
    add_data_options(parser, positional=True)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--no-decode", action="store_true", help="do not open the images (fast)")
    parser.add_argument("--no-duplicates", action="store_true", help="do not look for near-duplicate images")


def run(arguments: argparse.Namespace) -> int:
    """Prints the doctor's report."""
    from showtell.data.doctor import check

    dataset = read_data(arguments)
    with show_progress("images", "images") as progress:
        report = check(
            dataset,
            decode_images=not arguments.no_decode,
            near_duplicates=not arguments.no_duplicates,
            progress=progress,
        )
    if arguments.json:
        print_json(report.to_dict())
    else:
        print(report.table())
    return 1 if report.errors else 0
