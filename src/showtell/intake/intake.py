"""Everything that one command was given, as a stream of items in the order in which it was given."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from showtell.errors import UsageError
from showtell.files import path_digest
from showtell.images import IMAGE_SUFFIXES, is_url
from showtell.images.decode import LARGEST_FILE
from showtell.intake.items import STANDARD_INPUT, Item, web_item
from showtell.intake.lists import read_paths
from showtell.intake.scan import expand_pattern, has_wildcards, scan_folder


class Intake:
    """The images that words and a list of paths name; can be gone through again and again.

    A word is a file, a folder, an address on the web, a pattern (unless there is a file of that very name), or "-": the
    bytes of one image on standard input. An entry of the list is a file, a folder or an address. Each image comes
    once, by whatever spelling of its folder it is named; a link to it, or another hard link, is an image of its own.
    That takes about 100 bytes per image, which one folder or pattern alone does not need.

    Args:
        words: of the command line.
        listed: a file that lists paths; "-" is standard input.
        null: whether the list separates them by NUL characters.
        repeatable: a list that comes from standard input is copied to a temporary file, so that it can be read again.

    Raises:
        UsageError: nothing is given, or standard input is wanted for two things.
    """

    def __init__(
        self, words: Sequence[str], *, listed: str | None = None, null: bool = False, repeatable: bool = False
    ) -> None:
        if not words and listed is None:
            raise UsageError("No image was given. Give files, folders or patterns, - or --from LIST.")
        if STANDARD_INPUT in words and listed == STANDARD_INPUT:
            raise UsageError(
                "Standard input cannot be both an image (-) and a list (--from -). Give one of them."
            )
        if null and listed is None:
            raise UsageError(
                "--null says how the paths of --from LIST are separated. Add --from, or drop it."
            )
        self.linked_folders = 0  # links to folders that were not followed the last time
        self._words = list(words)
        self._listed = listed
        self._null = null
        self._repeatable = repeatable
        self._copy: IO[bytes] | None = None
        self._bytes: bytes | None = None

    @property
    def is_quick(self) -> bool:
        """Whether all items can be found at once, without waiting for another program."""
        if self._listed is None:
            return True
        return self._repeatable if self._is_stream(self._listed) else True

    def __iter__(self) -> Iterator[Item]:
        """Yields the items.

        Raises:
            UsageError: a list that is none.
        """
        self.linked_folders = 0
        seen: set[bytes] | None = None if len(self._words) == 1 and self._listed is None else set()
        for item in self._all():
            if seen is not None:
                digest = path_digest(item.path) if item.path is not None else os.fsencode(item.name)
                if digest in seen:
                    continue
                seen.add(digest)
            yield item

    def _all(self) -> Iterator[Item]:
        for word in self._words:
            if word == STANDARD_INPUT:
                yield self._standard_input()
            else:
                yield from self._word(word)
        if self._listed is not None:
            with self._open_list(self._listed) as file:
                name = "standard input" if self._listed == STANDARD_INPUT else self._listed
                for entry in read_paths(file, name, null=self._null):
                    yield from self._address_or_path(entry)

    def _word(self, word: str) -> Iterator[Item]:
        if word.startswith("~"):
            word = os.path.expanduser(word)
        if not has_wildcards(word) or is_url(word) or os.path.lexists(word):
            yield from self._address_or_path(word)
            return
        nothing = True
        for item in expand_pattern(word, self._count_link):
            nothing = False
            yield item
        if nothing:
            yield Item(word, word, "no image matches this pattern")

    def _address_or_path(self, word: str) -> Iterator[Item]:
        if is_url(word):
            yield web_item(word)
        elif not word:
            yield Item(word, b"", "an empty word names no image")
        elif os.path.isdir(word):
            folder, nothing = str(Path(word)), True
            for item in scan_folder("" if folder == os.curdir else folder, self._count_link):
                nothing = False
                yield item
            if nothing:
                yield Item(folder, folder, f"the folder has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        elif os.path.lexists(word):
            yield Item(str(Path(word)), str(Path(word)))
        else:
            yield Item(word, word, _why_absent(word))

    def _count_link(self, _path: str) -> None:
        self.linked_folders += 1

    def _standard_input(self) -> Item:
        if self._bytes is None:
            self._bytes = _standard_input().read(LARGEST_FILE + 1)
        if len(self._bytes) > LARGEST_FILE:
            return Item(STANDARD_INPUT, b"", f"there are more than {LARGEST_FILE:,} bytes on standard input")
        return Item(STANDARD_INPUT, self._bytes)

    def _open_list(self, listed: str) -> IO[bytes]:
        if not self._repeatable or not self._is_stream(listed):
            return self._open_once(listed)
        if self._copy is None:
            self._copy = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as this does
            with self._open_once(listed) as stream:
                shutil.copyfileobj(stream, self._copy)
        self._copy.seek(0)
        return os.fdopen(os.dup(self._copy.fileno()), "rb")

    @staticmethod
    def _is_stream(listed: str) -> bool:
        """Returns whether a list can be read only once, as standard input and pipes."""
        return listed == STANDARD_INPUT or not stat.S_ISREG(Path(listed).stat().st_mode)

    @staticmethod
    def _open_once(listed: str) -> IO[bytes]:
        if listed != STANDARD_INPUT:
            return Path(listed).open("rb")
        return os.fdopen(os.dup(_standard_input().fileno()), "rb")


def _standard_input() -> IO[bytes]:
    if sys.stdin is None:
        raise UsageError("Standard input (-) was asked for, but it is closed.")
    return sys.stdin.buffer


def _why_absent(word: str) -> str:
    try:
        os.lstat(word)
    except PermissionError:
        return "no permission to look into its folder"
    except (OSError, ValueError):
        pass
    return "no such file or folder"
