"""Scoring: tokenise + Bleu + ROUGE_L + CIDEr, in seconds, against pycocoevalcap (whose tokeniser is a Java program).

Every round of every side is a process of its own, so that nothing is remembered from the round before. What is timed
begins when the captions are in memory and everything is imported; the whole life of the process is given beside it.
Both sides' scores, of the corpus and of each image, are compared in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sides import (
    Measurement,
    Round,
    Target,
    add_round_options,
    call,
    note,
    print_line,
    ratios,
    shorten,
    spread,
)

KEYS = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr")
OPENERS = {
    "showtell": "benchmarks.score:score_with_showtell",
    "pycocoevalcap": "benchmarks.score:score_with_pycocoevalcap",
}
LARGEST_DIFFERENCE = 1e-6
WORDS = 8000  # in generated captions
CHANGED = 0.3  # share of a hypothesis's words that are not those of the reference it was made from


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks score", description=__doc__)
    add_round_options(parser, rounds=3, warmups=0)
    parser.add_argument("--hypotheses", type=int, default=5000, help="one for each image")
    parser.add_argument("--references", type=int, default=5, help="for each image")
    parser.add_argument("--data", metavar="FOLDER", help="captions of a data set (default: generated ones)")
    parser.add_argument("--batch", type=int, default=120, help="sampled captions that are rewarded at once")
    arguments = parser.parse_args(argv)
    references, source = _gather_references(arguments.data, arguments.hypotheses, arguments.references)
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in OPENERS}
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        data = Path(folder, "captions.json")
        data.write_text(json.dumps({"references": references, "hypotheses": _make_hypotheses(references)}))
        for number in range(arguments.warmups + arguments.rounds):
            names = list(OPENERS) if number % 2 == 0 else list(reversed(OPENERS))
            for name in names:
                started = time.perf_counter()
                answer = call(
                    OPENERS[name], threads=arguments.threads, data=str(data), scores=f"{folder}/{name}.npy"
                )
                answer["process_seconds"] = time.perf_counter() - started
                note(f"  {name}: {answer['scoring_seconds']:.3g} s{_warm(number, arguments.warmups)}")
                if number >= arguments.warmups:
                    answers[name].append(answer)
        mine, theirs = (np.load(f"{folder}/{name}.npy") for name in OPENERS)
        rewards = call(
            "benchmarks.score:reward", threads=arguments.threads, data=str(data), batch=arguments.batch
        )
    difference = float(np.abs(mine - theirs).max())
    found = {name: _measurement(given) for name, given in answers.items()}
    compared = ratios(found["showtell"], found["pycocoevalcap"])
    print_line(
        "score",
        [
            Target("times the speed of pycocoevalcap", compared["of_medians"], at_least=10.0),
            Target("largest difference of a score", difference, at_most=LARGEST_DIFFERENCE),
        ],
        threads=arguments.threads,
        captions=source,
        hypotheses=arguments.hypotheses,
        references_each=arguments.references,
        rival_versions={"pycocoevalcap": version("pycocoevalcap"), "java": _java_version()},
        sides={name: _summarise(found[name], answers[name]) for name in OPENERS},
        ratio=compared,
        ratio_of_processor_seconds=shorten(_processor_ratio(answers)),
        corpus=dict(zip(KEYS, map(shorten, mine[0].tolist()))),
        rewards={key: rewards[key] for key in rewards if key not in ("units", "seconds")},
    )
    return 0 if difference <= LARGEST_DIFFERENCE else 1


def score_with_showtell(data: str, scores: str) -> Round:
    """Scores once; then takes the stages one by one, when words have been seen and memory has been asked for."""
    from showtell.metrics import ReferenceIndex, score
    from showtell.text.tokenizer import tokenize

    references, hypotheses = _read(data)

    def work() -> dict[str, Any]:
        processor, started = _processor_seconds(), time.perf_counter()
        found = score(references, hypotheses)
        seconds, processor = time.perf_counter() - started, _processor_seconds() - processor
        rows = [found.corpus, *found.per_image.values()]
        np.save(scores, np.array([[row[key] for key in KEYS] for row in rows]))
        stages: dict[str, float] = {}
        mark = time.perf_counter()

        def stop(stage: str) -> None:
            nonlocal mark
            now = time.perf_counter()
            stages[stage], mark = now - mark, now

        for captions in (*references.values(), hypotheses.values()):
            for caption in captions:
                tokenize(caption)
        stop("tokenise, also part of what follows")
        index = ReferenceIndex(references)
        stop("index")
        for metric in ("Bleu", "ROUGE_L", "CIDEr"):
            index.score(index.ids, list(hypotheses.values()), metrics=[metric])
            stop(metric)
        return {
            "units": len(hypotheses),
            "scoring_seconds": seconds,
            "processor_seconds": processor,
            "stages": stages,
        }

    return work


def score_with_pycocoevalcap(data: str, scores: str) -> Round:
    """Scores once, as coco-caption's own evaluation does."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    references, hypotheses = _read(data)

    def work() -> dict[str, Any]:
        stages: dict[str, float] = {}
        processor, mark = _processor_seconds(), time.perf_counter()
        started = mark
        tokenizer = PTBTokenizer()
        truth = tokenizer.tokenize(
            {key: [{"caption": c} for c in given] for key, given in references.items()}
        )
        guess = tokenizer.tokenize({key: [{"caption": caption}] for key, caption in hypotheses.items()})
        stages["tokenise"] = time.perf_counter() - mark
        totals: list[float] = []
        columns: list[Sequence[float]] = []
        for name, scorer in (("Bleu", Bleu(4)), ("ROUGE_L", Rouge()), ("CIDEr", Cider())):
            mark = time.perf_counter()
            options = {"verbose": 0} if name == "Bleu" else {}
            total, column = scorer.compute_score(truth, guess, **options)
            totals += total if name == "Bleu" else [total]
            columns += column if name == "Bleu" else [column]
            stages[name] = time.perf_counter() - mark
        seconds, processor = time.perf_counter() - started, _processor_seconds() - processor
        np.save(scores, np.array([totals, *zip(*columns)]))
        java = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        return {
            "units": len(hypotheses),
            "scoring_seconds": seconds,
            "processor_seconds": processor,
            "stages": stages,
            "java_peak_rss_mb": java,
        }

    return work


