"""Writing files so that a crash, a kill or a full disk leaves what was there before."""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from showtell.errors import ShowtellError, UsageError

LOCK = ".lock"  # the file that a writer holds
PARTIAL = ".part"  # how the names of unfinished files end


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: to a neighbour first, then renamed over the old one.

    A link is followed, and what is no regular file (a pipe, /dev/null) is written to: neither must be renamed over.

    Raises:
        OSError: the disk is full or the folder is not writable; the old file is untouched and nothing is left over.
            Its `filename` is `path`.
    """
    with open_atomically(path) as file:
        file.write(data)


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of the one at `path` when the block ends, and never exists if it fails.

    Args:
        path: as for `write_atomically`.

    Raises:
        OSError: as for `write_atomically`.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as device:
            yield device
        return
    neighbour = target.with_name(f"{_neighbours(target)}{secrets.token_hex(4)}{PARTIAL}")
    try:
        # Not tempfile.mkstemp, whose mode hides the file from everybody else.
        with neighbour.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        neighbour.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            neighbour.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # a failed write names no file
        raise


def require_writable(folder: Path) -> None:
    """Checks, without writing, that files can be made in a folder, or the folder in the nearest one above that exists.

    Raises:
        OSError: as writing would, with the folder in which nothing can be made.
    """
    while not folder.exists():
        folder = folder.absolute().parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def remove_neighbours(path: Path) -> None:
    """Removes what a killed `write_atomically` of this file left beside it."""
    target = path.resolve()
    for neighbour in target.parent.glob(f"{glob.escape(_neighbours(target))}????????{PARTIAL}"):
        neighbour.unlink(missing_ok=True)


def _neighbours(target: Path) -> str:
    # Not all of a long name: the neighbour's must not be too long. Its digest tells names apart that begin alike.
    return f".{target.name[:40]}.{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}."


def remove_partial_files(folder: Path) -> None:
    """Removes what writers that were killed left in a folder."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock_folder(folder: Path, error: type[ShowtellError], busy: str, *, name: str = LOCK) -> Iterator[None]:
    """Keeps a second writer out of a folder; the system releases the lock when the process ends, however it ends.

    Args:
        folder: it must exist.
        error: raised if the folder is locked already, or is not writable.
        busy: what another process is doing there, for the message.
        name: of the file that is locked. Where the file system knows no locks, nobody is kept out.
    """
    try:
        file = (folder / name).open("ab")
    except OSError as reason:
        raise error(f"{folder}: the folder is not writable: {reason.strerror}") from None
    with file:
        if not lock_file(file):
            raise error(f"{folder}: {busy}. Wait for it to end, or choose another folder.")
        yield


def lock_file(file: IO[bytes]) -> bool:
    """Locks an open file until it is closed; returns False if another process holds it.

    Where the file system knows no locks, nobody is kept out.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as reason:
        return reason.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


def write_json(path: Path, data: Any) -> None:
    """Writes JSON, atomically; not-a-number is refused, because JSON has none."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


def expand_home(word: str | Path) -> Path:
    """Returns a path with "~" replaced by the home folder; "~name" of nobody stays as it is, a folder of that name."""
    return Path(os.path.expanduser(word))  # noqa: PTH111  # pathlib's raises where there is no such home


def cache_folder() -> Path:
    """Returns where downloads and features are kept: $SHOWTELL_CACHE, else ~/.cache/showtell.

    Raises:
        UsageError: the user has no home folder.
    """
    named = os.environ.get("SHOWTELL_CACHE")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "showtell"
    except RuntimeError:
        raise UsageError(
            "There is no home folder to keep downloads and features in. Set SHOWTELL_CACHE to a folder."
        ) from None


def digest_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_digest(path: str) -> bytes:
    """Returns 16 bytes that are the same for all spellings of a path, and for ways to its folder through links.

    A link and what it leads to are two files.
    """
    whole = Path.cwd() / path
    return hashlib.blake2b(
        os.fsencode(Path(_real_folder(str(whole.parent)), whole.name)), digest_size=16
    ).digest()


@functools.lru_cache(maxsize=256)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)
