"""The argument parser: argparse, with errors that are raised, and with "did you mean"."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from showtell.errors import UsageError, did_you_mean
from showtell.files import expand_home

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # argparse gives this class no public name


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Gives the longest command a summary on its own line: argparse measures it without its indentation."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        for command in self._iter_indented_subactions(action):
            length = len(self._format_action_invocation(command)) + self._current_indent
            self._action_max_length = max(self._action_max_length, length)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError where argparse would print its usage and exit.

    Options cannot be abbreviated: a script that writes `--out` must not change its meaning when a later
    release adds `--outline`.
    """

    def __init__(self, *args: object, **options: object) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", _HelpFormatter)
        super().__init__(*args, **options)  # type: ignore[arg-type]  # argparse's own options, passed through

    def error(self, message: str) -> NoReturn:
        """Raises UsageError with the message and where to find help."""
        stop = "" if message.endswith((".", "?")) else "."
        raise UsageError(f"{message}{stop} Help: {self.prog} --help")

    def refuse_unknown(self, words: Sequence[str]) -> None:
        """Raises UsageError if one of `words` is an option that there is not; with what was meant."""
        options = re.findall(r"--[a-z][a-z0-9-]*|(?<![\w-])-[a-z]\b", self.format_help())
        for word in words:
            name = word.split("=")[0]
            if name == "--":
                return
            if name.startswith("-") and name not in ("-", *options) and not _is_number(word):
                near = did_you_mean(name, options)
                if not near or os.path.lexists(word):
                    near = f" If it is a file's name, write {f'.{os.sep}{word}'!r}, or -- before it."
                self.error(f"there is no option {name!r}.{near}")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    description: str = "",
) -> Parser:
    """Adds one command; `run` receives its parsed arguments and returns the exit code."""
    parser = commands.add_parser(name, help=summary, description=description or f"{summary}.")
    # Accepted after the command too; SUPPRESS keeps this second place from undoing the first.
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_model_and_output(parser: Parser) -> None:
    """Adds what a command takes that makes another captioner of a trained one."""
    parser.add_argument(
        "model", metavar="MODEL", type=model, help="a bundle, a run folder (its best checkpoint), or a name"
    )
    parser.add_argument(
        "--output", metavar="FOLDER", type=writable_folder, required=True, help="a new or empty folder"
    )


def reject_unknown_command(word: str, commands: Iterable[str], prog: str) -> None:
    """Raises UsageError, with the nearest command, unless `word` is one of `commands`."""
    commands = list(commands)
    if word not in commands:
        raise UsageError(
            f"{prog} has no command {word!r}.{did_you_mean(word, commands)} "
            f"Its commands: {', '.join(commands)}. Help: {prog} --help"
        )


def one_of(*choices: str, **spellings: str) -> Callable[[str], str]:
    """Returns an argument type: one of `choices`, or another spelling of one, as `val="dev"`."""

    def convert(word: str) -> str:
        word = spellings.get(word, word)
        if word not in choices:
            raise argparse.ArgumentTypeError(
                f"must be one of {', '.join(choices)}.{did_you_mean(word, choices)} Received: {word!r}"
            )
        return word

    return convert


def integer(*, minimum: int) -> Callable[[str], int]:
    """Returns an argument type: a whole number of at least `minimum`."""

    def convert(word: str) -> int:
        try:
            value = int(word)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {minimum}. Received: {word!r}"
            )
        return value

    return convert


def real(
    *, above: float | None = None, minimum: float | None = None, maximum: float | None = None
) -> Callable[[str], float]:
    """Returns an argument type: a number greater than `above`, and from `minimum` to `maximum`."""
    bounds = [("above", above), ("at least", minimum), ("at most", maximum)]
    wanted = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None) or "finite"

    def convert(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = float("nan")
        # Written so that not-a-number fails.
        fits = (
            value - value == 0
            and (above is None or value > above)
            and (minimum is None or value >= minimum)
            and (maximum is None or value <= maximum)
        )
        if not fits:
            raise argparse.ArgumentTypeError(f"must be a number {wanted}. Received: {word!r}")
        return value

    return convert


def existing(word: str) -> Path:
    """An argument type: the path of a file or folder that exists."""
    path = expand_home(word)
    if not path.exists():
        near = _nearest_sibling(path)
        raise argparse.ArgumentTypeError(f"no such file or folder: {word!r}.{near}")
    return path


def model(word: str) -> str | Path:
    """An argument type: the path of a captioner that exists, or the name of one (`showtell.library`)."""
    from showtell.library import is_name  # here, because it loads NumPy

    return word if is_name(word) else existing(word)


def writable_file(word: str) -> Path:
    """An argument type: the path of a file to write; refused here, not after hours of work."""
    path = expand_home(word)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{word!r} is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"the folder {str(path.absolute().parent)!r} does not exist; make it first"
        )
    return path


def writable_folder(word: str) -> Path:
    """An argument type: the path of a folder to write, which need not exist."""
    path = expand_home(word)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{word!r} is a file; name a folder")
    return path


def _nearest_sibling(path: Path) -> str:
    try:
        names = [entry.name for entry in path.absolute().parent.iterdir()]
    except OSError:
        return ""
    return did_you_mean(path.name, names)
