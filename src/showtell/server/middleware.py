"""Around every request: its number, its log line, its headers; and who is let in. Plain ASGI, for speed."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from showtell.server.problems import BAD_REQUEST, BUSY, CROSS_SITE, UNAUTHORIZED, WRONG_HOST, Problem
from showtell.server.service import Asked, Service

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
PROTECTED = ("/v1/", "/wowme", "/metrics")  # what needs a key, where there are keys
CAPTIONING = (("POST", "/v1/captions"), ("GET", "/wowme"))  # what needs a place in the queue
OPEN = ("/healthz", "/readyz")  # what balancers ask, by whatever name or address they have
LINGER_SECONDS = 1.0  # for a body that nobody wants any more, so that its sender sees why
LINGER_BYTES = 4 * 1024 * 1024
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?", re.ASCII)
_log = logging.getLogger("showtell.server")


def refuse(scope: Scope, problem: Problem) -> Response:
    """Returns a problem as the answer of a request, and notes it for the log and the metrics."""
    scope["showtell.problem"] = problem.kind.name
    return problem.respond(scope["showtell"].id)


class Envelope:
    """Gives each request a number, its answer the security headers, the log a line and the metrics their counts.

    It also sees to bodies that were not read to their end: the connection cannot be used again, and closing it at
    once could cost the client the answer, so what still comes is dropped for a moment first.
    """

    def __init__(self, app: ASGIApp, service: Service, paths: Iterable[str]) -> None:
        self._app = app
        self._service = service
        self._paths = frozenset(paths)  # that are counted by name: anybody could make new ones up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        await _Exchange(self._app, self._service, path, scope, receive, send).run()


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, app: ASGIApp, service: Service, path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._app, self._service, self._path, self._scope = app, service, path, scope
        self._receive, self._send = receive, send
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        number = given if _ID.fullmatch(given) else secrets.token_hex(16)
        self._asked = Asked(number, time.monotonic())
        self._unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._received = 0  # bytes of the body
        self._status = 0

    async def run(self) -> None:
        """Lets the application answer."""
        service = self._service
        self._scope["showtell"] = self._asked
        service.open_requests += 1
        service.metrics.open_requests.inc()
        try:
            if service.open_requests > service.settings.limits.requests:
                problem = Problem(
                    BUSY,
                    f"{service.open_requests - 1} requests are open already. Try again soon.",
                    retry_after=1,
                )
                await refuse(self._scope, problem)(self._scope, self.receive, self.send)
            else:
                await self._app(self._scope, self.receive, self.send)
        finally:
            service.open_requests -= 1
            service.metrics.open_requests.dec()
            self._account()

    async def receive(self) -> Message:
        """Passes on what comes, and notes when the body has come whole."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._unread = message.get("more_body", False)
        else:
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        """Adds headers, and keeps the connection open for the rest of a body that was refused."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._asked.id
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            # The page may be kept, and is asked for again by its ETag: a newer one is seen at once.
            kept = "no-store" if self._scope["path"].startswith(PROTECTED) else "no-cache"
            headers.setdefault("Cache-Control", kept)
            if self._unread:
                headers["Connection"] = "close"
        elif not message.get("more_body", False) and self._unread:
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        end = self._received + LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while self._unread and self._received < end:
                    await self.receive()
        except TimeoutError:
            pass

    def _account(self) -> None:
        asked, scope, metrics = self._asked, self._scope, self._service.metrics
        took = time.monotonic() - asked.begin
        metrics.requests.labels(self._path, _known(scope["method"]), str(self._status or 499)).inc()
        metrics.stage("request", took)
        refused = scope.get("showtell.problem", "")
        if refused:
            metrics.refused.labels(refused).inc()
        facts = {
            "request_id": asked.id,
            "method": _known(scope["method"]),
            "path": self._path,  # without the query, which may hold an address with secrets
            "status": self._status or 499,
            "milliseconds": round(1000 * took, 1),
            "bytes": self._received,
            "images": asked.images or None,
            "key": asked.client.name if asked.client else None,
            "problem": refused or None,
        }
        _log.info(
            "request", extra={"facts": {key: value for key, value in facts.items() if value is not None}}
        )


class Gate:
    """Lets in who may come: by the name that the service is called, by the page that asks, and by key."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._hosts = frozenset(service.settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except Problem as problem:
                await refuse(scope, problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        names = headers.getlist("host")
        needed = 0 if scope["http_version"] == "1.0" else 1
        if not needed <= len(names) <= 1 or not all(map(_HOST.fullmatch, names)):
            raise Problem(BAD_REQUEST, "The header Host must be given once, as a name or an address.")
        path = scope["path"]
        if path in OPEN:
            return
        host = _bare(names[0]) if names else ""
        if host and self._hosts and host not in self._hosts:
            raise Problem(
                WRONG_HOST,
                f"This service does not go by the name {host!r}. Its owner can allow it: --allow-host {host}",
            )
        if not path.startswith(PROTECTED):
            return
        self._check_site(headers, names[0] if names else "")
        if not self._service.keys.open:
            self._check_key(scope, headers)
        if (scope["method"], path) in CAPTIONING:
            # Before the body is read and the request is routed: a busy service says so at once, and cheaply.
            self._service.engine.check_room()

    def _check_site(self, headers: Headers, host: str) -> None:
        """Refuses what a page of another site asks for, even if it could not read the answer."""
        origin = headers.get("origin")
        allowed = self._service.settings.origins
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if origin is not None and origin not in allowed:
            foreign = foreign or _authority(origin) != host.lower()
        if foreign and origin not in allowed:
            raise Problem(
                CROSS_SITE, "A page of another site asks. The service's owner can allow it: --allow-origin"
            )

    def _check_key(self, scope: Scope, headers: Mapping[str, str]) -> None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        client = self._service.keys.find(key.strip()) if scheme.lower() == "bearer" else None
        if client is None:
            raise Problem(
                UNAUTHORIZED,
                "Send a key that is good here: Authorization: Bearer KEY.",
                headers={"WWW-Authenticate": 'Bearer realm="showtell"'},
            )
        asked: Asked = scope["showtell"]
        asked.client = client
        if scope["path"] != "/metrics":
            self._service.charge(asked, 0)  # a key whose rate is used up sends no body


def _authority(origin: str) -> str:
    """Returns host and port of an origin, in lower case; "" where it has none, as "null"."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _bare(host: str) -> str:
    """Returns a host without its port and brackets."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().removesuffix(".")


def _known(method: str) -> str:
    return method if method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH") else "other"
