"""The captioning service under load: 32 clients with JPEGs of 640 x 480 pixels, then twice the rate that it can keep.

Beside it the folder captioner with the same model, and the tutorials' kind of service (`--bundle`: the bundle that the
model was exported from), on the same machine as the load generator.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.load import Clients, Load
from benchmarks.photographs import write_photographs
from benchmarks.sides import Side, Target, measure, note, print_line, worker_environment

WIDTH, HEIGHT = 640, 480
START_SECONDS = 180


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks serve", description=__doc__)
    parser.add_argument("--model", default="compact", help="an exported captioner (compact)")
    parser.add_argument("--bundle", type=Path, help="the bundle or run it was exported from, for the rival")
    parser.add_argument("--engine", default="auto", choices=("auto", "onnxruntime", "openvino"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds before it")
    parser.add_argument("--images", type=int, default=64, help="photographs that are taken in turn")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        note("writing photographs")
        paths = write_photographs(Path(folder), arguments.images, width=WIDTH, height=HEIGHT)
        photographs = [path.read_bytes() for path in paths]
        note("the folder captioner")
        options = {"model": arguments.model, "engine": arguments.engine, "precision": "auto"}
        side = Side(
            "benchmarks.ours:caption", {**options, "photographs": [*map(str, paths)], "together": True}
        )
        alone = measure({"folder": side}, rounds=3, warmups=1, threads=arguments.threads)["folder"]
        ours = _measure_service(arguments, photographs, Path(folder))
        theirs = _measure_rival(arguments, photographs, Path(folder)) if arguments.bundle else None
    load, overload = ours["load"], ours["overload"]
    middle = load.summary()["milliseconds"] or {"p50": 0.0, "p99": 0.0}
    targets = [
        Target("of the folder captioner's images/s", load.rate / alone.rate, at_least=0.8),
        Target("p99 in times the median", middle["p99"] / max(middle["p50"], 1e-3), at_most=5.0),
        Target("of its throughput at twice the load", overload.rate / max(load.rate, 1e-3), at_least=0.9),
        Target("answers lost or wrong", load.lost + load.wrong + overload.lost + overload.wrong, at_most=0),
    ]
    if theirs is not None:
        targets.append(
            Target("times the tutorials' service", load.rate / max(theirs.rate, 1e-3), at_least=5.0)
        )
    print_line(
        "serve",
        targets,
        threads=arguments.threads,
        workers=arguments.workers,
        clients=arguments.clients,
        photographs=f"{WIDTH}x{HEIGHT} JPEG",
        model=arguments.model,
        folder=alone.summary("images"),
        load=load.summary(),
        overload=overload.summary(),
        memory_mb=ours["memory"],
        first_word=ours["first_word"],
        rival=None if theirs is None else theirs.summary(),
    )
    return 0


def _measure_service(arguments: argparse.Namespace, photographs: list[bytes], folder: Path) -> dict[str, Any]:
    words = [
        "-m",
        "showtell",
        "serve",
        "--model",
        arguments.model,
        "--port",
        "0",
        "--engine",
        arguments.engine,
    ]
    words += [
        "--threads",
        str(arguments.threads),
        "--workers",
        str(arguments.workers),
        "--log-level",
        "warning",
    ]
    with _running(
        words, r"showtell: http://127\.0\.0\.1:(\d+) ", arguments.threads, folder / "serve.log"
    ) as found:
        process, port = found
        _wait_for(f"http://127.0.0.1:{port}/readyz")
        clients = Clients(port, "/v1/captions", "image", photographs)
        note("the service: clients that wait for their answers")
        asyncio.run(clients.wait_for_answers(arguments.clients, arguments.warmup))
        load = asyncio.run(clients.wait_for_answers(arguments.clients, arguments.seconds))
        before = _memory(process)
        note(f"the service: twice {load.rate:.1f} requests a second")
        overload = asyncio.run(clients.keep_a_rate(max(1.0, 2 * load.rate), arguments.seconds))
        memory = {"after_load": before, "after_overload": _memory(process)}
        return {
            "load": load,
            "overload": overload,
            "memory": memory,
            "first_word": _first_word(port, photographs),
        }


def _measure_rival(arguments: argparse.Namespace, photographs: list[bytes], folder: Path) -> Load:
    words = ["-m", "benchmarks.rivals.flask_service", str(arguments.bundle)]
    with _running(
        words, r"Running on http://127\.0\.0\.1:(\d+)", arguments.threads, folder / "flask.log"
    ) as found:
        _, port = found
        clients = Clients(port, "/caption", "image", photographs)
        note("the tutorials' service")
        asyncio.run(clients.wait_for_answers(arguments.clients, arguments.warmup))
        return asyncio.run(clients.wait_for_answers(arguments.clients, arguments.seconds))


def _first_word(port: int, photographs: list[bytes], times: int = 9) -> dict[str, float]:
    """Returns the median milliseconds until the first word of a stream has come, and those of the encoder."""
    import json
    import statistics

    firsts, encoders = [], []
    for number in range(times):
        body = (
            b'--x\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
            + photographs[number % len(photographs)]
            + b"first word %d\r\n--x--\r\n" % number
        )
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/captions", body, headers)
        begin = time.monotonic()
        with urllib.request.urlopen(request, timeout=60) as answer:
            lines = iter(answer.readline, b"")
            next(lines)
            firsts.append(time.monotonic() - begin)
            image = next(line for line in lines if b'"timings"' in line and b'"encode"' in line)
        encoders.append(json.loads(image.removeprefix(b"data: "))["timings"]["encode"])
    first = 1000 * statistics.median(firsts)
    encoder = statistics.median(encoders)
    return {"milliseconds": round(first, 2), "encoder": round(encoder, 2), "ratio": round(first / encoder, 2)}


@contextmanager
def _running(
    words: list[str], announced: str, threads: int, log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Runs a service until the block ends; gives its process and port."""
    environment = {**os.environ, **worker_environment(threads)}
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, *words], stdout=file, stderr=file, env=environment)
    try:
        end = time.monotonic() + START_SECONDS
        while not (found := re.search(announced, log.read_text(encoding="utf-8"))):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(
                    f"benchmarks: {' '.join(words)} did not start:\n{log.read_text(encoding='utf-8')}"
                )
            time.sleep(0.1)
        yield process, int(found[1])
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=START_SECONDS):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"benchmarks: {url} does not answer")


def _memory(process: subprocess.Popen[bytes]) -> float:
    """Returns the resident megabytes of a service and its workers."""
    parent = psutil.Process(process.pid)
    return round(sum(one.memory_info().rss for one in [parent, *parent.children(recursive=True)]) / 1e6, 1)


if __name__ == "__main__":
    raise SystemExit(main())
