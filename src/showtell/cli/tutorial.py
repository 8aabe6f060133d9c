"""`showtell tutorial`: a small captioner trained on drawn scenes before your eyes."""

from __future__ import annotations

import argparse
from pathlib import Path

from showtell.cli.arguments import Commands, add_command, integer, writable_folder
from showtell.cli.progress import BarWatcher


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "tutorial",
        run,
        summary="train a small captioner on drawn scenes and show it at work (three minutes)",
        description="Draws scenes of coloured shapes, trains a captioner on them, and shows new scenes with\n"
        "their captions and with where the model looked, as one picture. Its path is printed last.",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", type=writable_folder, default=Path("tutorial"), help="default tutorial/"
    )
    parser.add_argument(
        "--seed", metavar="N", type=integer(minimum=0), default=0, help="of scenes and training"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the tutorial and prints the path of the picture."""
    from showtell.tutorial import run_tutorial

    with BarWatcher() as watcher:
        picture = run_tutorial(arguments.output, seed=arguments.seed, watcher=watcher)
    print(picture)
    return 0
