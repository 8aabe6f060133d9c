"""Configuration: frozen dataclasses filled from TOML tables, strictly.

An unknown key, a wrong type or a value out of range is a `ConfigError` that names the key, the value, and the
nearest known key. The docstring under a field is its help text (`describe_fields` reads it), so that the
documentation of a key stands in one place.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import textwrap
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import PurePath
from typing import Any, TypeVar

from showtell.errors import ConfigError, did_you_mean

T = TypeVar("T")
SEPARATOR = " + "  # between several backbones, and between the weights of each
FROM = "from"  # encoder.weights: those of the captioner that a run starts from
KINDS_OF_WEIGHTS = ("imagenet", "random", FROM)  # what encoder.weights may be that is no file


@dataclass(frozen=True)
class EncoderConfig:
    """The convolutional encoder."""

    name: str = "resnet50"
    """any timm backbone; several, as "a + b": their features are joined along the channels"""
    output: str = "grid"
    """"grid": one vector per cell of the last feature map; "pooled": their mean"""
    weights: str = "imagenet"
    """"imagenet" (through timm's hub), "random", "from" (those in the captioner that the run starts from, `--from`), or
    a file: .safetensors, or .pth read weights-only; of several backbones one of the first three for all, or one for
    each, as "a.safetensors + b.safetensors" """
    image_size: int = 0
    """height and width in pixels; 0 is the backbone's own"""
    output_stride: int = 0
    """pixels per cell of the grid: 8 or 16 give a finer grid where the backbone can; 0 is its own, mostly 32"""
    fit: str = "squash"
    """"squash" keeps the whole picture and ignores the aspect ratio; "crop" cuts out the centre"""
    trainable: bool = False
    """false: evaluation mode, no gradients, features are cached; true: trained with the decoder"""
    precision: str = "auto"
    """"auto" (bf16 where the processor has it), "bf16" or "float32", for frozen features"""

    def __post_init__(self) -> None:
        check_choice("encoder.output", self.output, ("grid", "pooled"))
        check_choice("encoder.fit", self.fit, ("squash", "crop"))
        check_choice("encoder.precision", self.precision, ("auto", "bf16", "float32"))
        check_range("encoder.image_size", self.image_size, minimum=0)
        if self.output_stride not in (0, 8, 16):
            raise ConfigError(
                f"encoder.output_stride must be 8, 16, or 0 for the backbone's own. Received: {self.output_stride}"
            )
        self._check_backbones()

    def backbones(self) -> tuple[EncoderConfig, ...]:
        """Returns the configuration of each backbone alone, in their order; where there is one, this one."""
        names, weights = self.name.split(SEPARATOR), _split_weights(self.weights)
        if len(names) == 1:
            return (self,)
        each = weights * len(names) if len(weights) == 1 else weights
        return tuple(replace(self, name=name, weights=own) for name, own in zip(names, each, strict=True))

    def _check_backbones(self) -> None:
        """Raises ConfigError where several backbones cannot be one encoder; puts spaces around the plus."""
        names = [name.strip() for name in self.name.split("+")] if "+" in self.name else [self.name]
        object.__setattr__(self, "name", SEPARATOR.join(names))
        weights = _split_weights(self.weights)
        if not all(names):
            raise ConfigError(
                f'encoder.name must name a backbone, or several as "a + b". Received: {self.name!r}'
            )
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(
                f"encoder.name has the backbone {twice!r} twice, which adds nothing. Received: {self.name!r}"
            )
        for_all = len(weights) == 1 and (len(names) == 1 or weights[0] in KINDS_OF_WEIGHTS)
        if len(weights) != len(names) and not for_all:
            raise ConfigError(
                f"encoder.weights must give one file for each backbone, joined by {SEPARATOR!r}, or "
                f"{' or '.join(KINDS_OF_WEIGHTS)} for all. Received: {len(weights)} ({self.weights!r}) for "
                f"{len(names)} ({self.name!r})"
            )


@dataclass(frozen=True)
class TextConfig:
    """The vocabulary and the length of captions in training."""

    min_count: int = 5
    """a word must occur this often in the training captions"""
    max_words: int = 0
    """keep at most this many words, the most frequent ones; 0 keeps all"""
    max_length: int = 50
    """training captions are cut after this many words; a cut caption is not taught to end there"""

    def __post_init__(self) -> None:
        check_range("text.min_count", self.min_count, minimum=1)
        check_range("text.max_words", self.max_words, minimum=0)
        check_range("text.max_length", self.max_length, minimum=1)


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation, batches and the choice of the best checkpoint."""

    epochs: int = 20
    """passes over the training captions; 0 where a captioner is only to be trained on self-critically"""
    batch_size: int = 64
    """captions per batch (batching = "length") or images with all their captions (batching = "image")"""
    accumulate: int = 1
    """batches per step of the optimiser: one large batch that need not fit into memory; 1 in self-critical epochs"""
    batching: str = "length"
    """"length": buckets of equal caption length; "image": all captions of an image share its features"""
    optimizer: str = "adam"
    """"adam" or "adamw" (decoupled weight decay; Loshchilov and Hutter 2019)"""
    learning_rate: float = 1e-3
    """the peak learning rate of the decoder"""
    encoder_learning_rate: float = 1e-5
    """the peak learning rate of a trainable encoder"""
    weight_decay: float = 0.0
    """weight decay"""
    schedule: str = "constant"
    """"constant", "cosine" (to zero), or "onecycle" (Smith 2018)"""
    warmup: float = 0.0
    """the share of all steps in which the learning rate rises, 0 to 1"""
    clip_norm: float = 5.0
    """gradients are scaled down to this norm; 0 turns it off"""
    label_smoothing: float = 0.0
    """the probability spread over all words (Szegedy et al. 2016, section 7)"""
    doubly_stochastic: float = 0.0
    """weight of the term that wants attention to visit every cell, a mean over captions and cells (Xu et al. 2015,
    equation 14, has sums over cells and words: its 1 is about cells / words per caption here, 4 for 49 cells)"""
    word_dropout: float = 0.0
    """share of the input words that become unknown in training (Bowman et al. 2016, section 3.3)"""
    scheduled_sampling: float = 0.0
    """share of the input words that the decoder samples itself at the end of teacher forcing; it rises from zero in a
    line (Bengio et al. 2015)"""
    ema: float = 0.0
    """what a step keeps of the moving average of the weights, which is then evaluated and kept (Polyak and Juditsky
    1992; Kingma and Ba 2015, section 7.2); about 0.999; 0 turns it off"""
    blend: float = 1.0
    """how far what is evaluated and kept goes from the weights of the captioner that a run starts from (`--from`)
    towards those that are learnt: less forgets less (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models")"""
    rehearsal: float = 0.0
    """how many pictures of the old data (`--old-data`) are learnt again for each new one, so that less is forgotten
    (Robins 1995, "Catastrophic forgetting, rehearsal and pseudorehearsal")"""
    device: str = "auto"
    """"cpu", "cuda", or "auto": a GPU where torch finds one"""
    precision: str = "auto"
    """"auto" (bf16 on a GPU, and for a trainable encoder on a processor with matrix units, else float32), "bf16" or
    "float32" """
    patience: int = 0
    """stop after this many evaluations without a better dev score; 0 never stops early"""
    evaluate_every: int = 1
    """epochs between evaluations on dev"""
    dev_images: int = 0
    """evaluate on the first so many dev images; 0 takes all"""
    dev_beam: int = 1
    """beam of the search that captions dev after an epoch; 1 is greedy, which is quicker"""
    checkpoint_seconds: float = 120.0
    """seconds between checkpoints inside an epoch; one is always written after each epoch"""
    seed: int = 0
    """seeds weights, order of batches and dropout"""

    def __post_init__(self) -> None:
        check_choice("training.batching", self.batching, ("length", "image"))
        check_choice("training.optimizer", self.optimizer, ("adam", "adamw"))
        check_choice("training.schedule", self.schedule, ("constant", "cosine", "onecycle"))
        check_choice("training.device", self.device, ("auto", "cpu", "cuda"))
        check_choice("training.precision", self.precision, ("auto", "bf16", "float32"))
        for name, minimum in (
            ("epochs", 0),
            ("batch_size", 1),
            ("accumulate", 1),
            ("patience", 0),
            ("evaluate_every", 1),
            ("dev_images", 0),
            ("weight_decay", 0.0),
            ("clip_norm", 0.0),
            ("checkpoint_seconds", 0.0),
        ):
            check_range(f"training.{name}", getattr(self, name), minimum=minimum)
        check_range("training.dev_beam", self.dev_beam, minimum=1, maximum=100)
        check_range("training.seed", self.seed, minimum=0, maximum=2**63 - 1)  # what torch takes
        for name in ("learning_rate", "encoder_learning_rate"):
            if not 0 < getattr(self, name) < 10:
                raise ConfigError(
                    f"training.{name} must be above 0 and below 10. Received: {getattr(self, name)}"
                )
        check_range("training.warmup", self.warmup, minimum=0.0, maximum=1.0)
        for name in ("label_smoothing", "word_dropout", "scheduled_sampling"):
            check_range(f"training.{name}", getattr(self, name), minimum=0.0, maximum=0.99)
        check_range("training.doubly_stochastic", self.doubly_stochastic, minimum=0.0, maximum=100.0)
        check_range("training.ema", self.ema, minimum=0.0, maximum=0.99999)
        check_range("training.blend", self.blend, minimum=0.01, maximum=1.0)
        check_range("training.rehearsal", self.rehearsal, minimum=0.0, maximum=1000.0)


@dataclass(frozen=True)
class FineTuningConfig:
    """How a trainable encoder learns; without effect on a frozen one."""

    batch_norm: str = "train"
    """"train": batches are normalised by their own statistics; "statistics": by those of the pre-training, which stay;
    "frozen": scale and shift stay, too"""
    layer_decay: float = 1.0
    """each layer learns so many times as fast as the one above it, further from the picture (Howard and Ruder 2018,
    section 3.2; Bao et al. 2022, BEiT); 1 gives all the same rate"""
    freeze_epochs: int = 0
    """epochs before the encoder begins to learn; no gradients are computed for what is frozen"""
    stage_epochs: int = 0
    """epochs from the unfreezing of one stage to that of the next below, the top first (Howard and Ruder 2018, section
    3.3); 0 unfreezes all at once"""
    stages: int = 0
    """at most so many stages ever learn, the top ones; those below stay as they were, which saves much of the time; 0
    is all of them"""
    recompute: bool = False
    """compute activations of the encoder again for its gradients instead of keeping them: less memory, more time (Chen
    et al. 2016)"""

    def __post_init__(self) -> None:
        check_choice("fine_tuning.batch_norm", self.batch_norm, ("train", "statistics", "frozen"))
        check_range("fine_tuning.layer_decay", self.layer_decay, minimum=0.01, maximum=1.0)
        check_range("fine_tuning.freeze_epochs", self.freeze_epochs, minimum=0)
        check_range("fine_tuning.stage_epochs", self.stage_epochs, minimum=0)
        check_range("fine_tuning.stages", self.stages, minimum=0)


@dataclass(frozen=True)
class AugmentationConfig:
    """What training pictures go through before the encoder sees them."""

    crop: float = 1.0
    """the least share of a picture's area that a random part keeps, stretched by up to 4/3 (Szegedy et al. 2015,
    section 6); captions speak of the whole, so mostly 0.7 or more; 1 keeps pictures whole"""
    flip: float = 0.0
    """the chance that a picture is mirrored; never one whose captions speak of left, right, writing or digits"""
    color: float = 0.0
    """brightness, contrast and saturation change by up to this share (Howard 2013); hues stay: captions name them"""
    views: int = 1
    """of a frozen encoder, whose features are kept: in how many ways each training picture is seen, the first of them
    as it is; one is drawn at each use. A trainable encoder sees a new one each time, and takes 1"""

    def __post_init__(self) -> None:
        check_range("augmentation.crop", self.crop, minimum=0.05, maximum=1.0)
        check_range("augmentation.flip", self.flip, minimum=0.0, maximum=1.0)
        check_range("augmentation.color", self.color, minimum=0.0, maximum=0.5)
        check_range("augmentation.views", self.views, minimum=1, maximum=100)

    @property
    def changes(self) -> bool:
        """Whether pictures are changed at random."""
        return self.crop < 1 or self.flip > 0 or self.color > 0


@dataclass(frozen=True)
class SelfCriticalConfig:
    """Self-critical sequence training, after the epochs of teacher forcing (Rennie et al. 2017)."""

    epochs: int = 0
    """passes over the training images; 0 leaves it out"""
    batch_size: int = 32
    """images per step"""
    samples: int = 5
    """captions that are sampled for each image"""
    baseline: str = "samples"
    """"samples": the mean reward of the image's other samples (Luo 2020); "greedy": that of the greedy caption (Rennie
    et al. 2017)"""
    bleu: float = 0.0
    """weight of BLEU-4 in the reward, beside CIDEr-D's weight of 1"""
    learning_rate: float = 1e-4
    """the peak learning rate of the decoder; it falls to zero along a cosine; where a run starts from a captioner, a
    tenth, since Adam's moments are not known then"""
    dropout: bool = False
    """whether the pass with gradients drops the units that `decoder.dropout` says; samples are always whole"""
    blend: float = 1.0
    """how far what is evaluated and kept goes from the weights before the rewarded epochs towards those after them;
    0.4 or so is better than 1 where pictures are few and rewards are soon learnt by heart (Wortsman et al. 2022,
    "Robust fine-tuning of zero-shot models")"""
    feature_dropout: float = 0.0
    """share of the channels of a picture's features that are dropped, the same in all cells, while its captions are
    sampled and learnt from: the decoder then sees the training pictures as dimly as new ones"""
    warmup: float = 0.05
    """the share of the self-critical steps in which the learning rate rises, 0 to 1"""
    trains_encoder: bool = True
    """a trainable encoder learns from rewards, too, its rate in proportion; false freezes it in these epochs"""

    def __post_init__(self) -> None:
        check_choice("self_critical.baseline", self.baseline, ("samples", "greedy"))
        check_range("self_critical.epochs", self.epochs, minimum=0)
        check_range("self_critical.batch_size", self.batch_size, minimum=1)
        check_range(
            "self_critical.samples", self.samples, minimum=2 if self.baseline == "samples" else 1, maximum=100
        )
        check_range("self_critical.bleu", self.bleu, minimum=0.0, maximum=100.0)
        check_range("self_critical.blend", self.blend, minimum=0.01, maximum=1.0)
        check_range("self_critical.feature_dropout", self.feature_dropout, minimum=0.0, maximum=0.95)
        check_range("self_critical.warmup", self.warmup, minimum=0.0, maximum=1.0)
        if not 0 < self.learning_rate < 10:
            raise ConfigError(
                f"self_critical.learning_rate must be above 0 and below 10. Received: {self.learning_rate}"
            )


def _split_weights(text: str) -> tuple[str, ...]:
    """Returns what `encoder.weights` gives, one by one. A folder's name may have a plus: every part must be a file."""
    parts = tuple(part.strip() for part in text.split(SEPARATOR))
    several = all(part in KINDS_OF_WEIGHTS or PurePath(part).suffix for part in parts)
    return parts if several else (text,)


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Raises ConfigError unless `value` is one of `choices`."""
    choices = tuple(choices)
    if value not in choices:
        raise ConfigError(
            f"{key} must be one of {', '.join(choices)}.{did_you_mean(str(value), choices)} Received: {value!r}"
        )


def check_range(key: str, value: float, *, minimum: float, maximum: float | None = None) -> None:
    """Raises ConfigError unless `minimum <= value <= maximum`; infinity and not-a-number are refused, too."""
    if not minimum <= value < math.inf or (maximum is not None and value > maximum):
        upto = "" if maximum is None else f" and at most {maximum}"
        finite = " and finite" if value == math.inf else ""
        raise ConfigError(f"{key} must be at least {minimum}{upto}{finite}. Received: {value!r}")


def build(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Fills a dataclass from a table, strictly.

    Args:
        cls: a dataclass with plain fields (str, int, float, bool, or unions of these with None).
        table: the keys and values, as TOML gives them.
        where: the name of the table, for messages, as "training".

    Raises:
        ConfigError: a key that the dataclass has not, a missing key, or a value of another type.
    """
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]  # T is a dataclass type
    kinds = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(
                f"{where} has no key {key!r}.{did_you_mean(key, known)} Its keys: {', '.join(known)}."
            )
        values[key] = _convert(value, kinds[key], f"{where}.{key}")
    missing = [
        name
        for name, field in known.items()
        if name not in values and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ConfigError(f"{where} lacks the key {missing[0]!r}.")
    return cls(**values)


def _convert(value: Any, kind: Any, key: str) -> Any:
    if isinstance(kind, types.UnionType):
        options = typing.get_args(kind)
        if value is None and type(None) in options:
            return None
        kind = next(option for option in options if option is not type(None))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (isinstance(value, bool) and kind is not bool) or not isinstance(value, kind):
        raise ConfigError(
            f"{key} must be of type {kind.__name__}. Received: {value!r} ({type(value).__name__})"
        )
    return value


def describe_fields(cls: type[Any]) -> dict[str, str]:
    """Returns the help text of each field of a dataclass: the string literal under it."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    texts: dict[str, str] = {}
    for field, text in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            texts[field.target.id] = " ".join(str(text.value.value).split())
    return texts


def apply_overrides(tables: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Returns `tables` with `section.key=value` strings applied; values are read as TOML, or else as text.

    Raises:
        ConfigError: an override that is not of the form section.key=value.
    """
    changed = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tables.items()}
    for override in overrides:
        path, equals, text = override.partition("=")
        section, dot, key = path.strip().partition(".")
        if not equals or not dot or not key or not section:
            raise ConfigError(f"An override must look like section.key=value. Received: {override!r}")
        sections = [name for name, value in changed.items() if isinstance(value, dict)]
        if section not in sections:
            raise ConfigError(
                f"There is no section {section!r} to override in {override!r}."
                f"{did_you_mean(section, sections)} Sections: {', '.join(sections)}."
            )
        changed[section][key] = _parse_value(text.strip())
    return changed


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