def reward(data: str, batch: int) -> Round:
    """Scores batches of sampled captions against an index that is built once, as self-critical training does."""
    from showtell.metrics import ReferenceIndex

    references, hypotheses = _read(data)
    index = ReferenceIndex(references)
    generator = random.Random(0)

    def work() -> dict[str, Any]:
        facts: dict[str, Any] = {"batch": batch}
        for metrics in (["CIDEr"], ["Bleu", "CIDEr"]):
            seconds = []
            for _ in range(50):
                images = generator.choices(index.ids, k=batch)
                captions = [hypotheses[image].split() for image in images]
                started = time.perf_counter()
                index.score(images, captions, metrics=metrics)
                seconds.append(time.perf_counter() - started)
            facts[f"{' and '.join(metrics)} per second"] = shorten(batch / statistics.median(seconds))
        return {"units": batch, **facts}

    return work


def _gather_references(folder: str | None, images: int, each: int) -> tuple[dict[str, list[str]], str]:
    if folder is None:
        from benchmarks.models import spell
        from benchmarks.synthetic import draw_captions

        drawn = draw_captions(np.random.default_rng(0), images * each, WORDS)
        captions = [f"{' '.join(map(spell, words))} .".capitalize() for words in drawn]
        groups = [captions[start : start + each] for start in range(0, len(captions), each)]
        return dict(zip(map(str, range(images)), groups)), f"generated from {WORDS} words by seed 0"
    from showtell.data import read_dataset

    dataset = read_dataset(folder)
    groups = [list(image.captions[:each]) for image in dataset.images if len(image.captions) >= each]
    if len(groups) < images:
        raise SystemExit(
            f"benchmarks: {folder} has {len(groups)} images with {each} captions or more. "
            f"Use --hypotheses {len(groups)} or fewer, or fewer --references."
        )
    return dict(zip(map(str, range(images)), groups)), f"of {dataset.name}"


def _make_hypotheses(references: dict[str, list[str]]) -> dict[str, str]:
    """Returns a caption for each image that resembles its references as much as a captioner's does."""
    generator = random.Random(0)
    words = [word for captions in references.values() for word in captions[0].split()]
    hypotheses = {}
    for image, captions in references.items():
        changed = [
            generator.choice(words) if generator.random() < CHANGED else word
            for word in generator.choice(captions).split()
        ]
        hypotheses[image] = " ".join(changed)
    return hypotheses


def _read(data: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    captions = json.loads(Path(data).read_text())
    return captions["references"], captions["hypotheses"]


def _processor_ratio(answers: dict[str, list[dict[str, Any]]]) -> float:
    """Returns pycocoevalcap's processor seconds over ours, which other work on the machine hardly changes."""
    mine, theirs = (
        statistics.median(answer["processor_seconds"] for answer in answers[name]) for name in OPENERS
    )
    return float(theirs / mine)


def _measurement(answers: Sequence[dict[str, Any]]) -> Measurement:
    return Measurement(
        seconds=tuple(answer["scoring_seconds"] for answer in answers),
        units=tuple(answer["units"] for answer in answers),
        peak_rss_mb=max(answer["peak_rss_mb"] for answer in answers),
        results=tuple(answers),
    )


def _summarise(found: Measurement, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    stages = answers[0]["stages"]
    java = max(answer.get("java_peak_rss_mb", 0.0) for answer in answers)
    return {
        "seconds": spread(found.seconds),
        "process_seconds": spread([answer["process_seconds"] for answer in answers]),
        "processor_seconds": spread([answer["processor_seconds"] for answer in answers]),
        "stages": {
            stage: shorten(statistics.median(answer["stages"][stage] for answer in answers))
            for stage in stages
        },
        "peak_rss_mb": found.peak_rss_mb,
        **({"java_peak_rss_mb": shorten(java)} if java else {}),
    }


def _processor_seconds() -> float:
    """Returns what this process has used so far, and the Java that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _java_version() -> str:
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True)
    return said.stderr.splitlines()[0]


def _warm(number: int, warmups: int) -> str:
    return " (warm-up)" if number < warmups else ""


if __name__ == "__main__":
    raise SystemExit(main())
