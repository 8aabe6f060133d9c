"""What all readers share: captions and splits gathered by image, text decoded, names checked, folders found.

A reader calls `Gathering` with what its format says and returns `Gathering.dataset()`. The rules that
must hold for every format live here once: an image is in one split or the data set is refused; empty
captions are left out and reported; an image name cannot lead out of the image folder.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from showtell.data.records import SPLITS, CaptionedImage, Dataset, Problem
from showtell.errors import DataError, count, did_you_mean

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
}
_NAMED_AT_MOST = 5  # how many examples an error message lists


class Gathering:
    """Collects captions and splits by image, in the order in which the source first names each image."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._paths: dict[str, Path] = {}
        self._captions: dict[str, list[str]] = {}
        self._splits: dict[str, set[str]] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._paths

    def ids(self) -> list[str]:
        """Returns the ids so far, in order."""
        return list(self._paths)

    def add_image(self, id: str, path: Path, split: str | None = None) -> None:
        """Adds an image, or a further split to one that is there (`dataset` then refuses the whole)."""
        if id not in self._paths:
            self._paths[id], self._captions[id], self._splits[id] = path, [], set()
        if split is not None:
            self._splits[id].add(split)

    def path(self, id: str) -> Path:
        """Returns the path of an image that was added."""
        return self._paths[id]

    def remove(self, id: str) -> None:
        """Forgets an image and its captions."""
        del self._paths[id], self._captions[id], self._splits[id]

    def add_caption(self, id: str, caption: str, where: str) -> None:
        """Adds a caption as written but stripped; an empty one is reported and left out."""
        text = caption.strip()
        if not text:
            self.report("empty-caption", where, f"A caption of image {id!r} is empty; it is left out.")
            return
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON's \u escapes can write
            text = text.encode("utf-8", "replace").decode()
            self.report("bad-encoding", where, f"A caption of image {id!r} holds half a character, now '?'.")
        self._captions[id].append(text)

    def report(self, kind: str, where: str, message: str, severity: str = "error") -> None:
        """Notes something wrong that reading goes on from."""
        self.problems.append(Problem(kind, where, message, severity))

    def dataset(self, format: str) -> Dataset:
        """Returns the data set; images without any caption are reported and left out.

        Raises:
            DataError: an image stands in several splits, or nothing is left.
        """
        straddling = [id for id in self._paths if len(self._splits[id]) > 1]
        if straddling:
            examples = [f"{id} ({', '.join(sorted(self._splits[id]))})" for id in straddling]
            raise DataError(
                f"{self.source}: {count(len(straddling), 'image')} in more than one split: "
                f"{listing(examples)}. A model trained on this would be judged on what it has seen. "
                "Correct the split lists, or read only the files that belong together"
            )
        images = []
        for id, path in self._paths.items():
            if not self._captions[id]:
                self.report("no-captions", id, f"Image {id!r} has no caption; it is left out.")
                continue
            split = next(iter(self._splits[id]), None)
            images.append(CaptionedImage(id, path, tuple(self._captions[id]), split))
        if not images:
            raise DataError(
                f"{self.source}: no image with a caption in it (read as {format}; "
                f"{count(len(self._paths), 'image')} without captions)"
            )
        return Dataset(dataset_name(self.source), format, tuple(images), tuple(self.problems))


def dataset_name(source: Path) -> str:
    """Returns the folder's name, or the file's without its last suffix."""
    source = source.absolute()
    return (source.name if source.is_dir() else source.stem) or "data"


def listing(examples: Sequence[str]) -> str:
    """Returns the first few of `examples` in one line, and how many more there are."""
    shown = ", ".join(examples[:_NAMED_AT_MOST])
    return shown if len(examples) <= _NAMED_AT_MOST else f"{shown} and {len(examples) - _NAMED_AT_MOST} more"


# ---------------------------------------------------------------------------------------------- text


def read_text(path: Path, where: str, gathering: Gathering) -> str:
    """Returns a file's text; bytes that are not UTF-8 are replaced by U+FFFD and reported line by line.

    A byte order mark is dropped; UTF-16 is read where such a mark announces it (Excel's "Unicode text").

    Raises:
        DataError: the file cannot be read, or holds no text.
    """
    content = read_bytes(path)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} begins as UTF-16, but is not ({error}). Save it as UTF-8") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    if b"\x00" in content[:4096]:
        raise DataError(f"{path} is a binary file; a text file with captions was expected")
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            byte = line[error.start]
            gathering.report(
                "bad-encoding",
                f"{where}:{number}",
                f"Byte 0x{byte:02x} at column {error.start + 1} is not UTF-8; it is read as U+FFFD.",
            )
    return b"\n".join(lines).decode("utf-8", "replace")


