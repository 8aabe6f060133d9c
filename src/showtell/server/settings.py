"""What the service is told when it starts. It travels to every worker process, so it holds plain values only."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Literal

from showtell.errors import ConfigError
from showtell.server.keys import ApiKey

URLS = ("public", "any", "none")
LEAST_HANG_SECONDS = 5.0  # signs of life come once a second, and a busy machine may delay some
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may cost in one worker process.

    Raises:
        ConfigError: a limit that is no positive number.
    """

    body_bytes: int = 32 * 1024 * 1024  # of one request
    memory_bytes: int = 256 * 1024 * 1024  # of all bodies that are held at once
    images: int = 32  # in one request
    pixels: int = 50_000_000  # width x height of one picture
    queue: int = 64  # pictures that are accepted and not yet answered
    requests: int = 256  # that are open at once, their bodies still on the way or not
    connections: int = 1024  # that are open at once, idle ones among them
    seconds: float = 30.0  # of one request, from its first byte to its answer
    body_seconds: float = 20.0  # until a body has come whole
    idle_seconds: float = 5.0  # without a single byte of a body
    header_seconds: float = 10.0  # until the headers have come whole
    header_bytes: int = 32 * 1024
    fetch_seconds: float = 15.0  # of one picture at a URL
    fetch_bytes: int = 16 * 1024 * 1024  # of one picture at a URL

    def __post_init__(self) -> None:
        for one in fields(self):
            _check_positive(one.name, getattr(self, one.name))


@dataclass(frozen=True)
class ServerSettings:
    """Everything the service is told.

    Raises:
        ConfigError: a value that makes no sense.
    """

    models: tuple[str, ...]  # folders of exported captioners; several make an ensemble
    host: str = "127.0.0.1"
    port: int = 8000  # 0: one that is free
    workers: int = 1  # processes
    engine: str = "auto"
    precision: str = "auto"
    threads: int = 0  # of the networks, in each worker; 0: the cores shared among the workers
    decoders: int = 2  # threads that decode pictures, in each worker
    fetchers: int = 8  # threads that fetch pictures from the web, in each worker
    batch: int = 16  # pictures that are captioned together, at most
    batch_wait: float = 0.005  # seconds that a picture waits for others that are being decoded, at most
    cache_bytes: int = 64 * 1024 * 1024  # of captions that are kept, in each worker; 0 keeps none
    drain_seconds: float = 35.0  # for what was accepted, when the service is told to end
    hang_seconds: float = 30.0  # without a sign of life, after which a worker is killed and replaced
    urls: Literal["public", "any", "none"] = "public"  # which addresses pictures are fetched from
    hosts: tuple[str, ...] = ()  # names that the header Host may have; empty: see `allowed_hosts`
    origins: tuple[str, ...] = ()  # of web pages elsewhere that may use the API
    keys: tuple[ApiKey, ...] = field(default=(), repr=False)  # empty: nobody needs one
    rate: int = 0  # pictures a minute for each key that says nothing else; 0: any number
    metrics_folder: str = ""  # where several workers add up their metrics
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("The service needs a model. Give --model, or leave it out for the default one.")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be from 0 to 65535. Received: {self.port}")
        for name in ("workers", "decoders", "fetchers", "batch", "drain_seconds", "hang_seconds"):
            _check_positive(name, getattr(self, name))
        for name in ("threads", "cache_bytes", "rate", "batch_wait"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0. Received: {getattr(self, name)!r}")
        if self.hang_seconds < LEAST_HANG_SECONDS:
            raise ConfigError(
                f"hang_seconds must be at least {LEAST_HANG_SECONDS:g}: a worker that idles gives a sign of life only "
                f"once a second. Received: {self.hang_seconds!r}"
            )
        if self.urls not in URLS:
            raise ConfigError(f"urls must be one of {', '.join(URLS)}. Received: {self.urls!r}")
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"An origin is a scheme and a host in lower case, as in https://example.com. Received: {origin!r}"
                )
        if self.limits.images > self.limits.queue:
            raise ConfigError(
                f"The queue of {self.limits.queue} pictures has no room for the {self.limits.images} of one request. "
                "Lower --max-images, or raise --queue."
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the service."""
        return self.host in LOOPBACK

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """The names that the header Host may have; empty: any.

        Where only this machine reaches the service, a web page could still make its own name lead here (DNS
        rebinding); the header then has that name.
        """
        return self.hosts or (LOOPBACK if self.is_local else ())


def _check_positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not (math.isfinite(value) and value > 0):
        raise ConfigError(f"The limit {name} must be a positive number. Received: {value!r}")
