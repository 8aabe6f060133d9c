"""The images of one shard, one after another, as items for a captioner."""

from __future__ import annotations

import contextlib
import gzip
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any, Self, cast

from showtell.bulk.places import is_remote, open_place
from showtell.bulk.plan import Part, Shard
from showtell.bulk.tables import Columns, read_images
from showtell.errors import DataError, ImageError, UsageError
from showtell.images import IMAGE_SUFFIXES, Allowance, KeptImage, is_url, why_too_large
from showtell.images.decode import LARGEST_FILE
from showtell.intake import Item
from showtell.intake.items import web_item
from showtell.outputs import one_line

_ATTEMPTS = 3  # of fetching an image from a store: what fails once may be a hiccup of the network


def read_items(shard: Shard, columns: Columns) -> Iterator[Item]:
    """Yields the images of a shard. Those by name are opened later, on the threads that read.

    Raises:
        DataError: the file that holds them is damaged, half written, or not there any more.
        UsageError: a table's columns are other ones than when the job was planned.
    """
    if shard.part is None:
        for picture in shard.pictures:
            if picture.place.lower().startswith(("http://", "https://")):
                yield Item(picture.key, web_item(picture.place).source)
            elif is_remote(picture.place) or is_url(picture.place):
                yield Item(picture.key, _kept(_Stored(picture.place), picture.place))
            else:
                yield Item(picture.key, picture.place)
        return
    try:
        yield from _read_table(shard.part, columns) if shard.part.kind == "parquet" else _read_tar(shard.part)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{one_line(shard.part.file)}: cannot be read: {reason}") from None


def _kept(source: Any, name: str) -> KeptImage:
    """Returns a source that messages call by a name, and of which nothing is kept."""
    return KeptImage(cast("Any", source), name, Allowance(0))


class _Stored:
    """A file in a store, read when its turn comes."""

    def __init__(self, place: str) -> None:
        self._place = place

    def read(self) -> bytes:
        for attempt in range(_ATTEMPTS):
            try:
                with open_place(self._place) as file:
                    content = file.read(LARGEST_FILE + 1)
                if reason := why_too_large(len(content)):
                    raise ImageError(f"{self._place}: {reason}")
                return content
            except FileNotFoundError:
                raise ImageError(f"{self._place}: there is no such file") from None
            except PermissionError:
                raise ImageError(f"{self._place}: no permission to read this file") from None
            except (UsageError, ValueError) as error:  # no driver for it, or an address that none understands
                raise ImageError(str(error)) from None
            except OSError as error:
                reason = error.strerror or str(error)
                if attempt < _ATTEMPTS - 1:
                    time.sleep(2.0**attempt)
        raise ImageError(f"{self._place}: cannot be read: {reason}")


class _Held:
    """The bytes of a file that are there already."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self) -> bytes:
        return self._content


def _read_table(part: Part, columns: Columns) -> Iterator[Item]:
    for key, content in read_images(part.file, columns, part.first, part.count):
        yield _item(key, content, "the row has no image")


def _item(key: str, content: bytes | None, otherwise: str) -> Item:
    if content is None:
        return Item(key, b"", otherwise)
    if reason := why_too_large(len(content)):
        return Item(key, b"", reason)
    return Item(key, _kept(_Held(content), key))


def _read_tar(part: Part) -> Iterator[Item]:
    """Yields the images of a tar file as it is read, from beginning to end, without going back."""
    seen: set[str] = set()
    packed = not part.file.lower().endswith(".tar")
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_place(part.file))
        try:
            if packed:  # tarfile's own way of unpacking checks neither the end nor the checksum
                file = cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=file, mode="rb")))
            with tarfile.open(fileobj=file, mode="r|", tarinfo=_Member) as tar:
                for member in tar:
                    name = PurePosixPath(member.name)
                    is_link = member.islnk() or member.issym()
                    if (
                        not (member.isfile() or is_link)
                        or name.suffix.lower() not in IMAGE_SUFFIXES
                        or name.name[0] == "."
                    ):
                        continue
                    if member.name in seen:
                        raise DataError(
                            f"{one_line(part.file)} has {one_line(member.name)} twice; each row needs a key of its own."
                        )
                    seen.add(member.name)
                    key = f"{part.file}/{member.name}"
                    if is_link:
                        yield Item(
                            key, b"", f"it is a link to {one_line(member.linkname)}, and has no content"
                        )
                        continue
                    if reason := why_too_large(member.size):
                        yield Item(key, b"", reason)
                        continue
                    content = tar.extractfile(member)
                    yield _item(key, None if content is None else content.read(), "no file")
                _require_zeros(tar)
        except (tarfile.TarError, EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{one_line(part.file)}: half written, damaged, or no tar file: {error}"
            ) from None


class _Member(tarfile.TarInfo):
    """A member whose damaged header is an error. tarfile takes it for the end of the archive, if it is not the first.

    So is a missing end: a file that was cut between two members would seem whole.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it has no end") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _require_zeros(tar: tarfile.TarFile) -> None:
    """Reads a tar file to its end; raises ReadError where something stands behind the end of the archive."""
    while block := tar.fileobj.read(1 << 20):
        if block.strip(b"\0"):
            raise tarfile.ReadError(
                "something stands behind its end, as where several tar files were joined (join them with tar -A)"
            )
