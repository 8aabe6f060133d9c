"""How two sides are compared: each in a process of its own, asked for round after round in turn.

A side is a function that gets everything ready and returns another one, which does one round of work and returns
what it did. It is named as "module:function", because it runs in a new process that has imported nothing else:

    def open_something(size: int) -> Callable[[], dict[str, Any]]: ...

A round must say in `units` how many images, captions or steps it did; what else it says is kept. All sides have been
made ready, and have done their warm-up rounds, before the first round counts. Then they work one after the
other, in changing order, so that whatever else the machine does disturbs all of them alike. A side that is not working
waits for its turn without using the processor.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.machine import count_cores, describe_machine, describe_versions, peak_memory
from showtell.files import cache_folder

ROOT = Path(__file__).resolve().parents[1]
Round = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Side:
    """One of those that are compared."""

    opener: str  # "module:function", which returns a `Round`
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of the opener, plain JSON


@dataclass(frozen=True)
class Measurement:
    """What the rounds of one side gave."""

    seconds: tuple[float, ...]  # of each round, in order
    units: tuple[float, ...]  # done in each round
    peak_rss_mb: float  # of its process, from its start to its last round
    results: tuple[dict[str, Any], ...]  # what each round said
    processor_seconds: tuple[float, ...] = ()  # of each round, all threads together; empty where not known

    @property
    def rates(self) -> list[float]:
        """Units per second, of each round."""
        return [units / seconds for units, seconds in zip(self.units, self.seconds)]

    @property
    def rate(self) -> float:
        """Units per second, median of the rounds."""
        return statistics.median(self.rates)

    @property
    def seconds_per_unit(self) -> float:
        """Median of the rounds."""
        return statistics.median(seconds / units for units, seconds in zip(self.units, self.seconds))

    def summary(self, unit: str) -> dict[str, Any]:
        """Returns medians and spread for the JSON line."""
        used = [seconds / units for seconds, units in zip(self.processor_seconds, self.units)]
        return {
            f"{unit}_per_second": spread(self.rates),
            "milliseconds_each": shorten(1000 * self.seconds_per_unit),
            **({"processor_milliseconds_each": shorten(1000 * statistics.median(used))} if used else {}),
            "peak_rss_mb": self.peak_rss_mb,
        }


@dataclass(frozen=True)
class Target:
    """A figure, and what it must be."""

    what: str
    value: float
    at_least: float | None = None
    at_most: float | None = None
    applies: bool = True  # False: the machine is not one that the target speaks of

    def summary(self) -> dict[str, Any]:
        """Returns the target for the JSON line; `reached` is None where it does not apply."""
        reached = (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )
        limits = {"at_least": self.at_least, "at_most": self.at_most}
        return {
            "what": self.what,
            "value": shorten(self.value),
            **{name: limit for name, limit in limits.items() if limit is not None},
            "reached": reached if self.applies else None,
        }


class Worker:
    """The process of one side; it ends with the `with` block."""

    def __init__(self, side: Side, *, threads: int) -> None:
        self._opener = side.opener
        command = [sys.executable, "-m", "benchmarks.sides", side.opener]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=worker_environment(threads),
        )
        # Not as an argument: the paths of some thousand pictures are longer than a command may be.
        self._tell(json.dumps(dict(side.options)))

    def __enter__(self) -> Self:
        self._receive()  # it is ready
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]  # a pipe; the worker ends when it is closed
        try:
            self._process.wait(30 if error is None else 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]

    def ask(self) -> dict[str, Any]:
        """Asks for one round; returns its seconds, the peak memory so far, and what it said."""
        self._tell("round")
        return self._receive()

    def _tell(self, line: str) -> None:
        try:
            self._process.stdin.write(f"{line}\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            pass  # it ended; `_receive` says how

    def _receive(self) -> dict[str, Any]:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            code = self._process.wait()
            raise SystemExit(f"benchmarks: {self._opener} failed (exit code {code}); its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def worker_environment(threads: int) -> dict[str, str]:
    """Returns the environment that all sides get, ours and rivals alike.

    OpenMP's threads sleep soon while they wait, as `showtell` sets it. PyTorch's own default, to spin, is a few per
    cent faster on an idle machine and several times slower on a busy one: there it would flatter us.
    """
    count = str(threads)
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",  # all sides on the processor
        "SHOWTELL_CACHE": _cache(),
        # The user's own weights are still found.
        "SHOWTELL_WEIGHTS": os.pathsep.join(
            filter(None, (os.environ.get("SHOWTELL_WEIGHTS"), str(cache_folder() / "weights")))
        ),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "50000",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


@functools.cache
def _cache() -> str:
    """A folder of compiled models for this run, removed at its end: the user's own is neither used nor filled."""
    folder = tempfile.mkdtemp(prefix="showtell-benchmark-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def measure(sides: Mapping[str, Side], *, rounds: int, warmups: int, threads: int) -> dict[str, Measurement]:
    """Runs the sides in turn, `warmups` rounds that do not count and `rounds` that do."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(side, threads=threads)) for name, side in sides.items()}
        for number in range(warmups + rounds):
            order = list(workers.items())
            for name, worker in order if number % 2 == 0 else reversed(order):
                answer = worker.ask()
                note(f"  {name}: {answer['seconds']:.3g} s{' (warm-up)' if number < warmups else ''}")
                if number >= warmups:
                    answers[name].append(answer)
    return {
        name: Measurement(
            seconds=tuple(answer["seconds"] for answer in given),
            units=tuple(answer["said"]["units"] for answer in given),
            processor_seconds=tuple(answer["processor_seconds"] for answer in given),
            peak_rss_mb=given[-1]["peak_rss_mb"],
            results=tuple(answer["said"] for answer in given),
        )
        for name, given in answers.items()
    }


def call(opener: str, *, threads: int, **options: Any) -> dict[str, Any]:
    """Does one round in a process of its own; returns what it said, with `seconds` and `peak_rss_mb`."""
    with Worker(Side(opener, options), threads=threads) as worker:
        answer = worker.ask()
    return {**answer["said"], "seconds": answer["seconds"], "peak_rss_mb": answer["peak_rss_mb"]}


def ratios(ours: Measurement, rival: Measurement) -> dict[str, Any]:
    """Returns how many times as fast ours is: the ratio of the medians, and the spread over the rounds."""
    each = [mine / theirs for mine, theirs in zip(ours.rates, rival.rates)]
    return {**spread(each), "of_medians": shorten(ours.rate / rival.rate)}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns the median, the quartiles (the extremes where there are only a few) and the values."""
    low, _, high = statistics.quantiles(values, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "median": shorten(statistics.median(values)),
        "quartiles": [shorten(low), shorten(high)],
        "rounds": [shorten(value) for value in values],
    }


def shorten(value: float) -> float:
    """Returns four significant digits."""
    return float(f"{value:.4g}")


def print_line(benchmark: str, targets: Sequence[Target] = (), **facts: Any) -> None:
    """Prints the JSON line of one benchmark."""
    line = {
        "benchmark": benchmark,
        "machine": describe_machine(),
        "versions": describe_versions(),
        **facts,
        "targets": [target.summary() for target in targets],
    }
    print(json.dumps(line), flush=True)


def note(text: str) -> None:
    """Says on standard error what is going on."""
    print(text, file=sys.stderr, flush=True)


def add_round_options(parser: argparse.ArgumentParser, *, rounds: int, warmups: int = 1) -> None:
    """Adds --rounds, --warmups and --threads."""
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds that count (default {rounds})")
    parser.add_argument("--warmups", type=int, default=warmups, help="rounds before that do not count")
    parser.add_argument(
        "--threads", type=int, default=count_cores(), help="of each side (default: all cores)"
    )


def _work(opener: str, options: Mapping[str, Any]) -> None:
    """The life of a worker: get ready, then one round for each line that comes in."""
    # Libraries that print must not come between: what goes to standard output from here on goes to standard error.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)

        def send(answer: Mapping[str, Any]) -> None:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()

        module, _, function = opener.partition(":")
        do_round: Round = getattr(importlib.import_module(module), function)(**options)
        send({"ready": True})
        for _ in sys.stdin:
            started, used = time.perf_counter(), time.process_time()
            said = do_round()
            seconds, used = time.perf_counter() - started, time.process_time() - used
            send({"seconds": seconds, "processor_seconds": used, "peak_rss_mb": peak_memory(), "said": said})
    # A paused trainer or a runtime's threads may still be there; nothing of theirs is needed any more.
    os._exit(0)


if __name__ == "__main__":
    _work(sys.argv[1], json.loads(sys.stdin.readline()))
