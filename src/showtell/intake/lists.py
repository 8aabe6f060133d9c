"""Lists of paths, as `find` and other programs write them: read as they come, of any length."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from showtell.errors import UsageError

_BLOCK = 1 << 16
_LONGEST = 1 << 20  # bytes of one entry; what is longer is no list of paths
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_paths(file: IO[bytes], name: str, *, null: bool) -> Iterator[str]:
    """Yields the paths of a list; empty entries are passed over.

    Args:
        file: opened in binary mode, because names of files need not be text.
        name: of the list, for messages.
        null: entries end with a NUL character instead of a line end, as `find -print0` has it.

    Raises:
        UsageError: the file is no list, or one of the other kind.
    """
    for number, entry in enumerate(_split(file, name, b"\0" if null else b"\n"), start=1):
        if number == 1:
            entry = entry.removeprefix(_BYTE_ORDER_MARK)
        if not null:
            entry = entry.removesuffix(b"\r")
            if b"\0" in entry:
                raise UsageError(
                    f"{name}: line {number} holds a NUL character. If the paths are separated by them, add --null."
                )
        if entry:
            yield os.fsdecode(entry)


def _split(file: IO[bytes], name: str, end: bytes) -> Iterator[bytes]:
    rest = b""
    read = getattr(file, "read1", file.read)  # what is there, without waiting for a whole block
    while block := read(_BLOCK):
        *entries, rest = (rest + block).split(end)
        yield from entries
        if len(rest) > _LONGEST:
            hint = "" if end == b"\n" else " If there is one path per line, leave out --null."
            raise UsageError(
                f"{name}: an entry is longer than {_LONGEST:,} bytes: this is no list of paths.{hint}"
            )
    if rest:
        yield rest
