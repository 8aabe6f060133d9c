"""HTTP itself: uvicorn's protocol on httptools, with limits that it does not have.

uvicorn waits for ever for headers, takes any number of them, and answers what is no HTTP in plain text.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from showtell.server.problems import BAD_REQUEST, LONG_HEADERS, MEDIA_TYPE, TOO_SLOW, Problem
from showtell.server.settings import Limits

_LAST_SECONDS = 1.0  # for headers, when the service ends; and for what still comes after a refusal


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `limited` gives the class its limits."""

    limits = Limits()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._headers_timer: asyncio.TimerHandle | None = None
        self._header_bytes: int | None = 0  # since the request began; None: its headers have come
        self._counted = 0  # bytes of headers that were read
        self._ending = False
        self._refused = False
        self._again = b""  # the head of a request that proposed another protocol, without the proposal

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begins to wait for headers."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._wait_for_headers(self.limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads what came; after a refusal it is dropped."""
        if self._refused:
            return
        if self._header_bytes is not None:
            self._header_bytes += len(data)
        self._feed(data)
        # Looked at afterwards: what came may hold the end of the headers and much of the body.
        if self._header_bytes is not None and self._header_bytes > self.limits.header_bytes:
            self.send_400_response("")

    def _feed(self, data: bytes) -> None:
        """Parses what came. Where a client proposes another protocol (h2c, as Java's does), that is passed over: the
        parser would take the body for the other protocol's, so the request is parsed again without the proposal."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._again:  # CONNECT
                self.send_400_response("")
                return
            rest, self._again = self._again + data[upgrade.args[0] :], b""
            self.parser = httptools.HttpRequestParser(self)
            self._feed(rest)
        except httptools.HttpParserError:
            self.send_400_response("")

    def _write_plain_head(self) -> bytes:
        dropped = (b"connection", b"upgrade", b"http2-settings")
        lines = [b"%s: %s\r\n" % (name, value) for name, value in self.headers if name not in dropped]
        version = self.parser.get_http_version().encode("ascii")
        return b"%s %s HTTP/%s\r\n%s\r\n" % (self.parser.get_method(), self.url, version, b"".join(lines))

    def on_message_complete(self) -> None:
        """A request has come whole."""
        if not self._again:
            super().on_message_complete()

    def on_message_begin(self) -> None:
        """A request begins, perhaps behind another one on the same connection."""
        super().on_message_begin()
        self._header_bytes = self._counted = 0
        if self._headers_timer is None:
            self._wait_for_headers(self.limits.header_seconds)

    def on_url(self, url: bytes) -> None:
        """A part of the address has come."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header has come."""
        self._count(len(name) + len(value) + 4)  # a colon, a space and the end of the line
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._counted += size
        if self._counted > self.limits.header_bytes:
            raise ValueError  # which the parser passes on as an error of its own

    def on_headers_complete(self) -> None:
        """The headers have come."""
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._again = self._write_plain_head()
            return
        self._stop_waiting()
        self._header_bytes = None
        super().on_headers_complete()
        if self._ending and self.cycle is not None:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, or has too long headers."""
        del msg
        limit = self.limits.header_bytes
        if max(self._counted, self._header_bytes or 0) > limit:
            self._refuse(
                Problem(LONG_HEADERS, f"Address and headers may have {limit:,} bytes together. Shorten them.")
            )
        else:
            self._refuse(
                Problem(BAD_REQUEST, "This is no HTTP request that can be understood. Is it HTTP at all?")
            )

    def shutdown(self) -> None:
        """Ends the connection when its request is answered; one whose headers are on their way has a moment more."""
        self._ending = True
        if self._headers_timer is not None and not self.transport.is_closing():
            self._stop_waiting()
            self._wait_for_headers(_LAST_SECONDS)
        else:
            super().shutdown()

    def _wait_for_headers(self, seconds: float) -> None:
        self._headers_timer = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _give_up(self) -> None:
        self._headers_timer = None
        if self._counted or self._header_bytes:
            self._refuse(
                Problem(TOO_SLOW, "The headers did not come in time. Send the request again, faster.")
            )
        else:
            self.transport.close()  # nothing was asked

    def _refuse(self, problem: Problem) -> None:
        self._stop_waiting()
        self._refused = True
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()  # a refusal would land inside of another answer
            return
        body = json.dumps(problem.to_dict("")).encode("ascii")
        lines = (
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            "x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[problem.kind.status] + lines.encode("ascii") + body)
        # Closed at once, with bytes unread, the connection would be reset, and the client lose the answer.
        self.transport.write_eof()
        self.loop.call_later(_LAST_SECONDS, self.transport.close)


def limited(limits: Limits) -> type[LimitedProtocol]:
    """Returns the protocol with these limits."""
    return type("Protocol", (LimitedProtocol,), {"limits": limits})
