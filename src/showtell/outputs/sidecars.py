"""Sidecars: the captions of an image in a file beside it, or under another folder, that bears its name.

Nothing is lost by writing them: a file that is there with other content stays unless `overwrite` says otherwise, and of
an XMP file only the description changes. Two images that would share one sidecar get none.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from showtell.errors import SidecarError
from showtell.files import path_digest, write_atomically
from showtell.outputs.names import one_line
from showtell.outputs.record import Record
from showtell.outputs.xmp import read_description, set_description

SIDECARS = ("txt", "xmp")
_LONGEST_TEXT = 1 << 16  # bytes; what is longer is no caption, and is never overwritten
_LONGEST_XMP = 1 << 24
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Sidecars:
    """Writes the captions of images beside them.

    Args:
        kind: "txt": the captions, one per line, the best first; "xmp": the best one as `dc:description`.
        folder: where they go instead, below it by the path of their image as it was given ("..", and what makes it
            absolute, left out).
        overwrite: whether other captions that are there are replaced.
    """

    def __init__(self, kind: str, *, folder: Path | None = None, overwrite: bool = False) -> None:
        self._kind = kind
        self._folder = folder
        self._overwrite = overwrite
        self._shared: dict[bytes, list[str]] = {}

    def place(self, path: str) -> Path:
        """Returns where the sidecar of the image at `path` is."""
        image = Path(path)
        sidecar = image.with_name(f"{image.stem}.{self._kind}")
        if self._folder is None:
            return sidecar
        parts = [part for part in sidecar.parts if part not in (sidecar.anchor, os.pardir)]
        return self._folder.joinpath(*parts)

    def reserve(self, paths: Iterable[str], again: Iterable[str]) -> None:
        """Finds the images that would share a sidecar; `write` then refuses all of them.

        Takes about 100 bytes per image.

        Args:
            paths: of all images.
            again: the same; gone through only where some share one.
        """
        seen: set[bytes] = set()
        shared: set[bytes] = set()
        for path in paths:
            digest = path_digest(str(self.place(path)))
            (shared if digest in seen else seen).add(digest)
        self._shared = {digest: [] for digest in shared}
        if shared:
            for path in again:
                names = self._shared.get(path_digest(str(self.place(path))))
                if names is not None:
                    names.append(path)

    def refusal(self, path: str) -> str:
        """Returns why the image at `path` gets no sidecar, or ""."""
        place = self.place(path)
        others = [name for name in self._shared.get(path_digest(str(place)), ()) if name != path]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            return (
                f"its sidecar {_named(place)} would also be that of {one_line(others[0])}{more}, so none was written. "
                "Caption them in different folders, or one by one with --sidecar-folder"
            )
        if path_digest(str(place)) == path_digest(path):
            return f"its sidecar {_named(place)} would be the image itself"
        return ""

    def exists(self, path: str) -> bool:
        """Returns whether there are captions in the sidecar of the image at `path`, and of no other, already."""
        place = self.place(path)
        if self.refusal(path):
            return False
        if self._kind == "txt":
            return place.exists()
        try:
            return place.exists() and read_description(_content(place, _LONGEST_XMP)) is not None
        except (SidecarError, OSError):
            return False  # `write` says what is wrong with it

    def write(self, path: str | None, record: Record) -> None:
        """Writes the sidecar of an image; one that has these captions already is not touched.

        Args:
            path: of the image; None where it is no file.
            record: its captions.

        Raises:
            SidecarError: it has no place, or the place is taken or not writable. The message does not name the image.
            OSError: the disk is full.
        """
        if path is None:
            raise SidecarError("only a file can have a sidecar")
        if refusal := self.refusal(path):
            raise SidecarError(refusal)
        place = self.place(path)
        try:
            content = self._text(place, record) if self._kind == "txt" else self._xmp(place, record)
            if content is not None:
                if self._folder is not None:
                    place.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(place, content)
        except OSError as error:
            if error.errno in _FULL:
                raise
            raise SidecarError(f"its sidecar {_named(place)} cannot be written: {error.strerror}") from None

    def _text(self, place: Path, record: Record) -> bytes | None:
        content = "".join(f"{one.text}\n" for one in record.captions).encode()
        if not place.exists():
            return content
        there = _content(place, _LONGEST_TEXT)
        if there == content:
            return None
        if b"\0" in there:
            raise SidecarError(f"its sidecar {_named(place)} exists and is no text, so it was not changed")
        self._may_replace(place)
        return content

    def _xmp(self, place: Path, record: Record) -> bytes | None:
        description = record.captions[0].text
        if not place.exists():
            return set_description(None, description)
        try:
            content = _content(place, _LONGEST_XMP)
            there = read_description(content)
            if there == description:
                return None
            if there is not None:
                self._may_replace(place)
            return set_description(content, description)
        except SidecarError as error:
            if _named(place) in str(error):
                raise
            raise SidecarError(
                f"its sidecar {_named(place)} exists and was not changed: {error}. Mend or remove it"
            ) from None

    def _may_replace(self, place: Path) -> None:
        if not self._overwrite:
            raise SidecarError(
                f"its sidecar {_named(place)} exists with another text, and was not changed. --overwrite replaces it"
            )


def _content(place: Path, longest: int) -> bytes:
    if not place.is_file():
        raise SidecarError(f"its sidecar {_named(place)} exists and is no regular file")
    with place.open("rb") as file:
        content = file.read(longest + 1)
    if len(content) > longest:
        raise SidecarError(
            f"its sidecar {_named(place)} exists and is too large for one, so it was not changed"
        )
    return content


def _named(place: Path) -> str:
    return one_line(str(place))
