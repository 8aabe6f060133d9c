"""`showtell models`: the captioners that can be used by name."""

from __future__ import annotations

import argparse

from showtell.cli.arguments import Commands, add_command
from showtell.cli.output import log, print_json


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "models",
        run,
        summary="list the captioners that can be used by name",
        description="Lists what comes with Showtell and what was fetched from a hub, with its size and the scores on "
        "dev that training found.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Prints a table, or a JSON object."""
    from showtell.library import list_models

    found = list_models()
    if arguments.json:
        models = [
            {"name": one.name, "folder": str(one.folder), "bytes": one.bytes, "scores": one.scores}
            for one in found
        ]
        print_json({"models": models})
        return 0
    if not found:
        log(
            "no captioner comes with this installation, and none was fetched; give a folder, or hub:OWNER/NAME"
        )
        return 0
    width = max(len("name"), *(len(one.name) for one in found))
    print(f"{'name':{width}}  {'MB':>6}  {'CIDEr':>6}  {'Bleu_4':>6}  {'search':6}  folder")
    for one in found:
        scores = one.scores.get("dev")
        scores = scores if isinstance(scores, dict) else {}
        cider, bleu = (
            f"{100 * scores[key]:6.1f}" if key in scores else f"{'-':>6}" for key in ("CIDEr", "Bleu_4")
        )
        search = describe_search(scores.get("beam"))
        print(f"{one.name:{width}}  {one.bytes / 1e6:6.1f}  {cider}  {bleu}  {search:6}  {one.folder}")
    log(
        "scores are x100, on dev, as training found them by the search that is named: not that of the captioner, and "
        "before it was exported. Those of what is here: showtell evaluate NAME --data DATA --split dev"
    )
    return 0


def describe_search(beam: object) -> str:
    """Returns the search that scores belong to, or "-" where the manifest does not say it."""
    if not isinstance(beam, int):
        return "-"
    return "greedy" if beam <= 1 else f"beam-{beam}"
