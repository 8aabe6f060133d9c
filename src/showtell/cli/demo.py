"""`showtell demo`: real photographs, captioned and explained before your eyes."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from showtell.cli.arguments import Commands, add_command, writable_folder
from showtell.cli.engine_options import add_engine_options, add_model_option, load_captioner
from showtell.cli.output import log


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "demo",
        run,
        summary="caption and explain photographs that come with scikit-image and scikit-learn",
        description="Captions real photographs, and draws where in each picture its words came from. The photographs\n"
        "are inside the packages scikit-image and scikit-learn. The path of the page with all of them is printed last.",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", type=writable_folder, default=Path("demo"), help="default demo/"
    )
    add_model_option(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the demonstration and prints the path of the page."""
    from showtell.demo import run_demo

    captioner = load_captioner(arguments.model, arguments)
    result = run_demo(captioner, arguments.output, said=lambda name, caption: log(f"{name}: {caption}"))
    log(f"{len(result.explanations)} photographs captioned in {result.seconds:.2f} s")
    log(f"where each word came from: {result.explanations[0].parent}")
    words = ["showtell", "caption", result.photographs, "--format", "html", "--output", result.sheet]
    words += [
        "--explain",
        arguments.output / "why",
        *(part for one in arguments.model or () for part in ("--model", one)),
    ]
    log(f"the same by hand: {shlex.join(map(str, words))}")
    print(result.sheet.absolute())
    return 0
