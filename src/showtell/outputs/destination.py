"""Where results go: a stream that somebody reads at once, or a file that is whole when it is there."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from showtell.files import open_atomically, remove_neighbours
from showtell.outputs.formats import Format, read_earlier
from showtell.outputs.journal import Journal
from showtell.outputs.record import Record


class Destination(ABC):
    """Takes the records of one command in their order; a context manager around all of them."""

    def __enter__(self) -> Destination:
        """Returns itself."""
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves nothing that is half written."""

    @abstractmethod
    def add(self, record: Record) -> None:
        """Takes the next record."""

    @abstractmethod
    def finish(self) -> None:
        """Is called when there are no more."""


class StreamDestination(Destination):
    """Writes each record at once.

    Args:
        form: the format.
        write: takes text, and hands it on before it returns.
    """

    def __init__(self, form: Format, write: Callable[[str], object]) -> None:
        self._form = form
        self._write = write
        self._count = 0
        self._open = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes the tail of what was interrupted, so that the JSON or HTML that is there can be read."""
        if self._open and not isinstance(error, OSError):
            self._close()

    def add(self, record: Record) -> None:
        """Writes the record."""
        written = self._form.write(record)
        head = "" if self._open else self._form.head()
        self._open = True
        if written:
            self._write(head + self._form.join(written, first=not self._count))
            self._count += 1
        elif head:
            self._write(head)

    def finish(self) -> None:
        """Writes the tail."""
        if not self._open:
            self._write(self._form.head())
        self._close()

    def _close(self) -> None:
        self._open = False
        if tail := self._form.tail(self._count):
            self._write(tail)


class FileDestination(Destination):
    """Collects records in a journal, and makes the file from it at the end, in one rename.

    Args:
        path: the file.
        form: the format.
        journal: open; records that it has already are part of the file.
        extend: whether what the file holds already stays, in front of what is added.

    Raises:
        UsageError: the file is to be extended, and was written by something else.
    """

    def __init__(self, path: Path, form: Format, journal: Journal, *, extend: bool = False) -> None:
        self.journal = journal
        self._path = path
        self._form = form
        self._extend = extend and path.exists()
        # Sixteen bytes for each image, about 100 with what Python needs for them.
        self._journaled = {self._digest(form.spell(record.image)) for record in journal.records()}
        self._earlier: set[bytes] = set()
        if self._extend:
            self._earlier = {self._digest(one.image) for one in read_earlier(path, form) if not one.failed}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the journal."""
        self.journal.__exit__(kind, error, trace)

    def has(self, image: str) -> bool:
        """Returns whether the journal had the image when this began."""
        return self._digest(self._form.spell(image)) in self._journaled

    def had(self, image: str) -> bool:
        """Returns whether the image is in the file that is extended, with captions."""
        return self._digest(self._form.spell(image)) in self._earlier

    def add(self, record: Record) -> None:
        """Writes the record into the journal."""
        self.journal.add(record)

    def finish(self) -> None:
        """Makes the file, then removes the journal; a kill in between is made good by the next run."""
        remove_neighbours(self._path)
        count = 0
        with open_atomically(self._path) as file:
            file.write(self._form.head().encode())
            if self._extend:
                in_journal = {
                    self._digest(self._form.spell(record.image)) for record in self.journal.records()
                }
                # Those that failed, too, unless they were tried again: nothing else says that they lack captions.
                for one in read_earlier(self._path, self._form):
                    if self._digest(one.image) not in in_journal:
                        file.write(self._form.join(one.written, first=not count).encode())
                        count += 1
            for record in self.journal.records():
                if written := self._form.write(record):
                    file.write(self._form.join(written, first=not count).encode())
                    count += 1
            file.write(self._form.tail(count).encode())
        self.journal.remove()

    @staticmethod
    def _digest(image: str) -> bytes:
        return hashlib.blake2b(image.encode(), digest_size=16).digest()
