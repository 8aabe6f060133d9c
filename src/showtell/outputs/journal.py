"""The journal: results line by line in a file beside the output, so that a kill loses nothing that was done.

Its first line says what the results were made by; each line after it is one record in JSON, written in one piece. A
killed process leaves at most one torn line, at the end, which the next one drops. (A machine that loses its power
may lose the lines of the last seconds: they are handed to the system at once, but not waited for.)
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from showtell.errors import JournalError
from showtell.files import PARTIAL, lock_file
from showtell.outputs.names import one_line
from showtell.outputs.record import Record

VERSION = 1
_KEY = "showtell_journal"


def journal_of(output: Path) -> Path:
    """Returns the path of the journal of an output file: beside it, with `.part` behind its name."""
    return output.with_name(output.name + PARTIAL)


class Journal:
    """The results of one command so far. Only one process can have it open.

    Args:
        path: its file.
        resume: whether results that are there already are wanted.
        looks_only: whether it is only read, as for a dry run; it must then exist.

    Raises:
        JournalError: there are results and they are not to be gone on with; another process is at work; or the file
            is no journal.
    """

    def __init__(self, path: Path, *, resume: bool, looks_only: bool = False) -> None:
        self.path = path
        self.count = 0  # records
        self._header: dict[str, Any] | None = None
        self._looks_only = looks_only
        flags, mode = (os.O_RDONLY, "rb") if looks_only else (os.O_RDWR | os.O_CREAT, "r+b")
        self._file: IO[bytes] = os.fdopen(os.open(path, flags, 0o666), mode, buffering=0)
        try:
            if not lock_file(self._file):
                raise JournalError(
                    f"{one_line(str(path))}: another process is writing these results. Wait for it to end, or choose "
                    "another --output."
                )
            self._end = self._survey()
            if self.count and not resume:
                raise JournalError(
                    f"{one_line(str(path))} holds the results of {self.count:,} images, of a run that did not end. Go "
                    "on with it: add --resume. Begin anew: remove that file."
                )
            if not looks_only:
                self._file.truncate(self._end)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it; without a record it is removed, because there is nothing to go on with."""
        ended = self._file.closed
        if error is not None and not ended:
            self.recount()
        self._file.close()
        if not self.count and not ended and not self._looks_only:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def begin(self, made_by: Mapping[str, Any]) -> None:
        """Says what the results are made by, or compares it with what a journal says that has results.

        Raises:
            JournalError: they were made by something else.
        """
        wanted = json.loads(json.dumps({_KEY: VERSION, **made_by}))
        if self.count:
            if differences := describe_differences(self._header or {}, wanted):
                raise JournalError(
                    f"{one_line(str(self.path))} was made with {differences}. Use the same model and "
                    "options as before, or begin anew: remove that file."
                )
            return
        self._file.truncate(0)
        self._end = 0
        self._append(wanted)

    def add(self, record: Record) -> None:
        """Writes one record.

        Raises:
            OSError: the disk is full, say; the records before are kept.
        """
        values = record.to_dict()
        if record.thumbnail:
            values["thumbnail"] = base64.b64encode(record.thumbnail).decode()
        self._append(values)
        self.count += 1

    def records(self) -> Iterator[Record]:
        """Yields all records so far, in their order."""
        lines = self._lines()
        next(lines, None)
        for _, values in lines:
            thumbnail = values.pop("thumbnail", "")
            record = Record.from_dict(values)
            if thumbnail:
                record = Record(
                    record.image,
                    record.captions,
                    record.error,
                    record.sidecar_error,
                    base64.b64decode(thumbnail),
                )
            yield record

    def recount(self) -> int:
        """Returns how many records there are, also where an interrupt came between a record and its counting."""
        self.count = 0
        with contextlib.suppress(FileNotFoundError):  # the output was whole, and this removed
            self.count = max(0, sum(1 for _ in self._lines()) - 1)
        return self.count

    def remove(self) -> None:
        """Removes the file, when the output is whole."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _append(self, values: Mapping[str, Any]) -> None:
        line = json.dumps(values, ensure_ascii=False).encode() + b"\n"
        self._file.seek(self._end)
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            error.filename = str(self.path)
            raise
        self._end += len(line)

    def _survey(self) -> int:
        """Counts the records, remembers the header, and returns where the last whole line ends."""
        end = 0
        for number, (position, values) in enumerate(self._lines()):
            end = position
            if number == 0:
                if values.get(_KEY) != VERSION:
                    raise self._foreign("is no journal of this version of showtell")
                self._header = values
            else:
                self.count += 1
        if end == 0 and not f'{{"{_KEY}"'.startswith(
            head := self._file.read(len(_KEY) + 3).decode("latin-1")
        ):
            raise self._foreign(f"is no journal: it begins with {head!r}")
        return end

    def _foreign(self, what: str) -> JournalError:
        return JournalError(f"{one_line(str(self.path))} {what}. Move it away, or choose another --output.")

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the whole lines with the positions behind them; a torn one at the end is left out."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    values = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    values = None
                if isinstance(values, dict) and (number == 1 or "image" in values):
                    yield file.tell(), values
                elif file.read(1):
                    raise self._foreign(f"is damaged at line {number}, or is no journal")


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Returns what results were made by and what is asked for now, where they differ; "" where they do not."""
    return "; ".join(
        f"{key} = {_short(before.get(key, 'nothing'))}, and now {_short(now.get(key, 'nothing'))}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    )


def _short(value: object) -> object:
    """Returns a value; of a model's digest, which nobody reads to its end, the beginning."""
    return f"{value[:12]}..." if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else value
