"""`showtell distill`: a small encoder from random weights that learns to see as a trained captioner's encoder does."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from showtell.cli.arguments import Commands, add_command, existing, integer, model, writable_folder
from showtell.cli.data_options import add_data_options, add_split_options, read_split_data
from showtell.cli.output import log, print_json
from showtell.cli.pictures import find_images
from showtell.cli.progress import BarWatcher
from showtell.errors import UsageError, require_framework


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "distill",
        run,
        summary="train a small encoder from random weights to see as a captioner's encoder does",
        description="Distills the encoder of a captioner into a small one. It learns from the pictures of the train "
        "split,\nwhose captions are not used, and from further pictures without captions; those of dev say how near "
        "it has come.\nThe result is a weights file for `showtell train` (encoder.weights). Ctrl-C saves; the same "
        "command with --resume\ngoes on exactly where it stopped.",
    )
    parser.add_argument(
        "--teacher",
        metavar="MODEL",
        type=model,
        required=True,
        help="a captioner with a grid; exported with --int8 it takes the least time",
    )
    parser.add_argument(
        "--output", metavar="RUN", type=writable_folder, required=True, help="the folder of this run"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    parser.add_argument(
        "--pictures",
        metavar="PATH",
        action="append",
        type=existing,
        default=[],
        help="more pictures to learn from, a folder or a file; may be given again",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="change a setting, as student=resnet18 or epochs=100; may be given again",
    )
    parser.add_argument(
        "--workers", metavar="N", type=integer(minimum=1), default=2, help="decoding threads (2)"
    )
    add_data_options(parser, positional=False)
    add_split_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Distills; prints one JSON object with what came out."""
    from showtell.config import apply_overrides, build

    require_framework("Distilling an encoder")
    from showtell.distillation import DistillationSettings, distill

    given = apply_overrides({"distillation": {}}, [f"distillation.{text}" for text in arguments.overrides])
    settings = build(DistillationSettings, given["distillation"], "distillation")
    more, missing = find_images([str(path) for path in arguments.pictures])
    if missing:
        raise UsageError("--pictures: not all of them can be found; the first is named above.")
    dataset = read_split_data(arguments)
    pictures = [image.path for image in dataset.split("train").images] + more
    held_out = [image.path for image in dataset.split("dev").images]
    with BarWatcher() as watcher:
        result = distill(
            arguments.teacher,
            pictures,
            held_out,
            arguments.output,
            settings,
            resume=arguments.resume,
            watcher=watcher,
            workers=arguments.workers,
        )
    log(f"{result.weights}: encoder.name = {settings.student!r}")
    print_json({**asdict(result), "weights": str(result.weights)})
    return 0
