"""Time, money and bottleneck of many images on many machines, from what `python -m benchmarks bulk` measured.

The model and what it leaves out stand in docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.sides import print_line, shorten


@dataclass(frozen=True)
class Fleet:
    """What there is to do, and with what."""

    images: float = 100e6
    machines: int = 100
    processors: int = 2  # of each machine
    shard_size: int = 1024
    rate: float = 0.0  # images a second of one worker on one processor
    leading_seconds: float = 0.0  # of the leading process's processor, for each shard
    request_seconds: float = (
        0.03  # that the leading process waits for the store, for each shard; 0 for a folder
    )
    planned_per_second: float = 0.0  # images
    start_seconds: float = 60.0  # Ray, workers and models
    bytes_per_image: float = 200e3
    bytes_per_second: float = 100e6  # between a machine and the store
    price_per_hour: float = 0.1  # of a machine
    price_per_read: float = 0.4e-6  # of a request to the store
    price_per_write: float = 5e-6
    images_per_read: float = 1.0  # 1,000 for tar files of a thousand


def calculate(fleet: Fleet) -> dict[str, object]:
    """Returns the seconds of each part, the bottleneck, and what all of it costs."""
    shards = math.ceil(fleet.images / fleet.shard_size)
    parts = {
        "captioning": fleet.images / (fleet.machines * fleet.processors * fleet.rate),
        "reading": fleet.images * fleet.bytes_per_image / (fleet.machines * fleet.bytes_per_second),
        "leading": shards * (fleet.leading_seconds + fleet.request_seconds),
    }
    bottleneck = max(parts, key=lambda name: parts[name])
    starting = fleet.start_seconds + fleet.images / fleet.planned_per_second
    seconds = starting + parts[bottleneck]
    money = {
        "machines": fleet.machines * seconds / 3600 * fleet.price_per_hour,
        "requests": fleet.images / fleet.images_per_read * fleet.price_per_read
        + shards * (2 * fleet.price_per_write + fleet.price_per_read),
    }
    return {
        "hours": seconds / 3600,
        "bottleneck": bottleneck,
        "hours_of": {name: value / 3600 for name, value in {"starting": starting, **parts}.items()},
        # How many machines could still be fed by one leading process.
        "machines_until_leading_limits": parts["captioning"] * fleet.machines / max(parts["leading"], 1e-9),
        "cost": sum(money.values()),
        "cost_of": money,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Calculates, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fleet", description=__doc__)
    parser.add_argument("--measured", type=Path, help="what `python -m benchmarks bulk` printed")
    for name, value in asdict(Fleet()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), help=f"default {value:g}")
    arguments = parser.parse_args(argv)
    known: dict[str, float] = {}
    if arguments.measured is not None:
        known.update(json.loads(arguments.measured.read_text().splitlines()[-1])["fleet"])
    known.update({name: value for name in asdict(Fleet()) if (value := getattr(arguments, name)) is not None})
    fleet = Fleet(**known)  # type: ignore[arg-type]
    for name in ("rate", "planned_per_second"):
        if getattr(fleet, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} is not known: give it, or --measured FILE")
    print_line("fleet", inputs=asdict(fleet), found=_shortened(calculate(fleet)))
    return 0


def _shortened(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shortened(one) for key, one in value.items()}
    return shorten(value) if isinstance(value, float) else value


if __name__ == "__main__":
    raise SystemExit(main())
