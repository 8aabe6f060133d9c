"""The captioning service for ten minutes under requests of every kind: good, bad, and from clients that leave.

Whatever a request is, the answer that must come is known, and every captioned picture is compared by its digest. What
the service holds is looked at every second, and compared at the end, when it has nothing to do, with what it held after
the warm-up, when it had nothing to do either.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.load import ANSWER_SECONDS, Connection, write_form, write_request
from benchmarks.mixture import BODY_SECONDS, CAPTIONS, MAX_BODY_MB, MAX_IMAGES, SECONDS, Mixture
from benchmarks.photographs import write_photographs
from benchmarks.services import SHOWTELL, Footprint, RunningService, running
from benchmarks.sides import Target, note, print_line, shorten
from benchmarks.web import PictureServer

WIDTH, HEIGHT = 640, 480
CACHE_MB = 1  # full after some hundred pictures: it must not look like a leak, and must make room
IDLE_SECONDS = 60.0  # until the service must have nothing to do
LEAST_MINUTES = 5.0  # below which a trend of the memory says nothing
_PARTS = 10  # of the run, whose growth is compared
_SCRAPES = 16  # at once, for each worker: so each of them is asked how many tasks it has
_GAUGES = ("showtell_open_requests", "showtell_queue_images", "showtell_body_bytes", "showtell_tasks")


@dataclass(frozen=True)
class Sample:
    """What the service held at one time."""

    seconds: float
    footprint: Footprint
    open_requests: int
    queue: int
    body_bytes: int
    tasks: int

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do but to answer who asks for its metrics."""
        return self.open_requests <= 1 and self.queue == 0 and self.body_bytes == 0

    def summary(self) -> dict[str, Any]:
        """Returns it for a JSON line."""
        return {
            "resident_mb": self.footprint.resident_mb,
            "descriptors": self.footprint.descriptors,
            "threads": self.footprint.threads,
            "open_requests": self.open_requests,
            "queue": self.queue,
            "body_bytes": self.body_bytes,
            "tasks": self.tasks,
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak", description=__doc__)
    parser.add_argument("--model", default="compact", help="an exported captioner (compact)")
    parser.add_argument("--engine", default="auto", choices=("auto", "onnxruntime", "openvino"))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--warmup", type=float, default=1.0, help="minutes before it")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two looks at the service")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the requests")
    arguments = parser.parse_args(argv)
    words = ["-m", "showtell", "serve", "--model", arguments.model, "--port", "0", "--log-level", "warning"]
    words += ["--engine", arguments.engine, "--threads", str(arguments.threads)]
    words += ["--workers", str(arguments.workers), "--urls", "any", "--cache", str(CACHE_MB)]
    words += ["--max-body", str(MAX_BODY_MB), "--body-timeout", str(BODY_SECONDS)]
    words += ["--max-images", str(MAX_IMAGES)]
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        note("writing photographs")
        paths = write_photographs(Path(folder), 24, width=WIDTH, height=HEIGHT)
        photographs = [path.read_bytes() for path in paths]
        with running(words, SHOWTELL, threads=arguments.threads, log=Path(folder) / "serve.log") as service:
            service.wait_until_ready()
            facts, targets = asyncio.run(_soak(service, photographs, arguments))
        log = service.log.read_text(encoding="utf-8").splitlines()
    troubles = [line for line in log[1:] if not _is_harmless(line)]
    targets.append(Target("warnings and errors in the log", len(troubles), at_most=0))
    targets.append(Target("exit code after SIGTERM", abs(service.process.returncode), at_most=0))
    settings = ("model", "minutes", "clients", "workers", "threads", "seed")
    chosen = {name: getattr(arguments, name) for name in settings}
    print_line("soak", targets, **chosen, **facts, log=[line[:500] for line in troubles[:10]])
    return 0


