"""`showtell train`: a recipe and captioned images in, a run folder with the best captioner out."""

from __future__ import annotations

import argparse
import json

from showtell.cli.arguments import Commands, add_command, existing, integer, writable_folder
from showtell.cli.data_options import add_data_options, add_split_options, read_split_data
from showtell.cli.output import log, print_json
from showtell.cli.progress import BarWatcher
from showtell.errors import require_framework


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "train",
        run,
        summary="train a recipe on captioned images",
        description="Trains a recipe. The checkpoint whose captions of the dev split score best is kept.\n"
        "Ctrl-C saves; the same command with --resume goes on exactly where it stopped.",
    )
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a name that `showtell recipes` lists, or a TOML file"
    )
    parser.add_argument(
        "--output", metavar="RUN", type=writable_folder, required=True, help="the folder of this run"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    parser.add_argument(
        "--start",
        metavar="MODEL",
        type=existing,
        help="begin with the weights of this bundle or run instead of random ones",
    )
    parser.add_argument(
        "--features",
        metavar="CACHE",
        type=writable_folder,
        help="a feature cache to use, or to fill if there is none; for several backbones a folder that holds one for "
        "each, called as the backbone is; default: in the user's cache folder",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        action="append",
        type=existing,
        help="the encoder's weights (encoder.weights); again for each of several backbones, in their order",
    )
    parser.add_argument("--seed", metavar="N", type=integer(minimum=0), help="training.seed")
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="change a setting of the recipe; may be given again",
    )
    parser.add_argument(
        "--include-encoder", action="store_true", help="copy a frozen encoder's weights into the bundle"
    )
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard's event files")
    add_data_options(parser, positional=False)
    add_split_options(parser)


def collect_overrides(arguments: argparse.Namespace) -> list[str]:
    """Returns the `--set` strings followed by those that `--weights` and `--seed` stand for."""
    from showtell.config import SEPARATOR

    overrides = list(arguments.overrides)
    if arguments.weights is not None:
        weights = SEPARATOR.join(map(str, arguments.weights))
        overrides.append(f"encoder.weights={json.dumps(weights, ensure_ascii=False)}")
    if arguments.seed is not None:
        overrides.append(f"training.seed={arguments.seed}")
    return overrides


def run(arguments: argparse.Namespace) -> int:
    """Trains, and prints the dev scores of the best checkpoint as the last line."""
    from showtell.recipes import load_recipe

    # In this order, so that no mistake waits for what takes longer: the recipe, the data, and torch last.
    recipe = load_recipe(arguments.recipe, collect_overrides(arguments))
    dataset = read_split_data(arguments)
    for split in ("train", "dev"):
        dataset.split(split)

    require_framework("Training")
    from showtell.training import train

    with BarWatcher() as watcher:
        result = train(
            recipe,
            dataset,
            arguments.output,
            features=arguments.features,
            resume=arguments.resume,
            include_encoder=arguments.include_encoder,
            tensorboard=arguments.tensorboard,
            start=arguments.start,
            split_seed=arguments.split_seed if arguments.unsplit == "split" else None,
            watcher=watcher,
        )
    log(f"the best captioner is in {result.bundle} (epoch {result.best_epoch} of {result.epochs})")
    print_json(result.scores)
    return 0
