"""From a path to a data set: which reader it takes, and several data sets as one.

A new format is a module in `readers/` and one line in `READERS`.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from showtell.data.readers import coco, flickr, folder, karpathy, table
from showtell.data.readers.gathering import Gathering, listing, near_siblings, read_json
from showtell.data.readers.options import ReadOptions
from showtell.data.records import CaptionedImage, Dataset
from showtell.errors import DataError, UsageError, count, did_you_mean


@dataclass(frozen=True, slots=True)
class Reader:
    """A format that can be read."""

    summary: str  # one line for people
    read: Callable[[Path, ReadOptions], Dataset]


READERS: Mapping[str, Reader] = {
    "coco": Reader("MS-COCO caption annotations: captions_*.json", coco.read),
    "karpathy": Reader("Karpathy's dataset_*.json, with his splits", karpathy.read),
    "flickr": Reader("Flickr8k/Flickr30k token file `name.jpg#0<TAB>caption`, with split lists", flickr.read),
    "table": Reader("CSV, TSV or JSON lines with image and caption columns", table.read),
    "folder": Reader("images with a text file each, one caption a line", folder.read),
}


def read_dataset(
    path: str | Path,
    *,
    format: str | None = None,
    images: Path | None = None,
    restval: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """Reads captioned images in any supported format. Image files are not opened, and may be missing.

    Args:
        path: a file or folder.
        format: one of `READERS`; guessed from the content where it is None.
        images: the folder of the image files, where it is not in one of the format's usual places.
        restval: "train" or "drop": what becomes of the split `restval`; other formats than karpathy
            ignore it.
        columns: {"image": ..., "caption": ..., "split": ...} -> column names; other formats than table
            ignore it.

    Raises:
        DataError: the path does not exist, is empty, holds another format than was asked for or than its
            name says, or cannot be read.
        SplitError: a choice about splits is missing.
        UsageError: an unknown format or option.
    """
    path = Path(path)
    if format is not None and format not in READERS:
        raise UsageError(
            f"Unknown format {format!r}.{did_you_mean(format, READERS)} The formats are: {', '.join(READERS)}"
        )
    _check_exists(path)
    if format is None:
        # A table whose columns only the caller can name is not recognised by their names.
        format = guess_format(path) if not columns or path.is_dir() else _guess_named_table(path)
        named = _format_in_name(path)
        if named is not None and named != format:
            raise DataError(_mismatch(path, f"its name is that of a {named} file", format))
    else:
        _check_format(path, format)
    return READERS[format].read(path, ReadOptions(images=images, restval=restval, columns=columns))


def guess_format(path: str | Path) -> str:
    """Returns the format of a file or folder by what is in it.

    Raises:
        DataError: it does not exist, is empty, or is in no format or in several.
    """
    path = Path(path)
    _check_exists(path)
    if not path.is_dir():
        found = _format_of_file(path)
        if found is not None:
            return found
        raise _unknown_content(path)
    formats = _formats_in_folder(path)
    if len(formats) > 1:
        shown = [f"{name}: {listing([file.name for file in files])}" for name, files in formats.items()]
        raise DataError(
            f"{path} holds data in {len(formats)} formats ({'; '.join(shown)}). "
            f"Choose with --format {' or --format '.join(formats)}, or name the file itself"
        )
    if formats:
        return next(iter(formats))
    raise _nothing_found(path)


def join_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """Returns several data sets as one; splits are kept.

    The ids of more than one set get their set's name in front, as `flickr8k/dog.jpg`; sets of equal names are
    numbered (`coco`, `coco-2`). A single set is returned as it is.

    Raises:
        UsageError: no data set at all.
        DataError: one image file is in different splits of different sets.
    """
    if not datasets:
        raise UsageError("No data set was given. Give at least one")
    if len(datasets) == 1:
        return datasets[0]
    names: list[str] = []
    for dataset in datasets:
        name = plain = dataset.name.replace("/", "_")
        number = 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    _check_shared_files(datasets, names)
    return Dataset(
        name="+".join(names),
        format="joined",
        images=tuple(
            replace(image, id=f"{name}/{image.id}")
            for name, dataset in zip(names, datasets)
            for image in dataset.images
        ),
        problems=tuple(
            replace(problem, where=f"{name}/{problem.where}")
            for name, dataset in zip(names, datasets)
            for problem in dataset.problems
        ),
    )


def find_straddling(
    datasets: Sequence[Dataset],
) -> Iterator[tuple[CaptionedImage, int, CaptionedImage, int]]:
    """Yields image files that are in different splits: an image, the number of its set, and the file's first ones."""
    first: dict[str, tuple[CaptionedImage, int]] = {}  # file -> its first image, and the set that has it
    for number, dataset in enumerate(datasets):
        for image in dataset.images:
            file = os.path.abspath(image.path)  # noqa: PTH100 - Path.resolve would read the disk each time
            known, owner = first.setdefault(file, (image, number))
            if known.split != image.split:
                yield image, number, known, owner


def _check_shared_files(datasets: Sequence[Dataset], names: Sequence[str]) -> None:
    straddling = [
        f"{image.path.name} ({known.split} in {names[owner]}, {image.split} in {names[number]})"
        for image, number, known, owner in find_straddling(datasets)
    ]
    if straddling:
        raise DataError(
            f"{count(len(straddling), 'image file')} in different splits of these data sets: "
            f"{listing(straddling)}. A model trained on this would be judged on what it has seen"
        )


# ---------------------------------------------------------------------------------------------- guessing


