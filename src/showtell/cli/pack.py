"""`showtell pack`: the best captioner of a run as a folder to give away."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from showtell.cli.arguments import Commands, add_command, add_model_and_output, one_of, writable_file
from showtell.cli.output import log, print_json
from showtell.errors import BundleError, require_framework

if TYPE_CHECKING:
    from showtell.bundle import Bundle


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
        help="store the decoder's weights in 16 bits (captions hardly ever change) or 8 (some do, scores hardly); an "
        "encoder that is in the bundle in 16",
    )
    parser.add_argument(
        "--encoder",
        metavar="FILE",
        type=writable_file,
        help="also write the weights of an encoder that is in the bundle, in 16 bits, for encoder.weights of a recipe",
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
        if bundle.encoder_weights is not None:
            require_framework("Packing a bundle that includes its encoder")
            from showtell.training.packed_encoder import compress_encoder

            bundle = compress_encoder(bundle)
        if count_bits(bundle.decoder_weights) < int(arguments.bits):
            log(
                f"{arguments.model}: its weights have {count_bits(bundle.decoder_weights)} bits already and keep them"
            )
    if arguments.encoder is not None:
        _write_encoder(bundle, arguments.encoder)
    save_bundle(bundle, arguments.output)
    if bundle.consensus is not None:
        log(f"{arguments.output}: contains the captions of its training pictures; --forget leaves them out")
    size = sum(file.stat().st_size for file in arguments.output.iterdir())
    log(f"{arguments.output}: {bundle.recipe.name}, {size / 1e6:.1f} MB")
    print_json({"output": str(arguments.output), "bytes": size, "bits": count_bits(bundle.decoder_weights)})
    return 0


def _write_encoder(bundle: Bundle, path: Path) -> None:
    """Writes the encoder of a bundle as a file of its own.

    Raises:
        BundleError: the bundle only names it, or it is several.
    """
    require_framework("Writing an encoder's weights")
    from showtell.encoders import write_weights

    prefix = "backbone."
    weights = {
        name.removeprefix(prefix): array
        for name, array in (bundle.encoder_weights or {}).items()
        if name.startswith(prefix)
    }
    if not weights:
        raise BundleError(
            "--encoder: the bundle does not hold the weights of one encoder; it names frozen ones by their digests. "
            "Train with --include-encoder, or drop the option."
        )
    source = f"encoder of the captioner {bundle.digest[:16]} ({bundle.recipe.name}), trained by showtell"
    write_weights(path, weights, bundle.recipe.encoder.name, bundle.preprocessing, source=source)
    log(f"{path}: encoder.name = {bundle.recipe.encoder.name!r}")
