"""What fine-tuning a captioner for a domain gains there, and what it forgets elsewhere.

A captioner is trained on Flickr8k without the pictures of a theme; it is fine-tuned on a few of them
(`showtell train rehearse --from`); both are scored on the theme's other pictures and on dev without the theme.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.recipes import run_command
from benchmarks.sides import Target, print_line, shorten
from showtell.data.records import CaptionedImage, Dataset
from showtell.data.source import read_dataset
from showtell.data.splits import save_splits
from showtell.text import tokenize

THEME = "snow snowy ski skis skier skiers skiing snowboard snowboarder snowboarding sled sledding"
_DEV = 25  # pictures of the theme that choose the best checkpoint
_ARE_OF_IT = 2  # so many of a picture's captions must name the theme


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, fine-tunes and scores; prints one JSON line. A step that is done is not done again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks domain", description=__doc__)
    parser.add_argument("--flickr8k", type=Path, required=True, help="the data set, train and dev")
    parser.add_argument("--theme", default=THEME, help="words that tell its pictures (snow)")
    parser.add_argument("--images", type=int, default=80, help="pictures of the theme to fine-tune on (80)")
    parser.add_argument("--recipe", default="adaptive-lstm", help="of the captioner without the theme")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="of the recipe")
    parser.add_argument(
        "--tuning-recipe", default="rehearse", help="rehearse, or fine-tune, which sees no old pictures"
    )
    parser.add_argument(
        "--tune", action="append", default=[], help="SECTION.KEY=VALUE of the fine-tuning; again for more"
    )
    parser.add_argument(
        "--name", default="tuned", help="of the fine-tuning's folder, where several are tried"
    )
    parser.add_argument("--work", type=Path, default=Path("build/domain"), help="where runs go")
    arguments = parser.parse_args(argv)
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    flickr8k = ["--data", str(arguments.flickr8k.resolve()), "--unsplit", "drop"]
    dataset = read_dataset(arguments.flickr8k)
    words = frozenset(arguments.theme.split())
    general, domain = work / "general.json", work / f"domain-{arguments.images}.json"
    _check_settings(arguments, work / "settings.json")
    _save(dataset, general, domain, words, arguments.images)
    base, tuned = work / "base", work / arguments.name
    if not (base / "done").is_file():
        settings = [word for setting in arguments.settings for word in ("--set", setting)]
        data = [*flickr8k, "--splits", str(general)]
        run_command(["train", arguments.recipe, *data, *settings, "--output", str(base), "--resume"])
        (base / "done").touch()
    settings = [word for setting in arguments.tune for word in ("--set", setting)]
    data = [*flickr8k, "--splits", str(domain), "--old-data", str(arguments.flickr8k.resolve())]
    command = ["train", arguments.tuning_recipe, "--from", str(base), *data, *settings]
    run_command([*command, "--output", str(tuned), "--resume"])
    scores = {}
    for name, splits, split in (("theme", domain, "test"), ("elsewhere", general, "dev")):
        for model in (base, tuned):
            report = work / f"{model.name}-{splits.stem}-{name}.json"
            if model is tuned or not report.is_file():
                command = ["evaluate", str(model), *flickr8k, "--splits", str(splits), "--split", split]
                run_command([*command, "--no-overlap", "--output", str(report)])
            found = json.loads(report.read_text(encoding="utf-8"))["scores"]["CIDEr"]
            scores[f"{name}_{'before' if model is base else 'after'}"] = 100 * found
    gained = scores["theme_after"] - scores["theme_before"]
    lost = scores["elsewhere_before"] - scores["elsewhere_after"]
    targets = [
        Target("CIDEr gained on the theme", gained, at_least=10.0),
        Target("CIDEr lost elsewhere", lost, at_most=3.0),
    ]
    found = {name: shorten(score) for name, score in scores.items()}
    tuning = {"recipe": arguments.tuning_recipe, "set": arguments.tune}
    print_line("domain", targets, theme=arguments.theme, images=arguments.images, tuning=tuning, **found)
    return 0


def _check_settings(arguments: argparse.Namespace, path: Path) -> None:
    """Keeps what the captioner without the theme depends on; ends where the folder has one of another kind."""
    ours = {"theme": arguments.theme, "recipe": arguments.recipe, "set": arguments.settings}
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != ours:
        raise SystemExit(
            f"benchmarks: {path.parent} holds a captioner of another theme, recipe or --set. Choose another --work."
        )
    path.write_text(json.dumps(ours), encoding="utf-8")


def _save(dataset: Dataset, general: Path, domain: Path, words: frozenset[str], images: int) -> None:
    """Writes two lists of splits: all but the theme, and the theme: train, dev, and the rest as test."""

    def naming(image: CaptionedImage) -> int:
        return sum(bool(words & set(tokenize(caption))) for caption in image.captions)

    known = [image for split in ("train", "dev") for image in dataset.split(split).images]
    theme = [image for image in known if naming(image) >= _ARE_OF_IT]
    parts = (
        (theme[:images], "train"),
        (theme[images : images + _DEV], "dev"),
        (theme[images + _DEV :], "test"),
    )
    chosen = tuple(replace(image, split=split) for part, split in parts for image in part)
    others = tuple(image for image in known if not naming(image))
    save_splits(replace(dataset, images=others), general, seed=None)
    save_splits(replace(dataset, images=chosen), domain, seed=None)


if __name__ == "__main__":
    raise SystemExit(main())
