"""What the README and the pages about recipes say is done as they say it."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from showtell.config import (
    AugmentationConfig,
    EncoderConfig,
    FineTuningConfig,
    SelfCriticalConfig,
    TextConfig,
    TrainingConfig,
    describe_fields,
)
from showtell.decoders.registry import DECODERS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
DECODER_PAGE = (ROOT / "docs" / "decoders.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def trained(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds `tutorial/`, as after `make tutorial`."""
    place = tmp_path_factory.mktemp("readme")
    shutil.copytree(finished, place / "tutorial")
    return place


@pytest.fixture
def pictures(photographs: list[Path], tmp_path: Path) -> Path:
    """A folder with what the README's commands for people with pictures name."""
    shutil.copyfile(photographs[0], tmp_path / "photo.jpg")
    (tmp_path / "holiday").mkdir()
    (tmp_path / "my-site").mkdir()
    for path in photographs[1:4]:
        shutil.copyfile(path, tmp_path / "holiday" / path.name)
        shutil.copyfile(path, tmp_path / "my-site" / path.name)
    page = "".join(f'<img src="{path.name}">' for path in photographs[1:4])
    (tmp_path / "my-site" / "index.html").write_text(f"<!DOCTYPE html><title>Site</title>{page}")
    return tmp_path


def commands(*, training: bool) -> list[list[str]]:
    """The words of the README's `showtell` commands, those for people with pictures or those after the tutorial."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("showtell ")]
    started = next(place for place, words in enumerate(found) if "tutorial/scenes" in words)
    return found[started:] if training else found[:started]


def run(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    environment = {**environment, "SHOWTELL_CACHE": str(folder / "cache")}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_commands_for_pictures_work_in_their_order(
    pictures: Path, clean_environment: dict[str, str]
) -> None:
    given = commands(training=False)
    assert len(given) >= 4
    for words in given:
        run([sys.executable, "-m", "showtell", *words[1:]], pictures, clean_environment)
    assert "<figure" in (pictures / "captions.html").read_text(encoding="utf-8")
    assert len(list((pictures / "why").glob("*.png"))) == 3


def test_the_commands_for_training_work_in_their_order(
    trained: Path, clean_environment: dict[str, str]
) -> None:
    given = commands(training=True)
    assert len(given) >= 5
    for words in given:
        assert run([sys.executable, "-m", "showtell", *words[1:]], trained, clean_environment).strip()
    assert any((trained / "why").iterdir())
    assert (trained / "runs" / "shapes" / "best.json").is_file()


def test_the_readmes_python_works(pictures: Path, clean_environment: dict[str, str]) -> None:
    (code,) = blocks("python")
    printed = run([sys.executable, "-c", code], pictures, clean_environment)
    assert len(printed.split()) >= 2


def test_the_readmes_make_targets_exist() -> None:
    targets = {
        line.split()[1]
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("make ")
    }
    assert {"demo", "test"} <= targets
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    # What each target would run; nothing is installed or trained here.
    for target in targets:
        subprocess.run(
            ["make", "-n", target], cwd=ROOT, check=True, capture_output=True, env=dict(os.environ)
        )


def test_the_pages_list_every_key_with_its_meaning() -> None:
    for section, cls in (
        ("encoder", EncoderConfig),
        ("text", TextConfig),
        ("training", TrainingConfig),
        ("augmentation", AugmentationConfig),
        ("fine_tuning", FineTuningConfig),
        ("self_critical", SelfCriticalConfig),
    ):
        assert [row for row in describe_rows(section, cls) if row not in RECIPES] == [], "docs/recipes.md"
    for kind, (cls, _) in DECODERS.items():
        table = "\n".join(
            [f"| `{kind}` | default | meaning |", "|---|---|---|", *describe_rows("decoder", cls)]
        )
        assert table in DECODER_PAGE, f"docs/decoders.md lacks or misstates:\n{table}"


def describe_rows(section: str, cls: type[Any]) -> list[str]:
    """The rows of a table of keys, from the configuration itself."""
    meanings = describe_fields(cls)
    rows = []
    for field in dataclasses.fields(cls):
        value = field.default
        shown = (
            f'"{value}"'
            if isinstance(value, str)
            else str(value).lower()
            if isinstance(value, bool)
            else value
        )
        rows.append(f"| `{section}.{field.name}` | `{shown}` | {meanings[field.name]} |")
    return rows
