"""`showtell pack`: the best captioner of a run as a folder to give away."""

from __future__ import annotations

import argparse
from dataclasses import replace

from showtell.cli.arguments import Commands, add_command, add_model_and_output, one_of
from showtell.cli.output import log, print_json


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "pack",
        run,
        summary="copy the best captioner of a run into a folder of its own, to give away",
        description="Copies a bundle, checked. A frozen encoder stays where it is: the bundle names it by its digest.",
    )
    add_model_and_output(parser)
    parser.add_argument(
        "--bits",
        metavar="16|8",
        type=one_of("16", "8"),
        help="store the decoder's weights in 16 bits (captions hardly ever change) or 8 (some do, scores hardly)",
    )
    parser.add_argument(
        "--forget",
        action="store_true",
        help="leave out the captions of the training pictures, if the model remembers them, and search without them",
    )


def run(arguments: argparse.Namespace) -> int:
    """Copies; prints one JSON object with the size of the result."""
    from showtell.bundle import load_bundle, save_bundle
    from showtell.library import locate_model
    from showtell.packing import compress, count_bits

    bundle = load_bundle(locate_model(arguments.model))
    if arguments.forget:
        decoding = replace(bundle.recipe.decoding, consensus=0.0)
        bundle = replace(bundle, consensus=None, recipe=replace(bundle.recipe, decoding=decoding))
    if arguments.bits:
        bundle = compress(bundle, int(arguments.bits))
        if count_bits(bundle.decoder_weights) < int(arguments.bits):
            log(
                f"{arguments.model}: its weights have {count_bits(bundle.decoder_weights)} bits already and keep them"
            )
    save_bundle(bundle, arguments.output)
    if bundle.consensus is not None:
        log(f"{arguments.output}: contains the captions of its training pictures; --forget leaves them out")
    size = sum(file.stat().st_size for file in arguments.output.iterdir())
    log(f"{arguments.output}: {bundle.recipe.name}, {size / 1e6:.1f} MB")
    print_json({"output": str(arguments.output), "bytes": size, "bits": count_bits(bundle.decoder_weights)})
    return 0
