"""Tables of image names and captions: CSV, TSV, `|`-separated, JSON lines, or a JSON list of objects.

Among them the `image,caption` file that circulates for Flickr8k (`captions.txt`), Flickr30k's
`image_name| comment_number| comment` (`results.csv`), and the `metadata.csv` / `metadata.jsonl` of image
folders. Columns are found by the usual names, or named by the caller. An image may have many rows, or one
row with many captions (a list in JSON, or columns `caption_1`, `caption_2`, ...).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from showtell.data.readers.gathering import (
    Gathering,
    clean_name,
    find_image_folder,
    read_json,
    read_lines,
    read_split,
    read_text,
)
from showtell.data.readers.options import ReadOptions
from showtell.data.records import Dataset
from showtell.errors import DataError, UsageError, did_you_mean

COLUMNS = ("image", "caption", "split")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
_USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "image_name", "file_name", "filename", "file", "image_path", "path", "img"),
    "caption": ("caption", "captions", "comment", "text", "sentence", "sentences", "description", "raw"),
    "split": ("split", "set", "partition", "subset"),
}
_DELIMITERS = (",", "\t", "|", ";")
_FOLDER_FILES = ("captions.txt", "captions.csv", "captions.tsv", "captions.jsonl", "captions.json")


@dataclass(frozen=True, slots=True)
class _Header:
    """Which columns hold what; positions in a delimited file, keys in JSON."""

    image: str
    captions: tuple[str, ...]
    split: str | None


def find_files(folder: Path) -> list[Path]:
    """Returns the tables in a folder whose header names an image and a caption column."""
    files = sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and (file.suffix.lower() in SUFFIXES or file.name.lower() in _FOLDER_FILES)
    )
    return [file for file in files if is_table(file)]


def is_table(file: Path) -> bool:
    """Returns whether the file starts like a table with an image and a caption column under usual names."""
    try:
        with file.open("rb") as stream:
            head = stream.read(65536).removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return False
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    text = head.decode(encoding, "replace").lstrip()
    if text.startswith("["):  # a JSON list: the keys of its first objects tell
        keys = re.findall(r'"([^"\\]+)"\s*:', text[:4096])
        return _find_columns(keys, None) is not None
    first = text.split("\n", 1)[0].rstrip("\r")
    if first.startswith("{"):
        try:
            row = json.loads(first)
        except ValueError:
            return False
        return isinstance(row, dict) and _find_columns(list(row), None) is not None
    return _find_delimiter(first, None) is not None


def read(path: Path, options: ReadOptions) -> Dataset:
    """Reads a table of images and captions.

    Args:
        path: the file, or a folder that holds exactly one.
        options: `images` and `columns` are used.

    Returns:
        The images in the order of their first rows; the id is the name relative to the image folder.

    Raises:
        UsageError: `columns` has a key other than image, caption and split.
        DataError: no such columns, a name that leads out of the folder, an unknown split.
    """
    for key in options.columns or {}:
        if key not in COLUMNS:
            raise UsageError(
                f"columns: unknown key {key!r}.{did_you_mean(key, COLUMNS)} "
                f"The keys are: {', '.join(COLUMNS)}"
            )
    file = _find_file(path)
    gathering = Gathering(path)
    rows = list(_read_rows(file, options.columns, gathering))
    names = list(dict.fromkeys(name for name, _, _, _ in rows))
    places = ("images", "Images", file.stem, "Flicker8k_Dataset", "flickr30k_images", "../images", "")
    folder = find_image_folder([file.parent / place for place in places], names, options.images)
    for name, captions, split, line in rows:
        gathering.add_image(name, folder / name, split)
        for caption in captions:
            gathering.add_caption(name, caption, f"{file.name}:{line}")
    return gathering.dataset("table")


def _find_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = find_files(path)
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise DataError(
            f"{path}: exactly one table with an image and a caption column is expected (read as table). "
            f"Found: {found}. Name the file itself"
        )
    return files[0]


_Row = tuple[str, list[str], str | None, int]  # image name, captions, split, line


def _read_rows(file: Path, columns: Mapping[str, str] | None, gathering: Gathering) -> Iterator[_Row]:
    start = read_text(file, file.name, Gathering(file)).lstrip()[:1]
    if not start:
        raise DataError(f"{file} is empty")
    if start == "[":
        return _read_json_list(file, columns, gathering)
    if start == "{":
        return _read_json_lines(file, columns, gathering)
    return _read_delimited(file, columns, gathering)


# ---------------------------------------------------------------------------------------------- columns


def _find_columns(names: list[str], columns: Mapping[str, str] | None) -> _Header | None:
    """Returns the header, or None where the image or caption column is not among `names`."""
    lower = {name.lower(): name for name in reversed(names)}

    def find(role: str) -> str | None:
        if columns is not None and role in columns:
            return columns[role] if columns[role] in names else None
        return next((lower[usual] for usual in _USUAL_NAMES[role] if usual in lower), None)

    image, caption = find("image"), find("caption")
    captions: tuple[str, ...] = (caption,) if caption is not None else ()
    if not captions and not (columns and "caption" in columns):
        captions = tuple(name for name in names if re.fullmatch(r"(?i)caption[ _-]?\d+", name))
    if image is None or not captions or (columns and "split" in columns and columns["split"] not in names):
        return None
    return _Header(image, captions, find("split"))


def _missing_columns(file: Path, names: list[str], columns: Mapping[str, str] | None) -> DataError:
    if columns:
        absent = [(role, name) for role, name in columns.items() if name not in names]
        if absent:
            role, name = absent[0]
            return DataError(
                f"{file} has no column {name!r} (asked for as {role}).{did_you_mean(name, names)} "
                f"Its columns are: {', '.join(names)}"
            )
    usual = "; ".join(f"{role}: {', '.join(_USUAL_NAMES[role])}" for role in ("image", "caption"))
    return DataError(
        f"{file} has no column with a usual name for the image and the caption. "
        f"Its columns are: {', '.join(map(repr, names)) or 'none'}. Usual names are: {usual}. "
        "Name them with columns={'image': ..., 'caption': ...}"
    )


# ---------------------------------------------------------------------------------------------- delimited


def _find_delimiter(header: str, columns: Mapping[str, str] | None) -> str | None:
    """Returns the delimiter that splits the header line into columns that we know."""
    for delimiter in _DELIMITERS:
        if _find_columns(_split_header(header, delimiter), columns) is not None:
            return delimiter
    return None


def _split_header(header: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"').strip() for name in header.split(delimiter)]


def _read_delimited(file: Path, columns: Mapping[str, str] | None, gathering: Gathering) -> Iterator[_Row]:
    text = read_text(file, file.name, gathering)
    header_line = next(line for line in text.split("\n") if line.strip()).rstrip("\r")
    delimiter = _find_delimiter(header_line, columns)
    if delimiter is None:
        likeliest = max(_DELIMITERS, key=header_line.count)
        raise _missing_columns(file, _split_header(header_line, likeliest), columns)
    names = _split_header(header_line, delimiter)
    header = _find_columns(names, columns)
    if header is None:  # cannot be: the delimiter was found by this very test
        raise _missing_columns(file, names, columns)
    image, captions = names.index(header.image), [names.index(name) for name in header.captions]
    split = names.index(header.split) if header.split is not None else None
    quoted = delimiter in ",;"
    rows = _split_quoted(text, delimiter, file, gathering) if quoted else _split_plain(text, delimiter)
    next(rows)  # the header
    for line, fields in rows:
        where = f"{file.name}:{line}"
        if len(fields) > len(names) and captions == [len(names) - 1]:
            # Only the last column is free text: what is too much are delimiters that nobody quoted.
            surplus = delimiter.join(fields[len(names) - 1 :])
            fields = [*fields[: len(names) - 1], surplus]
            gathering.report(
                "unquoted-delimiter",
                where,
                f"An unquoted {delimiter!r} is taken as part of the caption.",
                "warning",
            )
        if len(fields) != len(names):
            gathering.report(
                "bad-row",
                where,
                f"The row has {len(fields)} fields, the header {len(names)}; it is left out.",
            )
            continue
        if not quoted:
            fields = [_unquote(field) for field in fields]
        name = clean_name(fields[image], f"{file}:{line}")
        texts = [fields[position] for position in captions]
        if len(texts) > 1:  # caption_1 ... caption_5: fewer captions than columns is no mistake
            texts = [text for text in texts if text.strip()] or [""]
        yield name, texts, read_split(fields[split], f"{file}:{line}") if split is not None else None, line


def _split_quoted(
    text: str, delimiter: str, file: Path, gathering: Gathering
) -> Iterator[tuple[int, list[str]]]:
    """Yields (line, fields) of a CSV (RFC 4180); rows with broken quotes are reported and left out."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            gathering.report(
                "bad-row",
                f"{file.name}:{first}",
                f"Lines {first} to {reader.line_num} are no row ({error}); they are left out.",
            )
            continue
        if any(field.strip() for field in fields):
            yield reader.line_num, fields


