"""`showtell tune`: the beam, length penalty and repetition constraints that score best on dev."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from showtell.cli.arguments import Commands, add_command, integer, model, one_of, writable_folder
from showtell.cli.data_options import SPLIT, add_data_options, add_split_options, read_split_data
from showtell.cli.engine_options import add_engine_options, load_captioner
from showtell.cli.output import log, print_json, print_table, write_json
from showtell.cli.progress import show_progress
from showtell.errors import UsageError, require_packages

if TYPE_CHECKING:
    from showtell.tuning import Tried, TuningResult

METRICS = ("CIDEr", "Bleu_4", "Bleu_3", "Bleu_2", "Bleu_1", "ROUGE_L")
SHOWN = ("CIDEr", "Bleu_4", "ROUGE_L")
TRIALS, MAX_BEAM = 40, 5


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "tune",
        run,
        summary="choose beam, length penalty and repetition constraints on dev",
        description="Tries many ways to search, each on the whole dev split, and prints a table, the best first.\n"
        "Prints one JSON object last: the best settings and their scores.\n"
        "With --output it can be interrupted and resumed, and writes a bundle that has the best settings.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="+",
        type=model,
        help="a bundle, a run folder (its best checkpoint), an exported model, or a name; several caption together",
    )
    parser.add_argument(
        "--split", metavar="S", type=SPLIT, default="dev", help="dev, the default; others are refused"
    )
    parser.add_argument(
        "--trials", metavar="N", type=integer(minimum=1), default=TRIALS, help=f"in all (default {TRIALS})"
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        type=one_of(*METRICS, **{name.lower(): name for name in METRICS}),
        default=METRICS[0],
        help=f"that is to be highest: {', '.join(METRICS)} (default {METRICS[0]})",
    )
    parser.add_argument(
        "--max-beam",
        metavar="K",
        type=integer(minimum=1),
        default=MAX_BEAM,
        help=f"the widest beam to try (default {MAX_BEAM})",
    )
    parser.add_argument("--max-images", metavar="N", type=integer(minimum=1), help="only the first N images")
    parser.add_argument("--seed", metavar="N", type=integer(minimum=0), default=0, help="of the trials (0)")
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=writable_folder,
        help="keep the study there, the table (tuning.json), and a bundle with the best settings (bundle/)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the study in that folder")
    parser.add_argument(
        "--write", action="store_true", help="make the best settings the defaults of MODEL itself"
    )
    add_engine_options(parser)
    add_data_options(parser, positional=False)
    add_split_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Tunes, prints the table, and the best settings as the last line."""
    if arguments.resume and arguments.output is None:
        raise UsageError("--resume needs --output: the folder of the study to go on with.")
    bundle = find_target(arguments.model)
    if arguments.write and not isinstance(arguments.model[0], Path):
        raise UsageError(
            f"--write: {arguments.model[0]} is not yours to change. Use --output, which makes a bundle with the best "
            "settings."
        )
    if arguments.write and bundle is None:
        reason = f"{arguments.model[0]} is an exported model. Tune its bundle, and export that again."
        if len(arguments.model) > 1:
            reason = "an ensemble has no bundle of its own. Leave --write out, and give the best settings as options."
        raise UsageError(f"--write: {reason}")
    require_packages("tune", "Tuning", "optuna")
    from showtell.tuning import check_split, encode_split, tune

    check_split(arguments.split)
    dataset = read_split_data(arguments)
    dataset.split(arguments.split)  # a split that is not there should not wait for the model to be loaded
    captioner = load_captioner(arguments.model, arguments)
    with show_progress("features", "images") as progress:
        encoded = encode_split(
            captioner,
            dataset,
            max_images=arguments.max_images,
            progress=progress,
        )
    with show_progress("trials", "trials") as progress:
        result = tune(
            captioner,
            encoded,
            folder=arguments.output,
            resume=arguments.resume,
            trials=arguments.trials,
            metric=arguments.metric,
            max_beam=arguments.max_beam,
            seed=arguments.seed,
            progress=progress,
        )
    print_trials(result)
    if arguments.output is not None:
        write_json(arguments.output / "tuning.json", result.to_dict())
        log(f"the table is in {arguments.output / 'tuning.json'}")
        if bundle is not None:
            copy_bundle(bundle, arguments.output / "bundle", result)
            log(f"a bundle with the best settings is in {arguments.output / 'bundle'}")
    if arguments.write and bundle is not None:
        from showtell.bundle import store_decoding

        digest = store_decoding(bundle, result.chosen, result.describe_choice())
        log(f"the best settings are the defaults of {bundle} now (digest {digest[:12]}...)")
    log(f"the best as options: {as_options(result.best)}")
    print_json({"settings": result.chosen.to_dict(), "scores": dict(result.best.scores)})
    return 0


def find_target(models: list[str | Path]) -> Path | None:
    """Returns the bundle whose defaults can be changed; an ensemble and an exported model have none."""
    from showtell.library import locate_model
    from showtell.portable import find_model, is_portable

    folders = [find_model(locate_model(model)) for model in models]
    return None if len(folders) > 1 or is_portable(folders[0]) else folders[0]


def copy_bundle(source: Path, target: Path, result: TuningResult) -> None:
    """Writes the bundle with the best settings as its defaults; what a killed run left there is replaced."""
    from dataclasses import replace

    from showtell.bundle import load_bundle, save_bundle, store_decoding

    if (target / "bundle.json").is_file():  # of this study when it had fewer trials: the weights are the same
        store_decoding(target, result.chosen, result.describe_choice())
        return
    shutil.rmtree(target, ignore_errors=True)
    bundle = load_bundle(source)
    recipe = replace(bundle.recipe, decoding=result.chosen)
    save_bundle(replace(bundle, recipe=recipe, tuning=result.describe_choice(), confidence=None), target)


def print_trials(result: TuningResult) -> None:
    """Prints every way to search that was tried, the best first, scores times 100; "was" marks the model's own."""
    shown = dict.fromkeys((result.metric, *SHOWN))
    rows = [(one, "") for one in result.tried] + [(result.before, "was")]
    rows.sort(key=lambda row: -row[0].scores[result.metric])
    header = ("", "beam", "length penalty", "no repeated", "double words", *shown, "seconds")
    print_table(header, [describe_trial(one, mark, list(shown)) for one, mark in rows])


def describe_trial(one: Tried, mark: str, metrics: list[str]) -> list[str]:
    """Returns one row of the table."""
    settings = one.settings
    return [
        mark,
        str(settings.beam) if settings.method == "beam" else settings.method,
        f"{settings.length_penalty:g}",
        f"{settings.no_repeat_ngram}-gram" if settings.no_repeat_ngram else "-",
        "no" if settings.no_double_words else "yes",
        *(f"{100 * one.scores[metric]:.2f}" for metric in metrics),
        f"{one.seconds:.1f}",
    ]


def as_options(one: Tried) -> str:
    """Returns the settings as options of `showtell caption` and `showtell evaluate`."""
    settings = one.settings
    method = f"--beam {settings.beam}" if settings.method == "beam" else f"--{settings.method}"
    doubles = "--no-double-words" if settings.no_double_words else "--double-words"
    return (
        f"{method} --length-penalty {settings.length_penalty:g} "
        f"--no-repeat-ngram {settings.no_repeat_ngram} {doubles}"
    )
