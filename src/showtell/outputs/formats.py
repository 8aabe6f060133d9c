"""How results are written: text, JSON, JSON lines, CSV and a contact sheet, each record by record.

No format needs more than one record in memory, so JSON has each record on a line of its own. Every format can also
read what it wrote before, so that new results can be added to a file that is there (`--skip-existing`).
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from showtell.errors import UsageError
from showtell.outputs.names import one_line, readable
from showtell.outputs.record import Record


class Earlier(NamedTuple):
    """One record of a file that is there."""

    image: str  # how it is called there
    written: str  # the record as it stands there
    failed: bool = False  # whether it says only why there are no captions


class Format(ABC):
    """One way to write records. `head`, records and `tail` make a file."""

    holds_failures = True  # whether records of images that failed are written, too

    def head(self) -> str:
        """Returns what stands before the first record."""
        return ""

    @abstractmethod
    def write(self, record: Record) -> str:
        """Returns one record."""

    def join(self, written: str, *, first: bool) -> str:
        """Returns a record as `write` gave it, with what separates it from the one before."""
        return written

    def tail(self, count: int) -> str:
        """Returns what stands behind the last of `count` records."""
        return ""

    def spell(self, image: str) -> str:
        """Returns how the image of this name is called in the file."""
        return readable(image)

    @abstractmethod
    def read(self, file: TextIO) -> Iterator[Earlier]:
        """Yields the records of a file in this format.

        Raises:
            ValueError, KeyError, TypeError, csv.Error: it is none.
        """


class TextFormat(Format):
    """For people and simple scripts: path, tab, caption; one line per caption."""

    holds_failures = False

    def write(self, record: Record) -> str:
        """Returns the lines of one image; none if it failed, and one without words if no caption was sure enough."""
        if record.error:
            return ""
        texts = [one.text for one in record.captions] or [""]
        return "".join(f"{one_line(record.image)}\t{text}\n" for text in texts)

    def spell(self, image: str) -> str:
        """Returns the name as in `one_line`."""
        return one_line(image)

    def read(self, file: TextIO) -> Iterator[Earlier]:
        """Yields the lines of one image after another."""
        for image, lines in itertools.groupby(file, key=lambda line: line[: line.index("\t")]):
            yield Earlier(image, "".join(_ended(line) for line in lines))


class JsonLinesFormat(Format):
    """One JSON object per line and image."""

    def write(self, record: Record) -> str:
        """Returns one line."""
        return json.dumps(record.to_dict(), ensure_ascii=False) + "\n"

    def read(self, file: TextIO) -> Iterator[Earlier]:
        """Yields the lines."""
        for line in file:
            values = json.loads(line)
            yield Earlier(_named(values), _ended(line), "error" in values)


class JsonFormat(Format):
    """One JSON array, each image's object on a line of its own."""

    def head(self) -> str:
        """Returns the opening bracket."""
        return "["

    def write(self, record: Record) -> str:
        """Returns one object."""
        return json.dumps(record.to_dict(), ensure_ascii=False)

    def join(self, written: str, *, first: bool) -> str:
        """Returns the object on a new line."""
        return f"\n{written}" if first else f",\n{written}"

    def tail(self, count: int) -> str:
        """Returns the closing bracket."""
        return "\n]\n" if count else "]\n"

    def read(self, file: TextIO) -> Iterator[Earlier]:
        """Yields the lines between the brackets."""
        if (start := file.readline().strip()) not in ("[", "[]"):
            raise ValueError(f"it begins with {start[:20]!r}")
        for line in file:
            line = line.strip().removesuffix(",")
            if line == "]":
                return
            values = json.loads(line)
            yield Earlier(_named(values), line, "error" in values)


class CsvFormat(Format):
    """One row per caption (RFC 4180, but line ends as on Unix); a row without a rank for an image that failed."""

    COLUMNS = ("image", "rank", "caption", "score", "confidence", "alt", "needs_review", "error")

    def head(self) -> str:
        """Returns the header."""
        return self._row(self.COLUMNS)

    def write(self, record: Record) -> str:
        """Returns the rows of one image."""
        image = readable(record.image)
        if record.error:
            return self._row((image, *[""] * 6, record.error))
        rows: list[tuple[Any, ...]] = [
            (rank, one.caption, one.score, one.confidence, one.alt, one.needs_review)
            for rank, one in enumerate(record.captions, start=1)
        ]
        return "".join(self._row((image, *row, record.sidecar_error)) for row in rows or [("",) * 6])

    def read(self, file: TextIO) -> Iterator[Earlier]:
        """Yields the rows of one image after another."""
        rows = csv.reader(file, strict=True)
        header = tuple(next(rows, ()))
        if header != self.COLUMNS:
            raise ValueError(f"its columns are {', '.join(header)}; now they are {', '.join(self.COLUMNS)}")
        for image, group in itertools.groupby(rows, key=lambda row: row[0]):
            own = list(group)
            # Without a rank it failed, unless there is no error either: then no caption was sure enough.
            failed = all(not row[1] and row[-1] for row in own)
            yield Earlier(image, "".join(map(self._row, own)), failed)

    @staticmethod
    def _row(values: tuple[Any, ...] | list[str]) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\r\n").writerow(values)  # which makes it quote both signs
        return buffer.getvalue().removesuffix("\r\n") + "\n"


def _ended(line: str) -> str:
    """Returns a line with its end, which the last one of a file that somebody edited may lack."""
    return line if line.endswith("\n") else f"{line}\n"


def _named(values: dict[str, Any]) -> str:
    if not isinstance(values["image"], str):
        raise ValueError(f"an image is called {values['image']!r}")
    return values["image"]


FORMATS = ("text", "json", "jsonl", "csv", "html")


def find_format(name: str, *, folder: Path) -> Format:
    """Returns the format of this name, one of `FORMATS`.

    Args:
        name: of the format.
        folder: where the file will be, for links in it.
    """
    if name == "html":
        from showtell.outputs.sheet import SheetFormat

        return SheetFormat(folder)
    if name == "csv":
        return CsvFormat()
    if name == "text":
        return TextFormat()
    return JsonFormat() if name == "json" else JsonLinesFormat()


def read_earlier(path: Path, form: Format) -> Iterator[Earlier]:
    """Yields the records of a file that an earlier command wrote, as they stand there.

    Raises:
        UsageError: it is in another format, or nobody's.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from form.read(file)
    except (ValueError, KeyError, TypeError, IndexError, StopIteration, csv.Error) as error:
        raise UsageError(
            f"{path}: --skip-existing reads what an earlier command wrote there in the same format, and this is "
            f"something else ({error}). Choose another --output or --format."
        ) from error