def _check_exists(path: Path) -> None:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"The data {path} does not exist.{near_siblings(path)}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"The data {str(path)!r} cannot be read: {error}") from error
    if path.is_dir():
        try:
            empty = next(path.iterdir(), None) is None
        except OSError as error:
            raise DataError(f"The folder {path} cannot be listed: {error.strerror}") from error
        if empty:
            raise DataError(f"The folder {path} is empty; captioned images were expected in it")
    elif not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder")
    elif path.stat().st_size == 0:
        raise DataError(f"The file {path} is empty (0 bytes); captions were expected in it")


def _format_of_file(path: Path) -> str | None:
    """Returns the format of one file by its content, or None."""
    if flickr.is_token_file(path):
        return "flickr"
    found = _format_of_json(path)
    if found is not None:
        return found
    return "table" if table.is_table(path) else None


def _format_of_json(path: Path) -> str | None:
    """Tells COCO's and Karpathy's JSON apart by their keys, without parsing what may be 100 MB."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if not re.match(rb"(?:\xef\xbb\xbf)?\s*[{]", content):
                return None
            # A quote inside a JSON text is escaped, so that no caption can look like one of these keys.
            if not re.search(rb'(?<!\\)"images"\s*:\s*\[', content):
                return None
            if re.search(rb'(?<!\\)"annotations"\s*:\s*\[', content):
                return "coco"
            return "karpathy" if re.search(rb'(?<!\\)"sentences"\s*:\s*\[', content) else None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError:  # an empty file cannot be mapped
        return None


def _formats_in_folder(path: Path) -> dict[str, list[Path]]:
    """Returns format -> the files that show it; "folder" only where there is nothing else."""
    found: dict[str, list[Path]] = {}
    try:
        annotations = coco.find_files(path)
        misnamed = [file for file in annotations if _format_of_file(file) not in ("coco", None)]
        if misnamed:
            actual = _format_of_file(misnamed[0]) or ""
            raise DataError(_mismatch(misnamed[0], "its name is that of a coco file", actual))
        others = [file for file in sorted(path.glob("*.json")) if file.is_file() and file not in annotations]
        by_format = {
            "coco": annotations,
            "karpathy": [file for file in others if _format_of_json(file) == "karpathy"],
            "flickr": flickr.find_files(path),
            "table": table.find_files(path),
        }
        found = {name: files for name, files in by_format.items() if files}
        if not found and folder.has_sidecars(path):
            found = {"folder": [path]}
    except OSError as error:
        raise DataError(f"The folder {path} cannot be read: {error}") from error
    return found


def _guess_named_table(path: Path) -> str:
    found = _format_of_file(path)
    return found if found is not None else "table"


def _format_in_name(path: Path) -> str | None:
    """Returns the format that a file's name promises, or None where it promises none."""
    name = path.name.lower()
    if path.is_dir():
        return None
    if re.fullmatch(r"captions_.*\.json", name):
        return "coco"
    if re.fullmatch(r"dataset_.*\.json", name):
        return "karpathy"
    if name.endswith((".token", ".token.txt")):
        return "flickr"
    return "table" if path.suffix.lower() in table.SUFFIXES else None


def _check_format(path: Path, format: str) -> None:
    """Refuses a format that the content contradicts; what we do not recognise is left to the reader."""
    if path.is_dir():
        formats = _formats_in_folder(path) if format != "coco" or not coco.find_files(path) else {}
        if formats and format not in formats and format != "folder":
            raise DataError(_mismatch(path, f"{format} was asked for", next(iter(formats))))
        return
    actual = _format_of_file(path)
    if actual is not None and actual != format:
        raise DataError(_mismatch(path, f"{format} was asked for", actual))


def _mismatch(path: Path, claim: str, actual: str) -> str:
    return (
        f"{path} looks like {actual} ({READERS[actual].summary}), but {claim}. Read it with --format {actual}"
    )


def _unknown_content(path: Path) -> DataError:
    """Says as exactly as possible why a file is in no known format."""
    with path.open("rb") as file:
        head = file.read(4096)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"{", b"[")) and path.suffix.lower() not in table.SUFFIXES:
        content = read_json(path, Gathering(path))  # raises where it is not valid: line and column
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else "none, it is a list"
        return DataError(
            f"{path} is valid JSON, but neither COCO annotations (images, annotations) nor Karpathy's "
            f"(images with sentences) nor rows with image and caption. Its keys are: {keys}"
        )
    if b"\x00" in head:
        what = "an image" if head.startswith((b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8")) else "a binary file"
        return DataError(f"{path} is {what}, not a data set. Its captions are what is to be named")
    first = head.decode("utf-8", "replace").split("\n", 1)[0].strip()[:80]
    return DataError(
        f"{path} is in no format that can be guessed; its first line is {first!r}. "
        "Name the format with --format, and the columns of a table with columns. "
        f"The formats are: {_formats_listed()}"
    )


def _nothing_found(path: Path) -> DataError:
    images = folder.count_images(path)
    broken = [file for file in sorted(path.glob("*.json")) if file.is_file()]
    for file in broken:
        read_json(file, Gathering(file))  # raises where it is not valid: line and column
    inside = _data_inside(path)
    if inside:
        return DataError(f"{path} holds no data itself, but folders that do: {listing(inside)}. Name one")
    held = f"{count(images, 'image')}, but no captions for them" if images else "neither captions nor images"
    return DataError(f"{path} holds {held} in a known format. The formats are: {_formats_listed()}")


def _data_inside(path: Path) -> list[str]:
    """Returns the sub-folders that hold data, for people who named the folder above."""
    found = []
    for child in sorted(path.iterdir()):
        if child.is_dir():
            try:
                found += (
                    [f"{child.name} ({', '.join(formats)})"] if (formats := _formats_in_folder(child)) else []
                )
            except DataError:
                continue
    return found


def _formats_listed() -> str:
    return "; ".join(f"{name} ({reader.summary})" for name, reader in READERS.items())
