"""Parquet files of images, or of paths to them: which column is what, how many rows there are, and the rows.

An image's column holds the bytes of a file, a path or an address, or both as Hugging Face's data sets have them (a
struct of `bytes` and `path`). Everything is read row group by row group: that much of a file is in
memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from showtell.bulk.places import open_place
from showtell.errors import DataError, UsageError, did_you_mean
from showtell.outputs import one_line

NAMES = (
    "image",
    "bytes",
    "jpg",
    "png",
    "content",
    "data",
    "path",
    "image_path",
    "file",
    "file_name",
    "filename",
    "url",
)
ROWS = 1024  # of a part that is made of small row groups
CUT_ABOVE = 4 * ROWS  # rows of a row group; a larger one is cut, and read once for each of its parts
_AT_ONCE = 32  # rows as Python's objects; pyarrow holds their row group
_DAMAGED = (pa.ArrowException, UnicodeDecodeError, OSError)


@dataclass(frozen=True)
class Columns:
    """Which columns the user named; None is for Showtell to find, or for keys to be made."""

    image: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Found:
    """The columns of one file."""

    image: str
    key: str | None
    holds_images: bool  # rather than paths


@dataclass(frozen=True)
class Table:
    """What the end of a Parquet file says about it."""

    schema: pa.Schema
    groups: tuple[int, ...]  # rows of each row group

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yields the first row and the number of rows of parts: whole row groups where these are small enough."""
        first = count = 0
        for rows in self.groups:
            if count and count + rows > ROWS:
                yield first, count
                first, count = first + count, 0
            while rows > CUT_ABOVE:
                yield first, ROWS
                first, rows = first + ROWS, rows - ROWS
            count += rows
        if count:
            yield first, count


