"""A small web server on this machine, from which the service under test fetches pictures; some addresses are traps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

_DRIPS = 40  # pieces of an answer that comes slowly, and ends before its time
_DRIP_SECONDS = 0.1
_FLOOD = 64 * 1024  # bytes of each piece of an answer that does not end
_FLOODS = 1000  # pieces: far beyond what the service may take
_PATIENCE = 30.0  # seconds for one exchange


class PictureServer:
    """Answers GET /N.jpg with a picture that no other number has.

    /to/N leads to /N.jpg by a redirect, /around to itself, /page is a web page, /missing is not there, /drip is slow
    and breaks off, /flood does not end, anything else closes the connection.

    Args:
        photographs: contents of JPEG files, taken in turn.
    """

    def __init__(self, photographs: Sequence[bytes]) -> None:
        self._photographs = photographs
        self.port = 0

    def content(self, number: int) -> bytes:
        """Returns the picture of this number."""
        return self._photographs[number % len(self._photographs)] + b"web %d" % number

    def url(self, path: str) -> str:
        """Returns the address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Serves until the block ends."""
        under_way: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._handle(reader, writer))
            under_way.add(task)
            task.add_done_callback(under_way.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                await self._answer(head.split()[1].decode("ascii", "replace"), writer)
        writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        name = path.lstrip("/")
        if name.endswith(".jpg"):
            content = self.content(int(name.removesuffix(".jpg")))
            writer.write(_head("200 OK", f"Content-Length: {len(content)}") + content)
        elif name.startswith("to/"):
            writer.write(
                _head("302 Found", f"Location: /{name.removeprefix('to/')}.jpg", "Content-Length: 0")
            )
        elif name == "around":
            writer.write(_head("302 Found", "Location: /around", "Content-Length: 0"))
        elif name == "page":
            page = b"<!doctype html><title>No picture</title>"
            writer.write(_head("200 OK", "Content-Type: text/html", f"Content-Length: {len(page)}") + page)
        elif name == "missing":
            writer.write(_head("404 Not Found", "Content-Length: 0"))
        elif name == "drip":
            writer.write(_head("200 OK", "Content-Length: 1000000"))
            for _ in range(_DRIPS):
                writer.write(b"\xff")
                await writer.drain()
                await asyncio.sleep(_DRIP_SECONDS)
        elif name == "flood":
            writer.write(_head("200 OK"))
            for _ in range(_FLOODS):
                writer.write(bytes(_FLOOD))
                await writer.drain()
        await writer.drain()


def _head(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "Connection: close", "", ""]).encode("ascii")
