"""API keys: who may ask, and how much. Keys themselves are not kept, only their SHA-256, and are never shown."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from showtell.errors import ConfigError

VARIABLE = "SHOWTELL_API_KEYS"  # of the environment: lines as in the file
LEAST_LENGTH = 16  # of a key; shorter ones can be guessed
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class ApiKey:
    """One key, as it may be kept."""

    name: str  # of its owner, for the log and the metrics
    digest: bytes = field(repr=False)  # SHA-256 of the key
    rate: int | None = None  # pictures a minute; None: as the service says


def read_keys(file: Path | None, environment: Mapping[str, str] | None = None) -> tuple[ApiKey, ...]:
    """Returns the keys of a file and of the environment.

    Each line is `NAME KEY`, or `NAME KEY RATE` with the pictures a minute that the key is good for; lines that begin
    with # are comments.

    Args:
        file: None for the environment alone.
        environment: by default that of this process; its variable is SHOWTELL_API_KEYS.

    Raises:
        ConfigError: a file that cannot be read or has no key, a line that is none, a key that is too short or comes
            twice. Messages name lines and owners, never keys.
    """
    found: list[ApiKey] = []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: the keys cannot be read: {error}") from None
        found += _read_lines(lines, str(file))
        if not found:
            raise ConfigError(f"{file}: there is no key in it. Each line must be NAME KEY, or NAME KEY RATE.")
    text = (os.environ if environment is None else environment).get(VARIABLE, "")
    found += _read_lines(text.splitlines(), f"${VARIABLE}")
    seen: set[str | bytes] = set()
    for key in found:
        for what, value in (("name", key.name), ("key", key.digest)):
            if value in seen:
                raise ConfigError(
                    f"API keys: the {what} of {key.name!r} comes twice. Each must be given once."
                )
            seen.add(value)
    return tuple(found)


def _read_lines(lines: Iterable[str], where: str) -> list[ApiKey]:
    found = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) not in (2, 3) or not _NAME.fullmatch(words[0]):
            raise ConfigError(
                f"{where}, line {number}: must be NAME KEY or NAME KEY RATE, with a name of letters, digits, '.', '_' "
                f"and '-'. It has {len(words)} words."
            )
        name, key, *rest = words
        if len(key) < LEAST_LENGTH:
            raise ConfigError(
                f"{where}, line {number}: the key of {name!r} has {len(key)} characters; give it at least "
                f"{LEAST_LENGTH}. This makes a good one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if rest and not (rest[0].isascii() and rest[0].isdecimal() and 0 < int(rest[0]) <= 10**9):
            raise ConfigError(
                f"{where}, line {number}: the rate of {name!r} must be a whole number of pictures a minute, above 0."
            )
        found.append(ApiKey(name, _digest(key), int(rest[0]) if rest else None))
    return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class Bucket:
    """A rate: so many pictures a minute, as many of them at once (a token bucket).

    Args:
        rate: pictures a minute.
        clock: seconds, for tests.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._left = rate
        self._then = clock()

    def take(self, count: int) -> float:
        """Takes so many pictures and returns 0, or takes none and returns the seconds to wait for them.

        More than the rate at once are let through when the bucket is full, and paid off afterwards.
        """
        now = self._clock()
        self._left = min(self._rate, self._left + (now - self._then) * self._rate / 60)
        self._then = now
        wanted = min(count, self._rate)
        if self._left < wanted:
            return (wanted - self._left) * 60 / self._rate
        self._left -= count
        return 0.0


@dataclass(frozen=True)
class Client:
    """Whoever a key belongs to."""

    name: str
    bucket: Bucket | None  # None: any number of pictures


class KeyRing:
    """The keys that are good here.

    Args:
        keys: none: everybody may ask.
        rate: pictures a minute for keys that say nothing else; 0: any number.
        share: of each rate that this process may give, where several share the work.
    """

    def __init__(self, keys: Iterable[ApiKey], *, rate: int = 0, share: float = 1.0) -> None:
        # Looked up by a digest under a secret of this process: how long a look-up takes tells nothing that could be
        # used, because nobody outside knows which digest a guess has. So many keys cost no more than one.
        self._secret = secrets.token_bytes(32)
        self._clients: dict[bytes, tuple[bytes, Client]] = {}
        for key in keys:
            allowed = key.rate if key.rate is not None else rate
            bucket = Bucket(allowed * share) if allowed else None
            self._clients[self._place(key.digest)] = (key.digest, Client(key.name, bucket))

    @property
    def open(self) -> bool:
        """Whether nobody needs a key."""
        return not self._clients

    def find(self, key: str) -> Client | None:
        """Returns whose key this is, or None."""
        digest = _digest(key)
        known, client = self._clients.get(self._place(digest), (b"", None))
        return client if hmac.compare_digest(known, digest) else None

    def _place(self, digest: bytes) -> bytes:
        return hmac.digest(self._secret, digest, "sha256")
