"""The plan: all images of a job in numbered shards, made once and kept beside the results.

A shard is what one worker does at a time, and what is lost when it is killed: some images by name, some rows of a
Parquet file, or one tar file. The plan is written before the first image is captioned and read again by every later
run, so that "shard 17" always means the same images. It is read line by line, whatever its length.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from showtell.captioner import BATCH, FIRST_BATCH, start_of_batch
from showtell.errors import DataError
from showtell.outputs import one_line

UNKNOWN_LENGTH = 1 << 24  # positions that are left for a file whose images nobody has counted
_BUCKETS = 64
_NAMED = 5  # duplicates in a message


@dataclass(frozen=True, slots=True)
class Picture:
    """One image that is named in a list, a table or a folder."""

    key: str  # what its row is called
    place: str  # where it is


@dataclass(frozen=True, slots=True)
class Part:
    """Images that lie in one file: rows of a Parquet file, or a whole tar file."""

    kind: str  # "parquet" or "webdataset"
    file: str
    first: int = 0  # row
    count: int | None = None  # rows; None: all that there are, which nobody has counted


@dataclass(frozen=True, slots=True)
class Shard:
    """What one worker does at a time: named images, or a part of a file."""

    number: int
    start: int  # the position of its first image in the whole job, for the search; a batch begins there
    pictures: tuple[Picture, ...] = ()
    part: Part | None = None
    earlier: str = ""  # the SHA-256 of its file of rows, where it is done again; not in the plan

    @property
    def count(self) -> int | None:
        """How many images it has, if that is known."""
        return self.part.count if self.part is not None else len(self.pictures)

    def to_line(self) -> bytes:
        """Returns it as one line of JSON; names that are not UTF-8 survive as escapes."""
        values: dict[str, Any] = {"shard": self.number, "start": self.start}
        if self.part is not None:
            values["part"] = [self.part.kind, self.part.file, self.part.first, self.part.count]
        else:
            values["images"] = [[one.key, one.place] for one in self.pictures]
        return json.dumps(values).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Shard:
        """Reads what `to_line` wrote."""
        values = json.loads(line)
        part = values.get("part")
        pictures = tuple(Picture(*one) for one in values.get("images", ()))
        return cls(values["shard"], values["start"], pictures, None if part is None else Part(*part))


def cut_shards(pieces: Iterable[Picture | Part], size: int) -> Iterator[Shard]:
    """Yields numbered shards of at most `size` named images each, and of one part each.

    Named images have the position that they have for `Captioner.caption`, and shards begin where a batch begins; so
    their captions are bit for bit those of one run through all of them.

    Args:
        pieces: in the order of the results.
        size: a multiple of `showtell.captioner.BATCH`.
    """
    number = position = 0
    waiting: list[Picture] = []

    def limit() -> int:
        return size if position else size - (BATCH - FIRST_BATCH)

    def flush() -> Iterator[Shard]:
        nonlocal number, position, waiting
        if waiting:
            yield Shard(number, position, tuple(waiting))
            number, position, waiting = number + 1, _next_batch(position + len(waiting)), []

    for piece in pieces:
        if isinstance(piece, Part):
            yield from flush()
            yield Shard(number, position, part=piece)
            length = UNKNOWN_LENGTH if piece.count is None else piece.count
            number, position = number + 1, _next_batch(position + length)
        else:
            waiting.append(piece)
            if len(waiting) == limit():
                yield from flush()
    yield from flush()


def _next_batch(position: int) -> int:
    """Returns the first position from `position` on where a batch begins."""
    start = start_of_batch(position)
    return position if start == position else (start + BATCH if start else FIRST_BATCH)


@dataclass(frozen=True)
class Plan:
    """How much there is to do."""

    shards: int
    images: int | None  # None where nobody has counted them


def write_plan(shards: Iterable[Shard], file: IO[bytes], keys: Callable[[], Iterable[str]] = tuple) -> Plan:
    """Writes a plan, and makes sure that no two rows would have the same key.

    Memory does not grow with the number of images: of each key eight bytes go to a temporary file.

    Args:
        shards: in their order.
        file: to write to, and to read again.
        keys: gives the keys of rows that are in files, where the user named a column of them.

    Raises:
        DataError: no images, or several with one key.
    """
    count = 0
    images: int | None = 0
    with tempfile.TemporaryDirectory(prefix="showtell-") as folder, _Digests(Path(folder)) as digests:
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=3, mtime=0) as packed:
            for shard in shards:
                packed.write(shard.to_line())
                count += 1
                images = None if images is None or shard.count is None else images + shard.count
                for key in _keys_of(shard):
                    digests.add(key)
        if not count or images == 0:
            raise DataError("There are no images in the input.")
        for key in keys():
            digests.add(key)
        suspects = digests.repeated()
    if suspects:
        file.seek(0)
        seen = Counter(
            key for shard in read_plan(file) for key in _keys_of(shard) if _digest(key) in suspects
        )
        seen.update(key for key in keys() if _digest(key) in suspects)
        twice = [key for key, times in seen.items() if times > 1]
        if twice:
            more = f" and {len(twice) - _NAMED:,} more" if len(twice) > _NAMED else ""
            raise DataError(
                f"Keys that occur more than once ({len(twice):,}): {', '.join(map(one_line, twice[:_NAMED]))}{more}. "
                "Each image has one row, which is found by its key: remove the repetitions (in Parquet, --key-column "
                "may name another column)."
            )
    return Plan(count, images)


def read_plan(file: IO[bytes]) -> Iterator[Shard]:
    """Yields the shards of a plan.

    Raises:
        DataError: it is damaged.
    """
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as packed:
            yield from map(Shard.from_line, packed)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"The plan of the results is damaged ({error}). Choose another --output.") from None


def _keys_of(shard: Shard) -> Iterator[str]:
    if shard.part is not None:
        yield f"{shard.part.file}#{shard.part.first}"
    for picture in shard.pictures:
        yield picture.key


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(key), digest_size=8).digest(), "little")


class _Digests:
    """Digests of keys, spread over files so that each fits into memory."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / str(number) for number in range(_BUCKETS)]

    def __enter__(self) -> _Digests:
        self._files = [path.open("wb") for path in self._paths]
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def add(self, key: str) -> None:
        digest = _digest(key)
        self._files[digest % _BUCKETS].write(digest.to_bytes(8, "little"))

    def repeated(self) -> set[int]:
        """Returns the digests that were added more than once."""
        found: set[int] = set()
        for file, path in zip(self._files, self._paths):
            file.flush()
            values, counts = np.unique(np.fromfile(path, dtype="<u8"), return_counts=True)
            found.update(values[counts > 1].tolist())
        return found
