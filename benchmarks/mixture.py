"""Requests of every kind, for the service under test: good ones, bad ones, and ones whose clients leave.

Each kind knows what must come of it. Every picture is a new one (bytes behind the end of a JPEG change its digest, not
its picture), but for those that are asked for again on purpose.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from PIL import Image

from benchmarks.expected import Tally, Unexpected, check_problem
from benchmarks.load import Answer, Connection, read_event, write_form, write_request
from benchmarks.web import PictureServer

CAPTIONS = "/v1/captions"
MAX_BODY_MB = 2  # what the service under test must be told (--max-body): too much is then quickly sent
BODY_SECONDS = 2  # --body-timeout: so is too slowly
MAX_IMAGES = 32  # of one request
SECONDS = 90.0  # for one request, whatever it is
CROWD = 90  # clients of a crowd: more than the service's queue takes


class Mixture:
    """Makes requests to a service on this machine.

    Args:
        port: of the service.
        photographs: contents of JPEG files.
        web: where the service is to fetch pictures from.
        word: one that the model knows.
        explains: whether the model tells where it looks.
        seed: of the order of the requests.
    """

    def __init__(
        self,
        port: int,
        photographs: Sequence[bytes],
        web: PictureServer,
        *,
        word: str,
        explains: bool,
        seed: int = 0,
    ) -> None:
        self.tally = Tally()
        self._port = port
        self._photographs = photographs
        self._web = web
        self._word = word
        self._explains = explains
        self._chance = random.Random(seed)
        self._number = 0
        self._last = photographs[0]  # for a request that was made before
        self._bomb = _draw("PNG", (9000, 9000), "1")
        self._png = _draw("PNG", (320, 240), "RGB")
        self._kinds = self._list_kinds()

    async def client(self, end: float) -> None:
        """Makes one request after the other until `end` (`time.monotonic`)."""
        weights = [weight for weight, _, _ in self._kinds]
        while time.monotonic() < end:
            [(_, name, act)] = self._chance.choices(self._kinds, weights)
            await self._do(name, act)

    async def each_kind(self, together: int) -> None:
        """Makes requests of each kind, so many at once (but only one crowd), which starts all the service's threads."""
        for _, name, act in self._kinds:
            count = 1 if act == self._crowd else together
            await asyncio.gather(*(self._do(name, act) for _ in range(count)))

    async def _do(self, name: str, act: _Act) -> None:
        self.tally.kinds[name] += 1
        try:
            async with asyncio.timeout(SECONDS):
                await act(name)
        except Unexpected as error:
            self.tally.mistake(name, str(error))
        except (OSError, EOFError, ValueError, KeyError) as error:  # no answer, or one that cannot be read
            self.tally.mistake(name, repr(error))

    # ----- what there is

    def _list_kinds(self) -> list[tuple[float, str, _Act]]:
        """Returns how often, name and deed of each kind."""
        bad, web = self._bad_request, self._web
        sampled = [("method", "sample"), ("count", "2"), ("seed", "7"), ("top_p", "0.9")]
        beam = [("beam", "3"), ("count", "3"), ("alt_text", "true")]
        included = [("method", "beam"), ("include", self._word)]
        explained = [("explain", "true"), ("beam", "2")] if self._explains else beam
        half = self._photographs[0][: len(self._photographs[0]) // 2]
        tiny = _draw("PNG", (8, 8), "RGB")
        text = b"This is no picture, whatever its name is. " * 50
        one = self._photographs[0]
        big = bytes(MAX_BODY_MB * 1024 * 1024 + 100_000)
        return [
            (12, "good: form", self._form()),
            (6, "good: beam", self._form(beam)),
            (4, "good: explain", self._form(explained)),
            (4, "good: sample", self._form(sampled)),
            (3, "good: include", self._form(included)),
            (3, "good: exclude", self._form([("exclude", self._word)])),
            (4, "good: several images", self._form(count=4)),
            (3, "good: several, one damaged", self._form(count=3, damaged=half)),
            (2, "good: PNG called JPEG", self._form(content=self._png)),
            (5, "good: again", self._again),
            (2, "good: kept connection", self._keep_connection),
            (3, "good: in chunks", self._in_chunks),
            (6, "good: stream", self._stream(1, [])),
            (4, "good: stream of several", self._stream(3, sampled)),
            (5, "good: base64", self._base64),
            (4, "good: URL", self._url("/{}.jpg")),
            (3, "good: redirected URL", self._url("/to/{}")),
            (2, "good: wowme", self._wowme),
            (2, "good: pages", self._pages),
            (0.3, "good: crowd", self._crowd),
            (2, "bad: truncated", bad(422, **write_form([("image", half)]))),
            (2, "bad: mislabelled", bad(422, **write_form([("image", text)]))),
            (2, "bad: empty file", bad(422, **write_form([("image", b"")]))),
            (1, "bad: empty body", bad(415, headers={})),
            (1, "bad: no image", bad(422, **write_form([], [("beam", "3")]))),
            (1, "bad: bomb", bad(422, **write_form([("image", self._bomb)]))),
            (1, "bad: damaged form", bad(400, headers=write_form([])["headers"], body=b"--nothing")),
            (2, "bad: unknown option", bad(422, **write_form([("image", one)], [("colour", "red")]))),
            (2, "bad: option out of range", bad(422, **write_form([("image", one)], [("beam", "0")]))),
            (1, "bad: too many images", bad(413, **write_form([("image", tiny)] * (MAX_IMAGES + 1)))),
            (1, "bad: too large", bad(413, **write_form([("image", big)]))),
            (1, "bad: too large, told before", bad(413, **_json(b"{}", {"Content-Length": "1" + "0" * 12}))),
            (2, "bad: no JSON", bad(400, **_json(b'{"images": ['))),
            (2, "bad: JSON of another shape", bad(422, **_json(b'{"images": "a", "beam": [1]}'))),
            (1, "bad: deep JSON", bad(400, **_json(b"[" * 100_000))),
            (1, "bad: base64", bad(422, **_json(b'{"images": [{"base64": "%%%"}]}'))),
            (1, "bad: type of body", bad(415, headers={"Content-Type": "text/plain"}, body=one)),
            (1, "bad: path", bad(404, path="/v1/nothing", method="GET", headers={})),
            (1, "bad: method", bad(405, method="DELETE", headers={})),
            (1, "bad: long headers", bad(431, headers={"X-Long": "a" * 60_000})),
            (1, "bad: Host", bad(421, method="GET", path="/v1/models", headers={"Host": "example.com"})),
            (1, "bad: URL of a page", bad(422, **_link(web.url("/page")))),
            (1, "bad: URL of nothing", bad(422, **_link(web.url("/missing")))),
            (1, "bad: URL in a circle", bad(422, **_link(web.url("/around")))),
            (1, "bad: URL that closes", bad(422, **_link(web.url("/close")))),
            (0.5, "bad: slow URL", bad(422, **_link(web.url("/drip")))),
            (0.5, "bad: endless URL", bad(422, **_link(web.url("/flood")))),
            (1, "bad: slow body", self._slow_body),
            (2, "left: in the headers", self._leave(0.0003)),
            (3, "left: in the body", self._leave(0.5)),
            (3, "left: after sending", self._leave(1.0)),
            (2, "left: after a moment", self._leave(1.0, wait=0.1)),
            (2, "left: with a reset", self._leave(1.0, wait=0.02, reset=True)),
            (1, "left: while it is fetched", self._leave_fetch),
            (4, "left: in a stream", self._leave_stream),
        ]

    # ----- good ones

    def _draw_new(self) -> bytes:
        self._number += 1
        return self._photographs[self._number % len(self._photographs)] + b"soak %d" % self._number

    def _form(
        self,
        options: Sequence[tuple[str, str]] = (),
        *,
        count: int = 1,
        damaged: bytes | None = None,
        content: bytes | None = None,
    ) -> _Act:
        async def act(name: str) -> None:
            contents = [
                self._draw_new() if content is None else content + b"%d" % self._number for _ in range(count)
            ]
            if damaged is not None:
                contents[1] = damaged
            request = write_request(CAPTIONS, **write_form([("image", one) for one in contents], options))
            answer = await self._ask(name, request)
            self.tally.check(answer, contents, broken={1} if damaged else set())
            if answer.status == 200 and len(contents) == 1 and not options:
                self._last = contents[0]

        return act

    async def _again(self, name: str) -> None:
        request = write_request(CAPTIONS, **write_form([("image", self._last)]))
        content = self._last
        self.tally.check(await self._ask(name, request), [content])

    async def _in_chunks(self, name: str) -> None:
        content = self._draw_new()
        form = write_form([("image", content)])
        pieces = [form["body"][start : start + 10_000] for start in range(0, len(form["body"]), 10_000)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        headers = {**form["headers"], "Transfer-Encoding": "chunked"}
        self.tally.check(
            await self._ask(name, write_request(CAPTIONS, headers=headers, body=body)), [content]
        )

    def _stream(self, count: int, options: Sequence[tuple[str, str]]) -> _Act:
        async def act(name: str) -> None:
            contents = [self._draw_new() for _ in range(count)]
            form = write_form([("image", one) for one in contents], [("stream", "true"), *options])
            answer = await self._ask(name, write_request(CAPTIONS, **form))
            if self.tally.is_refused(answer):
                return
            events = [read_event(text) for text in answer.body.split(b"\n\n") if text]
            if events[-1][0] != "done":
                raise Unexpected(f"a stream ends with {events[-1]}")
            images = sorted(
                (data for what, data in events if what == "image"), key=lambda data: data["image"]
            )
            self.tally.check_images(images, contents)
            words = [data["word"] for what, data in events if what == "word" and data["image"] == 0]
            if not words:
                raise Unexpected("a stream without words")

        return act

    async def _base64(self, name: str) -> None:
        contents = [self._draw_new() for _ in range(2)]
        images = [{"base64": base64.b64encode(one).decode(), "name": "a"} for one in contents]
        body = json.dumps({"images": images, "beam": 2}).encode()
        self.tally.check(await self._ask(name, write_request(CAPTIONS, **_json(body))), contents)

    def _url(self, pattern: str) -> _Act:
        async def act(name: str) -> None:
            self._number += 1
            number = self._number
            request = write_request(CAPTIONS, **_link(self._web.url(pattern.format(number))))
            self.tally.check(await self._ask(name, request), [self._web.content(number)])

        return act

    async def _wowme(self, name: str) -> None:
        self._number += 1
        path = f"/wowme?image={self._web.url(f'/{self._number}.jpg')}"
        answer = await self._ask(name, write_request(path, "GET", headers={}))
        if not self.tally.is_refused(answer) and not json.loads(answer.body)["Prediction Caption:"]:
            raise Unexpected("an empty caption")

    async def _pages(self, name: str) -> None:
        path = self._chance.choice(["/", "/healthz", "/readyz", "/v1/models", "/metrics", "/openapi.json"])
        answer = await self._ask(name, write_request(path, "GET", headers={}))
        if answer.status != 200 or not answer.body:
            raise Unexpected(f"{path}: status {answer.status}")

    async def _crowd(self, name: str) -> None:
        """More requests at once than the queue takes: some are refused, the others are answered."""
        act = self._form()
        self.tally.kinds[name] += CROWD - 1
        gathered = await asyncio.gather(*(act(name) for _ in range(CROWD)), return_exceptions=True)
        for error in gathered:
            if error is not None:
                raise error

    async def _keep_connection(self, name: str) -> None:
        """One request after the other on one connection, as long as the service keeps it: refusals close it."""
        self.tally.kinds[name] += 2
        connection = await Connection.open(self._port)
        try:
            for _ in range(3):
                content = self._draw_new()
                request = write_request(CAPTIONS, **write_form([("image", content)]))
                answer = await connection.ask(request)
                self.tally.note(name, answer)
                self.tally.check(answer, [content])
                if not answer.stays:
                    connection.close()
                    connection = await Connection.open(self._port)
        finally:
            connection.close()

    # ----- bad ones

    def _bad_request(
        self,
        status: int,
        *,
        headers: dict[str, str],
        body: bytes = b"",
        path: str = CAPTIONS,
        method: str = "POST",
    ) -> _Act:
        request = write_request(path, method, headers=headers, body=body)

        async def act(name: str) -> None:
            answer = await self._ask(name, request)
            if not self.tally.is_refused(answer):
                check_problem(answer, status)

        return act

    async def _slow_body(self, name: str) -> None:
        request = write_request(CAPTIONS, **write_form([("image", self._draw_new())]))
        connection = await Connection.open(self._port)
        try:
            answer = asyncio.ensure_future(connection.read())
            for place in range(1000):
                if answer.done():
                    break
                connection.writer.write(request[10 * place : 10 * place + 10] if place else request[:10])
                await asyncio.wait([answer], timeout=0.05)
            found = await answer
            self.tally.note(name, found)
            if not self.tally.is_refused(found):
                check_problem(found, 408)
        finally:
            connection.close()

    # ----- clients that leave

    def _leave(self, share: float, *, wait: float = 0.0, reset: bool = False) -> _Act:
        """Sends a part of a request, waits, and goes."""

        async def act(_name: str) -> None:
            request = write_request(CAPTIONS, **write_form([("image", self._draw_new())] * 2))
            connection = await Connection.open(self._port)
            try:
                connection.writer.write(request[: max(1, round(share * len(request)))])
                await connection.writer.drain()
                await asyncio.sleep(wait * self._chance.random())
                if reset:
                    _reset_at_end(connection)
            finally:
                connection.close()

        return act

    async def _leave_fetch(self, _name: str) -> None:
        connection = await Connection.open(self._port)
        try:
            connection.writer.write(write_request(CAPTIONS, **_link(self._web.url("/drip"))))
            await asyncio.sleep(0.5 * self._chance.random())
        finally:
            connection.close()

    async def _leave_stream(self, _name: str) -> None:
        contents = [self._draw_new() for _ in range(3)]
        form = write_form([("image", one) for one in contents], [("stream", "true")])
        connection = await Connection.open(self._port)
        try:
            connection.writer.write(write_request(CAPTIONS, **form))
            head = await connection.read_head()
            if head.status == 503:
                head.body = await connection.reader.readexactly(int(head.headers["content-length"]))
                self.tally.is_refused(head)
                return
            if head.status != 200:
                raise Unexpected(f"a stream has status {head.status}")
            await connection.read_chunk()
        finally:
            connection.close()

    # ----- answers

    async def _ask(self, name: str, request: bytes) -> Answer:
        """Asks on a connection of its own."""
        connection = await Connection.open(self._port)
        try:
            answer = await connection.ask(request)
        finally:
            connection.close()
        self.tally.note(name, answer)
        return answer


_Act = Callable[[str], Awaitable[None]]


def _json(body: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
    return {"headers": {"Content-Type": "application/json", **(headers or {})}, "body": body}


def _link(url: str) -> dict[str, Any]:
    return _json(json.dumps({"images": [{"url": url}]}).encode())


def _draw(kind: str, size: tuple[int, int], mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


def _reset_at_end(connection: Connection) -> None:
    """Lets the connection end with a reset."""
    plain: socket.socket = connection.writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
