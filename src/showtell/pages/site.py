"""Which files are pages, and to which site each belongs."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from showtell.errors import PageError, UsageError
from showtell.images import IMAGE_SUFFIXES
from showtell.images.web import is_web_page
from showtell.pages.document import XML_SUFFIXES

PAGE_SUFFIXES = (".html", ".htm", *XML_SUFFIXES)
_HEAD = 4096  # bytes in which files that are no text have a zero, nearly always
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TAG = re.compile(rb"<[!/?]?[A-Za-z]")


@dataclass(frozen=True)
class PageFile:
    """One page of a site."""

    path: Path
    root: Path  # the folder of its site: no picture outside of it is opened
    error: str = ""  # why it cannot be read, if it cannot

    @property
    def xml(self) -> bool:
        """Whether browsers read it as XML."""
        return self.path.suffix.lower() in XML_SUFFIXES

    @property
    def place(self) -> Path:
        """Where it lies in its site."""
        return Path(os.path.relpath(self.path.absolute(), self.root.absolute()))


def find_pages(paths: Sequence[Path], root: Path | None = None) -> list[PageFile]:
    """Returns the pages that are named, and those in the folders that are named and their subfolders, each once.

    Links to folders are not followed, and hidden folders (.git) are passed over.
    A page that cannot be read, or leads out of its site, has an error.

    Args:
        paths: pages and folders.
        root: the folder of the site; by default the folder that is named, or in which the page lies.

    Raises:
        UsageError: the root is no folder.
    """
    if root is not None and not root.is_dir():
        raise UsageError(f"the root of the site must be a folder. Received: {str(root)!r}")
    found: dict[Path, PageFile] = {}
    for path in paths:
        if path.is_dir():
            for page, error in _walk(path):
                found.setdefault(_identify(page), _check(page, root or path, error))
        else:
            found.setdefault(_identify(path), _check(path, root or path.parent))
    return list(found.values())


def check_page(data: bytes, path: Path) -> None:
    """Refuses what is no web page, whoever named it: an image, another binary file, a text without a tag.

    Args:
        data: the whole file.
        path: its path; a file that is called a page need not have a tag.

    Raises:
        PageError: it is none.
    """
    suffix = path.suffix.lower()
    if (
        not is_web_page(data)
        and not data.startswith(_UTF_16)
        and (b"\0" in data[:_HEAD] or suffix in IMAGE_SUFFIXES)
    ):
        raise PageError("it is no web page. If it is an image, caption it with: showtell caption")
    if suffix not in PAGE_SUFFIXES and not _TAG.search(data.replace(b"\0", b"")):
        raise PageError(
            f"it is no web page: it has no HTML tag. Give pages ({', '.join(PAGE_SUFFIXES)}) or folders"
        )


def _identify(page: Path) -> Path:
    """Returns the same path for a page and for links to it."""
    try:
        return page.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return page.absolute()


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yields (page, "") in order, and (folder, error) for those that cannot be opened."""
    failures: list[OSError] = []
    for name, folders, files in os.walk(folder, onerror=failures.append):
        while failures:
            error = failures.pop()
            yield Path(os.fspath(error.filename)), f"the folder cannot be opened: {error.strerror}"
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for file in sorted(files):
            if file.lower().endswith(PAGE_SUFFIXES):
                yield Path(name, file), ""
    for error in failures:
        yield Path(os.fspath(error.filename)), f"the folder cannot be opened: {error.strerror}"


def _check(page: Path, root: Path, error: str = "") -> PageFile:
    if error:
        return PageFile(page, root, error)
    try:
        if not page.resolve().is_relative_to(root.resolve()):
            return PageFile(
                page, root, f"it lies outside of the site's folder {str(root)!r}, or is a link that leads out"
            )
        if not page.is_file():
            return PageFile(page, root, "it is no file" if page.exists() else "there is no such file")
    except (OSError, RuntimeError) as reason:
        return PageFile(page, root, f"it cannot be opened: {reason}")
    return PageFile(page, root)
