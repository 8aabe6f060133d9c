"""Files on this machine, or wherever fsspec leads (`s3://`, `gs://`, `memory://`): reading, listing, and writing whole.

Places of this machine are plain paths, which need not be UTF-8; everything with `://` goes through fsspec. Whatever a
driver of fsspec raises arrives as an OSError that names the place, because botocore's and gcsfs's own errors are none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from showtell.errors import JournalError, UsageError, did_you_mean
from showtell.files import (
    LOCK,
    expand_home,
    lock_folder,
    open_atomically,
    remove_neighbours,
    remove_partial_files,
    write_atomically,
)
from showtell.intake.scan import first_states, has_wildcards, is_folder_entry, next_states
from showtell.outputs import one_line

_REMOTE = "://"
_DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
BUSY = "another process is captioning into this folder"


def is_remote(place: str) -> bool:
    """Returns whether a place is reached through fsspec."""
    return _REMOTE in place


def open_place(place: str) -> IO[bytes]:
    """Opens a file for reading.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    if not is_remote(place):
        return Path(place).open("rb")
    filesystem, path = connect(place)
    with explained(place):
        return cast("IO[bytes]", filesystem.open(path, "rb"))


def is_folder(place: str) -> bool:
    """Returns whether there is a folder of this name."""
    if not is_remote(place):
        return os.path.isdir(place)  # noqa: PTH112
    filesystem, path = connect(place)
    with explained(place):
        return bool(filesystem.isdir(path))


def list_folder(place: str) -> list[str] | None:
    """Returns the places in a folder, sorted, or None where there is no folder of this name."""
    return [_inside(place, name) for name, _ in _entries(place)] if is_folder(place) else None


def exists(place: str) -> bool:
    """Returns whether there is a file, a folder or a link of this name."""
    if not is_remote(place):
        return os.path.lexists(place)
    filesystem, path = connect(place)
    with explained(place):
        return bool(filesystem.exists(path))


def walk_files(place: str) -> Iterator[str]:
    """Yields all files below a folder, folder by folder, sorted.

    Raises:
        OSError: a folder cannot be listed; without it images would be missing, and nobody would know.
    """
    folders = [place]
    while folders:
        folder = folders.pop()
        inside = []
        for name, is_dir in _entries(folder):
            if is_dir:
                inside.append(_inside(folder, name))
            else:
                yield _inside(folder, name)
        folders.extend(reversed(inside))


def match_pattern(place: str) -> list[str]:
    """Returns the files that match a pattern, sorted; its parts mean what they mean to `showtell caption`.

    Raises:
        OSError: a folder cannot be listed.
    """
    scheme, separator, path = place.rpartition(_REMOTE)
    words = (path if separator else path.replace(os.sep, "/")).split("/")
    fixed = 0
    while not has_wildcards(words[fixed]):
        fixed += 1
    start = f"{scheme}{separator}{'/'.join(words[:fixed])}" or ("/" if fixed else "")
    parts = tuple(word for word in words[fixed:] if word)
    found = []
    folders = [(start, first_states(parts))] if is_folder(start or os.curdir) else []
    while folders:
        folder, states = folders.pop()
        for name, is_dir in _entries(folder or os.curdir):
            after = next_states(states, name, parts)
            if is_dir and after:
                folders.append((_inside(folder, name), after))
            elif len(parts) in after:
                found.append(_inside(folder, name))
    return sorted(found)


def _entries(folder: str) -> list[tuple[str, bool]]:
    """Returns the names in a folder, sorted, and whether each is a folder."""
    if not is_remote(folder):
        with os.scandir(folder) as listed:
            return sorted((entry.name, is_folder_entry(entry)) for entry in listed)
    filesystem, path = connect(folder)
    with explained(folder):
        found = filesystem.ls(path, detail=True)
    # Stores list a folder's own marker in it, too.
    others = [one for one in found if one["name"].strip("/") != path.strip("/")]
    return sorted((one["name"].rstrip("/").rpartition("/")[2], one["type"] == "directory") for one in others)


def _inside(folder: str, name: str) -> str:
    """Returns the place of a name in a folder: written as the folder is, with the host and all else of an address."""
    return f"{folder}{name}" if not folder or folder.endswith("/") else f"{folder}/{name}"


def connect(place: str) -> tuple[Any, str]:
    """Returns the file system of a place, and its path there.

    Raises:
        UsageError: nobody knows this kind of address, or the package for it is missing.
        OSError: the file system cannot be reached.
    """
    import fsspec

    scheme = place.partition(_REMOTE)[0]
    try:
        with explained(place):
            filesystem, path = fsspec.core.url_to_fs(place)
            return filesystem, path
    except ImportError:
        package = _DRIVERS.get(scheme, "its driver for fsspec")
        raise UsageError(f"{place}: {scheme}:// needs the package {package}. Install it with pip.") from None
    except ValueError as error:
        near = did_you_mean(scheme, fsspec.available_protocols())
        raise UsageError(f"{place}: {error}.{near}") from None


@contextlib.contextmanager
def explained(place: str) -> Iterator[None]:
    """Turns what drivers raise into an OSError with the place."""
    try:
        yield
    except (OSError, ImportError, ValueError, UsageError) as error:
        if isinstance(error, OSError) and error.filename is None:
            # Drivers give their reason as the only argument; `strerror` is what people are shown.
            raise type(error)(error.errno or errno.EIO, error.strerror or str(error), place) from error
        raise
    except Exception as error:
        raise OSError(errno.EIO, str(error) or type(error).__name__, place) from error


