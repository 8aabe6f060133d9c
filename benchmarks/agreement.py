"""What an export costs in quality: how many captions it shares with torch, and the scores of both.

Every exported folder runs in each precision and on each engine that takes it. The captions of `--images` pictures are
compared, greedy and with a beam; the scores are over the whole split, with the beam, on OpenVINO.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.sides import note, print_line
from showtell.captioner import Captioner
from showtell.data import Dataset, read_dataset
from showtell.decoding import DecodingSettings
from showtell.portable import load_portable

METRICS = ("Bleu", "ROUGE_L", "CIDEr")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks agreement", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the run or bundle that was exported")
    parser.add_argument("--exported", type=Path, action="append", required=True, help="may be repeated")
    parser.add_argument("--data", type=Path, required=True, help="a data set with captions")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--beam", type=int, default=3)
    arguments = parser.parse_args(argv)
    dataset = read_dataset(arguments.data).split(arguments.split)
    torch_side = Captioner.load(arguments.model)
    greedy = DecodingSettings(method="greedy")
    beam = DecodingSettings(method="beam", beam=arguments.beam, length_penalty=0.6)
    paths = [image.path for image in dataset.images[: arguments.images]]
    expected = {settings.method: _captions(torch_side, paths, settings) for settings in (greedy, beam)}
    rows: list[dict[str, Any]] = [{"form": "torch", "scores": _score(torch_side, dataset, beam)}]
    for form, engine, captioner in _forms(arguments.exported):
        note(f"{form}, {engine}")
        row: dict[str, Any] = {"form": form, "engine": engine}
        for settings in (greedy, beam):
            found = _captions(captioner, paths, settings)
            row[f"same_{settings.method}"] = sum(map(str.__eq__, found, expected[settings.method]))
        if engine == "openvino":
            row["scores"] = _score(captioner, dataset, beam)
        rows.append(row)
    print_line("agreement", images=len(paths), scored=len(dataset.images), beam=arguments.beam, rows=rows)
    return 0


def _forms(folders: Sequence[Path]) -> list[tuple[str, str, Captioner]]:
    forms = []
    for folder in folders:
        weights = load_portable(folder).weights
        if weights == "float32":
            for engine, precision in (
                ("openvino", "float32"),
                ("onnxruntime", "float32"),
                ("openvino", "bf16"),
            ):
                forms.append((precision, engine, Captioner.load(folder, engine=engine, precision=precision)))
        else:
            forms += [
                (weights, engine, Captioner.load(folder, engine=engine))
                for engine in ("openvino", "onnxruntime")
            ]
    return forms


def _captions(captioner: Captioner, paths: Sequence[Path], settings: DecodingSettings) -> list[str]:
    return [picture.text for picture in captioner.caption(paths, settings)]


def _score(captioner: Captioner, dataset: Dataset, settings: DecodingSettings) -> dict[str, float]:
    report = captioner.evaluate(
        dataset, split=dataset.images[0].split or "", settings=settings, metrics=METRICS
    )
    return dict(report.scores)


if __name__ == "__main__":
    raise SystemExit(main())
