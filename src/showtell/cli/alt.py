"""`showtell alt`: pictures of web pages that lack alt text, and what it could be."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from showtell.cli.arguments import Commands, add_command, existing, one_of, writable_folder
from showtell.cli.decoding_options import add_decoding_options, read_decoding_settings
from showtell.cli.engine_options import add_engine_options, add_model_option, load_captioner
from showtell.cli.output import log
from showtell.cli.progress import show_progress
from showtell.errors import PageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from showtell.pages import PageFile, PageProposals, Proposal

FIELDS = (
    "page",
    "line",
    "tag",
    "src",
    "problem",
    "alt",
    "proposal",
    "confidence",
    "needs_review",
    "status",
    "reason",
)
Row = dict[str, Any]  # FIELDS -> what the report says of one picture, or of a page that could not be read


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "alt",
        run,
        summary="propose alt texts for the pictures of web pages",
        description="Lists the pictures of pages (.html, .htm, .xhtml), and of all pages in folders and their\n"
        "subfolders, that lack alt text, and proposes texts. Nothing is changed without --write. Pages and pictures\n"
        "that cannot be read are named on standard error at the end, the others are done, and the exit code is 1.",
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", type=existing, help="a page, or a folder of pages"
    )
    add_model_option(parser)
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        type=existing,
        help="where addresses as /images/a.jpg begin, and which no picture may lie outside of; "
        "by default the folder that is given, or that of the page",
    )
    parser.add_argument(
        "--empty",
        action="store_true",
        help='also propose texts where alt="" says that a picture is decoration',
    )
    parser.add_argument(
        "--poor", action="store_true", help='also propose texts where alt is a file name, "image" or the like'
    )
    parser.add_argument(
        "--format",
        metavar="text|json|jsonl|csv",
        type=one_of("text", "json", "jsonl", "csv"),
        default="text",
        help="of the report: text (the default), json, jsonl or csv",
    )
    writing = parser.add_argument_group("writing")
    writing.add_argument(
        "--write", action="store_true", help="put the texts into the pages; needs --output or --in-place"
    )
    writing.add_argument(
        "--output",
        metavar="FOLDER",
        type=writable_folder,
        help="with --write: a new or empty folder for copies of the pages that change",
    )
    writing.add_argument(
        "--in-place",
        action="store_true",
        help="with --write: change the pages themselves; each is kept as PAGE.bak (PAGE.bak.1, ...)",
    )
    add_decoding_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Reports on every page, and changes it if asked to; returns 1 if a page or picture failed."""
    from showtell.pages import EMPTY, MISSING, POOR, find_pages, propose

    pages = find_pages(arguments.paths, arguments.root)
    check_writing(arguments, pages)
    captioner = load_captioner(arguments.model, arguments)
    settings = read_decoding_settings(arguments, captioner.settings)
    problems = [MISSING] + [EMPTY] * arguments.empty + [POOR] * arguments.poor
    form = arguments.format
    rows: list[Row] = []
    read = 0
    failures: list[str] = []
    counts: Counter[str] = Counter()
    if form == "csv":
        print(",".join(FIELDS))
    with show_progress("captions", "pictures", hidden=form != "json" and sys.stdout.isatty()) as progress:
        for page in propose(pages, captioner, settings, problems=problems, progress=progress):
            read += not page.error
            for row in report(page, write(page, arguments)):
                counts[row["status"]] += row["problem"] != "error"  # of pictures, not of pages
                if row["status"] == "failed":
                    failures.append(describe_failure(row))
                if form == "json":
                    rows.append(row)
                else:
                    print(render(row, form), end="", flush=True)
    if form == "json":
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    log(f"{read:,} {'page' if read == 1 else 'pages'}; pictures that lack alt text: {summarise(counts)}")
    for failure in failures:
        log(f"error: {failure}")
    return 1 if failures else 0


