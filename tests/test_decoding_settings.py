"""Decoding settings are checked when they are made, with the value in the message."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from showtell.decoding import DecodingSettings
from showtell.errors import ConfigError


@pytest.mark.parametrize("name", ["beam", "count", "max_steps", "top_k", "seed"])
@pytest.mark.parametrize("value", [2.0, True, "3", None, -1, math.nan])
def test_whole_numbers_are_whole(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{name} to be a whole number >= [01]\. Received: {value!r}"):
        DecodingSettings(**{name: value})


@pytest.mark.parametrize("name", ["beam", "count", "max_steps"])
def test_zero_is_too_little(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} to be a whole number >= 1\. Received: 0"):
        DecodingSettings(**{name: 0})


@pytest.mark.parametrize("name", ["length_penalty", "temperature", "top_p"])
@pytest.mark.parametrize("value", [math.nan, math.inf, True, "1", None, 10**400])
def test_numbers_are_finite_numbers(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{name} to be a finite number\. Received: {value!r}"):
        DecodingSettings(**{name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"length_penalty": -0.1}, r"length_penalty >= 0 and <= 10\. Received: -0\.1"),
        ({"length_penalty": 1e300}, r"length_penalty >= 0 and <= 10\. Received: 1e\+300"),
        ({"temperature": 0}, r"temperature > 0\. Received: 0\. .*'greedy'"),
        ({"temperature": -1.0}, r"temperature > 0\. Received: -1\.0"),
        ({"top_p": 0.0}, r"0 < top_p <= 1\. Received: 0\.0"),
        ({"top_p": 1.1}, r"0 < top_p <= 1\. Received: 1\.1"),
        ({"method": "beem"}, r"Unknown decoding method 'beem'\. Did you mean 'beam'\?.*greedy, beam, sample"),
        ({"method": 3}, r"Unknown decoding method 3\. It must be one of"),
        ({"method": ["beam"]}, r"Unknown decoding method \['beam'\]"),
        ({"method": "greedy", "count": 2}, r"one caption per image\. Received: count=2"),
        ({"beam": 1001}, r"Decoding needs beam <= 1000\. Received: 1001"),
        ({"method": "sample", "count": 10**9}, r"Decoding needs count <= 1000"),
        (
            {"method": "beam", "beam": 3, "count": 4},
            r"beam of 3 cannot give 4 captions\. Use a beam of at least 4",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecodingSettings(**values)


def test_what_makes_sense_is_accepted() -> None:
    assert DecodingSettings(method="beam", beam=3, count=3).count == 3
    assert DecodingSettings(method="sample", beam=3, count=50).count == 50
    assert DecodingSettings(method="greedy", temperature=1, top_p=1, length_penalty=0).temperature == 1


def test_settings_survive_json() -> None:
    settings = DecodingSettings(method="sample", count=4, temperature=0.7, top_k=10, top_p=0.9, seed=3)
    assert DecodingSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert DecodingSettings.from_dict({}) == DecodingSettings()


def test_from_dict_names_unknown_keys() -> None:
    with pytest.raises(
        ConfigError, match=r"Unknown decoding setting 'beams'\. Did you mean 'beam'\?.*max_steps"
    ):
        DecodingSettings.from_dict({"beams": 3})
    with pytest.raises(ConfigError, match=r"must be a table of names and values\. Received: \['beam'\]"):
        DecodingSettings.from_dict(["beam"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"beam to be a whole number"):
        DecodingSettings.from_dict({"beam": 3.0})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DecodingSettings().beam = 5  # type: ignore[misc]
