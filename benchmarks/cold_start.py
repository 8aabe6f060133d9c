"""`showtell caption PHOTO` as a process, from the shell's point of view, against importing torch and timm alone.

Everything counts: starting Python, opening the model, decoding, writing. The files are in the system's cache, as after
a first use, and so is the compiled model. Peak memory is what the system says of the ended process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import count_cores
from benchmarks.models import add_model_options, engine_options, prepare
from benchmarks.photographs import write_photographs
from benchmarks.sides import Measurement, Target, note, print_line, ratios, shorten, worker_environment


@dataclass(frozen=True)
class Start:
    """One process, from start to end."""

    seconds: float
    processor_seconds: float
    peak_rss_mb: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cold_start", description=__doc__)
    add_model_options(parser)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warmups", type=int, default=2)
    parser.add_argument("--threads", type=int, default=count_cores())
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        model = prepare(arguments, Path(folder))
        (photograph,) = write_photographs(Path(folder, "photographs"), 1)
        ours = [
            sys.executable,
            "-m",
            "showtell",
            "caption",
            str(photograph),
            "--model",
            str(model.ours),
            "--beam",
            "3",
        ]
        if arguments.engine not in ("auto", "torch"):
            ours += ["--engine", arguments.engine]
        if arguments.precision != "auto" and arguments.engine != "torch":
            ours += ["--precision", arguments.precision]
        environment = worker_environment(arguments.threads)
        commands = {"showtell": ours, "torch + timm": [sys.executable, "-c", importing(environment)]}
        starts: dict[str, list[Start]] = {name: [] for name in commands}
        for number in range(arguments.warmups + arguments.rounds):
            order = list(commands.items())
            for name, command in order if number % 2 == 0 else reversed(order):
                start = run(command, environment)
                note(f"  {name}: {start.seconds:.3g} s, {start.peak_rss_mb:.0f} MB")
                if number >= arguments.warmups:
                    starts[name].append(start)
    found = {
        name: Measurement(
            seconds=tuple(start.seconds for start in given),
            units=(1.0,) * len(given),
            processor_seconds=tuple(start.processor_seconds for start in given),
            peak_rss_mb=max(start.peak_rss_mb for start in given),
            results=(),
        )
        for name, given in starts.items()
    }
    compared = ratios(found["showtell"], found["torch + timm"])
    took = found["showtell"].seconds_per_unit
    print_line(
        "cold_start",
        [
            Target(
                "of the time of importing torch and timm",
                took / found["torch + timm"].seconds_per_unit,
                at_most=0.5,
            ),
            Target("seconds from the command to the caption", took, at_most=1.2),
            Target("MB of memory at its peak", found["showtell"].peak_rss_mb, at_most=350.0),
        ],
        threads=arguments.threads,
        photographs="1280x960 JPEG",
        model=str(arguments.model or f"{arguments.encoder} + attend-gru-additive, random weights"),
        engine=engine_options(arguments),
        unit="starts",
        sides={
            name: {**side.summary("starts"), "seconds": shorten(side.seconds_per_unit)}
            for name, side in found.items()
        },
        ratio=compared,
    )
    return 0


def importing(environment: dict[str, str]) -> str:
    """Returns the program that imports torch and timm, also beside a torchvision that does not fit its torch."""
    program = "import torch, timm"
    if subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment).returncode == 0:
        return program
    declare = "; ".join(
        f"torch.library.define('torchvision::{name}', '(Tensor dets, Tensor scores, float threshold) -> Tensor')"
        for name in ("nms", "qnms")
    )
    return f"import torch; {declare}; import timm"


def run(command: Sequence[str], environment: dict[str, str]) -> Start:
    """Runs a command.

    The peak cannot be below that of this process, which starts it: this one imports nothing large.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    # Output is a line or two, which a pipe holds, so that nothing has to be read before the end.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    with process:
        errors = process.stderr.read().decode() if process.stderr else ""
    if process.returncode:
        raise SystemExit(f"benchmarks: {' '.join(command)} failed (exit code {process.returncode}): {errors}")
    peak = shorten(usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024))
    return Start(seconds, usage.ru_utime + usage.ru_stime, peak)


if __name__ == "__main__":
    raise SystemExit(main())