def check_writing(arguments: argparse.Namespace, pages: Sequence[PageFile]) -> None:
    """Refuses ways to write that contradict each other, or that would mix copies with what is there.

    Raises:
        UsageError: says which, and what to do.
    """
    output: Path | None = arguments.output
    if not arguments.write:
        if arguments.in_place or output is not None:
            option = "--in-place" if arguments.in_place else "--output"
            raise UsageError(
                f"{option} says where to write, but nothing is written without --write. Add --write."
            )
        return
    if arguments.in_place == (output is not None):
        raise UsageError("--write needs either --output FOLDER, for copies, or --in-place, and not both.")
    if output is None:
        return
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output}: not empty. Choose a new folder for the copies.")
    places: dict[Path, PageFile] = {}
    for page in pages:
        if output.resolve().is_relative_to(page.root.resolve()):
            raise UsageError(
                f"{output}: lies in the site {page.root}, which would then have its pages twice. "
                "Choose a folder outside of it, or --in-place."
            )
        other = places.setdefault(page.place, page)
        if other is not page:
            raise UsageError(
                f"{other.path} and {page.path} would both become {output / page.place}. "
                "Name a folder above both with --root, or run the command for each."
            )


def write(page: PageProposals, arguments: argparse.Namespace) -> str | None:
    """Writes the proposals into the page, or its copy, if asked to (else None); returns why that failed, or ""."""
    from showtell.pages import write_copy, write_in_place

    if not arguments.write or not any(one.text for one in page.proposals):
        return None
    try:
        before, after = page.edit()
        if arguments.in_place:
            write_in_place(page.page.path, before, after)
        else:
            write_copy(arguments.output, page.page.place, after)
    except PageError as error:
        return str(error)
    except OSError as error:
        from showtell.cli.main import describe_os_error

        return describe_os_error(error)
    return ""


def report(page: PageProposals, written: str | None) -> list[Row]:
    """Returns the rows of one page; `written` is what `write` returned."""
    name = str(page.page.path)
    if page.error:
        row = dict.fromkeys(FIELDS)
        return [{**row, "page": name, "problem": "error", "status": "failed", "reason": page.error}]
    return [describe(name, one, written) for one in page.proposals]


def describe(name: str, proposal: Proposal, written: str | None) -> Row:
    """Returns the row of one picture."""
    finding, text = proposal.finding, proposal.text
    status, reason = proposal.status, proposal.reason
    if text is not None and written is not None:
        status, reason = (
            ("failed", f"the page was not changed: {written}") if written else ("written", reason)
        )
    return {
        "page": name,
        "line": finding.line,
        "tag": finding.tag,
        "src": finding.source,
        "problem": finding.problem,
        "alt": finding.alt,
        "proposal": None if text is None else text.text,
        "confidence": None if text is None else text.confidence,
        "needs_review": None if text is None else text.needs_review,
        "status": status,
        "reason": reason,
    }


def render(row: Row, form: str) -> str:
    """Returns one row as a line for people, as JSON, or as CSV."""
    from showtell.outputs import one_line

    if form == "jsonl":
        return json.dumps(row, ensure_ascii=False) + "\n"
    if form == "csv":
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(row.values())
        return buffer.getvalue()
    if row["problem"] == "error":
        return one_line(f"{row['page']}: error: {row['reason']}", restorable=False) + "\n"
    says = f"{row['status']}" + (f' "{row["proposal"]}"' if row["proposal"] is not None else "")
    notes = ["needs review"] * bool(row["needs_review"]) + [row["reason"]] * bool(row["reason"])
    alt = f' "{row["alt"]}"' if row["problem"] == "poor" else ""
    line = f"{row['page']}:{row['line']}: {row['tag']} {row['src']}: {row['problem']} alt{alt}: {says}"
    return one_line(line + (f" ({'; '.join(notes)})" if notes else ""), restorable=False) + "\n"


def describe_failure(row: Row) -> str:
    """Returns what failed, for the list at the end."""
    from showtell.outputs import one_line

    where = row["page"] if row["line"] is None else f"{row['page']}:{row['line']}"
    return one_line(": ".join(part for part in (where, row["src"], row["reason"]) if part), restorable=False)


def summarise(counts: Counter[str]) -> str:
    """Returns how many pictures there are of each status."""
    return ", ".join(f"{number:,} {status}" for status, number in counts.items() if number) or "none"
