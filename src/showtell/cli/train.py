"""`showtell train`: a recipe and captioned images in, a run folder with the best captioner out."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from showtell.cli.arguments import Commands, add_command, existing, integer, writable_folder
from showtell.cli.data_options import add_data_options, add_split_options, read_split_data
from showtell.cli.output import log, print_json, write_json
from showtell.cli.progress import BarWatcher, show_progress
from showtell.errors import ShowtellError, SplitError, UsageError, require_framework

if TYPE_CHECKING:
    from pathlib import Path

    from showtell.data.records import Dataset


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
        "--from",
        metavar="MODEL",
        type=_trainable,
        dest="start",
        help="begin with the weights of this bundle or run instead of random ones; its words stay, and new ones of the "
        "captions are added",
    )
    parser.add_argument(
        "--old-data",
        metavar="DATA",
        type=existing,
        help="with --from: the data set that MODEL was trained on, split as that run split it; some of train is learnt "
        "again (training.rehearsal), and both captioners are scored on dev in the end, which shows what was forgotten",
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
    from showtell.bundle import find_bundle, load_bundle
    from showtell.recipes import load_recipe

    # In this order, so that no mistake waits for what takes longer: the recipe, the data, and torch last.
    found = None
    if arguments.start is not None:
        folder = find_bundle(arguments.start)
        found = folder, load_bundle(folder)
    inherited = None if found is None else found[1].starting_recipe()
    recipe = load_recipe(arguments.recipe, collect_overrides(arguments), start=inherited)
    dataset = read_split_data(arguments)
    for split in ("train", "dev"):
        dataset.split(split)
    old_data = _read_old_data(arguments)

    require_framework("Training")
    from showtell.training import Start, train

    with BarWatcher() as watcher:
        result = train(
            recipe,
            dataset,
            arguments.output,
            features=arguments.features,
            resume=arguments.resume,
            include_encoder=arguments.include_encoder,
            tensorboard=arguments.tensorboard,
            start=None if found is None else Start(*found),
            old_data=old_data,
            split_seed=arguments.split_seed if arguments.unsplit == "split" else None,
            watcher=watcher,
        )
    log(f"the best captioner is in {result.bundle} (epoch {result.best_epoch} of {result.epochs})")
    status = 0
    if old_data is not None:
        try:
            _measure_forgetting(arguments, result.bundle, old_data)
        except ShowtellError as error:  # the run is finished all the same
            log(f"error: what was forgotten could not be measured: {error}")
            status = 1
    print_json(result.scores)
    return status


def _trainable(word: str) -> Path:
    """An argument type: a bundle or a run that is there; models by name are none."""
    from showtell.library import is_name

    if is_name(word):
        raise argparse.ArgumentTypeError(
            f"{word!r} names an exported captioner, which cannot be trained. Give a bundle or a run; the bundle of "
            "compact is models/compact in the project's source"
        )
    return existing(word)


def _read_old_data(arguments: argparse.Namespace) -> Dataset | None:
    """Returns the data that the captioner of --from comes from, split as it was for its training."""
    from showtell.data import apply_splits, load_splits, read_dataset
    from showtell.data.splits import SPLITS_FILE

    if arguments.old_data is None:
        return None
    if arguments.start is None:
        raise UsageError(
            "--old-data is what the captioner of --from MODEL was trained on. Give --from, or leave it out."
        )
    dataset = read_dataset(arguments.old_data)
    splits = arguments.start / SPLITS_FILE
    if splits.is_file():
        try:
            dataset = apply_splits(dataset, load_splits(splits).splits, unlisted="drop")
        except SplitError as error:
            raise SplitError(
                f"--old-data {arguments.old_data} is not what the splits of {arguments.start} are of: {error} Give "
                "these data; or name the bundle in it with --from, and the data's own splits hold."
            ) from None
    try:
        dataset.split("dev")  # what is missing is said now, and not after the training
    except SplitError as error:
        raise SplitError(
            f"--old-data {arguments.old_data}: {error} These data must say which of their pictures "
            f"{arguments.start} was trained on (train) and which can judge it (dev), as in a column `split`."
        ) from None
    return dataset


def _measure_forgetting(arguments: argparse.Namespace, after: Path, old_data: Dataset) -> None:
    """Scores both captioners on the old data; shows it, and keeps it in the run as forgetting.json."""
    from showtell.forgetting import measure_forgetting

    with show_progress("the old data", "images") as progress:
        found = measure_forgetting(arguments.start, after, old_data, progress=progress)
    write_json(arguments.output / "forgetting.json", found.to_dict())
    for key, one in found.differences.items():
        log(
            f"{key} of the old data {100 * found.after[key]:.1f}, before {100 * found.before[key]:.1f} "
            f"({100 * one.value:+.1f} [{100 * one.interval.low:+.1f}, {100 * one.interval.high:+.1f}])"
        )
