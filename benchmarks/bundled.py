"""Makes the captioner that comes with Showtell, from random weights, by the public commands alone.

A teacher in 8 bits from a committed captioner; a student distilled from it; student and decoder trained on captions;
the student trained on with a decoder that begins anew, then this one on rewards; both exported in 8 bits; its
confidence calibrated on dev. Every step has its seed. A step that is done is not done again: killed, the same command
goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.recipes import run_command

NAME = "compact"


def main(argv: Sequence[str] | None = None) -> int:
    """Makes it, and prints one JSON line with the folder and its size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks bundled", description=__doc__)
    parser.add_argument("--flickr8k", type=Path, required=True, help="the data set, train and dev")
    parser.add_argument("--coco", type=Path, required=True, help="captions_train.json of a part of COCO")
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of pictures without captions")
    parser.add_argument(
        "--teacher", type=Path, default=Path("models/flickr8k-best"), help="a bundle (models/flickr8k-best)"
    )
    parser.add_argument("--work", type=Path, default=Path("build/compact"), help="where the steps go")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        help="KEY=VALUE of the distillation; again for more",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="of distillation and training; which is faster depends on the processor (float32)",
    )
    arguments = parser.parse_args(argv)
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    teacher, student, first, run, model = (
        work / name for name in ("teacher", "student", "first", "run", NAME)
    )
    data = ["--data", str(arguments.flickr8k), "--data", str(arguments.coco), "--unsplit", "train"]
    if not (teacher / "portable.json").is_file():
        _run("export", str(arguments.teacher), "--int8", str(arguments.pictures), "--output", str(teacher))
    if not (student / "student.safetensors").is_file():
        chosen = [f"precision={arguments.precision}", *arguments.settings]
        settings = [word for setting in chosen for word in ("--set", setting)]
        _run(
            *("distill", "--teacher", str(teacher), *data, "--pictures", str(arguments.pictures)),
            *("--output", str(student), *settings, "--resume"),
        )
    name = json.loads((student / "distillation.json").read_text(encoding="utf-8"))["settings"]["student"]
    train = ["train", NAME, *data, "--set", f"encoder.name={name}", "--include-encoder", "--resume"]
    train += ["--set", f"training.precision={arguments.precision}"]
    shorter = ["--set", "training.epochs=8", "--set", "self_critical.epochs=0"]
    _run(*train, "--weights", str(student / "student.safetensors"), *shorter, "--output", str(first))
    weights = work / "encoder.safetensors"
    if not weights.is_file():
        shutil.rmtree(work / "packed", ignore_errors=True)
        _run("pack", str(first), "--output", str(work / "packed"), "--encoder", str(weights))
    _run(*train, "--weights", str(weights), "--output", str(run))
    if not (model / "portable.json").is_file():
        shutil.rmtree(model, ignore_errors=True)
        _run("export", str(run), "--int8", str(arguments.pictures), "--output", str(model))
    if "confidence" not in json.loads((model / "portable.json").read_text(encoding="utf-8")):
        _run("calibrate", str(model), "--data", str(arguments.flickr8k), "--write")
    size = sum(file.stat().st_size for file in model.iterdir())
    print(json.dumps({"model": str(model), "bytes": size}))
    return 0


def _run(*words: str) -> None:
    run_command(words)