async def _soak(
    service: RunningService, photographs: list[bytes], arguments: argparse.Namespace
) -> tuple[dict[str, Any], list[Target]]:
    web = PictureServer(photographs)
    async with web.serve():
        model = json.loads((await _get(service.port, "/v1/models")).decode())["models"][0]
        word = await _learn_word(service.port, photographs[0])
        mixture = Mixture(
            service.port, photographs, web, word=word, explains=model["attention"], seed=arguments.seed
        )
        note(f"warm-up: {arguments.warmup:g} min")
        await mixture.each_kind(arguments.clients)
        await _let_work(service, mixture, arguments, minutes=arguments.warmup)
        before = await _wait_until_idle(service, arguments.workers)
        warm = mixture.tally.requests
        note(f"mixed requests: {arguments.minutes:g} min")
        samples = await _let_work(service, mixture, arguments, minutes=arguments.minutes)
        after = await _wait_until_idle(service, arguments.workers)
    tally = mixture.tally
    growth = trend(samples)
    peak = {name: max(one.summary()[name] for one in samples) for name in before.summary()}
    facts = {
        "requests": tally.requests,
        "requests_per_second": round((tally.requests - warm) / (60 * arguments.minutes), 1),
        "pictures_checked": tally.checked,
        "from_the_cache": tally.cached,
        "refused": tally.refused,
        "statuses": {name: dict(sorted(found.items())) for name, found in sorted(tally.statuses.items())},
        "left": {name: count for name, count in sorted(tally.kinds.items()) if name.startswith("left")},
        "mistakes": tally.words,
        "before": before.summary(),
        "peak": peak,
        "after": after.summary(),
        "resident_mb_over_time": [
            one.footprint.resident_mb for one in samples[:: max(1, len(samples) // 60)]
        ],
    }
    held, kept = before.footprint, after.footprint
    targets = [
        Target(
            "MB of memory more each minute (median of the tenths of the time)",
            growth,
            at_most=0.5,
            applies=arguments.minutes >= LEAST_MINUTES,
        ),
        Target(
            "of its memory after the warm-up, at the end", kept.resident_mb / held.resident_mb, at_most=1.25
        ),
        Target("descriptors more than after the warm-up", kept.descriptors - held.descriptors, at_most=0),
        Target("threads more than after the warm-up", kept.threads - held.threads, at_most=0),
        Target("tasks more than after the warm-up", after.tasks - before.tasks, at_most=0),
        Target(
            "requests and pictures under way at the end", after.open_requests - 1 + after.queue, at_most=0
        ),
        Target("bytes of bodies held at the end", after.body_bytes, at_most=0),
        Target("processes that were replaced", len(set(held.processes) ^ set(kept.processes)), at_most=0),
        Target("answers with 5xx but an intended 503", tally.broken, at_most=0),
        Target("pictures with the answer of another", tally.mixed_up, at_most=0),
        Target("requests with another answer than must come", tally.mistakes.total(), at_most=0),
        Target("pictures that were checked", tally.checked, at_least=1),
    ]
    return facts, targets


async def _let_work(
    service: RunningService, mixture: Mixture, arguments: argparse.Namespace, *, minutes: float
) -> list[Sample]:
    """Lets the clients ask for so many minutes; returns what the service held meanwhile."""
    begin = time.monotonic()
    end = begin + 60 * minutes
    samples: list[Sample] = []

    async def sample() -> None:
        while time.monotonic() < end:
            samples.append(await _look(service, time.monotonic() - begin))
            await asyncio.sleep(arguments.every)

    async with asyncio.timeout(60 * minutes + 2 * SECONDS), asyncio.TaskGroup() as group:
        group.create_task(sample())
        for _ in range(arguments.clients):
            group.create_task(mixture.client(end))
    return samples


async def _wait_until_idle(service: RunningService, workers: int) -> Sample:
    """Returns what the service holds when it has nothing to do, or when it should have had for long."""
    note("waiting until the service has nothing to do")
    begin = time.monotonic()
    while True:
        # The workers share a port: many who ask at once reach each of them.
        await asyncio.gather(
            *(_get(service.port, "/metrics") for _ in range(_SCRAPES * (workers > 1) * workers))
        )
        await asyncio.sleep(1.0)
        found = await _look(service, time.monotonic() - begin)
        if found.idle or found.seconds > IDLE_SECONDS:
            # What it closes a moment later is closed now.
            await asyncio.sleep(1.0)
            return await _look(service, time.monotonic() - begin)


async def _look(service: RunningService, seconds: float) -> Sample:
    text = (await _get(service.port, "/metrics")).decode()
    numbers = []
    for name in _GAUGES:
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, flags=re.MULTILINE)
        if not found:
            raise SystemExit(f"benchmarks: /metrics has no {name}")
        numbers.append(round(sum(map(float, found))))
    return Sample(seconds, service.look(), *numbers)


async def _get(port: int, path: str) -> bytes:
    connection = await Connection.open(port)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return (await connection.ask(write_request(path, "GET", headers={"Connection": "close"}))).body
    finally:
        connection.close()


async def _learn_word(port: int, photograph: bytes) -> str:
    """Returns a word that the model knows."""
    connection = await Connection.open(port)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await connection.ask(write_request(CAPTIONS, **write_form([("image", photograph)])))
    finally:
        connection.close()
    words: list[str] = json.loads(answer.body)["images"][0]["captions"][0]["caption"].split()
    return words[-1]


def trend(samples: Sequence[Sample]) -> float:
    """Returns by how many megabytes of resident memory the service grew in a minute: the median of the run's parts.

    A leak grows in every part. Heaps that find their size grow in steps, when several large requests first happen to
    come together, and most parts have none.
    """
    edges = [samples[round(place * (len(samples) - 1) / _PARTS)] for place in range(_PARTS + 1)]
    slopes = [
        (second.footprint.resident_mb - first.footprint.resident_mb) / (second.seconds - first.seconds)
        for first, second in pairwise(edges)
        if second.seconds > first.seconds
    ]
    return shorten(60 * statistics.median(slopes)) if slopes else 0.0


def _is_harmless(line: str) -> bool:
    """Whether a line of the log says nothing of a trouble."""
    with suppress(ValueError):
        return bool(json.loads(line)["level"] in ("debug", "info"))
    return not line.strip()


if __name__ == "__main__":
    raise SystemExit(main())
