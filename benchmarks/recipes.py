"""The five classics on one data set with one encoder: trained, then scored greedily and with beams 3 and 5.

Every step is the public command line, as a user would type it, in a process of its own; a run that is there
already is resumed or reused. Prints one JSON line per row and at the end the table of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from showtell.recipes import load_recipe

CLASSICS = (
    "show-tell-lstm",
    "show-tell-resnet152",
    "inject-lstm-bottleneck",
    "attend-gru-additive",
    "attend-gru-dot",
)
SEARCHES = {"greedy": ["--greedy"], "beam 3": ["--beam", "3"], "beam 5": ["--beam", "5"]}
METRICS = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and scores; prints rows and the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks recipes", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a data set with train and dev")
    parser.add_argument("--encoder", default="mobilenet_edgetpu_100", help='or several, as "a + b"')
    parser.add_argument("--weights", required=True, help="the encoder's weights, of each one")
    parser.add_argument(
        "--ingredients",
        action="store_true",
        help="train all in the same way, with what lifts every one of them, instead of as the tutorials do",
    )
    parser.add_argument(
        "--image-size", type=int, default=0, help="0 (default): what the encoder was trained at"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs and reports go")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--search", choices=SEARCHES, action="append", help="only this one; may be repeated")
    parser.add_argument("--recipe", choices=CLASSICS, action="append", help="only this one; may be repeated")
    arguments = parser.parse_args(argv)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    rows = []
    for recipe in arguments.recipe or CLASSICS:
        run = arguments.runs / recipe
        _train(recipe, run, arguments)
        for search in arguments.search or SEARCHES:
            row = {
                "recipe": recipe,
                "search": search,
                **_training_facts(run),
                **_evaluate(run, SEARCHES[search], arguments),
            }
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(_table(rows))
    return 0


def _train(recipe: str, run: Path, arguments: argparse.Namespace) -> None:
    command = [
        *("train", recipe, "--data", str(arguments.data), "--output", str(run)),
        *("--set", f"encoder.weights={arguments.weights}", "--seed", str(arguments.seed), "--resume"),
        *(
            "--set",
            f"encoder.name={arguments.encoder}",
            "--set",
            f"encoder.image_size={arguments.image_size}",
        ),
    ]
    if arguments.ingredients:
        command.extend(_ingredients())
    run_command(command)


def _ingredients() -> list[str]:
    """Returns what lifts an architecture, in place of a tutorial's own: words, training and search of one recipe.

    All captions of a picture in one batch, AdamW with one cycle, label smoothing, a moving average of the weights; no
    two words in a row twice, and the consensus of similar pictures. The other ingredient is the encoder.
    """
    tables = load_recipe("flickr8k-fast").to_dict()
    settings = [
        f"{section}.{key}={json.dumps(value)}"
        for section in ("text", "training", "decoding")
        for key, value in tables[section].items()
        if key not in ("seed", "epochs")  # the one is given apart, of the other each has its own
    ]
    return [part for setting in settings for part in ("--set", setting)]


def _evaluate(run: Path, options: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    report = run / "-".join(["report", arguments.split, *options]).replace("---", "-")
    command = [
        *("evaluate", str(run), "--data", str(arguments.data), "--split", arguments.split),
        *("--metrics", "Bleu,METEOR,ROUGE_L,CIDEr", "--output", str(report.with_suffix(".json")), *options),
    ]
    run_command(command)
    found = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))
    return {**found["scores"], "captions_per_second": found["images"] / found["seconds"]}


def _training_facts(run: Path) -> dict[str, Any]:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = sorted(entry["captions_per_second"] for entry in log)
    best = json.loads((run / "best.json").read_text(encoding="utf-8"))
    from safetensors import safe_open

    with safe_open(run / best["bundle"] / "decoder.safetensors", framework="numpy") as file:
        sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118  # not a mapping
    parameters = 0
    for shape in sizes:
        count = 1
        for length in shape:
            count *= length
        parameters += count
    return {
        "parameters": parameters,
        "minutes": sum(entry["seconds"] for entry in log) / 60,
        "epochs": len(log),
        "best_epoch": best["epoch"],
        "training_captions_per_second": rates[len(rates) // 2],
    }


def run_command(command: Sequence[str]) -> None:
    """Runs a command of Showtell in a process of its own and says on standard error which, and how long it took."""
    print("$ showtell " + " ".join(command), file=sys.stderr, flush=True)
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "showtell", *command], check=True, stdout=subprocess.DEVNULL, env=os.environ
    )
    print(f"  {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    head = [
        "recipe",
        "search",
        *METRICS,
        "parameters",
        "epochs",
        "minutes",
        "captions/s training",
        "captions/s captioning",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [
            row["recipe"],
            row["search"],
            *(f"{100 * row[metric]:.1f}" for metric in METRICS),
            f"{row['parameters'] / 1e6:.2f} M",
            str(row["epochs"]),
            f"{row['minutes']:.1f}",
            f"{row['training_captions_per_second']:.0f}",
            f"{row['captions_per_second']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
