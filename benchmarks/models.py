"""The models that are measured: one bundle for both sides, and its weights in a form that rivals can read.

Without `--model` the weights are random. Speed and memory do not depend on them, except that a random decoder
does not know when to stop: its end token is made impossible, and both sides write captions of the same length.
Everything here runs in a process of its own (`sides.call`), so that making a model counts for nobody.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sides import call, note

ENGINES = ("auto", "openvino", "onnxruntime", "torch")
VOCABULARY = 5004  # ids: 5,000 words and four special tokens
STEPS = 12  # words in a caption of random weights; people's captions of Flickr8k have eleven


@dataclass(frozen=True)
class Prepared:
    """One model, ready for all sides."""

    bundle: Path
    ours: Path  # what our side opens: the exported folder, or the bundle where the engine is torch
    plain: Path  # what rivals open
    steps: int  # the longest caption


def add_model_options(parser: argparse.ArgumentParser, *, encoder: str = "mobilenet_edgetpu_100") -> None:
    """Adds --model, --exported, --encoder, --engine and --precision."""
    parser.add_argument("--model", type=Path, help="a bundle or run folder (default: random weights)")
    parser.add_argument(
        "--exported", type=Path, help="an export of --model that our side opens (default: a new one)"
    )
    parser.add_argument("--encoder", default=encoder, help=f"of random weights (default: {encoder})")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="what our side runs on")
    parser.add_argument("--precision", default="auto", help="of our side: auto, float32 or bf16")


def engine_options(arguments: argparse.Namespace) -> dict[str, str]:
    """Returns what our side needs to know to open its model."""
    return {"engine": arguments.engine, "precision": arguments.precision}


def prepare(
    arguments: argparse.Namespace,
    folder: Path,
    *,
    recipe: str = "attend-gru-additive",
    overrides: tuple[str, ...] = (),
) -> Prepared:
    """Makes or takes the bundle, exports it for our side, and writes its weights for rivals.

    Args:
        arguments: with the options of `add_model_options` and --threads.
        folder: where to; temporary.
        recipe: of a bundle with random weights.
        overrides: of the recipe, as `--set` takes them.
    """
    threads = arguments.threads
    if arguments.model is None:
        bundle = folder / "bundle"
        write_random_bundle(bundle, arguments.encoder, recipe=recipe, overrides=overrides, threads=threads)
    else:
        bundle = arguments.model.resolve()
    plain = folder / "plain"
    said = call("benchmarks.models:write_plain", threads=threads, model=str(bundle), folder=str(plain))
    ours = bundle
    if arguments.exported is not None:
        ours = arguments.exported.resolve()
    elif arguments.engine != "torch":
        ours = folder / "exported"
        note("exporting it")
        call("benchmarks.ours:export", threads=threads, model=str(bundle), folder=str(ours))
    return Prepared(bundle, ours, plain, said["steps"] if arguments.model else STEPS)


def write_random_bundle(
    bundle: Path,
    encoder: str,
    *,
    recipe: str = "attend-gru-additive",
    overrides: tuple[str, ...] = (),
    threads: int,
) -> None:
    """Writes a bundle with random weights, in a process of its own."""
    note(f"making a bundle with random weights: {recipe} on {encoder}")
    options = [f"encoder.name={encoder}", "encoder.image_size=0", *overrides]
    call(
        "benchmarks.models:write_random",
        threads=threads,
        folder=str(bundle),
        recipe=recipe,
        overrides=options,
    )


def write_random(
    folder: str, recipe: str, overrides: list[str], vocab: int = VOCABULARY, seed: int = 0
) -> Callable[[], dict[str, Any]]:
    """Writes a bundle with random weights that behave: sane features, sure of its words, never at an end."""
    import torch
    from safetensors.torch import save_file

    from showtell.bundle import save_bundle
    from showtell.encoders import build_encoder
    from showtell.recipes import load_recipe
    from showtell.text import SPECIAL, Vocabulary
    from showtell.training.model import CaptionModel, build_decoder, make_bundle

    def write() -> dict[str, Any]:
        target = Path(folder)
        weights = target.with_name(f"{target.name}-encoder.safetensors")
        random = load_recipe(recipe, [*overrides, "encoder.weights=random", f"training.seed={seed}"])
        backbone = build_encoder(random.encoder, seed=seed).backbone
        size = random.encoder.image_size or 224
        _calibrate(backbone, size)
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}, weights)
        chosen = load_recipe(recipe, [*overrides, f'encoder.weights="{weights}"', f"training.seed={seed}"])
        encoder = build_encoder(chosen.encoder)
        decoder = build_decoder(chosen, channels=encoder.channels, vocab_size=vocab)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            output: Any = decoder.output
            output.weight.normal_(std=1.0)  # logits apart from each other, as after training
            output.bias[SPECIAL.end] = -1e4
        words = Vocabulary([spell(number) for number in range(vocab - 4)])
        bundle = make_bundle(
            chosen,
            CaptionModel(decoder),
            encoder,
            words,
            split_fingerprint="",
            scores={},
            include_encoder=True,
        )
        save_bundle(bundle, target)
        return {"units": 1}

    return write


def write_plain(model: str, folder: str) -> Callable[[], dict[str, Any]]:
    """Writes a bundle as one safetensors file and one JSON file, which need no Showtell to be read."""
    from safetensors.numpy import save_file

    from showtell.bundle import find_bundle, load_bundle
    from showtell.encoders import WeightsSource
    from showtell.packing import expand
    from showtell.training.model import open_backend

    def write() -> dict[str, Any]:
        found = find_bundle(Path(model))
        bundle = load_bundle(found)
        backend = open_backend(bundle, found)
        if backend.encoder is None:
            raise SystemExit(f"benchmarks: {model} has no encoder")
        tensors = {f"decoder.{name}": value for name, value in expand(bundle.decoder_weights).items()}
        for name, value in backend.encoder.state_dict().items():
            tensors[f"encoder.{name.removeprefix('backbone.')}"] = value.numpy()
        target = Path(folder)
        target.mkdir(parents=True)
        save_file(tensors, target / "weights.safetensors")
        source = WeightsSource.from_dict(bundle.encoder.source)
        facts = {
            "encoder": source.name,
            "encoder_arguments": dict(source.arguments),
            "encoder_identities": [list(path) for path in source.identities],
            "preprocessing": bundle.preprocessing.to_dict(),
            "decoder": bundle.recipe.decoder,
            "decoder_options": dict(bundle.recipe.decoder_options),
            "channels": bundle.encoder.channels,
            "words": list(bundle.vocabulary.words),
            "grid": bundle.recipe.encoder.output == "grid",
        }
        (target / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        return {"units": 1, "steps": bundle.recipe.decoding.max_steps}

    return write


def _calibrate(backbone: Any, size: int) -> None:
    """Lets batch norms see numbers like those of pictures; otherwise random features grow from layer to layer."""
    import torch
    from torch import nn

    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain mean over what it sees
    generator = torch.Generator().manual_seed(0)
    training = backbone.training
    backbone.train()
    with torch.no_grad():
        coarse = torch.randn(8, 3, size // 8, size // 8, generator=generator)
        backbone.forward_features(nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear"))
    backbone.train(training)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def spell(number: int) -> str:
    """Returns a word of letters for a number, a different one for each."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    word = ""
    while True:
        number, digit = divmod(number, 26)
        word += letters[digit]
        if number == 0:
            return "w" + word
