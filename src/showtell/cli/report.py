"""`showtell report`: how good captioners are and where they fail, as a page and as JSON."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from showtell.cli.arguments import Commands, add_command, integer, model, writable_folder
from showtell.cli.decoding_options import read_decoding_settings
from showtell.cli.engine_options import load_captioner
from showtell.cli.output import log
from showtell.cli.progress import show_stages
from showtell.cli.scoring_options import (
    add_notes,
    add_scoring_options,
    describe,
    find_copies,
    find_learnt,
    read_scoring_data,
)
from showtell.errors import UsageError

_NO_OPTIONS = frozenset({"model", "output", "debug", "run", "parser"})  # of what argparse finds


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "report",
        run,
        summary="show how good captioners are and where they fail, as one page",
        description="Captions every image of a split with each model and writes report.html, one page that needs "
        "nothing else,\nand report.json. Prints the path of the page.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="+",
        type=model,
        help="an exported model, a bundle, a run folder (its best checkpoint), or a name; the others are compared with "
        "the first",
    )
    add_scoring_options(parser)
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=writable_folder,
        required=True,
        help="a new or empty folder, or that of an earlier report, which is replaced",
    )
    parser.add_argument(
        "--examples",
        metavar="N",
        type=integer(minimum=0),
        default=8,
        help="worst and best images of each model that are explained (default 8)",
    )
    parser.add_argument(
        "--pictures",
        metavar="N",
        type=integer(minimum=0),
        default=1500,
        help="images that are shown with their picture, about 10 kB each (default 1500)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the report, and prints where it is."""
    from showtell.files import require_writable
    from showtell.outputs import one_line
    from showtell.report import judge_models
    from showtell.report.files import check_folder, write_report

    require_writable(arguments.output)
    check_folder(arguments.output)
    folders = name_models(arguments.model)
    dataset, corpus_idf = read_scoring_data(arguments)
    seen = {label: find_learnt(arguments, dataset, [folder]) for label, folder in folders.items()}
    captioners = {label: load_captioner(folder, arguments) for label, folder in folders.items()}
    refuse_twins({label: captioner.digest for label, captioner in captioners.items()})
    copies = find_copies(arguments, dataset)
    with show_stages("images") as progress:
        report = judge_models(
            captioners,
            dataset,
            split=arguments.split,
            settings={
                label: read_decoding_settings(arguments, captioner.settings, count=1)
                for label, captioner in captioners.items()
            },
            metrics=arguments.metrics,
            corpus_idf=corpus_idf,
            max_images=arguments.max_images,
            resamples=arguments.resamples,
            copies=copies,
            examples=arguments.examples,
            pictures=arguments.pictures,
            options=list_options(arguments),
            progress=progress,
        )
    judged = (replace(one, evaluation=add_notes(one.evaluation, seen[one.label])) for one in report.models)
    report = replace(report, models=tuple(judged))
    for one in report.models:
        log(f"{one.label}:")
        describe(one.evaluation)
    for image in report.left_out:
        log(f"left out: {one_line(image.id)}: {one_line(image.reason)}")
    print(write_report(report, arguments.output))
    return 1 if report.left_out else 0


def list_options(arguments: argparse.Namespace) -> dict[str, str]:
    """Returns the options that were given -> their values, for readers elsewhere: of files and folders the names alone.

    What is as by default, the models and the folder that is written are not among them.
    """
    found = {}
    for name, value in sorted(vars(arguments).items()):
        if name in _NO_OPTIONS or value == arguments.parser.get_default(name):
            continue
        word = name.replace("_", "-")
        if isinstance(value, bool):
            found[f"--{word}" if value else f"--no-{word}"] = ""
        else:
            values = value if isinstance(value, (list, tuple)) else [value]
            found[f"--{word}"] = ", ".join(str(_name(one)) for one in values)
    return found


def _name(value: object) -> object:
    return value.resolve().name if isinstance(value, Path) else value


def name_models(models: list[str | Path]) -> dict[str, Path]:
    """Returns short names that tell the models apart -> their folders.

    Raises:
        UsageError: a model is given twice.
        BundleError: there is no such model.
    """
    from showtell.library import locate_model
    from showtell.portable import find_model

    folders = {str(one): find_model(locate_model(one)) for one in models}
    if len(folders) < len(models) or len({folder.resolve() for folder in folders.values()}) < len(models):
        raise UsageError(
            f"A model is given twice: {' '.join(map(str, models))}. Give each model once; the others are compared with "
            "the first."
        )
    return dict(zip(_shorten([Path(one) for one in folders]), folders.values(), strict=True))


def _shorten(paths: list[Path]) -> list[str]:
    """Returns as much of the end of each path as tells all apart: where a model lies is nobody's business."""
    paths = [path if path.name else path.resolve() for path in paths]
    names: list[str] = []
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def refuse_twins(digests: dict[str, str]) -> None:
    """Raises UsageError where two models are copies of one."""
    owners: dict[str, str] = {}
    for label, digest in digests.items():
        if digest in owners:
            raise UsageError(
                f"{owners[digest]} and {label} are the same model (digest {digest[:12]}). Give each model once."
            )
        owners[digest] = label
