"""A service of its own for tests: a real process on a loopback port, and what tests ask it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

CAPTIONS = "/v1/captions"
PROBLEM = "application/problem+json"


@dataclass
class Served:
    """A running service."""

    process: subprocess.Popen[bytes]
    url: str
    log_file: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **options)

    def log(self) -> list[dict[str, Any]]:
        """The lines of JSON that it has logged so far."""
        lines = self.log_file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def metric(self, name: str, **headers: str) -> float:
        """The sum of a metric over its labels."""
        with self.client() as client:
            text = client.get("/metrics", headers=headers).text
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, flags=re.MULTILINE)
        assert found, f"no metric {name}"
        return sum(map(float, found))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tells it to end, and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=40)


@contextmanager
def serving(model: str, folder: Path, *options: str, **environment: str) -> Iterator[Served]:
    """Runs `showtell serve` until the block ends."""
    log_file = folder / f"serve-{time.monotonic_ns()}.log"
    words = ["serve", "--model", model, "--port", "0", "--engine", "onnxruntime", "--threads", "1", *options]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "showtell", *words], stderr=log, env={**os.environ, **environment}
        )
    try:
        yield Served(process, _wait_until_ready(process, log_file), log_file)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log_file: Path) -> str:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"showtell: (http://\S+) ", log_file.read_text())
        if found:
            try:
                if httpx.get(f"{found[1]}/readyz", timeout=60).status_code == 200:
                    return found[1]
            except httpx.TransportError:
                pass
        time.sleep(0.05)
    raise AssertionError(f"the service does not start: {log_file.read_text()}")


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Reads one answer that has a Content-Length, or until the connection ends."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return 0, {}, data
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        chunk = connection.recv(65536)
        if not chunk:
            break
        body += chunk
    return int(first.split()[1]), headers, body


def problem(answer: httpx.Response) -> dict[str, Any]:
    """Checks that an answer is a problem (RFC 9457), and returns it."""
    assert answer.headers["content-type"] == PROBLEM, answer.text
    found: dict[str, Any] = answer.json()
    assert found["status"] == answer.status_code
    assert {"type", "title", "detail", "request_id"} <= set(found)
    assert found["type"].startswith("urn:problem-type:showtell:")
    assert "Traceback" not in answer.text
    return found


def kind(answer: httpx.Response) -> str:
    """The kind of problem that an answer is."""
    return str(problem(answer)["type"]).rpartition(":")[2]
