"""The reference pages of the documentation: the commands from their parsers, the Python API from its docstrings."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

from showtell.cli.arguments import Commands
from showtell.cli.main import build_parser

SOURCE = Path(__file__).resolve().parents[1] / "src" / "showtell"

# What people call from their own programs. The other packages are parts of these, for those who read the source.
API = {
    "showtell": "What most programs need.",
    "showtell.data": "Data sets: reading, splitting and checking them.",
    "showtell.text": "Words and their numbers.",
    "showtell.images": "From a file, an array or an address to pixels.",
    "showtell.decoding": "The search for captions, over any decoder.",
    "showtell.metrics": "Bleu, ROUGE_L, CIDEr and METEOR, and how far to trust them.",
    "showtell.encoders": "timm backbones and their features. Needs `showtell[train]`.",
    "showtell.decoders": "The recurrent decoders. Needs `showtell[train]`.",
    "showtell.recipes": "A captioner and its training in a few lines.",
    "showtell.training": "Training, with checkpoints. Needs `showtell[train]`.",
    "showtell.distillation": "A small encoder that learns to see as a large one. Needs `showtell[train]`.",
    "showtell.exporter": "From a bundle to ONNX graphs. Needs `showtell[export]`.",
    "showtell.runtime": "Exported captioners on ONNX Runtime or OpenVINO.",
    "showtell.explain": "Why these words: figures and numbers.",
    "showtell.pages": "Alt texts in web pages.",
}


def write_commands() -> str:
    """Returns the page of all commands, from the parsers that read the command line."""
    parser, commands = build_parser()
    lines = [
        "# Commands",
        "",
        f"`{parser.prog} --version` says which release this is. Every command takes `--help`.",
    ]
    lines += ["", "| command | what it does |", "|---|---|"]
    leaves = list(_find_commands(commands))
    for leaf, summary in leaves:
        lines.append(f"| [`{leaf.prog}`](#{_anchor(leaf.prog)}) | {_text(summary)} |")
    lines += [
        "",
        "Exit codes: 0 done; 1 some inputs failed, or the machine did; 2 usage or configuration; 130 interrupted.",
    ]
    for leaf, _ in leaves:
        lines += ["", f"## {leaf.prog}", "", *_describe(leaf)]
    return "\n".join(lines) + "\n"


def write_module(name: str) -> str:
    """Returns the page of one module: mkdocstrings writes it from the docstrings of what `__all__` names."""
    exported = list_exported(name)
    members = "".join(f"        - {member}\n" for member in exported)
    return f"# {name}\n\n{API[name]}\n\n::: {name}\n    options:\n      members:\n{members}"


def list_exported(name: str) -> list[str]:
    """Returns what a package exports, read from its source, so that nothing needs to be installed or imported."""
    path = SOURCE.joinpath(*name.split(".")[1:], "__init__.py")
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return list(ast.literal_eval(statement.value))
    raise LookupError(f"{path} has no __all__")


def _find_commands(commands: Commands) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    summaries = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    for name, parser in commands.choices.items():
        nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for inner in nested:
            yield from _find_commands(inner)
        if not nested:
            yield parser, summaries[name]


def _describe(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield _text(parser.description or "")
    yield ""
    yield "```text"
    yield re.sub(r"^usage: ", "", parser.format_usage()).rstrip()
    yield "```"
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if action.help is not argparse.SUPPRESS]
        if not shown:
            continue
        yield ""
        yield f"| {_text(group.title or 'options')} | |"
        yield "|---|---|"
        for action in shown:
            help_text = parser._get_formatter()._expand_help(action) if action.help else ""
            yield f"| {_spell(action)} | {_text(help_text)} |"
    if parser.epilog:
        yield ""
        yield "```text"
        yield parser.epilog.rstrip()
        yield "```"


def _spell(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    value = argparse.HelpFormatter("")._format_args(action, metavar) if action.nargs != 0 else ""
    names = action.option_strings or [""]
    return _text(", ".join(f"`{f'{name} {value}'.strip()}`" for name in names))


def _text(text: str) -> str:
    """One line in which nothing but the bars of the table's own is taken for markup."""
    return re.sub(r"([|<*])", r"\\\1", " ".join(text.split()))


def _anchor(heading: str) -> str:
    return heading.replace(" ", "-")
