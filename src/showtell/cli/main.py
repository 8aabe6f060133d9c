"""The command `showtell`: finds the command, runs it, and turns errors into one line and an exit code.

Exit codes: 0 done; 1 some inputs failed, each named on standard error, and the rest is done; 2 usage or
configuration; 130 interrupted. Nobody sees a traceback for a mistake of their own (`--debug` shows it).
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence

from showtell import __version__
from showtell.cli import (
    alt,
    bulk,
    calibrate,
    caption,
    data_check,
    demo,
    distill,
    evaluate,
    export,
    features,
    models,
    pack,
    recipes,
    remember,
    report,
    score,
    serve,
    train,
    tune,
    tutorial,
)
from showtell.cli.arguments import Commands, Parser, reject_unknown_command
from showtell.errors import ShowtellError, UsageError
from showtell.launch import read_launch

INTERRUPTED = 130  # 128 + SIGINT, what shells report


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the words after `showtell`; those of this process where None.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Read when torch is loaded: threads that wait for each other spin only briefly, then sleep. Where other
    # programs want the processor too, long spinning made training several times slower (docs/experiments.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "50000")
    # A caption or file name that the terminal cannot show must not end the run.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
        sys.stdout.flush()  # here, so that a full disk or a closed pipe is noticed while it can be reported
        return code
    except BrokenPipeError:
        _discard_output()  # the reader, as `head`, has what it wanted
        return 1
    except KeyboardInterrupt:
        _report("interrupted", debug="--debug" in words)
        return INTERRUPTED
    except ShowtellError as error:
        prefix = "" if error.exit_code == INTERRUPTED else "error: "
        _report(f"{prefix}{error}", debug="--debug" in words)
        return error.exit_code
    except OSError as error:
        _report(f"error: {describe_os_error(error)}", debug="--debug" in words)
        _discard_output()
        return 1


def build_parser() -> tuple[Parser, Commands]:
    """Returns the parser of the whole command line, and its commands."""
    parser = Parser(prog="showtell", description="An image goes in, a sentence comes out.")
    parser.add_argument("--version", action="version", version=f"showtell {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    working = (
        caption,
        bulk,
        alt,
        serve,
        data_check,
        features,
        train,
        evaluate,
        score,
        report,
        tune,
        calibrate,
        remember,
        distill,
        export,
        pack,
    )
    for command in (*working, models, recipes, demo, tutorial):
        command.add_parser(commands)
    return parser, commands


def describe_os_error(error: OSError) -> str:
    """Returns one line for people: which file, what happened, and what to do."""
    where = f": {os.fspath(error.filename)!r}" if isinstance(error.filename, (str, os.PathLike)) else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{where}. Free some space and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"not allowed to read or write{where} ({error.strerror}). Check who may, or choose another place"
        )
    if error.errno == errno.EMFILE:
        return "too many files are open in this process. Raise the limit (ulimit -n) or use fewer workers"
    return f"{error.strerror}{where}" if error.strerror else str(error) or type(error).__name__


def _run(words: Sequence[str]) -> int:
    parser, commands = build_parser()
    chosen = _choose(parser, commands, words)
    # Before argparse, which would complain of the missing --model where somebody wrote --modle.
    chosen.refuse_unknown(words)
    try:
        arguments = parser.parse_args(words)
    except SystemExit as done:  # after --help or --version, which argparse has printed
        return int(done.code or 0)
    if not hasattr(arguments, "run"):
        chosen.print_help(sys.stderr)
        return 2
    if read_launch().size > 1 and arguments.run is not train.run:
        raise UsageError(
            f"torchrun started {read_launch().size} processes, and only `showtell train` shares its work among them. "
            f"Run `{chosen.prog}` without torchrun."
        )
    code: int = arguments.run(arguments)
    return code


def _choose(parser: Parser, commands: Commands, words: Sequence[str]) -> Parser:
    """Returns the parser of the command that the words name, or refuses with the nearest command."""
    chosen = parser
    below: Commands | None = commands
    for word in (word for word in words if not word.startswith("-")):
        if below is None:
            break
        reject_unknown_command(word, below.choices, chosen.prog)
        chosen = below.choices[word]
        below = chosen.get_default("commands")
    return chosen


def _report(message: str, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    if read_launch().size > 1:
        from showtell.training.processes import (
            is_first_to_say,
        )  # torch: only torchrun gets here, which has it

        if not is_first_to_say(message):
            return
    print(f"showtell: {message}", file=sys.stderr)


def _discard_output() -> None:
    """Points standard output nowhere if it cannot be written, or Python complains about it while it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
