"""`python -m benchmarks NAME`: each benchmark prints one JSON line; without a name, the quick ones run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

BENCHMARKS = {
    "encode": "ResNet-50: images per second, and how much of the machine's own speed that is",
    "caption": "one photograph to its caption, or a folder of them",
    "cold_start": "`showtell caption` as a process: seconds and memory",
    "compact": "the captioner that comes with Showtell: a folder, one photograph, a cold process, on both engines",
    "serve": "the captioning service under load, and under too much of it",
    "soak": "the captioning service under mixed good, bad and abandoned requests: leaks, errors, mixed-up answers",
    "install": "what a user downloads: the wheel, and those of the base install",
    "train": "training steps on cached features: captions per second",
    "batch": "captions of 64 images in one batch against one by one",
    "decode": "decoding of JPEG files: images per second",
    "score": "scoring 5,000 hypotheses with five references each",
    "features": "feature extraction: images per second, bytes on disk, resident memory",
    "memory": "resident memory of feature extraction and training, for few and for many images",
    "fine_tuning": "peak memory and speed of training an encoder: plainly, with less kept, in parts",
    "scale": "how cost grows: 100, 1,000 and 7,000 images (a quarter of an hour)",
    "bulk": "`showtell bulk` on Ray against `showtell caption`: 20,000 images, and memory (ten minutes)",
    "opening": "the page of `showtell report` for 1,000 images: its size, and how long a browser takes to open it",
    "fleet": "100 million images on 100 machines, calculated from what `bulk` measured",
    "step": "one training step of each decoder, float32 against bf16",
    "agreement": "captions and scores of exported models against torch",
    "domain": "what fine-tuning for a domain gains there and forgets elsewhere (half an hour)",
    "curve": "quality of compact captioners by their size and by training pictures (an hour)",
    "words": "what a captioner is fond of saying: subjects, and the gender of people",
    "recipes": "trains and scores the five classic recipes (hours); see docs/results.md",
    "bundled": "makes the captioner that comes with Showtell, from random weights (many hours)",
    "report": "draws plots of results and prints the table of benchmarks/README.md",
}
QUICK = ("encode", "caption", "cold_start", "compact", "train", "batch", "decode", "score", "features")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one benchmark, or the quick ones."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] not in BENCHMARKS:
        width = max(map(len, BENCHMARKS))
        print("usage: python -m benchmarks [NAME] [OPTIONS]\n", file=sys.stderr)
        for name, text in BENCHMARKS.items():
            print(f"  {name.ljust(width)}  {text}", file=sys.stderr)
        return 0 if words[0] in ("-h", "--help") else 2
    names, options = (words[:1], words[1:]) if words else (QUICK, [])
    return max(int(importlib.import_module(f"benchmarks.{name}").main(options)) for name in names)


if __name__ == "__main__":
    sys.exit(main())
