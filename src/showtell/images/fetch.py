"""Fetching images from the web: bounded in time and size, and only from public addresses.

Whoever names a URL makes this machine connect to it, so:

- A name is looked up once per request. All its addresses must be public (`showtell.images.addresses`), or none is used.
  The connection then goes to one of these very addresses: a second look-up, which might say something else, never
  happens. TLS still checks the certificate against the name.
- Redirects are followed here, at most five, and each begins anew with all checks. From https to http none is followed:
  what was asked for over a secure connection must not come over an open one.
- Nothing of the user goes along: no proxies from the environment, no cookies, no passwords, no netrc, no referrer.
  (An environment that names certificates, SSL_CERT_FILE, is heeded.)
- One deadline holds for everything: look-ups, connections, TLS, headers, redirects and the image. Every single read is
  given what is left of it, so a server that drips one byte a second gains nothing.
- Whatever the headers say, reading stops at the limit of bytes. Compressed answers are neither asked for nor taken, so
  nothing can grow after it was counted.
- The content type is not believed. What is an image is for `showtell.images.open_image` to say; only web pages are
  named here, as they are what a wrong address usually gives.

urllib would follow redirects, heed proxies and look names up itself; http.client reads here from a connection that was
made under these rules, and knows nothing of addresses.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import math
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urljoin

from showtell import __version__
from showtell.errors import FetchError, UsageError
from showtell.images.addresses import IPAddress, WebAddress, parse_address, unmap, why_not_public
from showtell.images.web import is_web_page

Resolve = Callable[[str, int], Sequence[str]]
Connect = Callable[[IPAddress, int, float], socket.socket]

LOOK_UPS = 32  # that one fetcher has under way; the system may hang on to each for minutes
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one image may cost.

    Raises:
        UsageError: a limit that is no positive number.
    """

    seconds: float = 20.0  # for everything together
    connect_seconds: float = 6.0  # for one connection, and once more for its TLS
    read_seconds: float = 10.0  # without a single byte
    bytes: int = 32 * 1024 * 1024  # of the image
    header_bytes: int = 64 * 1024  # of each answer
    redirects: int = 5
    ports: frozenset[int] | None = None  # that may be connected to; None: any

    def __post_init__(self) -> None:
        for name in ("seconds", "connect_seconds", "read_seconds", "bytes", "header_bytes"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"the limit {name} must be a positive number. Received: {value!r}")
        if self.redirects < 0:
            raise UsageError(f"the limit redirects must be at least 0. Received: {self.redirects!r}")


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """What a URL gave."""

    content: bytes  # of a file, as `open_image` takes it; not yet known to be an image
    address: str  # where it was found after redirects; its query may hold secrets


