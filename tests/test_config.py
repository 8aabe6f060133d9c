"""Configuration: strict tables, ranges, help texts, overrides; each message names the key and the value."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.config import (
    AugmentationConfig,
    EncoderConfig,
    FineTuningConfig,
    TextConfig,
    TrainingConfig,
    apply_overrides,
    build,
    check_choice,
    check_range,
    describe_fields,
)
from showtell.errors import ConfigError


@dataclass(frozen=True)
class Sample:
    """For `build`."""

    needed: str
    number: int = 1
    ratio: float = 0.5
    flag: bool = False
    maybe: int | None = None


def test_a_table_fills_a_dataclass() -> None:
    table = {"needed": "x", "number": 2, "ratio": 3, "flag": True, "maybe": None}
    assert build(Sample, table, "sample") == Sample("x", 2, 3.0, True, None)
    assert isinstance(build(Sample, table, "sample").ratio, float)
    assert build(Sample, {"needed": "x", "maybe": 4}, "sample").maybe == 4


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"needed": "x", "nubmer": 2},
            r"sample has no key 'nubmer'. Did you mean 'number'\? Its keys: needed, num",
        ),
        ({"number": 2}, "sample lacks the key 'needed'"),
        ({"needed": 3}, r"sample.needed must be of type str. Received: 3 \(int\)"),
        ({"needed": "x", "number": "2"}, r"sample.number must be of type int. Received: '2' \(str\)"),
        ({"needed": "x", "number": True}, r"sample.number must be of type int. Received: True \(bool\)"),
        ({"needed": "x", "number": 2.0}, "sample.number must be of type int. Received: 2.0"),
        ({"needed": "x", "ratio": True}, "sample.ratio must be of type float. Received: True"),
        ({"needed": "x", "flag": 1}, "sample.flag must be of type bool. Received: 1"),
        ({"needed": "x", "flag": "true"}, "sample.flag must be of type bool. Received: 'true'"),
        ({"needed": "x", "maybe": "4"}, "sample.maybe must be of type int. Received: '4'"),
        ({"needed": ["x"]}, "sample.needed must be of type str"),
    ],
)
def test_tables_that_do_not_fit(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Sample, table, "sample")


@pytest.mark.parametrize(
    ("cls", "key", "value", "message"),
    [
        (EncoderConfig, "output", "gird", "encoder.output must be one of grid, pooled. Did you mean 'grid'"),
        (EncoderConfig, "fit", "stretch", "encoder.fit must be one of squash, crop. Received: 'stretch'"),
        (EncoderConfig, "precision", "float16", "Did you mean 'float32'"),
        (EncoderConfig, "image_size", -1, "encoder.image_size must be at least 0. Received: -1"),
        (TextConfig, "min_count", 0, "text.min_count must be at least 1. Received: 0"),
        (TextConfig, "max_words", -1, "text.max_words must be at least 0"),
        (TextConfig, "max_length", 0, "text.max_length must be at least 1"),
        (TrainingConfig, "epochs", -1, "training.epochs must be at least 0"),
        (TrainingConfig, "batch_size", 0, "training.batch_size must be at least 1"),
        (TrainingConfig, "accumulate", 0, "training.accumulate must be at least 1"),
        (FineTuningConfig, "batch_norm", "frosen", "fine_tuning.batch_norm must be .* Did you mean 'frozen'"),
        (
            FineTuningConfig,
            "layer_decay",
            1.1,
            "fine_tuning.layer_decay must be at least 0.01 and at most 1.0",
        ),
        (FineTuningConfig, "freeze_epochs", -1, "fine_tuning.freeze_epochs must be at least 0"),
        (FineTuningConfig, "stage_epochs", -1, "fine_tuning.stage_epochs must be at least 0"),
        (AugmentationConfig, "crop", 0.0, "augmentation.crop must be at least 0.05 and at most 1.0"),
        (AugmentationConfig, "flip", 1.5, "augmentation.flip must be at least 0.0 and at most 1.0"),
        (AugmentationConfig, "color", 0.6, "augmentation.color must be at least 0.0 and at most 0.5"),
        (AugmentationConfig, "views", 0, "augmentation.views must be at least 1 and at most 100"),
        (TrainingConfig, "batching", "lenght", "Did you mean 'length'"),
        (TrainingConfig, "optimizer", "adm", "training.optimizer must be one of adam, adamw"),
        (TrainingConfig, "schedule", "cosin", "Did you mean 'cosine'"),
        (TrainingConfig, "precision", "fp8", "training.precision must be one of auto, bf16, float32"),
        (TrainingConfig, "learning_rate", 0.0, "training.learning_rate must be above 0 and below 10"),
        (TrainingConfig, "learning_rate", math.nan, "Received: nan"),
        (TrainingConfig, "encoder_learning_rate", 10.0, "training.encoder_learning_rate must be above 0"),
        (
            TrainingConfig,
            "warmup",
            1.1,
            "training.warmup must be at least 0.0 and at most 1.0. Received: 1.1",
        ),
        (TrainingConfig, "label_smoothing", 1.0, "training.label_smoothing must be"),
        (TrainingConfig, "clip_norm", math.nan, "training.clip_norm must be at least 0.0. Received: nan"),
        (TrainingConfig, "weight_decay", math.inf, "training.weight_decay .* finite. Received: inf"),
        (TrainingConfig, "checkpoint_seconds", math.inf, "training.checkpoint_seconds .* finite"),
        (TrainingConfig, "patience", -1, "training.patience must be at least 0"),
        (TrainingConfig, "evaluate_every", 0, "training.evaluate_every must be at least 1"),
        (TrainingConfig, "seed", -1, "training.seed must be at least 0"),
        (TrainingConfig, "seed", 2**63, "training.seed must be at least 0 and at most 9223372036854775807"),
    ],
)
def test_values_out_of_range(cls: type[Any], key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(**{key: value})


@given(st.floats(), st.floats(-5, 5), st.floats(0, 5))
def test_ranges(value: float, minimum: float, width: float) -> None:
    inside = minimum <= value <= minimum + width
    try:
        check_range("key", value, minimum=minimum, maximum=minimum + width)
    except ConfigError:
        assert not inside
    else:
        assert inside


def test_choices() -> None:
    check_choice("key", "b", iter(["a", "b"]))
    with pytest.raises(ConfigError, match=r"key must be one of apple, pear. Did you mean 'apple'"):
        check_choice("key", "aple", iter(["apple", "pear"]))


@pytest.mark.parametrize(
    "cls", [EncoderConfig, TextConfig, TrainingConfig, AugmentationConfig, FineTuningConfig]
)
def test_every_key_has_a_help_text(cls: type[Any]) -> None:
    texts = describe_fields(cls)
    assert list(texts) == [field.name for field in fields(cls)]
    assert all(len(text) > 5 and "\n" not in text for text in texts.values())


# Overrides


def test_overrides_are_toml_or_text() -> None:
    tables = {"name": "x", "training": {"seed": 1, "epochs": 3}, "encoder": {}}
    changed = apply_overrides(
        tables,
        [
            "training.seed=7",
            "training.learning_rate = 1e-3",
            "encoder.name=resnet18",
            'encoder.weights="a b.pth"',
            "encoder.trainable=true",
            "encoder.fit=",
            "training.seed=8",
            "encoder.note=a=b.c",
        ],
    )
    assert changed == {
        "name": "x",
        "training": {"seed": 8, "epochs": 3, "learning_rate": 1e-3},
        "encoder": {"name": "resnet18", "weights": "a b.pth", "trainable": True, "fit": "", "note": "a=b.c"},
    }
    assert tables["training"] == {"seed": 1, "epochs": 3}


@pytest.mark.parametrize(
    "override", ["", "seed=3", "training.seed", "training.=3", ".seed=3", "=", "training=3"]
)
def test_overrides_of_another_form(override: str) -> None:
    with pytest.raises(ConfigError, match=r"must look like section.key=value. Received: "):
        apply_overrides({"training": {}}, [override])


def test_overrides_of_unknown_sections() -> None:
    with pytest.raises(
        ConfigError, match=r"no section 'trainig' .* Did you mean 'training'\? Sections: training"
    ):
        apply_overrides({"training": {}, "name": "x"}, ["trainig.seed=3"])
    with pytest.raises(ConfigError, match="no section 'name'"):
        apply_overrides({"training": {}, "name": "x"}, ["name.first=3"])


@given(st.text())
def test_any_override_is_applied_or_refused(text: str) -> None:
    try:
        changed = apply_overrides({"training": {}}, [text])
    except ConfigError:
        return
    assert len(changed["training"]) == 1
