"""`showtell recipes`: what can be trained, and the paper or tutorial that each follows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from showtell.cli.arguments import Commands, add_command
from showtell.cli.output import print_json, print_table


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "recipes",
        run,
        summary="list the recipes, or show one whole",
        description="Lists the recipes with the paper or tutorial that each follows, or shows every setting\n"
        "of one as TOML, to save, change and train: showtell recipes NAME > mine.toml",
    )
    parser.add_argument(
        "recipe", metavar="NAME", nargs="?", help="a recipe's name, or a TOML file, to show whole"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Prints the list of recipes, or one of them."""
    from showtell.recipes import describe_recipe, list_recipes, list_sequels

    if arguments.recipe is not None:
        tables = describe_recipe(arguments.recipe)
        if arguments.json:
            print_json(tables)
        else:
            print(as_toml(tables), end="")
        return 0
    recipes = list_recipes()
    if arguments.json:
        print_json({name: recipe.to_dict() for name, recipe in recipes.items()})
    else:
        rows = [
            (name, recipe.encoder.name, recipe.decoder, recipe.source) for name, recipe in recipes.items()
        ]
        rows += [(name, "of --from", "of --from", source) for name, source in list_sequels().items()]
        print_table(("recipe", "encoder", "decoder", "follows"), rows)
    return 0


def as_toml(tables: Mapping[str, Any]) -> str:
    """Returns a recipe as TOML: plain values, then sections; None, which TOML has not, is left out."""
    plain = {key: value for key, value in tables.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in tables.items() if isinstance(value, Mapping)}
    lines = _lines(plain)
    for name, section in sections.items():
        lines += [*([""] if lines else []), f"[{name}]", *_lines(section)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    # JSON writes strings, numbers, booleans and lists as TOML does.
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in table.items()
        if value is not None
    ]
