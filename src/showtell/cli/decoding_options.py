"""The options that say how captions are searched for or drawn, shared by `caption` and `evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from showtell.cli.arguments import integer, real
from showtell.errors import UsageError

if TYPE_CHECKING:
    from showtell.decoding.settings import DecodingSettings

SAMPLING = ("temperature", "top_k", "top_p", "seed")


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """Adds greedy, beam and sampling options; what is not given comes from the model's recipe."""
    group = parser.add_argument_group("decoding", "What is not given is as in the model's recipe.")
    group.add_argument("--greedy", action="store_true", help="always the most probable next word")
    group.add_argument("--beam", metavar="K", type=integer(minimum=1), help="beam search; 3 to 5 is best")
    group.add_argument("--sample", action="store_true", help="draw words as probable as the model finds them")
    group.add_argument(
        "--temperature",
        metavar="T",
        type=real(above=0),
        help="with --sample: below 1 is safer, above 1 bolder",
    )
    group.add_argument(
        "--top-k",
        metavar="K",
        type=integer(minimum=0),
        help="with --sample: only the K likeliest words; 0 is all",
    )
    group.add_argument(
        "--top-p",
        metavar="P",
        type=real(above=0, maximum=1),
        help="with --sample: the likeliest words that hold P",
    )
    group.add_argument(
        "--seed", metavar="S", type=integer(minimum=0), help="with --sample: equal seeds, equal captions"
    )
    group.add_argument(
        "--length-penalty",
        metavar="A",
        type=real(minimum=0, maximum=10),
        help="captions are ranked by log-probability / length^A; 0 favours short ones",
    )
    group.add_argument(
        "--no-repeat-ngram",
        metavar="N",
        type=integer(minimum=0),
        help="no N words in a row twice in a caption; 0 allows it",
    )
    group.add_argument(
        "--double-words",
        action=argparse.BooleanOptionalAction,
        help="whether a word may follow itself",
    )
    group.add_argument(
        "--include",
        metavar="WORDS",
        action="append",
        help="a word or phrase that every caption must hold (given again, another one); 'dog|puppy': either will do",
    )
    group.add_argument(
        "--exclude",
        metavar="WORDS",
        action="append",
        help="a word or phrase that no caption may hold; given again, another one",
    )
    group.add_argument(
        "--consensus",
        metavar="W",
        type=real(minimum=0),
        help="weight of what people said of similar training pictures, for models that know it; 0 does not ask",
    )
    group.add_argument(
        "--neighbours", metavar="N", type=integer(minimum=1), help="with a consensus: of how many pictures"
    )
    group.add_argument(
        "--max-steps", metavar="N", type=integer(minimum=1), help="words in the longest caption"
    )


def read_decoding_settings(
    arguments: argparse.Namespace, defaults: DecodingSettings, *, count: int | None = None
) -> DecodingSettings:
    """Returns `defaults` with the given options put in, and `count` captions per image.

    Without a count, a method that the options choose gives one caption; the default method gives as many
    as `defaults` say.

    Raises:
        UsageError: options that contradict each other, as `--beam` with `--sample`.
        ConfigError: more captions than the method can give, or words that it cannot include.
    """
    methods = [name for name in ("greedy", "beam", "sample") if getattr(arguments, name) not in (None, False)]
    if len(methods) > 1:
        raise UsageError(f"--{methods[0]} and --{methods[1]} contradict each other. Give one of them.")
    method = methods[0] if methods else defaults.method
    changes: dict[str, Any] = {"method": method}
    if arguments.double_words is not None:
        changes["no_double_words"] = not arguments.double_words
    for name in (
        "beam",
        "length_penalty",
        "no_repeat_ngram",
        "include",
        "exclude",
        "consensus",
        "neighbours",
        "max_steps",
        *SAMPLING,
    ):
        value = getattr(arguments, name)
        if value is None:
            continue
        if name in SAMPLING and method != "sample":
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} {value} has no meaning without --sample. Add --sample, or drop it.")
        changes[name] = value
    if count is not None or methods:
        changes["count"] = count or 1
    return dataclasses.replace(defaults, **changes)
