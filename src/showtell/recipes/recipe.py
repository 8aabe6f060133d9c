"""The recipe type, the shipped recipes by name, and reading one with overrides."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from showtell.config import (
    FROM,
    AugmentationConfig,
    EncoderConfig,
    FineTuningConfig,
    SelfCriticalConfig,
    TextConfig,
    TrainingConfig,
    apply_overrides,
    build,
)
from showtell.decoding.settings import DecodingSettings
from showtell.errors import ConfigError, did_you_mean

_OF_START = ("encoder", "decoder", "decoding")  # what `base = "from"` takes
SECTIONS = (
    "encoder",
    "text",
    "decoder",
    "training",
    "augmentation",
    "fine_tuning",
    "self_critical",
    "decoding",
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is trained and how; kept in the run and in the bundle."""

    name: str
    source: str = ""
    """the paper or tutorial that it follows"""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
    decoder: str = "show-tell"
    """the kind of decoder"""
    decoder_options: Mapping[str, Any] = field(default_factory=dict)
    """checked by the decoder itself when it is built"""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    fine_tuning: FineTuningConfig = field(default_factory=FineTuningConfig)
    self_critical: SelfCriticalConfig = field(default_factory=SelfCriticalConfig)
    decoding: DecodingSettings = field(default_factory=DecodingSettings)

    def __post_init__(self) -> None:
        if not self.training.epochs and not self.self_critical.epochs:
            raise ConfigError(
                "training.epochs and self_critical.epochs are both 0, so there is nothing to train. Set one of them."
            )
        if self.training.patience and self.self_critical.epochs:
            raise ConfigError(
                "training.patience ends a run, so it does not go with self_critical.epochs. Received: "
                f"{self.training.patience} and {self.self_critical.epochs}. Set one of them to 0."
            )
        learning = self.training.epochs + self.self_critical.epochs * self.self_critical.trains_encoder
        if self.encoder.trainable and self.fine_tuning.freeze_epochs >= learning:
            raise ConfigError(
                f"fine_tuning.freeze_epochs = {self.fine_tuning.freeze_epochs} leaves the encoder no epoch to learn "
                f"in: there are {learning}. Lower it, raise training.epochs, or set encoder.trainable = false."
            )
        self._check_views()

    def _check_views(self) -> None:
        changes, views = self.augmentation.changes, self.augmentation.views
        if self.encoder.trainable and views > 1:
            raise ConfigError(
                f"augmentation.views = {views} is for a frozen encoder, whose features are kept; a trainable one sees "
                "each picture anew each time. Set it to 1, or set encoder.trainable = false."
            )
        if changes and views == 1 and not self.encoder.trainable:
            raise ConfigError(
                "augmentation.crop, flip and color change pictures, but a frozen encoder sees each picture once and "
                "its features are kept. Set augmentation.views to the number of ways to see each picture in, as 4, or "
                "leave them at 1, 0 and 0."
            )
        if views > 1 and not changes:
            raise ConfigError(
                f"augmentation.views = {views} would be {views} times the same: set augmentation.crop, flip or color, "
                "or leave it at 1."
            )

    @property
    def averages(self) -> bool:
        """Whether what is evaluated and kept is another thing than the weights of the last step."""
        blended = self.self_critical.epochs > 0 and self.self_critical.blend < 1
        return blended or self.training.blend < 1 or self.training.ema > 0

    def is_self_critical(self, epoch: int) -> bool:
        """Returns whether an epoch of a run, from 0, is one of those behind teacher forcing."""
        return epoch >= self.training.epochs

    def to_dict(self) -> dict[str, Any]:
        """Returns plain tables that `from_dict` reads, in the form of a recipe file."""
        return {
            "name": self.name,
            "source": self.source,
            "encoder": asdict(self.encoder),
            "text": asdict(self.text),
            "decoder": {"kind": self.decoder, **self.decoder_options},
            "training": asdict(self.training),
            "augmentation": asdict(self.augmentation),
            "fine_tuning": asdict(self.fine_tuning),
            "self_critical": asdict(self.self_critical),
            "decoding": self.decoding.to_dict(),
        }

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Builds a recipe from tables.

        Raises:
            ConfigError: an unknown section or key, a wrong type, or values that do not fit together.
        """
        for key, value in tables.items():
            if key not in (*SECTIONS, "name", "source"):
                near = did_you_mean(key, (*SECTIONS, "name", "source"))
                raise ConfigError(
                    f"{where} has an unknown section {key!r}.{near} Sections: {', '.join(SECTIONS)}."
                )
            if isinstance(value, Mapping) != (key in SECTIONS):
                kind = "a table" if key in SECTIONS else "text"
                raise ConfigError(f"{where}: {key} must be {kind}. Received: {value!r}")
        decoder = dict(tables.get("decoder", {}))
        kind = decoder.pop("kind", None)
        if not isinstance(kind, str):
            raise ConfigError(f"{where} must name its decoder: [decoder] kind = ... Received: {kind!r}")
        return cls(
            name=str(tables.get("name", Path(where).stem)),
            source=str(tables.get("source", "")),
            encoder=build(EncoderConfig, tables.get("encoder", {}), "encoder"),
            text=build(TextConfig, tables.get("text", {}), "text"),
            decoder=kind,
            decoder_options=decoder,
            training=build(TrainingConfig, tables.get("training", {}), "training"),
            augmentation=build(AugmentationConfig, tables.get("augmentation", {}), "augmentation"),
            fine_tuning=build(FineTuningConfig, tables.get("fine_tuning", {}), "fine_tuning"),
            self_critical=build(SelfCriticalConfig, tables.get("self_critical", {}), "self_critical"),
            decoding=DecodingSettings.from_dict(dict(tables.get("decoding", {}))),
        )


def _shipped() -> dict[str, str]:
    folder = resources.files("showtell.recipes")
    return {
        item.name.removesuffix(".toml"): item.read_text(encoding="utf-8")
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.endswith(".toml")
    }


def list_recipes() -> dict[str, Recipe]:
    """Returns the shipped recipes by name; those that only go on from a captioner (`list_sequels`) are no such."""
    tables = {name: _parse(text, name) for name, text in _shipped().items()}
    return {name: Recipe.from_dict(table, name) for name, table in tables.items() if "base" not in table}


def list_sequels() -> dict[str, str]:
    """Returns the shipped recipes that go on from a captioner, by name, and what each follows."""
    tables = {name: _parse(text, name) for name, text in _shipped().items()}
    return {name: str(table["source"]) for name, table in tables.items() if "base" in table}


def load_recipe(
    name_or_path: str | Path, overrides: Sequence[str] = (), *, start: Recipe | None = None
) -> Recipe:
    """Reads a shipped recipe by name, or a TOML file.

    Args:
        name_or_path: as "attend-gru-additive" or "my.toml". A file may say `base = "attend-gru-additive"` and
            then give only the keys that differ; `base = "from"` takes encoder, decoder and search of the captioner
            that the run starts from, and nothing of how that one was trained.
        overrides: `section.key=value` strings, as `--set` gives them.
        start: of the captioner that the run starts from, `Bundle.starting_recipe()`.

    Raises:
        ConfigError: no such recipe or file, TOML that does not parse, content that does not fit, or a recipe that goes
            on from a captioner, and no `start`.
    """
    tables = _read(name_or_path)
    if tables.get("base") == FROM:
        if start is None:
            raise ConfigError(
                f"{name_or_path}: goes on from a captioner, whose encoder and decoder it takes. Name it with --from "
                "MODEL."
            )
        del tables["base"]
        taken = start.to_dict()
        tables = _merge({section: taken[section] for section in _OF_START}, tables)
    return Recipe.from_dict(apply_overrides(_with_sections(tables), overrides), str(name_or_path))


def describe_recipe(name_or_path: str | Path) -> dict[str, Any]:
    """Returns all that a recipe says, as tables; of one that goes on from a captioner what it does not inherit.

    Raises:
        ConfigError: as `load_recipe`.
    """
    tables = _read(name_or_path)
    return tables if tables.get("base") == FROM else load_recipe(name_or_path).to_dict()


def _read(name_or_path: str | Path) -> dict[str, Any]:
    """Returns the tables of a recipe with those that it is based on; what is left of `base` is "from"."""
    shipped = _shipped()
    path = Path(name_or_path)
    if str(name_or_path) in shipped:
        tables = _parse(shipped[str(name_or_path)], str(name_or_path))
    elif path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: the recipe cannot be read: {error}") from None
        tables = _parse(text, str(path))
        tables.setdefault("name", path.stem)
    else:
        raise ConfigError(
            f"There is no recipe {str(name_or_path)!r}.{did_you_mean(str(name_or_path), shipped)} "
            f"Recipes: {', '.join(shipped)}; or give a .toml file."
        )
    return _add_base(tables, shipped, str(name_or_path))


def _add_base(tables: dict[str, Any], shipped: Mapping[str, str], where: str) -> dict[str, Any]:
    base = tables.get("base")
    if base is None or base == FROM:
        return tables
    if not isinstance(base, str) or base not in shipped:
        raise ConfigError(
            f"{where}: base = {base!r} is not a shipped recipe.{did_you_mean(str(base), shipped)} "
            f"Recipes: {', '.join(shipped)}."
        )
    del tables["base"]
    return _merge(_add_base(_parse(shipped[base], base), shipped, base), tables)


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from None
    return tables


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            # Another kind of decoder starts from its own defaults: the base's options are not its.
            keep = key != "decoder" or value.get("kind", base[key].get("kind")) == base[key].get("kind")
            merged[key] = {**base[key], **value} if keep else dict(value)
        else:
            merged[key] = value
    return merged


def _with_sections(tables: dict[str, Any]) -> dict[str, Any]:
    return {**{section: {} for section in SECTIONS}, **tables}