class Fetcher:
    """Fetches images from the web. It may be used by several threads at once.

    Args:
        limits: `FetchLimits()` by default.
        allow_private: connect to addresses that are not public, too. Whoever names a URL then reaches whatever this
            machine reaches.
        tls: what certificates are checked with; by default the system's authorities.
        resolve: gives the addresses of (host, port); by default the system does.
        connect: gives a connection to (address, port) within so many seconds; by default to that very address.
    """

    def __init__(
        self,
        limits: FetchLimits | None = None,
        *,
        allow_private: bool = False,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.limits = limits or FetchLimits()
        self._allow_private = allow_private
        self._tls = tls
        self._tls_lock = threading.Lock()
        self._resolve = resolve or _ask_the_system
        self._connect = connect or _connect
        self._look_ups = threading.BoundedSemaphore(LOOK_UPS)

    def fetch(self, url: str) -> FetchedImage:
        """Returns what a URL gives.

        Raises:
            FetchError: the URL or an address is refused, the server cannot be reached, takes too long, sends too much,
                answers with an error or with a web page. The message begins with the URL, without its query.
        """
        deadline = _Deadline(self.limits.seconds)
        address = parse_address(url)
        start = where = address.shown
        seen = {address.url}
        for _ in range(self.limits.redirects + 1):
            with _errors_named(where):
                answer = self._ask(address, deadline)
                if isinstance(answer, bytes):
                    return FetchedImage(answer, address.url)
                if answer.url in seen:
                    raise _Failure("redirects lead in a circle")
            address = answer
            seen.add(address.url)
            where = f"{start}: after a redirect to {address.shown}"
        raise FetchError(f"{start}: more than {self.limits.redirects} redirects")

    def _ask(self, address: WebAddress, deadline: _Deadline) -> bytes | WebAddress:
        """Returns an address's content, or where it redirects to."""
        with contextlib.closing(self._open(address, deadline)) as connection:
            connection.settimeout(deadline.cut(self.limits.read_seconds))
            connection.sendall(_request(address))
            wire = _Wire(connection, deadline, self.limits.read_seconds)
            # It only ever calls makefile.
            with contextlib.closing(http.client.HTTPResponse(cast(socket.socket, wire))) as response:
                wire.allow(self.limits.header_bytes, f"its headers exceed {self.limits.header_bytes:,} bytes")
                response.begin()
                if response.status in _REDIRECTS:
                    return _redirection(address, response)
                if response.status != 200:
                    raise _Failure(
                        f"the server answers with status {response.status}{_meaning(response.status)}"
                    )
                return self._read(response, wire)

    def _read(self, response: http.client.HTTPResponse, wire: _Wire) -> bytes:
        """Returns the content of an answer."""
        limit = self.limits.bytes
        too_large = f"it is larger than the limit of {limit:,} bytes"
        for header, known in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
            words = ",".join(response.headers.get_all(header, [])).lower().replace(" ", "")
            if words not in ("", known):
                raise _Failure(
                    f"the server sends it in an encoding that is not supported ({header}: {words[:40]!a})"
                )
        declared = response.length
        if declared is not None and declared > limit:
            raise _Failure(f"{too_large}: {declared:,} bytes")
        # Chunks may be small, and each has a line of its own; trailers count, too.
        wire.allow(2 * limit + self.limits.header_bytes, too_large)
        content = io.BytesIO()
        while chunk := response.read(min(_CHUNK, limit + 1 - content.tell())):
            content.write(chunk)
            if content.tell() > limit:
                raise _Failure(too_large)
        if declared is not None and content.tell() < declared:
            raise _Failure(f"the connection ended after {content.tell():,} of {declared:,} bytes")
        found = content.getvalue()
        if is_web_page(found):
            raise _Failure("the address gives a web page, not an image")
        return found

    def _open(self, address: WebAddress, deadline: _Deadline) -> socket.socket:
        """Returns a connection to one of the host's addresses, all of which are allowed; over TLS for https."""
        if self.limits.ports is not None and address.port not in self.limits.ports:
            allowed = ", ".join(map(str, sorted(self.limits.ports)))
            raise _Failure(f"port {address.port} is not allowed here; allowed: {allowed}")
        seconds = self.limits.connect_seconds
        connection: socket.socket | None = None
        failure: Exception | None = None
        for candidate in self._addresses(address, deadline):
            try:
                connection = self._connect(candidate, address.port, deadline.cut(seconds))
                break
            except TimeoutError:
                failure = failure or _Failure(deadline.explain(f"no connection within {seconds:g} s"))
            except OSError as error:
                failure = failure or error
        if connection is None:
            raise failure or _Failure("its host has no address")
        if address.scheme == "http":
            return connection
        try:
            connection.settimeout(deadline.cut(seconds))
            return self._tls_context().wrap_socket(connection, server_hostname=address.host)
        except TimeoutError:
            connection.close()
            raise _Failure(deadline.explain(f"no secure connection within {seconds:g} s")) from None
        except BaseException:
            connection.close()
            raise

    def _addresses(self, address: WebAddress, deadline: _Deadline) -> list[IPAddress]:
        """Returns the addresses of a host in the order in which they should be tried; refuses it if one is refused."""
        if address.literal is not None:
            found = [address.literal]
        else:
            found = [ipaddress.ip_address(text) for text in self._look_up(address, deadline)]
        if not self._allow_private:
            for candidate in found:
                kind = why_not_public(candidate)
                if kind is not None:
                    raise _Failure(f"its host leads to an address that is not public ({kind})")
        return list(dict.fromkeys(map(unmap, found)))

    def _look_up(self, address: WebAddress, deadline: _Deadline) -> Sequence[str]:
        """Looks a host up on a thread of its own: the system's look-up knows no time limit."""
        late = _Failure(f"its host could not be looked up within {self.limits.seconds:g} s")
        if not self._look_ups.acquire(timeout=deadline.cut(self.limits.seconds)):
            raise late
        answers: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                answer: Sequence[str] | Exception = self._resolve(address.host, address.port)
            except Exception as error:
                answer = error
            self._look_ups.release()
            answers.put(answer)

        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        try:
            answer = answers.get(timeout=deadline.cut(self.limits.seconds))
        except queue.Empty:
            raise late from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _tls_context(self) -> ssl.SSLContext:
        with self._tls_lock:  # reading the authorities takes a while, and is done once
            if self._tls is None:
                self._tls = ssl.create_default_context()
            return self._tls


class _Failure(Exception):
    """Why an image cannot be fetched; `_errors_named` adds which."""


class _Deadline:
    """When everything must be over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def cut(self, seconds: float) -> float:
        """Returns how long a step may take that may take so many seconds by itself."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise _Failure(self.explain(""))
        return min(seconds, left)

    def explain(self, step: str) -> str:
        """Returns why it was too late: the time for everything is over, or else that of the step."""
        return step if time.monotonic() < self._end else f"it took longer than {self._seconds:g} s in all"


class _Wire(io.RawIOBase):
    """What comes over a connection, until a deadline and up to a number of bytes; http.client reads from it."""

    def __init__(self, connection: socket.socket, deadline: _Deadline, read_seconds: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._read_seconds = read_seconds
        self._left = 0
        self._refusal = ""

    def allow(self, count: int, refusal: str) -> None:
        """Lets so many bytes through from now on; whoever asks for more fails with `refusal`."""
        self._left, self._refusal = count, refusal

    def makefile(self, mode: str) -> io.BufferedReader:
        """Returns itself for reading, as sockets do."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads what is there, but no more than is allowed."""
        if self._left <= 0:
            raise _Failure(self._refusal)
        self._connection.settimeout(self._deadline.cut(self._read_seconds))
        try:
            count = self._connection.recv_into(memoryview(buffer)[: self._left])
        except TimeoutError:
            raise _Failure(self._deadline.explain(f"nothing came for {self._read_seconds:g} s")) from None
        self._left -= count
        return count


def _ask_the_system(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _connect(address: IPAddress, port: int, seconds: float) -> socket.socket:
    # Not socket.create_connection, which takes names, too.
    connection = socket.socket(
        socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_STREAM
    )
    try:
        connection.settimeout(seconds)
        connection.connect((str(address), port))
    except BaseException:
        connection.close()
        raise
    return connection


def _request(address: WebAddress) -> bytes:
    lines = (
        f"GET {address.target} HTTP/1.1",
        f"Host: {address.authority}",
        f"User-Agent: showtell/{__version__}",
        "Accept: image/*, */*;q=0.1",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


def _redirection(address: WebAddress, response: http.client.HTTPResponse) -> WebAddress:
    """Returns where an answer redirects to; only what the URL alone says is checked here."""
    location = response.headers.get("Location")
    if not location:
        raise _Failure(f"the server redirects (status {response.status}) and does not say where to")
    with contextlib.suppress(
        UnicodeError
    ):  # http.client reads headers as Latin-1; browsers read this one as UTF-8
        location = location.encode("latin-1").decode("utf-8")
    try:
        following = parse_address(urljoin(address.url, location))
    except FetchError as error:
        raise _Failure(f"the server redirects to {error}") from None
    except ValueError:  # from urljoin: brackets that do not fit
        raise _Failure("the server redirects to an address that cannot be read") from None
    if (address.scheme, following.scheme) == ("https", "http"):
        raise _Failure(f"the server redirects from https to http ({following.shown}), which is not followed")
    return following


@contextlib.contextmanager
def _errors_named(where: str) -> Iterator[None]:
    """Turns whatever goes wrong on the way into a FetchError that names the URL."""
    try:
        yield
    except (_Failure, OSError, http.client.HTTPException, ValueError, OverflowError) as error:
        raise FetchError(f"{where}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """Returns what an error means for people."""
    if isinstance(error, _Failure):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate cannot be trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"the secure connection failed ({error.reason or error})"
    if isinstance(error, socket.gaierror):
        return f"its host cannot be found ({error.strerror}); is the name right, and the network up?"
    if isinstance(error, ConnectionRefusedError):
        return "the server refuses the connection"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the server ends the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended in the middle of the image"
    if isinstance(error, OSError):
        return f"the connection failed ({error.strerror or error})"
    return f"the server's answer cannot be understood ({ascii(str(error))[:100]})"


def _meaning(status: int) -> str:
    phrase = http.client.responses.get(status)
    return f" ({phrase})" if phrase else ""
