"""`showtell remember`: gives a captioner what people said of its training pictures."""

from __future__ import annotations

import argparse
from dataclasses import replace

from showtell.cli.arguments import Commands, add_command, add_model_and_output, integer, real
from showtell.cli.data_options import add_data_options, add_split_options, read_split_data
from showtell.cli.output import log, print_json
from showtell.cli.progress import BarWatcher
from showtell.errors import require_framework

WEIGHT = 2.0  # chosen on Flickr8k's dev (docs/experiments.md)


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "remember",
        run,
        summary="let a captioner ask what people said of similar training pictures",
        description="Copies a bundle and adds the training pictures, small, with their captions. Its searches then "
        "rank their candidates by the model and by how much they agree with the captions of similar pictures.",
    )
    add_model_and_output(parser)
    parser.add_argument(
        "--weight",
        metavar="W",
        type=real(above=0),
        default=WEIGHT,
        help=f"of the others' captions ({WEIGHT:g})",
    )
    parser.add_argument(
        "--neighbours",
        metavar="N",
        type=integer(minimum=1),
        help="how many similar pictures are asked (as the recipe says, mostly 20)",
    )
    add_data_options(parser, positional=False)
    add_split_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Collects and writes; prints one JSON object with the size of the result."""
    from showtell.bundle import check_is_free, find_bundle, load_bundle, save_bundle
    from showtell.library import locate_model

    require_framework("Collecting the training pictures")
    from showtell.training.remember import collect_consensus

    check_is_free(arguments.output)  # before the work
    folder = find_bundle(locate_model(arguments.model))
    bundle = load_bundle(folder)
    decoding = replace(bundle.recipe.decoding, consensus=arguments.weight)
    if decoding.candidates == 1:
        log(
            f"{arguments.model}: its search has a single candidate ({decoding.method}), so there is nothing to rank"
        )
    if arguments.neighbours:
        decoding = replace(decoding, neighbours=arguments.neighbours)
    dataset = read_split_data(arguments)
    training_set = dataset.split("train")
    if bundle.split_fingerprint not in ("", dataset.fingerprint()):
        log(
            f"{arguments.model}: was trained on other data, or with other splits, than this. It will know the captions "
            "of the train split of this: scores on pictures that are among these would mean nothing. Give the run's "
            "splits with --splits RUN/splits.json."
        )
    with BarWatcher() as watcher:
        arrays = collect_consensus(bundle, folder, training_set, watcher)
    recipe = replace(bundle.recipe, decoding=decoding)
    save_bundle(replace(bundle, recipe=recipe, consensus=arrays, confidence=None), arguments.output)
    size = sum(file.stat().st_size for file in arguments.output.iterdir())
    images, captions = len(arrays["vectors"]), len(arrays["ends"])
    log(f"{arguments.output}: {images:,} pictures, {captions:,} captions, {size / 1e6:.1f} MB")
    print_json({"output": str(arguments.output), "bytes": size, "images": images})
    return 0
