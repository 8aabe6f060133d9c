"""Folders and patterns: the images in them, one after another, each folder sorted as people count (2 before 10).

One folder's names are in memory at a time, with those of the folders around it (some 200 bytes each). Hidden files and
folders are passed over. Links to folders are not followed, so a loop of links ends nothing; links to files are
images like others.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Callable, Iterator

from showtell.images import IMAGE_SUFFIXES
from showtell.intake.items import Item

States = frozenset[int]  # how many parts of a pattern a path has matched so far; several, because of "**"
_EVERYTHING: States = frozenset()  # inside a folder that is wanted as a whole
_ANY_DEPTH = "**"
Told = Callable[[str], object]


def scan_folder(
    folder: str, on_link: Told = lambda _: None, on_other: Told = lambda _: None
) -> Iterator[Item]:
    """Yields the images in a folder and its subfolders, and as failed items the folders that cannot be opened.

    Args:
        folder: its path, which begins the items' names.
        on_link: called with the path of each link to a folder, which is not followed.
        on_other: called with the path of each file that is no image by its name.
    """
    yield from _walk(folder, (), _EVERYTHING, on_link, on_other)


def has_wildcards(word: str) -> bool:
    """Returns whether `word` can be meant as a pattern."""
    return any(sign in word for sign in "*?[")


def expand_pattern(pattern: str, on_link: Told = lambda _: None) -> Iterator[Item]:
    """Yields the images that match a pattern, and all images in the folders that match it.

    `*`, `?` and `[abc]` stay within a name, `**` stands for any number of folders; neither matches a leading dot.

    Args:
        pattern: with "/" between its parts.
        on_link: as for `scan_folder`.
    """
    words = pattern.replace(os.sep, "/").split("/")
    fixed = 0
    while not has_wildcards(words[fixed]):
        fixed += 1
    start = "/".join(words[:fixed]) or ("/" if fixed else "")
    parts = tuple(word for word in words[fixed:] if word)
    if os.path.isdir(start or os.curdir):
        yield from _walk(start, parts, first_states(parts), on_link)


def natural_key(name: str) -> str:
    """Returns what names are sorted by: numbers by their value, capitals like small letters."""

    def weigh(digits: re.Match[str]) -> str:
        number = digits[0].lstrip("0")
        return f"0{chr(len(number) + 1)}{number}"

    return f"{re.sub('[0-9]+', weigh, name.casefold())}\0{name}"


def _walk(
    folder: str, parts: tuple[str, ...], states: States, on_link: Told, on_other: Told = lambda _: None
) -> Iterator[Item]:
    """Yields what matches; a stack instead of recursion, so that no depth is too deep."""
    stack: list[tuple[str, States, list[str]]] = []  # folder, states, its names from last to first

    def enter(path: str, states: States) -> Iterator[Item]:
        try:
            stack.append((path, states, _names(path)))
        except OSError as error:
            why = (
                "no permission to open this folder" if isinstance(error, PermissionError) else error.strerror
            )
            yield Item(path or os.curdir, path or os.curdir, f"{why}")

    yield from enter(folder, states)
    while stack:
        folder, states, names = stack[-1]
        if not names:
            stack.pop()
            continue
        name = names.pop()
        is_dir = name.endswith("/")
        name = name.rstrip("/")
        inside = states
        if states == _EVERYTHING:
            if name.startswith("."):
                continue
        else:
            inside = next_states(states, name, parts)
            if not inside:
                continue
            if len(parts) in inside:
                inside = _EVERYTHING
        path = os.path.join(folder, name)
        if is_dir and os.path.islink(path):
            on_link(path)
        elif is_dir:
            yield from enter(path, inside)
        elif inside == _EVERYTHING:
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Item(path, path)
            else:
                on_other(path)


def _names(folder: str) -> list[str]:
    """Returns the names in a folder from last to first; those of folders end with a slash."""
    with os.scandir(folder or os.curdir) as entries:
        names = [f"{entry.name}/" if is_folder_entry(entry) else entry.name for entry in entries]
    names.sort(key=lambda name: natural_key(name.rstrip("/")), reverse=True)
    return names


def is_folder_entry(entry: os.DirEntry[str]) -> bool:
    """Returns whether a name is that of a folder, or of a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def first_states(parts: tuple[str, ...]) -> States:
    """Returns what a path has matched of a pattern's parts before its first name."""
    return _reachable(frozenset({0}), parts)


def _reachable(states: States, parts: tuple[str, ...]) -> States:
    """Adds the states in which "**" has stood for no folder at all."""
    found = set(states)
    for state in sorted(states):
        while state < len(parts) and parts[state] == _ANY_DEPTH:
            state += 1
            found.add(state)
    return frozenset(found)


def next_states(states: States, name: str, parts: tuple[str, ...]) -> States:
    """Returns what a path has matched of a pattern's parts with one more name; nothing where it cannot match."""
    after = set()
    for state in states:
        if state == len(parts):
            continue
        if parts[state] == _ANY_DEPTH:
            if not name.startswith("."):
                after.add(state)
        elif _matcher(parts[state])(name):
            after.add(state + 1)
    return _reachable(frozenset(after), parts)


@functools.lru_cache(maxsize=64)
def _matcher(part: str) -> Callable[[str], bool]:
    pattern = re.compile(fnmatch.translate(os.path.normcase(part)))
    takes_hidden = part.startswith(".")

    def match(name: str) -> bool:
        hidden = name.startswith(".") and not takes_hidden
        return not hidden and pattern.match(os.path.normcase(name)) is not None

    return match
