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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_BOUNDARY = b"7c1f0e9d2b"
MOST_OPEN = 1000  # requests that are under way at once, at a rate


@dataclass
class Load:
    """What came of a load."""

    seconds: float = 0.0  # from the first request to the last answer
    statuses: Counter[int] = field(default_factory=Counter)
    answered: list[float] = field(default_factory=list)  # seconds of each request with status 200
    refused: list[float] = field(default_factory=list)  # seconds of each with status 503
    lost: int = 0  # requests without an answer
    wrong: int = 0  # answers that do not belong to their image

    @property
    def rate(self) -> float:
        """Captioned requests a second."""
        return len(self.answered) / self.seconds if self.seconds else 0.0

    def summary(self) -> dict[str, Any]:
        """Returns it for a JSON line; times in milliseconds."""
        return {
            "seconds": round(self.seconds, 2),
            "requests_per_second": round(self.rate, 2),
            "statuses": dict(sorted(self.statuses.items())),
            "milliseconds": _quantiles(self.answered),
            "refusal_milliseconds": _quantiles(self.refused),
            "lost": self.lost,
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
            connection: _Connection | None = None
            while time.monotonic() < end:
                connection = await self._ask(load, connection)
            if connection is not None:
                connection.writer.close()

        return await _timed(load, [client() for _ in range(clients)])

    async def keep_a_rate(self, rate: float, seconds: float) -> Load:
        """Asks so many times a second, whether answers come or not."""
        load = Load()
        tasks: set[asyncio.Task[None]] = set()

        async def one() -> None:
            connection = await self._ask(load, None)
            if connection is not None:
                connection.writer.close()

        begin = time.monotonic()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            if len(tasks) < MOST_OPEN:
                task = asyncio.create_task(one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        load.seconds = time.monotonic() - begin
        return load

    async def _ask(self, load: Load, connection: _Connection | None) -> _Connection | None:
        self._number += 1
        photograph = self._photographs[self._number % len(self._photographs)]
        content = photograph + self._number.to_bytes(8, "big")
        begin = time.monotonic()
        try:
            if connection is None:
                connection = _Connection(*await asyncio.open_connection("127.0.0.1", self._port))
            connection.writer.write(self._write(content))
            status, body, stays = await connection.read()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            load.lost += 1
            return None
        took = time.monotonic() - begin
        load.statuses[status] += 1
        if status == 200:
            load.answered.append(took)
            answer = json.loads(body)
            if "images" in answer:
                load.wrong += answer["images"][0]["sha256"] != hashlib.sha256(content).hexdigest()
        elif status == 503:
            load.refused.append(took)
        if stays:
            return connection
        connection.writer.close()
        return None

    def _write(self, content: bytes) -> bytes:
        start = (
            f'--{_BOUNDARY.decode()}\r\nContent-Disposition: form-data; name="{self._field}"; filename="a.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        ).encode()
        body = start + content + b"\r\n--" + _BOUNDARY + b"--\r\n"
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: multipart/form-data; boundary={_BOUNDARY.decode()}\r\n\r\n"
        )
        return head.encode() + body


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> tuple[int, bytes, bool]:
        """Returns status, body, and whether the connection stays open."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        stays = not head.startswith("http/1.0") and "connection: close" not in head
        return int(head.split(maxsplit=2)[1]), await self.reader.readexactly(length), stays


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
