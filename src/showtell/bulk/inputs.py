"""What a bulk job is given: folders, lists, Parquet files and tar files become pieces of a plan."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from showtell.bulk.places import (
    connect,
    exists,
    is_folder,
    is_remote,
    list_folder,
    match_pattern,
    open_place,
    walk_files,
)
from showtell.bulk.plan import Part, Picture
from showtell.bulk.tables import Columns, find_columns, measure_table, read_keys, read_places
from showtell.errors import DataError, InputError, UsageError
from showtell.files import expand_home
from showtell.images import IMAGE_SUFFIXES, is_url
from showtell.intake import expand_pattern, has_wildcards, scan_folder
from showtell.intake.lists import read_paths
from showtell.outputs import one_line

KINDS = ("auto", "images", "list", "parquet", "webdataset")
_TARS = (".tar", ".tar.gz", ".tgz")
_TABLES = (".parquet", ".pq")
_PACKED = {"parquet": _TABLES, "webdataset": _TARS}
_CALLED = {"parquet": "Parquet files", "webdataset": "tar files", "images": "images"}
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CONNECTIONS = 16  # footers of Parquet files that are read at once: over a network each takes a while


@dataclass(frozen=True)
class Inputs:
    """What the user named.

    Args:
        words: folders, patterns, lists, Parquet and tar files.
        kind: one of `KINDS`; "auto" goes by how names end.
        columns: of Parquet files.
    """

    words: Sequence[str]
    kind: str = "auto"
    columns: Columns = Columns()  # noqa: RUF009  # frozen

    def named(self) -> list[str]:
        """Returns the words as they mean the same wherever they are read."""
        return [word if is_remote(word) else os.path.abspath(expand_home(word)) for word in self.words]  # noqa: PTH100

    def pieces(self, passed_over: Counter[str] | None = None) -> Iterator[Picture | Part]:
        """Yields everything that there is to caption, in the order of the results.

        Args:
            passed_over: is given how many files of another kind lie in folders of images, by what they are called.

        Raises:
            InputError: there is nothing at a place, or a folder cannot be opened.
            UsageError: the columns are not there, or a folder holds several kinds.
            DataError: a list that is none.
            OSError: a place cannot be reached.
        """
        known: set[str] = set()  # schemes
        kinds: set[str] = set()
        for word in self._words():
            nothing = True
            others: Counter[str] = Counter()
            kind = self._kind_of(word)
            kinds.add(kind)
            for piece in self._pieces(word, kind, others):
                nothing = False
                if isinstance(piece, Picture):
                    _require_driver(piece.place, known)
                yield piece
            if nothing:
                below = f" {describe_others(others)}" if others else ""
                raise InputError(f"{one_line(word)}: there are no images here.{below}")
            if passed_over is not None:
                passed_over.update(others)
        if "parquet" not in kinds and (self.columns.image or self.columns.key):
            raise UsageError("--image-column and --key-column are of Parquet files, and the input has none.")

    def _words(self) -> Iterator[str]:
        yield from (word if is_remote(word) else str(expand_home(word)) for word in self.words)

    def _kind_of(self, word: str) -> str:
        return self.kind if self.kind != "auto" else _guess(word)

    def _pieces(self, word: str, kind: str, others: Counter[str]) -> Iterator[Picture | Part]:
        if kind == "list":
            yield from _listed(word)
        elif kind == "images":
            # Whoever says --kind images knows of the others.
            yield from _pictures(word, others if self.kind == "auto" else Counter())
        elif kind == "webdataset":
            yield from (Part(kind, _absolute(file)) for file in _files(word, _TARS))
        else:
            yield from self._tables(_files(word, _TABLES))

    def keys(self) -> Iterator[str]:
        """Yields the keys of all rows that hold images themselves, where a column has them."""
        if self.columns.key is None:
            return
        for word in self._words():
            if self._kind_of(word) == "parquet":
                for file in _files(word, _TABLES):
                    yield from read_keys(_absolute(file), self.columns)

    def _tables(self, files: Sequence[str]) -> Iterator[Picture | Part]:
        places = [_absolute(file) for file in files]
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            for place, table in zip(places, pool.map(measure_table, places)):
                if table is None:  # half written: a shard that fails, and is tried again by the next run
                    yield Part("parquet", place)
                elif find_columns(table.schema, self.columns, place).holds_images:
                    for first, count in table.ranges():
                        yield Part("parquet", place, first, count)
                else:
                    for key, image in read_places(place, self.columns):
                        yield Picture(key, _absolute(image))


def describe_others(others: Mapping[str, int]) -> str:
    """Returns what lies in folders of images and was passed over, and what to do; `others` as for `pieces`."""
    found = " and ".join(f"{name} ({number:,})" for name, number in sorted(others.items()))
    return (
        f"Passed over in folders: {found}. These are looked for in a folder itself, not below it: name the folders "
        "that hold them, or patterns ('folder/**/*.tar')."
    )


def _guess(word: str) -> str:
    """Returns the kind of input by how names end."""
    lower = word.lower()
    if lower.endswith(_TARS):
        return "webdataset"
    if lower.endswith(_TABLES):
        return "parquet"
    if _is_image(word) or (_is_pattern(word) and not _BRACES.search(word)):
        return "images"
    inside = list_folder(word)
    if inside is None:
        return "list"
    kinds = [kind for kind, ends in _PACKED.items() if any(name.lower().endswith(ends) for name in inside)]
    if kinds and _has_images(word):
        kinds.append("images")
    if len(kinds) > 1:
        raise UsageError(
            f"{one_line(word)} holds {' and '.join(_CALLED[kind] for kind in kinds)}. Say which of them are meant: "
            f"--kind {' or '.join(kinds)}."
        )
    return kinds[0] if kinds else "images"


def _is_pattern(word: str) -> bool:
    """Returns whether a word is a pattern; one that names what is there means just that, whatever signs it has."""
    return has_wildcards(word) and not exists(word)


def _is_image(place: str) -> bool:
    return place.lower().endswith(tuple(IMAGE_SUFFIXES))


def _has_images(folder: str) -> bool:
    """Returns whether a folder, or one below it, holds an image; looks no further than the first."""
    if is_remote(folder):
        return any(map(_is_image, walk_files(folder)))
    return any(not item.error for item in scan_folder(folder))


def _require_driver(place: str, known: set[str]) -> None:
    """Raises UsageError where nobody can read this kind of address: else each image would fail by itself."""
    scheme = place.partition("://")[0].lower() if is_remote(place) else "http"
    if scheme not in (*known, "http", "https"):
        # A store that cannot be reached now is for the workers to try again.
        with contextlib.suppress(OSError):
            connect(place)
        known.add(scheme)


def _files(word: str, suffixes: tuple[str, ...]) -> list[str]:
    """Returns the files that a folder holds, a pattern matches, or a name with {000..099} stands for."""
    if braces := _BRACES.search(word):
        first, last = braces[1], braces[2]
        numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
        spelled = (f"{word[: braces.start()]}{number}{word[braces.end() :]}" for number in numbers)
        return [file for one in spelled for file in _files(one, suffixes)]
    if _is_pattern(word):
        found = match_pattern(word)
    elif not is_remote(word) and not exists(word):  # what a store lacks may only be out of reach now
        raise InputError(f"{one_line(word)}: there is no such file or folder.")
    else:
        inside = list_folder(word)
        found = [word] if inside is None else [one for one in inside if one.lower().endswith(suffixes)]
    if not found:
        raise InputError(f"{one_line(word)}: nothing here ends with {' or '.join(suffixes)}.")
    return found


def _pictures(word: str, others: Counter[str]) -> Iterator[Picture]:
    pattern = _is_pattern(word)

    def pass_over(place: str) -> None:
        if not pattern:  # a pattern says itself what it means
            others.update(_CALLED[kind] for kind, ends in _PACKED.items() if place.lower().endswith(ends))

    if is_remote(word):
        if not pattern and not is_folder(word):
            places: Iterable[str] = [word] if exists(word) else []
        else:
            places = match_pattern(word) if pattern else walk_files(word)
        for place in places:
            if _is_image(place):
                yield Picture(place, place)
            else:
                pass_over(place)
    elif pattern or is_folder(word):
        for item in expand_pattern(word) if pattern else scan_folder(word, on_other=pass_over):
            if item.error:  # of a folder: the plan is made once, and would never know of the images in it
                raise InputError(f"{one_line(item.name)}: {item.error}, and its images would be missing.")
            yield Picture(item.name, _absolute(item.name))
    elif os.path.lexists(word):
        yield Picture(word, _absolute(word))
    else:
        raise InputError(f"{one_line(word)}: there is no such file or folder.")


def _listed(word: str) -> Iterator[Picture]:
    try:
        with open_place(word) as file:
            for entry in read_paths(file, word, null=False):
                yield Picture(entry, _absolute(entry))
    except IsADirectoryError:
        raise UsageError(f"{one_line(word)} is a folder; a list of images is a file.") from None
    except FileNotFoundError:
        raise InputError(f"{one_line(word)}: there is no such file or folder.") from None
    except UsageError as error:
        raise DataError(f"{error} (If it is no list: --kind.)") from None


def _absolute(place: str) -> str:
    """Returns a place as workers find it, which have other working folders."""
    return place if is_remote(place) or is_url(place) else os.path.join(os.getcwd(), expand_home(place))  # noqa: PTH109, PTH118