def measure_table(place: str) -> Table | None:
    """Returns what the end of a Parquet file says; None where it is damaged or half written.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    with open_place(place) as file:
        try:
            metadata = pq.read_metadata(file)
            groups = tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
            if sum(groups) != metadata.num_rows:
                return None
            return Table(metadata.schema.to_arrow_schema(), groups)
        except _DAMAGED as error:
            if not _is_damage(error):
                raise
            return None


def find_columns(schema: pa.Schema, wanted: Columns, place: str) -> Found:
    """Returns the columns of a file.

    Raises:
        UsageError: they are not there, or hold something else.
    """
    for name, option in ((wanted.image, "--image-column"), (wanted.key, "--key-column")):
        if name is not None and name not in schema.names:
            raise UsageError(
                f"{one_line(place)} has no column {name!r} ({option}).{did_you_mean(name, schema.names)} "
                f"Its columns: {_listed(schema)}."
            )
    image = wanted.image or next(
        (name for name in NAMES if name in schema.names and _holds(schema, name)), None
    )
    if image is None:
        raise UsageError(
            f"{one_line(place)}: no column has images or paths to them that could be recognised. Name it with "
            f"--image-column. Its columns: {_listed(schema)}."
        )
    holds = _holds(schema, image)
    if not holds:
        raise UsageError(
            f"{one_line(place)}: the column {image!r} must hold the bytes of images, or paths. It holds "
            f"{schema.field(image).type}. Its columns: {_listed(schema)}."
        )
    return Found(image, wanted.key, holds == "bytes")


def read_keys(place: str, wanted: Columns) -> Iterator[str]:
    """Yields the keys of a file's rows where these hold images; nothing where it holds paths.

    Raises:
        DataError: it is damaged, so nobody can tell whether its keys are those of other rows, too.
    """
    table = measure_table(place)
    if table is None:
        raise DataError(
            f"{one_line(place)}: half written, damaged, or no Parquet file. Its keys are needed for the plan, since "
            "each occurs once: mend it, leave it out, or leave out --key-column."
        )
    found = find_columns(table.schema, wanted, place)
    if not found.holds_images:
        return
    assert found.key is not None
    for row, (key,) in enumerate(_rows(place, [found.key])):
        yield _key(key, place, row)


def read_places(place: str, wanted: Columns) -> Iterator[tuple[str, str]]:
    """Yields keys and places of the images that a file's rows name.

    Raises:
        DataError: a row names nothing, or the file is damaged.
    """
    with open_place(place) as file, _explained(place):
        found = find_columns(pq.read_schema(file), wanted, place)
    for row, (image, key) in enumerate(_rows(place, [found.image, found.key or found.image])):
        if not image:
            raise DataError(f"{one_line(place)}: row {row} has nothing in its column {found.image!r}.")
        yield (_key(key, place, row), image)


def read_images(
    place: str, wanted: Columns, first: int, count: int | None
) -> Iterator[tuple[str, bytes | None]]:
    """Yields the keys of rows, and the bytes of their images; None where a row has none.

    Raises:
        DataError: the file is damaged, half written, or has fewer rows than when the job was planned.
        UsageError: its columns are other ones.
        OSError: it cannot be read.
    """
    with open_place(place) as file, _explained(place):
        found = find_columns(pq.read_schema(file), wanted, place)
    if not found.holds_images:
        before = "it could not be read" if count is None else "it held images"
        raise DataError(
            f"{one_line(place)}: its column {found.image!r} holds paths, and {before} when the plan was made. Choose "
            "a new --output to caption these."
        )
    done = 0
    for image, key in _rows(place, [found.image, found.key or found.image], first, count):
        row = first + done
        done += 1
        name = f"{place}#{row}" if found.key is None else _key(key, place, row)
        yield name, image["bytes"] if isinstance(image, dict) else image
    if count is not None and done != count:
        raise DataError(f"{one_line(place)} has {first + done:,} rows, and had {first + count:,} or more.")


def _rows(
    place: str, columns: list[str], first: int = 0, count: int | None = None
) -> Iterator[tuple[Any, ...]]:
    """Yields the values of columns, row by row, from a range of rows."""
    with open_place(place) as file, _explained(place):
        table = pq.ParquetFile(file)
        groups: list[int] = []
        before = done = 0
        skip, left = 0, count
        for number in range(table.metadata.num_row_groups):
            rows = table.metadata.row_group(number).num_rows
            if before + rows > first and (count is None or before < first + count):
                if not groups:
                    skip = first - before
                groups.append(number)
            before += rows
        # Without pyarrow's threads: one that still has a Python file while the interpreter ends aborts the process.
        names = list(dict.fromkeys(columns))
        for batch in table.iter_batches(_AT_ONCE, row_groups=groups, columns=names, use_threads=False):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            batch = batch.slice(skip, left)
            skip = 0
            left = None if left is None else left - batch.num_rows
            done += batch.num_rows
            yield from zip(*(batch.column(name).to_pylist() for name in columns))
            if left == 0:
                return
        if count is None and done != table.metadata.num_rows - first:
            raise pa.ArrowInvalid(f"{done:,} rows could be read of {table.metadata.num_rows - first:,}")


class _explained:  # noqa: N801  # a context manager
    """Turns pyarrow's errors into one that names the file."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if _is_damage(error):
            raise DataError(
                f"{one_line(self._place)}: half written, damaged, or no Parquet file: {error}"
            ) from None


def _is_damage(error: BaseException | None) -> bool:
    # Of damaged pages and footers pyarrow also raises an OSError without a number; others it passes on as they are.
    return isinstance(error, _DAMAGED) and (not isinstance(error, OSError) or error.errno is None)


def _holds(schema: pa.Schema, name: str) -> str:
    """Returns "bytes", "path" or ""."""
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        return "bytes" if kind.get_field_index("bytes") >= 0 else ""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return "bytes"
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return "path" if is_text else ""


def _key(value: Any, place: str, row: int) -> str:
    if value is None:
        raise DataError(
            f"{one_line(place)}: row {row} has no key. Each row needs one, or leave out --key-column."
        )
    return str(value)


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
