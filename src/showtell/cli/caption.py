"""`showtell caption`: pictures in, sentences out."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from showtell.cli.arguments import (
    Commands,
    add_command,
    one_of,
    writable_folder,
)
from showtell.cli.decoding_options import add_decoding_options, read_decoding_settings
from showtell.cli.engine_options import add_engine_options, add_model_option, load_captioner
from showtell.cli.output import log
from showtell.cli.output_options import (
    add_caption_options,
    add_output_options,
    check_output_options,
    check_places,
    has_journal,
    is_finished,
    open_destination,
    open_sidecars,
)
from showtell.cli.progress import show_progress
from showtell.errors import ImageError, Interrupted, SidecarError

if TYPE_CHECKING:
    from showtell.captioner import Captioner
    from showtell.cli.explanations import Explanations
    from showtell.intake import Intake, Item
    from showtell.outputs import Destination, Failures, Format, Sidecars

AHEAD = 50_000  # images that are looked for before the first is captioned, to know how many there are
KEPT = 64 << 20  # bytes of images from the web that wait to be looked at once more, as by --explain


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "caption",
        run,
        summary="caption images",
        description="Captions images, and all images in folders and their subfolders.\n"
        "What cannot be read is named at the end, the others are done, and the exit code is 1.",
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="an image, a folder of images, a pattern in quotes ('photos/**/*.jpg'), or - for an image's bytes on "
        "standard input",
    )
    parser.add_argument(
        "--from",
        metavar="LIST",
        dest="listed",
        help="a file that lists paths, one per line; - is standard input",
    )
    parser.add_argument(
        "--null", action="store_true", help="the list ends paths with NUL, as find -print0 does"
    )
    add_model_option(parser)
    add_caption_options(parser)
    parser.add_argument(
        "--explain",
        metavar="FOLDER",
        type=writable_folder,
        help="also draw where in the picture each word came from, as NAME.png, with the numbers in NAME.json; those of "
        "other images stay",
    )
    parser.add_argument(
        "--explain-with",
        metavar="METHOD",
        type=one_of("auto", "attention", "occlusion"),
        default="auto",
        help="attention, occlusion (hides parts of the picture; any model can), or auto (default: attention where the "
        "model has it)",
    )
    add_output_options(parser)
    add_decoding_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Captions every image that can be read; returns 1 if one could not, or a sidecar could not be written."""
    check_output_options(arguments)
    check_places(arguments)
    if is_finished(arguments):
        log(
            f"nothing is left to do: no run to {arguments.output} is unfinished, and that file stays as it is. For "
            "images that are new, give --skip-existing; to caption all anew, leave out --resume"
        )
        return 0
    # Of damaged tags in images that can be read all the same; the others are reported.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    from showtell.intake import Intake
    from showtell.outputs import Failures, find_format

    intake = Intake(
        arguments.paths,
        listed=arguments.listed,
        null=arguments.null,
        repeatable=arguments.sidecar is not None,
    )
    sidecars = open_sidecars(arguments, intake)
    form = find_format(arguments.format, folder=(arguments.output or Path("-")).absolute().parent)
    kept_in = str(arguments.output or "the output") if form.holds_failures else ""
    failures = Failures("" if arguments.dry_run else kept_in, log)
    if arguments.dry_run:
        return _dry_run(arguments, intake, sidecars, form, failures)
    with open_destination(arguments, form) as destination:
        try:
            _caption(arguments, intake, sidecars, destination, failures)
            destination.finish()
        except (KeyboardInterrupt, OSError) as error:
            _say_how_to_go_on(destination, error)
            raise
    failures.report()
    return 1 if failures.count else 0


def _is_existing(arguments: argparse.Namespace, sidecars: Sidecars | None, had: Any, item: Item) -> bool:
    """Returns whether everything that would be written for the item is there already."""
    if not arguments.skip_existing:
        return False
    if sidecars is not None and not (item.path is not None and not item.error and sidecars.exists(item.path)):
        return False
    return had is None or bool(had(item.name))


