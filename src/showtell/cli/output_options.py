"""The options that say what results hold, where those of `caption` go and what is left alone, and what they open."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from showtell.cli.arguments import Parser, existing, integer, one_of, real, writable_file, writable_folder
from showtell.errors import UsageError, require_packages

if TYPE_CHECKING:
    from showtell.intake import Intake
    from showtell.outputs import Destination, Format, Sidecars


def add_caption_options(parser: Parser | argparse._ArgumentGroup) -> None:
    """Adds which captions of a picture are written, and how: --count, --alt-text and --min-confidence."""
    parser.add_argument(
        "--count", metavar="N", type=integer(minimum=1), help="captions per image, the best first"
    )
    parser.add_argument(
        "--alt-text",
        action="store_true",
        help="write captions as alt text: at most 125 characters, a sentence; structured formats say what needs review",
    )
    parser.add_argument(
        "--min-confidence",
        metavar="C",
        type=real(minimum=0, maximum=1),
        default=0.0,
        help="leave out captions that are less sure, 0 to 1 (showtell calibrate)",
    )


def add_output_options(parser: Parser) -> None:
    """Adds --format, --output, --sidecar and what goes with them."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--format",
        metavar="text|json|jsonl|csv|html",
        type=one_of("text", "json", "jsonl", "csv", "html"),
        default="text",
        help="text (the default): path, tab, caption; html: a contact sheet",
    )
    group.add_argument(
        "--output", metavar="FILE", type=writable_file, help="write there instead of standard output"
    )
    group.add_argument(
        "--sidecar",
        metavar="txt|xmp",
        type=one_of("txt", "xmp"),
        help="also write NAME.txt or NAME.xmp beside each image",
    )
    group.add_argument(
        "--sidecar-folder",
        metavar="FOLDER",
        type=writable_folder,
        help="write sidecars below this folder instead",
    )
    group.add_argument(
        "--overwrite", action="store_true", help="replace other captions that are in sidecars already"
    )
    group.add_argument(
        "--skip-existing",
        action="store_true",
        help="pass over images that have a sidecar, or are in FILE, which is then added to",
    )
    group.add_argument("--resume", action="store_true", help="go on with a run to FILE that did not end")
    group.add_argument(
        "--dry-run", action="store_true", help="list what would be captioned and written, and load no model"
    )


def check_output_options(arguments: argparse.Namespace) -> None:
    """Refuses options that mean nothing together, before any work."""
    if arguments.sidecar is None:
        for option in ("sidecar_folder", "overwrite"):
            if getattr(arguments, option):
                name = "--" + option.replace("_", "-")
                raise UsageError(f"{name} has no meaning without --sidecar. Add --sidecar txt, or drop it.")
    if arguments.output is not None and arguments.output.is_file():
        from showtell.images.suffixes import IMAGE_SUFFIXES

        if (
            arguments.output.suffix.lower() in IMAGE_SUFFIXES
        ):  # a shell's pattern behind --output, most likely
            raise UsageError(
                f"--output {arguments.output}: is an image, which would be replaced by captions. Name the file that "
                "they are to go into."
            )
    if arguments.resume and not has_journal(arguments.output):
        raise UsageError(
            "--resume goes on with what a run to --output FILE left. Add --output; or, where sidecars are written, use "
            "--skip-existing."
        )
    if arguments.skip_existing and arguments.sidecar is None and not has_journal(arguments.output):
        raise UsageError(
            "--skip-existing looks for sidecars, or into --output FILE. Add --sidecar or --output, or drop it."
        )
    if arguments.sidecar == "xmp":
        require_packages("xmp", "Writing XMP sidecars", "lxml")
    if arguments.listed not in (None, "-"):
        arguments.listed = str(existing_list(arguments.listed))


def existing_list(word: str) -> Path:
    """Returns the file that lists paths.

    Raises:
        UsageError: there is none.
    """
    try:
        path = existing(word)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"--from: {error}") from None
    if path.is_dir():
        raise UsageError(
            f"--from: {word!r} is a folder; name a file that lists paths, or give the folder itself."
        )
    return path


def has_journal(output: Path | None) -> bool:
    """Returns whether results are collected beside a file; a pipe or a device gets them at once."""
    return output is not None and (output.is_file() or not output.exists())


def check_places(arguments: argparse.Namespace) -> None:
    """Checks, without writing, that what is asked for can be written where it is to go.

    Raises:
        OSError: it cannot.
    """
    from showtell.files import require_writable

    output: Path | None = arguments.output
    if output is not None:
        if has_journal(output):
            require_writable(output.absolute().parent)  # of the journal
            require_writable(output.resolve().parent)  # a link is followed
        elif not os.access(output, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(output))
    for folder in (arguments.explain, arguments.sidecar_folder):
        if folder is not None:
            require_writable(folder)


def is_finished(arguments: argparse.Namespace) -> bool:
    """Returns whether there is nothing to go on with, though --resume was given: FILE is whole, and nothing is left."""
    from showtell.outputs.journal import journal_of

    return bool(
        arguments.resume
        and not arguments.skip_existing
        and arguments.output.exists()
        and not journal_of(arguments.output).exists()
    )


def open_sidecars(arguments: argparse.Namespace, intake: Intake) -> Sidecars | None:
    """Returns what writes sidecars, with those that images would share found, or None where none are wanted."""
    if arguments.sidecar is None:
        return None
    from showtell.outputs import Sidecars

    sidecars = Sidecars(arguments.sidecar, folder=arguments.sidecar_folder, overwrite=arguments.overwrite)

    def paths() -> Iterator[str]:
        return (item.path for item in intake if item.path is not None and not item.error)

    sidecars.reserve(paths(), paths())
    return sidecars


def open_destination(arguments: argparse.Namespace, form: Format) -> Destination:
    """Returns where records go.

    Raises:
        JournalError: a run to the same file did not end, or has not ended yet.
    """
    from showtell.outputs import FileDestination, Journal, StreamDestination
    from showtell.outputs.journal import journal_of

    if arguments.output is None:
        return StreamDestination(form, lambda text: print(text, end="", flush=True))
    if not has_journal(arguments.output):
        return StreamDestination(form, _DeviceWriter(arguments.output))
    journal = Journal(journal_of(arguments.output), resume=arguments.resume)
    try:
        return FileDestination(arguments.output, form, journal, extend=arguments.skip_existing)
    except BaseException:
        journal.__exit__(*sys.exc_info())
        raise


class _DeviceWriter:
    """Writes text to a pipe or a device, each piece at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)

    def __call__(self, text: str) -> None:
        rest = text.encode("utf-8", "backslashreplace")
        while rest:
            rest = rest[self._file.write(rest) :]
