"""Feature extraction: images per second, bytes on disk, and resident memory for few and for many images."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine

PACKAGES = ("showtell", "torch", "timm", "pillow", "numpy")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks features", description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files (default: drawn ones, 224x224)")
    parser.add_argument("--encoder", default="mobilenet_edgetpu_100")
    parser.add_argument("--weights", default="random", help="random (default), imagenet, or a file")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--count", type=int, default=512, help="images in each timed run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--memory", type=int, nargs="*", default=[1000, 7000], help="numbers of images to measure memory for"
    )
    parser.add_argument("--one-run", type=Path, help=argparse.SUPPRESS)  # the process that is measured
    arguments = parser.parse_args(argv)
    if arguments.one_run is not None:
        print(json.dumps(_run_once(arguments)))
        return 0
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        print(json.dumps(_measure(arguments, Path(folder))))
    return 0


def _measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    images = arguments.images or _draw_images(folder / "images", 256)
    runs = [
        _run_in_process(arguments, images, folder / f"run{number}", arguments.count)
        for number in range(arguments.runs)
    ]
    memory = {
        count: _run_in_process(arguments, images, folder / f"memory{count}", count)
        for count in arguments.memory
    }
    speeds = sorted(run["images_per_second"] for run in runs)
    return {
        "benchmark": "features",
        "machine": describe_machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "encoder": arguments.encoder,
        "precision": runs[0]["precision"],
        "images": str(arguments.images or "drawn, 224x224 JPEG"),
        "images_per_run": arguments.count,
        "images_per_second": {
            "median": round(statistics.median(speeds), 1),
            "runs": [round(speed, 1) for speed in speeds],
        },
        "bytes_per_image": round(runs[0]["bytes"] / arguments.count),
        "by_number_of_images": {
            str(count): {
                "peak_rss_mb": run["peak_rss_mb"],
                "reading_peak_rss_mb": run["reading_peak_rss_mb"],
                "bytes": run["bytes"],
                "images_per_second": round(run["images_per_second"], 1),
            }
            for count, run in memory.items()
        },
    }


def _run_in_process(arguments: argparse.Namespace, images: Path, cache: Path, count: int) -> dict[str, Any]:
    """Extracts in a fresh process, so that one measurement of memory knows nothing of another."""
    options = {
        "--images": images, "--encoder": arguments.encoder, "--weights": arguments.weights, "--count": count,
        "--precision": arguments.precision, "--batch-size": arguments.batch_size,
        "--workers": arguments.workers, "--one-run": cache,
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "benchmarks.features",
        *(str(part) for pair in options.items() for part in pair),
    ]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    values: dict[str, Any] = json.loads(result.stdout)
    for file in cache.iterdir():
        file.unlink()
    return values


def _run_once(arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from showtell.config import EncoderConfig
    from showtell.data.records import CaptionedImage, Dataset
    from showtell.encoders import FeatureCache, build_encoder, extract_features

    paths = sorted(path for path in arguments.images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        raise SystemExit(f"{arguments.images}: no JPEG files")
    # More images than there are files: the same file under several ids is decoded each time.
    dataset = Dataset(
        "benchmark",
        "folder",
        tuple(
            CaptionedImage(f"{number}", paths[number % len(paths)], ()) for number in range(arguments.count)
        ),
    )
    encoder = build_encoder(
        EncoderConfig(name=arguments.encoder, weights=arguments.weights, precision=arguments.precision)
    )
    # The first batches also fold the batch norms and fill torch's caches: once per process, not per image.
    warm_up = replace(dataset, images=dataset.images[:32])
    with tempfile.TemporaryDirectory(dir=arguments.one_run.parent) as folder:
        extract_features(warm_up, encoder, folder)
    report = extract_features(
        dataset, encoder, arguments.one_run, batch_size=arguments.batch_size, workers=arguments.workers
    )
    extracting = _peak_memory()
    with FeatureCache.open(
        arguments.one_run, encoder_fingerprint=encoder.fingerprint, dataset=dataset
    ) as cache:
        order = np.random.default_rng(0).permutation(np.array(cache.ids))
        started = time.perf_counter()
        for start in range(0, len(order), 32):
            cache.features([str(image_id) for image_id in order[start : start + 32]])
        seconds = time.perf_counter() - started
    return {
        "precision": encoder.precision,
        "images_per_second": report.images_per_second,
        "bytes": report.bytes,
        "peak_rss_mb": extracting,
        "reading_peak_rss_mb": _peak_memory(),
        "images_read_per_second": len(order) / seconds,
    }


def _draw_images(folder: Path, count: int) -> Path:
    """Draws smooth noise, which compresses about as well as photographs do."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((224, 224), Image.Resampling.BICUBIC).save(
            folder / f"{number:04d}.jpg", quality=86
        )
    return folder


def _peak_memory() -> int:
    """Returns the largest resident size of this process so far, in MB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    raise SystemExit(main())
