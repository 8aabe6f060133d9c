"""The captioning service under load: 32 clients with JPEGs of 640 x 480 pixels, then twice the rate that it can keep.

Beside it the folder captioner with the same model, and the tutorials' kind of service (`--bundle`: the bundle that the
model was exported from), on the same machine as the load generator.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.load import (
    ANSWER_SECONDS,
    Clients,
    Connection,
    Load,
    read_event,
    write_form,
    write_request,
)
from benchmarks.photographs import write_photographs
from benchmarks.services import FLASK, SHOWTELL, running
from benchmarks.sides import Side, Target, measure, note, print_line

WIDTH, HEIGHT = 640, 480


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
    load, overload, word = ours["load"], ours["overload"], ours["first_word"]
    middle = load.summary()["milliseconds"] or {"p50": 0.0, "p99": 0.0}
    refused = overload.summary()["refusal_milliseconds"] or {"p99": 0.0}
    memory = ours["memory_mb"]
    targets = [
        Target("of the folder captioner's images/s", load.rate / alone.rate, at_least=0.8),
        Target("p99 in times the median", middle["p99"] / max(middle["p50"], 1e-3), at_most=5.0),
        Target("of its throughput at twice the load", overload.rate / max(load.rate, 1e-3), at_least=0.9),
        # Who is refused asks elsewhere, or later: that must cost next to nothing beside an answer.
        Target(
            "p99 of refusals at twice the load, in times the median of answers under the load",
            refused["p99"] / max(middle["p50"], 1e-3),
            at_most=0.1,
            applies=bool(overload.refused),
        ),
        Target(
            "of its peak memory under the load, at twice the load",
            memory["overload_peak"] / memory["load_peak"],
            at_most=1.25,
        ),
        Target("requests that could not be sent at twice the load", overload.unsent, at_most=0),
        Target("answers lost, late, wrong or unexpected", load.failures + overload.failures, at_most=0),
        Target("first word decided, in times the encoder", word["decided"] / word["encode"], at_most=1.5),
        Target("first word received, in times the encoder", word["received"] / word["encode"], at_most=1.5),
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
        memory_mb=memory,
        first_word_milliseconds=word,
        rival=None if theirs is None else theirs.summary(),
    )
    return 0


def _measure_service(arguments: argparse.Namespace, photographs: list[bytes], folder: Path) -> dict[str, Any]:
    words = ["-m", "showtell", "serve", "--model", arguments.model, "--port", "0", "--log-level", "warning"]
    words += ["--engine", arguments.engine, "--threads", str(arguments.threads)]
    words += ["--workers", str(arguments.workers)]
    with running(words, SHOWTELL, threads=arguments.threads, log=folder / "serve.log") as service:
        service.wait_until_ready()
        clients = Clients(service.port, "/v1/captions", "image", photographs)
        note("the service: clients that wait for their answers")
        asyncio.run(clients.wait_for_answers(arguments.clients, arguments.warmup))
        with service.watch_memory() as quiet:
            load = asyncio.run(clients.wait_for_answers(arguments.clients, arguments.seconds))
        note(f"the service: twice {load.rate:.1f} requests a second")
        with service.watch_memory() as busy:
            overload = asyncio.run(clients.keep_a_rate(max(1.0, 2 * load.rate), arguments.seconds))
        after = service.look().resident_mb
        note("the service: words of streams, one at a time")
        word = asyncio.run(_wait_for_words(service.port, photographs))
    return {
        "load": load,
        "overload": overload,
        "memory_mb": {"load_peak": quiet.megabytes, "overload_peak": busy.megabytes, "after": after},
        "first_word": word,
    }


def _measure_rival(arguments: argparse.Namespace, photographs: list[bytes], folder: Path) -> Load:
    words = ["-m", "benchmarks.rivals.flask_service", str(arguments.bundle)]
    with running(words, FLASK, threads=arguments.threads, log=folder / "flask.log") as service:
        clients = Clients(service.port, "/caption", "image", photographs)
        note("the tutorials' service")
        asyncio.run(clients.wait_for_answers(arguments.clients, arguments.warmup))
        load = asyncio.run(clients.wait_for_answers(arguments.clients, arguments.seconds))
    if not load.answered or load.failures:
        raise SystemExit(f"benchmarks: the tutorials' service did not answer everything: {load.summary()}")
    return load


async def _wait_for_words(port: int, photographs: list[bytes], times: int = 40) -> dict[str, float]:
    """Returns median milliseconds of streams in a service that does nothing else.

    `received` is what a client sees, from the first byte that it sends to the first word; `decided` is from
    the beginning of the encoder to the word in the service. The stages of the way are those that the service tells.
    """
    stages = ("body", "decode", "wait", "encode", "first_word")
    found: dict[str, list[float]] = {name: [] for name in (*stages, "decided", "received")}
    connection = await Connection.open(port)
    for number in range(times):
        content = photographs[number % len(photographs)] + b"stream %d" % number
        request = write_request("/v1/captions", **write_form([("image", content)], [("stream", "true")]))
        begin = time.monotonic()
        async with asyncio.timeout(ANSWER_SECONDS):
            connection.writer.write(request)
            head = await connection.read_head()
            first = await connection.read_chunk()
            received = time.monotonic() - begin
            rest = [chunk async for chunk in connection.read_chunks()]
        if head.status != 200 or not first.startswith(b"event: word\n"):
            raise SystemExit(f"benchmarks: a stream begins with status {head.status} and {first[:80]!r}")
        events = dict(read_event(chunk) for chunk in rest)
        timings = {**events["image"]["timings"], **events["done"]["timings"]}
        for name in stages:
            found[name].append(timings[name])
        found["decided"].append(timings["encode"] + timings["first_word"])
        found["received"].append(1000 * received)
    connection.close()
    return {name: round(statistics.median(values), 2) for name, values in found.items()}


if __name__ == "__main__":
    raise SystemExit(main())
