"""`showtell export`: a trained model becomes graphs that caption without torch."""

from __future__ import annotations

import argparse

from showtell.cli.arguments import Commands, add_command, add_model_and_output
from showtell.cli.output import log, print_json
from showtell.cli.pictures import find_images
from showtell.errors import ImageError, UsageError, require_framework


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "export",
        run,
        summary="turn a trained model into ONNX graphs that caption fast and without torch",
        description="Writes encoder, start and step of a captioner as ONNX, with all that is needed to use them.\n"
        "Give the folder to `showtell caption --model` and `showtell evaluate`.",
    )
    add_model_and_output(parser)
    parser.add_argument(
        "--int8",
        metavar="IMAGES",
        nargs="+",
        help="quantise to 8 bits, calibrated on these images and folders of images: smaller, and faster "
        "on most processors, at a small loss of quality",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exports; prints one JSON object with the size of the result. Returns 1 if a calibration picture cannot be
    read."""
    images, missing = find_images(arguments.int8 or [])
    if arguments.int8 and not images:
        raise UsageError(
            f"--int8: no images in {', '.join(arguments.int8)}. Give some of the kind to be captioned."
        )

    require_framework("Exporting")
    from showtell.exporter import export_model
    from showtell.library import locate_model

    bad = []

    def report(error: ImageError) -> None:
        bad.append(error)
        log(f"error: {error}")

    portable = export_model(
        locate_model(arguments.model), arguments.output, calibrate=images, on_bad_image=report
    )
    size = sum(file.stat().st_size for file in arguments.output.iterdir())
    pictures = "of any size" if portable.dynamic_size else "of the recipe's size"
    log(f"{arguments.output}: {portable.recipe.name}, encoder in {portable.weights}, for pictures {pictures}")
    print_json({"output": str(arguments.output), "bytes": size, "weights": portable.weights})
    return 1 if missing or bad else 0
