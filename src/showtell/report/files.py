"""The folder of a report: report.html for people, report.json for programs."""

from __future__ import annotations

import json
from pathlib import Path

from showtell.errors import UsageError
from showtell.files import remove_neighbours, write_atomically, write_json
from showtell.report.contents import FORMAT, Report
from showtell.report.page import write_page

PAGE, NUMBERS = "report.html", "report.json"


def check_folder(folder: Path) -> None:
    """Refuses a folder that holds something else than an earlier report, which may be replaced.

    What a killed run left of a report that it was writing is removed.

    Raises:
        UsageError: it does.
    """
    if not folder.exists():
        return
    for name in (PAGE, NUMBERS):
        remove_neighbours(folder / name)
    others = sorted(path.name for path in folder.iterdir() if path.name not in (PAGE, NUMBERS))
    if others:
        more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
        raise UsageError(
            f"{folder}: holds something else ({others[0]!r}{more}). Give a new or empty folder; only an earlier report "
            "is replaced."
        )
    numbers = folder / NUMBERS
    if any(folder.iterdir()) and not _is_report(numbers):
        raise UsageError(
            f"{folder}: holds files named like a report that are none. Give a new or empty folder."
        )


def write_report(report: Report, folder: Path) -> Path:
    """Writes both files and returns the page's path; an earlier report is replaced.

    Raises:
        UsageError: the folder holds something else.
        OSError: the disk is full, or the folder may not be written.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    write_json(folder / NUMBERS, report.to_dict())
    write_atomically(page, write_page(report).encode())
    return page


def _is_report(path: Path) -> bool:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(written, dict) and written.get("format") == FORMAT
