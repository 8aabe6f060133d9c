"""Writing a feature cache so that a kill, a crash or a full disk loses at most the batch in flight."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from showtell.encoders.cache import HalfArray
from showtell.encoders.cache_contents import (
    DATA,
    HEADER_BYTES,
    JOURNAL,
    MANIFEST,
    Contents,
    Entry,
    describe_contents,
    describe_images,
)
from showtell.errors import CacheError
from showtell.files import write_atomically


class CacheWriter:
    """Appends rows to a cache, in an order that survives a kill: data, then journal, at last the manifest."""

    def __init__(self, folder: Path, contents: Contents) -> None:
        self.folder = folder
        self.contents = contents
        self.rows = contents.rows

    def __enter__(self) -> CacheWriter:
        with self._full_disk_explained(), contextlib.ExitStack() as stack:
            # The journal comes first: a features.npy without one is taken for somebody else's.
            self.journal = stack.enter_context(_open_for_append(self.folder / JOURNAL))
            self.journal_end = _end_of_last_line(self.journal)
            self.data = stack.enter_context(_open_for_append(self.folder / DATA))
            self.data_end = HEADER_BYTES + self.rows * self.contents.row_bytes
            self._cut_back()
            if self.journal_end == 0:
                header = json.dumps(describe_contents(self.contents), ensure_ascii=True)
                self._append_to_journal(header.encode() + b"\n")
            if os.fstat(self.data.fileno()).st_size < HEADER_BYTES:
                self._write_header(0)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def append(self, items: Sequence[tuple[str, Entry]], features: HalfArray) -> None:
        """Writes the features of a batch, durably.

        Args:
            items: image id and entry, whose row is set here.
            features: float16 (images, cells, channels) or (images, channels), in the same order.

        Raises:
            CacheError: the disk is full or has failed; what was finished before is kept.
        """
        if not items:
            return
        entries = {
            image_id: replace(entry, row=self.rows + position)
            for position, (image_id, entry) in enumerate(items)
        }
        line = json.dumps(describe_images(entries), ensure_ascii=True).encode() + b"\n"
        with self._full_disk_explained():
            _write_all(self.data, features.tobytes(), self.data_end)
            os.fsync(self.data.fileno())
            self._append_to_journal(line)
        self.data_end += features.nbytes
        self.rows += len(items)
        self.contents.images.update(entries)

    def finish(self, unreadable: Mapping[str, str]) -> None:
        """Writes the manifest and removes the journal."""
        listed = {**self.contents.unreadable, **unreadable}
        manifest = {
            **describe_contents(self.contents),
            "unreadable": {key: reason for key, reason in listed.items() if key not in self.contents.images},
            "images": describe_images(self.contents.images),
        }
        with self._full_disk_explained():
            self._write_header(self.rows)
            os.fsync(self.data.fileno())
            write_atomically(self.folder / MANIFEST, json.dumps(manifest, ensure_ascii=True).encode())
        (self.folder / JOURNAL).unlink()

    def _append_to_journal(self, line: bytes) -> None:
        _write_all(self.journal, line, self.journal_end)
        os.fsync(self.journal.fileno())
        self.journal_end += len(line)

    def _write_header(self, rows: int) -> None:
        """Writes the .npy header in its place; the room in it fits any number of rows."""
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f2", "fortran_order": False, "shape": (rows, *self.contents.shape)}
        )
        if len(header.getvalue()) != HEADER_BYTES:
            raise CacheError(
                f"{self.folder}: features of shape {self.contents.shape} do not fit the cache's header."
            )
        _write_all(self.data, header.getvalue(), 0)

    def _cut_back(self) -> None:
        """Removes what was written after the last finished batch."""
        with contextlib.suppress(OSError):
            if os.fstat(self.journal.fileno()).st_size > self.journal_end:
                os.ftruncate(self.journal.fileno(), self.journal_end)
            if os.fstat(self.data.fileno()).st_size > self.data_end:
                os.ftruncate(self.data.fileno(), self.data_end)

    @contextlib.contextmanager
    def _full_disk_explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if hasattr(self, "data_end"):
                self._cut_back()
            raise CacheError(
                f"{self.folder}: the features cannot be written: {error.strerror or error}. "
                f"{len(self.contents.images)} images are finished and kept. Make room (or choose a folder on "
                "another disk) and run again; it goes on where it stopped."
            ) from error


def _open_for_append(path: Path) -> BinaryIO:
    """Opens a file for reading and writing without emptying it."""
    return os.fdopen(
        os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b", buffering=0
    )


def _end_of_last_line(file: BinaryIO) -> int:
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def _write_all(file: BinaryIO, data: bytes, offset: int) -> None:
    """Writes at an offset; unlike one unbuffered write, never only a part of the data without an error."""
    file.seek(offset)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
