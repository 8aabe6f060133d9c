"""How captions are searched for: the method and its numbers, checked when they are written down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from showtell.decoding.phrases import check_constraints, read_entries
from showtell.errors import ConfigError, did_you_mean

METHODS = ("greedy", "beam", "sample")
MAX_LENGTH_PENALTY = 10  # beyond it lengths alone would rank captions, and their powers could overflow
MAX_CONSENSUS = 1000  # at 10 or so the search itself has no say any more
MAX_ROWS = 1000  # of an image in the search: more is a slip, and would fill the memory


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """The method of the search and its numbers; those that belong to another method are checked and not used.

    The score of a caption, in every method, is `log_prob / steps ** length_penalty`, where `steps` counts its
    words, and its end token if it has one: the terms that `log_prob` sums. A penalty of 1 is the mean
    log-probability of a token; 0 is no normalisation, which favours short captions, most so in wide beams.
    With `consensus`, all captions of the beam (or all samples) are ranked by the score plus `consensus` times
    their agreement with the captions of `neighbours` training pictures (`showtell.consensus`).
    What `no_repeat_ngram`, `no_double_words` and `exclude` forbid never comes out, in any method; the
    log-probabilities of the rest stay the model's own. Every caption holds what `include` asks for; only beam search
    can promise that (`showtell.decoding.constraints`).

    Raises:
        ConfigError: a number of the wrong type or outside its range, an unknown method, more captions than the
            method can give, words to include or exclude that are none, or that contradict each other.
    """

    method: Literal["greedy", "beam", "sample"] = "beam"  # "greedy", "beam" or "sample"
    beam: int = 3  # beam search: how many captions are kept after each step; 3 to 5 is best
    count: int = 1  # captions per image: the n best of the beam, or n samples
    max_steps: int = 30  # decoder steps, so at most this many words; the end token takes a step too
    length_penalty: float = 1.0  # the power of the length that divides a log-probability; 1 is the mean
    no_repeat_ngram: int = 0  # no run of this many words twice in a caption (Paulus et al. 2018: 3); 0 is off
    no_double_words: bool = False  # no word directly after itself, as in "a a dog"
    include: tuple[
        str, ...
    ] = ()  # words and phrases that every caption must hold; "dog|puppy": either will do
    exclude: tuple[str, ...] = ()  # words and phrases that never come out
    consensus: float = 0.0  # weight of what people said of similar training pictures; 0 does not ask
    neighbours: int = 20  # how many similar training pictures are asked
    temperature: float = 1.0  # sampling: divides the logits; below 1 is safer, above 1 more varied
    top_k: int = 0  # sampling: only from this many likeliest tokens; 0 means all
    top_p: float = 1.0  # sampling: only from the fewest tokens that hold this share of what top_k left
    seed: int = 0  # sampling: equal seeds give equal captions

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            hint = did_you_mean(self.method, METHODS) if isinstance(self.method, str) else ""
            raise ConfigError(
                f"Unknown decoding method {self.method!r}.{hint} It must be one of: {', '.join(METHODS)}."
            )
        for name in ("beam", "count"):
            _check_integer(name, getattr(self, name), smallest=1)
            if getattr(self, name) > MAX_ROWS:
                raise ConfigError(f"Decoding needs {name} <= {MAX_ROWS}. Received: {getattr(self, name)!r}.")
        _check_integer("max_steps", self.max_steps, smallest=1)
        _check_integer("neighbours", self.neighbours, smallest=1)
        _check_integer("no_repeat_ngram", self.no_repeat_ngram, smallest=0)
        if not isinstance(self.no_double_words, bool):
            raise ConfigError(
                f"Decoding needs no_double_words to be true or false. Received: {self.no_double_words!r}."
            )
        _check_integer("top_k", self.top_k, smallest=0)
        _check_integer("seed", self.seed, smallest=0)
        if not 0 <= _finite_number("length_penalty", self.length_penalty) <= MAX_LENGTH_PENALTY:
            raise ConfigError(
                f"Decoding needs length_penalty >= 0 and <= {MAX_LENGTH_PENALTY}. "
                f"Received: {self.length_penalty!r}."
            )
        if not 0 <= _finite_number("consensus", self.consensus) <= MAX_CONSENSUS:
            raise ConfigError(
                f"Decoding needs consensus >= 0 and <= {MAX_CONSENSUS}. Received: {self.consensus!r}."
            )
        if _finite_number("temperature", self.temperature) <= 0:
            raise ConfigError(
                f"Decoding needs temperature > 0. Received: {self.temperature!r}. "
                "For the likeliest word at every step, use method 'greedy'."
            )
        if not 0 < _finite_number("top_p", self.top_p) <= 1:
            raise ConfigError(f"Decoding needs 0 < top_p <= 1. Received: {self.top_p!r}.")
        if self.method == "greedy" and self.count != 1:
            raise ConfigError(
                f"Greedy decoding gives one caption per image. Received: count={self.count}. "
                "Use method 'beam' or 'sample' for several."
            )
        if self.method == "beam" and self.count > self.beam:
            raise ConfigError(
                f"A beam of {self.beam} cannot give {self.count} captions. "
                f"Use a beam of at least {self.count}, or a smaller count."
            )
        for key in ("include", "exclude"):  # lists, as JSON and TOML have them, become tuples
            object.__setattr__(self, key, read_entries(key, getattr(self, key)))
        check_constraints(self)

    @property
    def candidates(self) -> int:
        """How many captions of an image a consensus can choose among."""
        return {"greedy": 1, "beam": self.beam, "sample": self.count}[self.method]

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as plain values, for JSON and TOML."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DecodingSettings:
        """Returns the settings that `to_dict` gave; keys that are missing take their defaults.

        Raises:
            ConfigError: `values` is no table, has an unknown key, or a value that the settings refuse.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"Decoding settings must be a table of names and values. Received: {values!r}.")
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"Unknown decoding setting {name!r}.{did_you_mean(str(name), known)} "
                    f"Known settings: {', '.join(known)}."
                )
        return cls(**values)


def _check_integer(name: str, value: object, *, smallest: int) -> None:
    # bool is an int in Python, and a float that happens to be whole breaks as a width or an index much later.
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ConfigError(f"Decoding needs {name} to be a whole number >= {smallest}. Received: {value!r}.")


def _finite_number(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"Decoding needs {name} to be a finite number. Received: {value!r}.")
    return number