def _split_plain(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (line, fields), quotes included: `_unquote` takes off those that enclose a whole field."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r").split(delimiter)


def _unquote(field: str) -> str:
    inner = field.strip()
    if len(inner) < 2 or inner[0] != '"' or inner[-1] != '"' or '"' in inner[1:-1].replace('""', ""):
        return inner
    return inner[1:-1].replace('""', '"')


# ---------------------------------------------------------------------------------------------- JSON


def _read_json_lines(file: Path, columns: Mapping[str, str] | None, gathering: Gathering) -> Iterator[_Row]:
    for line, text in read_lines(file, file.name, gathering):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            what = f": {error}"
            if isinstance(error, json.JSONDecodeError):
                what = f", column {error.colno}: {error.msg}"
            raise DataError(f"{file} is not valid JSON lines: line {line}{what}") from error
        yield _read_object(row, line, f"{file}:{line}", columns)


def _read_json_list(file: Path, columns: Mapping[str, str] | None, gathering: Gathering) -> Iterator[_Row]:
    for index, row in enumerate(read_json(file, gathering)):
        yield _read_object(row, index, f"{file}: [{index}]", columns)


def _read_object(row: Any, line: int, where: str, columns: Mapping[str, str] | None) -> _Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: an object with an image and a caption is expected. Received: {row!r:.80}")
    header = _find_columns(list(row), columns)
    if header is None and columns and "split" in columns and columns["split"] not in row:
        # Unlike a table, JSON may leave a key out where it has nothing to say.
        header = _find_columns(list(row), {role: name for role, name in columns.items() if role != "split"})
    if header is None:
        raise _missing_columns(Path(where), list(row), columns)
    captions: list[str] = []
    for key in header.captions:
        value = row[key]
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            if not isinstance(text, str):
                raise DataError(f"{where}: {key!r} must be a text or texts. Received: {value!r:.80}")
        captions += texts
    split = read_split(row[header.split], where) if header.split is not None else None
    return clean_name(row[header.image], where), captions, split, line