def read_lines(path: Path, where: str, gathering: Gathering) -> list[tuple[int, str]]:
    r"""Returns (line number, line) of every line that is not blank.

    Only \n and \r\n end a line: `str.splitlines` would also cut captions at form feeds and U+2028.
    """
    lines = read_text(path, where, gathering).split("\n")
    return [(number, line.removesuffix("\r")) for number, line in enumerate(lines, 1) if line.strip()]


def read_bytes(path: Path) -> bytes:
    """Returns a file's bytes.

    Raises:
        DataError: the file is missing, is no file, or may not be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def read_json(path: Path, gathering: Gathering) -> Any:
    """Returns the content of a JSON file.

    Raises:
        DataError: no valid JSON; the message gives line and column.
    """
    text = read_text(path, path.name, gathering)
    if not text.strip():
        raise DataError(f"{path} is empty")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}. "
            "Perhaps the file was cut short while it was copied"
        ) from error
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise DataError(f"{path} is not JSON that can be read: {error}") from error


# ---------------------------------------------------------------------------------------------- splits


def read_split(word: object, where: str) -> str | None:
    """Returns "train", "dev" or "test" for a split as data sets write it, or None for an empty one.

    Raises:
        DataError: an unknown split.
    """
    if word is None or word == "":
        return None
    known = _SPLIT_WORDS.get(word.strip().lower()) if isinstance(word, str) else None
    if known is None and not (isinstance(word, str) and not word.strip()):
        raise DataError(
            f"{where}: unknown split {word!r}.{did_you_mean(str(word).lower(), _SPLIT_WORDS)} "
            f"The splits are {', '.join(SPLITS)}; val, valid and validation are read as dev"
        )
    return known


def split_in_name(name: str) -> str | None:
    """Returns the split in the name of a file or folder, as `Flickr_8k.trainImages.txt`; None if 0 or 2."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    found = {_SPLIT_WORDS[word] for word in re.findall(r"[a-z]+", parted) if word in _SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def split_of_folder(name: str) -> str | None:
    """Returns the split that a folder is named after, as `train` or `val2017`; None for others, as `test drive`."""
    return _SPLIT_WORDS.get(re.sub(r"[\d_. -]+", "", name).lower())


# ---------------------------------------------------------------------------------------------- names


def clean_name(name: object, where: str) -> str:
    """Returns an image name relative to its folder, with forward slashes and no "." or "..".

    Raises:
        DataError: no name, a URL, an absolute path, or one that leads out of the image folder.
    """
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where}: the image name must be a text that is not empty. Received: {name!r}")
    if re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://", name):
        raise DataError(f"{where}: image {name!r} is a URL. Download the images first, and name the files")
    slashed = name.strip().replace("\\", "/")
    clean = posixpath.normpath(slashed)
    leaves = clean.startswith(("/", "../")) or clean in (".", "..") or re.match(r"^[A-Za-z]:", clean)
    if leaves or "\x00" in clean:
        raise DataError(
            f"{where}: image name {name!r} leads out of the image folder. "
            "Names must be relative to it and stay inside"
        )
    return clean


def find_image_folder(candidates: Iterable[Path], names: Sequence[str], images: Path | None) -> Path:
    """Returns the first candidate that holds the most of (a sample of) the named files.

    Args:
        candidates: the usual places, most usual first.
        names: relative file names that the data set mentions.
        images: the caller's own choice, which wins.

    Raises:
        DataError: `images` is not a folder.
    """
    if images is not None:
        if not images.is_dir():
            raise DataError(f"The image folder {images} does not exist.{near_siblings(images)}")
        return images
    folders = [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]
    sample = names[:: max(1, len(names) // 40)]
    hits = [sum((folder / name).is_file() for name in sample) for folder in folders]
    if not folders:
        return next(iter(candidates))
    return folders[hits.index(max(hits))]


def near_siblings(path: Path) -> str:
    """Returns " Did you mean ...?" for a path that does not exist, from what lies beside it."""
    try:
        names = [sibling.name for sibling in path.absolute().parent.iterdir()]
    except OSError:
        return f" Nor does its parent folder, {path.absolute().parent}, or it cannot be listed."
    return did_you_mean(path.name, names)