def _caption(
    arguments: argparse.Namespace,
    intake: Intake,
    sidecars: Sidecars | None,
    destination: Destination,
    failures: Failures,
) -> None:
    """Captions what is not done yet, and hands every record on."""
    from showtell.bulk import caption_items
    from showtell.images import Allowance, KeptImage, WebImage
    from showtell.intake import Counted
    from showtell.outputs import FileDestination, Record

    captioner = load_captioner(arguments.model, arguments)
    settings = read_decoding_settings(arguments, captioner.settings, count=arguments.count)
    file = destination if isinstance(destination, FileDestination) else None
    if file is not None:
        file.journal.begin(_made_by(arguments, captioner, settings))
        for record in file.journal.records():
            failures.add(record)
        if file.journal.count:
            log(f"going on: the results of {file.journal.count:,} images that were done before are kept")
    done = skipped = handled = 0
    looks_again = arguments.format == "html" or arguments.explain is not None
    allowance = Allowance(KEPT)
    explanations = _open_explanations(arguments)

    def is_done(item: Item) -> bool:
        return file is not None and file.has(item.name)

    def wanted() -> Iterator[Item]:
        nonlocal done, skipped
        for item in items:
            if is_done(item):
                done += 1
            elif _is_existing(arguments, sidecars, file and file.had, item):
                skipped += 1
                continue
            elif looks_again and isinstance(item.source, WebImage):
                item = dataclasses.replace(item, source=KeptImage(item.source, item.source.name, allowance))
            yield item

    items = Counted(_without_figures(intake, explanations), ahead=AHEAD if intake.is_quick else 0)
    hidden = arguments.output is None and sys.stdout.isatty()
    captioned = caption_items(
        captioner, wanted(), settings, done=is_done, min_confidence=arguments.min_confidence
    )
    with (
        show_progress("captions", "images", hidden=hidden) as progress,
        contextlib.closing(captioned) as results,
    ):
        for handled, (item, picture) in enumerate(results, start=1):
            if handled == 1:
                progress(done + skipped, items.total)
            record = Record.of(item.name, picture, error=item.error, as_alt=arguments.alt_text)
            if picture.error is None:
                if arguments.format == "html":
                    record = _with_thumbnail(record, item)
                if explanations is not None and picture.captions:
                    try:
                        explanations.draw(item, picture, captioner)
                    except ImageError as error:  # it is read a second time, and may be gone by then
                        log(f"error: {item.name}: not explained: {error}")
                if sidecars is not None and picture.captions:
                    try:
                        sidecars.write(item.path, record)
                    except SidecarError as error:
                        record = dataclasses.replace(record, sidecar_error=str(error))
            if isinstance(item.source, KeptImage):
                item.source.drop()
            destination.add(record)
            failures.add(record)
            progress(done + skipped + handled, items.total)
    if done and not handled:
        log("nothing was left to caption")
    if skipped:
        log(f"{skipped:,} that were done before were passed over")
    if explanations is not None and explanations.replaced:
        log(f"figures of earlier runs that were replaced: {explanations.replaced:,}")
    if intake.linked_folders:
        log(
            f"links to folders were not followed ({intake.linked_folders:,}); name them to caption what they hold"
        )


def _open_explanations(arguments: argparse.Namespace) -> Explanations | None:
    if arguments.explain is None:
        return None
    from showtell.cli.explanations import Explanations

    return Explanations(arguments.explain, arguments.explain_with)


def _without_figures(items: Iterable[Item], explanations: Explanations | None) -> Iterable[Item]:
    """Passes over what earlier runs drew, where the folder of the figures is among what is captioned."""
    return items if explanations is None else (item for item in items if not explanations.has(item))


def _made_by(arguments: argparse.Namespace, captioner: Captioner, settings: Any) -> dict[str, Any]:
    """Returns what results depend on: a run that was interrupted goes on only with the same."""
    return {
        "model": captioner.digest,
        **dataclasses.asdict(settings),
        "engine": arguments.engine,
        "precision": arguments.precision,
        "format": arguments.format,
        "alt_text": arguments.alt_text,
        "min_confidence": arguments.min_confidence,
    }


def _with_thumbnail(record: Any, item: Item) -> Any:
    from showtell.outputs.sheet import draw_thumbnail

    return dataclasses.replace(record, thumbnail=draw_thumbnail(item.source))


def _say_how_to_go_on(destination: Destination, error: BaseException) -> None:
    """Says what is kept; an interrupt becomes one line that says so.

    Raises:
        Interrupted: it was one, and there is something to go on with.
    """
    from showtell.outputs import FileDestination, one_line

    if not isinstance(destination, FileDestination) or not (count := destination.journal.recount()):
        return
    kept = (
        f"the results of {count:,} images are kept in {one_line(str(destination.journal.path))}; "
        "the same command with --resume goes on"
    )
    if isinstance(error, KeyboardInterrupt):
        raise Interrupted(f"interrupted; {kept}") from None
    log(kept)


def _dry_run(
    arguments: argparse.Namespace,
    intake: Intake,
    sidecars: Sidecars | None,
    form: Format,
    failures: Failures,
) -> int:
    """Prints each image that would be captioned, and its sidecar."""
    from showtell.outputs import Journal, Record, one_line
    from showtell.outputs.formats import read_earlier
    from showtell.outputs.journal import journal_of

    known: set[str] = set()
    kept: set[str] = set()
    extends = False
    if has_journal(arguments.output):
        extends = arguments.skip_existing and arguments.output.exists()
        if extends:
            known = {one.image for one in read_earlier(arguments.output, form) if not one.failed}
        if (path := journal_of(arguments.output)).exists():
            with Journal(path, resume=arguments.resume, looks_only=True) as journal:
                kept = {form.spell(record.image) for record in journal.records()}
    had = (lambda name: form.spell(name) in known) if has_journal(arguments.output) else None
    count = skipped = 0
    for item in _without_figures(intake, _open_explanations(arguments)):
        if form.spell(item.name) in kept:
            continue
        if _is_existing(arguments, sidecars, had, item):
            skipped += 1
            continue
        refusal = item.error
        line = one_line(item.name)
        if sidecars is not None and not refusal:
            refusal = "only a file can have a sidecar" if item.path is None else sidecars.refusal(item.path)
            if not refusal and item.path is not None:
                place = sidecars.place(item.path)
                line += f"\t{one_line(str(place))}{' (exists)' if place.exists() else ''}"
        if not item.error:
            print(line)
            count += 1
        failures.add(Record(item.name, error=refusal))
    again = f", keep the results of {len(kept):,} that were done before" if kept else ""
    to = "" if arguments.output is None else f", and {_writing(arguments.output, extends)} {arguments.output}"
    log(f"would caption {count:,} and pass over {skipped:,}{again}{to}")
    failures.report()
    return 1 if failures.count else 0


def _writing(output: Path, extends: bool) -> str:
    if extends:
        return "add to"
    return "replace" if output.is_file() else "write"