class Store(ABC):
    """The folder that results go into. What is written is whole or absent."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __str__(self) -> str:
        return one_line(self.place)

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Returns the content of a file; FileNotFoundError where there is none."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Writes a file, in one piece."""

    @abstractmethod
    def write_from(self, name: str, source: Path) -> None:
        """Writes a file with the content of another one, in one piece."""

    @abstractmethod
    def sizes(self, folder: str = "") -> dict[str, int]:
        """Returns the names of the files in a subfolder, with their bytes; of folders -1."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Returns the bytes of a file; None where there is none."""

    @abstractmethod
    def remove(self, names: Sequence[str]) -> None:
        """Removes files; those that are not there are no error."""

    @abstractmethod
    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other writers out where that is possible."""

    @abstractmethod
    def clean(self, names: Sequence[str], folders: Sequence[str] = ()) -> None:
        """Removes what killed writers left half written: of files of these names, and of all in subfolders."""

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading."""
        return open_place(f"{self.place}/{name}")


class LocalStore(Store):
    """A folder of this machine, or one that several machines share."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._folder = Path(place)

    def read(self, name: str) -> bytes:
        """Returns the content of a file."""
        return (self._folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Writes a file: a neighbour first, then a rename."""
        (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._folder / name, data)

    def write_from(self, name: str, source: Path) -> None:
        """Writes a file: a neighbour first, then a rename."""
        with source.open("rb") as content, open_atomically(self._folder / name) as file:
            shutil.copyfileobj(content, file)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Returns the names of the files in a subfolder, with their bytes."""
        found: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder / folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found[entry.name] = -1 if entry.is_dir() else entry.stat().st_size
        return found

    def size(self, name: str) -> int | None:
        """Returns the bytes of a file; None where there is none."""
        path = self._folder / name
        return path.stat().st_size if path.exists() else None

    def remove(self, names: Sequence[str]) -> None:
        """Removes files."""
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Locks the folder; the system releases it when the process ends, however it ends."""
        new = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
        before = set(self.sizes())
        with lock_folder(self._folder, JournalError, BUSY):
            try:
                yield
            finally:
                # A run that was refused leaves nothing: it may have been somebody's folder of photographs.
                if LOCK not in before and set(self.sizes()) <= {*before, LOCK}:
                    (self._folder / LOCK).unlink(missing_ok=True)
                    with contextlib.suppress(OSError):
                        for folder in new:
                            folder.rmdir()

    def clean(self, names: Sequence[str], folders: Sequence[str] = ()) -> None:
        """Removes what killed writers left half written."""
        for name in names:
            remove_neighbours(self._folder / name)
        for folder in folders:
            remove_partial_files(self._folder / folder)


class RemoteStore(Store):
    """A folder that fsspec leads to. Object stores show an object when it is whole, and not before."""

    def __init__(self, place: str) -> None:
        super().__init__(place.rstrip("/"))
        self._filesystem, self._path = connect(self.place)

    def read(self, name: str) -> bytes:
        """Returns the content of a file."""
        with explained(f"{self.place}/{name}"):
            return cast("bytes", self._filesystem.cat_file(f"{self._path}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        """Writes a file."""
        with explained(f"{self.place}/{name}"):
            self._filesystem.pipe_file(f"{self._path}/{name}", data)

    def write_from(self, name: str, source: Path) -> None:
        """Writes a file."""
        with explained(f"{self.place}/{name}"):
            self._filesystem.put_file(str(source), f"{self._path}/{name}")

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Returns the names of the files in a subfolder, with their bytes."""
        path = f"{self._path}/{folder}".rstrip("/")
        with explained(f"{self.place}/{folder}"):
            self._filesystem.invalidate_cache()  # other processes write here, too
            try:
                listed = self._filesystem.ls(path, detail=True)
            except FileNotFoundError:
                return {}
        return {
            one["name"].rstrip("/").rpartition("/")[2]: -1 if one["type"] == "directory" else int(one["size"])
            for one in listed
            if one["name"].rstrip("/") != path.lstrip("/") and one["name"].rstrip("/") != path
        }

    def size(self, name: str) -> int | None:
        """Returns the bytes of a file; None where there is none."""
        with explained(f"{self.place}/{name}"):
            try:
                self._filesystem.invalidate_cache()
                return int(self._filesystem.size(f"{self._path}/{name}"))
            except FileNotFoundError:
                return None

    def remove(self, names: Sequence[str]) -> None:
        """Removes files."""
        for name in names:
            with explained(f"{self.place}/{name}"), contextlib.suppress(FileNotFoundError):
                self._filesystem.rm_file(f"{self._path}/{name}")

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Does nothing: object stores know no locks."""
        yield

    def clean(self, names: Sequence[str], folders: Sequence[str] = ()) -> None:
        """Does nothing: object stores show nothing half written."""


def open_store(place: str) -> Store:
    """Returns the folder at a place; of this machine it need not exist.

    Raises:
        UsageError: nobody knows this kind of address.
        OSError: it cannot be reached.
    """
    return RemoteStore(place) if is_remote(place) else LocalStore(str(expand_home(place).absolute()))
