"""The options that say on what a model runs, shared by all commands that caption."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from showtell.cli.arguments import integer, model, one_of
from showtell.cli.output import log

if TYPE_CHECKING:
    from showtell.captioner import Captioner


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Adds --model, of a command whose arguments are what is captioned; `load_captioner` opens it."""
    parser.add_argument(
        "--model",
        metavar="M",
        type=model,
        action="append",
        help="an exported model, a bundle, a run folder (its best checkpoint), or a name; given again, an ensemble; "
        "without it the captioner that comes with Showtell",
    )


def add_engine_options(
    parser: argparse.ArgumentParser, *, threads: str = "processor threads; one per core by default"
) -> None:
    """Adds --engine, --precision and --threads, whose help may say what they are the threads of."""
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--engine",
        metavar="NAME",
        type=one_of("auto", "openvino", "onnxruntime", "torch"),
        default="auto",
        help="auto (default), openvino or onnxruntime for an exported model; torch for a bundle or a run",
    )
    group.add_argument(
        "--precision",
        metavar="P",
        type=one_of("auto", "bf16", "float32"),
        default="auto",
        help="of an exported model: auto (default: the fastest that the processor has), bf16 or float32",
    )
    group.add_argument("--threads", metavar="N", type=integer(minimum=1), help=threads)


def load_captioner(
    models: str | Path | Sequence[str | Path] | None, arguments: argparse.Namespace
) -> Captioner:
    """Opens a model, or the ensemble of several, or with None the captioner that comes with Showtell, on the engine
    that the arguments name."""
    from showtell.captioner import Captioner

    captioner = Captioner.load(
        models,
        engine=arguments.engine,
        precision=arguments.precision,
        threads=arguments.threads or 0,
    )
    for note in captioner.notes:
        log(note)
    return captioner
