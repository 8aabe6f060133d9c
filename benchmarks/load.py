"""A load generator for the captioning service, on this machine: clients that wait for answers, or a rate that does not.

Plain sockets under asyncio, requests prepared beforehand: it shares the processor with the service, so it must cost
little. No two requests are alike, so no cache helps: bytes behind the end of a JPEG change its digest, not its picture.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_BOUNDARY = b"7c1f0e9d2b"
ANSWER_SECONDS = 120.0  # that a client waits for an answer
MOST_OPEN = 1000  # requests that are under way at once, at a rate


def write_form(files: Sequence[tuple[str, bytes]], fields: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """Returns headers and body of a form, for `write_request`.

    Args:
        files: name of the field and content of each.
        fields: name and value of each.
    """
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (_BOUNDARY, name.encode(), value.encode())
        for name, value in fields
    ]
    parts += [
        b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n%s\r\n" % (_BOUNDARY, name.encode(), content)
        for name, content in files
    ]
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY.decode()}"}
    return {"headers": headers, "body": b"".join(parts) + b"--%s--\r\n" % _BOUNDARY}


def write_request(path: str, method: str = "POST", *, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Returns the bytes of one request; Host and Content-Length are added where they are missing."""
    lines = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
    if "Transfer-Encoding" in lines:
        del lines["Content-Length"]
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


@dataclass
class Load:
    """What came of a load."""

    seconds: float = 0.0  # from the first request to the last answer
    statuses: Counter[int] = field(default_factory=Counter)
    answered: list[float] = field(default_factory=list)  # seconds of each request with status 200
    refused: list[float] = field(default_factory=list)  # seconds of each with status 503, at once
    late: int = 0  # requests that were accepted, and answered with 503 when their time was over
    unexpected: int = 0  # answers with another status
    lost: int = 0  # requests that were sent, or whose connection was refused, and had no answer
    unsent: int = 0  # requests that were due while `MOST_OPEN` others were under way
    wrong: int = 0  # answers that do not belong to their image

    @property
    def rate(self) -> float:
        """Captioned requests a second."""
        return len(self.answered) / self.seconds if self.seconds else 0.0

    @property
    def failures(self) -> int:
        """Requests that were taken and not captioned, or captioned wrongly."""
        return self.lost + self.late + self.wrong + self.unexpected

    def summary(self) -> dict[str, Any]:
        """Returns it for a JSON line; times in milliseconds."""
        return {
            "seconds": round(self.seconds, 2),
            "requests_per_second": round(self.rate, 2),
            "statuses": dict(sorted(self.statuses.items())),
            "milliseconds": _quantiles(self.answered),
            "refusal_milliseconds": _quantiles(self.refused),
            "late": self.late,
            "lost": self.lost,
            "unsent": self.unsent,
            "wrong": self.wrong,
        }


class Clients:
    """Asks a service for the captions of photographs.

    Args:
        port: on this machine.
        path: of the service.
        field_name: of the form.
        photographs: contents of JPEG files, taken in turn.
    """

    def __init__(self, port: int, path: str, field_name: str, photographs: Sequence[bytes]) -> None:
        self._port = port
        self._path = path
        self._field = field_name
        self._photographs = photographs
        self._number = 0

    async def wait_for_answers(self, clients: int, seconds: float) -> Load:
        """Lets so many clients ask, each again as soon as it has its answer."""
        load = Load()
        end = time.monotonic() + seconds

        async def client() -> None:
            connection: Connection | None = None
            while time.monotonic() < end:
                connection = await self._ask(load, connection)
            if connection is not None:
                connection.close()

        return await _timed(load, [client() for _ in range(clients)])

    async def keep_a_rate(self, rate: float, seconds: float) -> Load:
        """Asks so many times a second, whether answers come or not; what could not be sent is counted."""
        load = Load()
        tasks: set[asyncio.Task[None]] = set()

        async def one() -> None:
            connection = await self._ask(load, None)
            if connection is not None:
                connection.close()

        begin = time.monotonic()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            if len(tasks) >= MOST_OPEN:
                load.unsent += 1
                continue
            task = asyncio.create_task(one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        load.seconds = time.monotonic() - begin
        return load

    async def _ask(self, load: Load, connection: Connection | None) -> Connection | None:
        self._number += 1
        photograph = self._photographs[self._number % len(self._photographs)]
        content = photograph + self._number.to_bytes(8, "big")
        request = write_request(self._path, **write_form([(self._field, content)]))
        begin = time.monotonic()
        try:
            connection = connection or await Connection.open(self._port)
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await connection.ask(request)
        except (OSError, EOFError, ValueError):  # TimeoutError is an OSError
            load.lost += 1
            if connection is not None:
                connection.close()
            return None
        took = time.monotonic() - begin
        load.statuses[answer.status] += 1
        if answer.status == 200:
            load.answered.append(took)
            found = json.loads(answer.body)
            if "images" in found:
                load.wrong += found["images"][0]["sha256"] != hashlib.sha256(content).hexdigest()
        elif answer.status == 503:
            if json.loads(answer.body)["type"].endswith(":late"):
                load.late += 1
            else:
                load.refused.append(took)
        else:
            load.unexpected += 1
        if answer.stays:
            return connection
        connection.close()
        return None


@dataclass
class Answer:
    """One answer of a service."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def stays(self) -> bool:
        """Whether its connection stays open."""
        return self.headers.get("connection") != "close"


@dataclass
class Connection:
    """One connection to a service on this machine."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connects; raises OSError."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> Answer:
        """Sends a request and returns its answer.

        Raises:
            OSError: the connection broke.
            EOFError: it ended before the answer did.
            ValueError: the answer is no HTTP.
        """
        self.writer.write(request)
        return await self.read()

    async def read(self) -> Answer:
        """Returns an answer, as `ask`."""
        answer = await self.read_head()
        if answer.headers.get("transfer-encoding") == "chunked":
            answer.body = b"".join([chunk async for chunk in self.read_chunks()])
        else:
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        return answer

    async def read_head(self) -> Answer:
        """Returns an answer without its body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        version, status, *_ = first.split()
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip().lower() for name, _, value in pairs}
        if version == "HTTP/1.0":
            headers["connection"] = "close"
        return Answer(int(status), headers, b"")

    async def read_chunk(self) -> bytes:
        """Returns the next chunk of a body that comes in chunks; the last one is empty."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def read_chunks(self) -> AsyncIterator[bytes]:
        """Yields the chunks that are left of a body."""
        while chunk := await self.read_chunk():
            yield chunk

    def close(self) -> None:
        """Closes it."""
        self.writer.close()


def read_event(text: bytes) -> tuple[str, dict[str, Any]]:
    """Returns name and data of one server-sent event."""
    name, _, data = text.decode("utf-8").partition("\ndata: ")
    return name.removeprefix("event: "), json.loads(data)


async def _timed(load: Load, work: Sequence[Any]) -> Load:
    begin = time.monotonic()
    await asyncio.gather(*work)
    load.seconds = time.monotonic() - begin
    return load


def _quantiles(seconds: Sequence[float]) -> dict[str, float] | None:
    if len(seconds) < 2:
        return None
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {name: round(1000 * cuts[place - 1], 1) for name, place in (("p50", 50), ("p90", 90), ("p99", 99))}
