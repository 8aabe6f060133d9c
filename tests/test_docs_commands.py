"""Every command that the documentation shows is done as it says, on small data.

Pages are walked through from top to bottom in a folder of their own, in this process. What a command reads and no
earlier one on the page has written is put there first. Models are tiny, and training gets tiny settings. `PARSED` lists
what cannot run in a test, with the reason; the parser of the command line reads it all the same.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from docs_commands import ROOT, Command, find_commands, find_inline, find_pages, find_shell_lines
from served import Served, serving
from showtell.cli.main import build_parser, main
from showtell.errors import UsageError
from tiny_runs import draw_dataset, encoders_written_once, scratch_folder, tiny_recipe

# Pages of which no command runs.
RECORDS = {
    "docs/experiments.md": "what was done on a day, with the options of that day",
    "README.md": "tests/test_readme.py runs it",
}
# Commands that are only parsed: the beginning of their text, and why. The first that fits a command counts.
PARSED = {
    "showtell serve": "stays until it is stopped; the requests of these pages go to a service that is started here",
    "showtell tutorial": "three minutes; tests/test_tutorial.py runs it",
    "showtell train compact": "an encoder of ten layers; tests/test_bundled.py covers its recipe",
    "showtell train flickr8k-fast --data my-pictures --set encoder.name=resnet10t": "the student of the next reason",
    "showtell distill": "minutes, with an encoder in 8 bits; tests/test_distillation.py runs it",
    "showtell export runs/mine --int8": "many seconds of calibration; tests/test_export.py runs it",
    "showtell train mine.toml --data my-pictures --output runs/both": "two public backbones",
    "showtell caption photo.jpg --model models/": "public backbones, which are not part of the project",
    "showtell train flickr8k-fast --data flickr8k": "Flickr8k, which is not part of the project",
    "showtell evaluate RUN --data flickr8k": "Flickr8k, which is not part of the project",
    "showtell evaluate compact --data": "Flickr8k and COCO, which are not part of the project; METEOR needs Java",
    "showtell bulk": "Ray takes half a minute to start; tests/test_bulk_ray.py runs it",
    "showtell features my-pictures --ray": "the same, and a public backbone; tests/test_bulk_features.py runs it",
    "torchrun": "processes of their own; tests/test_processes.py starts them",
}
PARSED_PROGRAMS = {
    "make": "the targets install and test: they must exist",
    "pip": "the network: the extras must exist",
    "nginx": "not part of the tests' machines",
}

TINY = {
    "encoder": {"name": "test_resnet", "weights": "random", "image_size": 64, "precision": "float32"},
    "text": {"min_count": 1},
    "training": {"epochs": 1, "batch_size": 8, "dev_beam": 1, "precision": "float32", "device": "cpu"},
    "decoding": {"max_steps": 6},
}
SIZES = {
    "attend-gru-additive": {"feature_size": 8, "attention_size": 8, "embedding_size": 8, "hidden_size": 8},
    "adaptive-lstm": {"size": 8, "attention_size": 8, "embedding_size": 8},
}
IMAGES = {"photo.jpg": "coffee", "cat.jpg": "cat", "dog.jpg": "rocket"}


@dataclass
class Material:
    """What takes seconds to make, so that all pages share it."""

    data: Path  # drawn scenes, enough of them for a calibration
    run: Path  # a training run on them
    exported: Path  # an exported captioner, once a page has made one


class Place:
    """The folder in which the commands of a page run, and what lies there for them."""

    def __init__(self, folder: Path, photographs: list[Path], tiny_bundle: Path, material: Material) -> None:
        self.folder = folder
        self._photographs = {path.stem: path for path in photographs}
        self._tiny_bundle = tiny_bundle
        self.material = material

    def provide(self, word: str) -> None:
        """Puts a file or folder there that a page takes for granted, unless it is there already."""
        name = word.rstrip("/")
        for known, make in self._known().items():
            if (name == known or name.startswith(f"{known}/")) and not (self.folder / known).exists():
                (self.folder / known).parent.mkdir(parents=True, exist_ok=True)
                make(self.folder / known)

    def _known(self) -> dict[str, Callable[[Path], object]]:
        images = {
            name: lambda path, stem=stem: shutil.copy(self._photographs[stem], path)
            for name, stem in IMAGES.items()
        }
        runs = dict.fromkeys(
            ["runs/general", "runs/mine", "runs/one", "runs/two", "runs/three", "tutorial/run"],
            self._copy_run,
        )
        bundles = dict.fromkeys(
            ["models/compact", "models/flickr8k-fast", "models/flickr8k-best"], self._copy_bundle
        )
        data = dict.fromkeys(["my-pictures", "tutorial/scenes", "flickr8k"], self._copy_data)
        captions = dict.fromkeys(("references.json", "few-references.json"), self._write_coco)
        hypotheses = dict.fromkeys(
            ("captions.json", "others.json", "few-captions.json"), self._write_captions
        )
        return {
            **images,
            **runs,
            **bundles,
            **data,
            **captions,
            **hypotheses,
            "holiday": self._copy_photographs,
            "photos": self._copy_photographs,
            "models/compact-encoder.safetensors": Path.touch,
            "my-site": self._write_site,
            "mine.toml": lambda path: path.write_text(_as_toml(tiny_recipe().to_dict())),
            "last-time": lambda path: (path.touch(), os.utime(path, (0, 0))),
        }

    def _copy_run(self, path: Path) -> None:
        shutil.copytree(self.material.run, path)

    def _copy_bundle(self, path: Path) -> None:
        shutil.copytree(self._tiny_bundle, path)

    def _copy_data(self, path: Path) -> None:
        shutil.copytree(self.material.data, path)
        shutil.copy(
            min(path.glob("images/test_*")), path / "images" / "test_03200.png"
        )  # one that the tutorial draws

    def _copy_photographs(self, path: Path) -> None:
        path.mkdir()
        for name in ("cat", "coffee"):
            shutil.copy(self._photographs[name], path)

    def _write_site(self, path: Path) -> None:
        self._copy_photographs(path)
        (path / "index.html").write_text(
            '<!DOCTYPE html><title>Site</title><img src="cat.jpg"><img src="coffee.jpg">'
        )

    def _write_coco(self, path: Path) -> None:
        annotations = [{"id": i, "image_id": i, "caption": text} for i, text in enumerate(CAPTIONS)]
        path.write_text(
            json.dumps({"images": [{"id": i} for i in range(len(CAPTIONS))], "annotations": annotations})
        )

    def _write_captions(self, path: Path) -> None:
        path.write_text(json.dumps([{"image_id": i, "caption": text} for i, text in enumerate(CAPTIONS)]))


CAPTIONS = ["a dog runs on the grass", "two men talk in a street", "a red square above a blue circle"]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    from showtell.training import train

    folder = tmp_path_factory.mktemp("material")
    dataset = draw_dataset(folder / "data", train=16, dev=50, test=5)
    recipe = tiny_recipe(
        training={"epochs": 8, "batch_size": 8, "learning_rate": 0.01, "dev_images": 5, "evaluate_every": 4}
    )
    train(recipe, dataset, folder / "run", features=folder / "features", include_encoder=True)
    return Material(folder / "data", folder / "run", folder / "exported")


@pytest.fixture
def place(
    photographs: list[Path],
    tiny_bundle: Path,
    material: Material,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without_plots: None,
) -> Place:
    """A folder where `showtell` runs, with its own caches."""
    monkeypatch.setenv("SHOWTELL_CACHE", str(scratch_folder() / "docs-cache"))
    monkeypatch.setenv("KEY", "of a client")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Place(tmp_path / "here", photographs, tiny_bundle, material)


@pytest.fixture(scope="module")
def service(exported_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(exported_model, tmp_path_factory.mktemp("served"), "--urls", "none") as running:
        yield running


def pages_with_commands() -> list[str]:
    return [page for page in find_pages() if page not in RECORDS and find_commands(page)]


def test_commands_are_found_where_they_are() -> None:
    assert {"docs/captioning.md", "docs/training.md", "docs/serving.md", "models/README.md"} <= {
        *pages_with_commands()
    }
    assert Command("docs/own-data.md", 26, "showtell data check my-pictures") in find_commands(
        "docs/own-data.md"
    )
    assert sum(len(find_commands(page)) for page in find_pages()) > 100


@pytest.mark.parametrize("page", find_pages())
def test_blocks_of_commands_hold_nothing_else(page: str) -> None:
    found = {command.text for command in find_commands(page)}
    assert [str(line) for line in find_shell_lines(page) if line.text not in found] == []


@pytest.mark.parametrize("page", pages_with_commands())
def test_every_command_of_a_page_runs(page: str, place: Place, request: pytest.FixtureRequest) -> None:
    for command in find_commands(page):
        words = shlex.split(command.bare)
        if any(command.bare.startswith(begun) for begun in PARSED):
            parse(command, place)
        elif words[0] in PARSED_PROGRAMS or words[:3] == ["python", "-m", "benchmarks"]:
            check_other(command, words)
        elif words[0] == "export":
            name, _, value = words[1].partition("=")
            request.getfixturevalue("monkeypatch").setenv(name, value)
        elif words[0] == "curl":
            ask(command, words, place, request.getfixturevalue("service"))
        elif words[0] == "showtell" and "|" not in words:
            call(command, words, place)
        else:
            run_in_shell(command, place)


def test_every_exception_is_one() -> None:
    texts = [command.bare for page in pages_with_commands() for command in find_commands(page)]
    assert [begun for begun in PARSED if not any(text.startswith(begun) for text in texts)] == []
    assert [
        program for program in PARSED_PROGRAMS if not any(text.startswith(program) for text in texts)
    ] == []


def test_an_export_that_is_only_copied_is_read(place: Place, tmp_path: Path) -> None:
    (tmp_path / "exported").mkdir()
    place.material = replace(place.material, exported=tmp_path / "exported")
    for wrong in ("--outptu", "--int-8"):
        text = f"showtell export runs/mine --output there {wrong} other"
        with pytest.raises(UsageError, match=f"no option '{wrong}'"):
            call(Command("docs/exporting.md", 1, text), text.split(), place)
    text = "showtell export runs/mine --output there"
    call(Command("docs/exporting.md", 1, text), text.split(), place)
    assert (place.folder / "there").is_dir()


@pytest.mark.parametrize("page", [page for page in find_pages() if page not in RECORDS and find_inline(page)])
def test_commands_within_the_text_exist(page: str) -> None:
    """Their names and their options; what they work on is often left out."""
    for command in find_inline(page):
        words = command.text.split()[1:]
        _, commands = build_parser()
        if words[0] in commands.choices:
            chosen = commands.choices[words[0]]
            if words[0] == "data":
                assert words[1] == "check", command
                chosen = next(iter(chosen._subparsers._group_actions)).choices["check"]  # type: ignore[union-attr]
            chosen.refuse_unknown([word.strip("[]") for word in words])
        else:
            assert words[0] in ("--version", "--help", "COMMAND"), command


def call(command: Command, words: list[str], place: Place) -> None:
    """Runs a `showtell` command in this process."""
    target = words[words.index(">") + 1] if ">" in words else ""
    words = words[1 : words.index(">")] if target else words[1:]
    for given in words:
        if words[words.index(given) - 1] not in ("--output", "--save-idf", "--plot"):
            place.provide(given)
    read(words, command)
    made = place.material.exported
    if words[0] == "export" and made.exists():  # it takes ten seconds, and is the same every time
        shutil.copytree(made, place.folder / words[words.index("--output") + 1])
        return
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), encoders_written_once():
        code = main(_shrink(words))
    assert code == 0, command
    if words[0] == "export":
        shutil.copytree(words[words.index("--output") + 1], made)
    if target:
        (place.folder / target).write_text(printed.getvalue())


def parse(command: Command, place: Place) -> None:
    """Reads a command that is not run; what it works on is there."""
    words = shlex.split(re.sub(r"\s*\[--.*", "", command.text))
    words = words[words.index("showtell") + 1 :]
    for word in words[1:]:
        path = place.folder / word
        if not word.startswith("-") and "=" not in word and not path.exists():
            if not path.suffix:
                path.mkdir(parents=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    read(words, command)


def read(words: list[str], command: Command) -> None:
    """Reads a command with the parser of the command line."""
    parser, commands = build_parser()
    commands.choices[words[0]].refuse_unknown(words)
    assert parser.parse_args(words).run, command


def check_other(command: Command, words: list[str]) -> None:
    """What a command of another program names is there."""
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        known = {"scikit-image", "scikit-learn", "jupyterlab"}
        for word in words[2:]:
            named = re.fullmatch(r"(?:showtell|\.)(?:\[([a-z,]+)\])?", word)
            assert word in known or named, command
            if named and named[1]:
                assert set(named[1].split(",")) <= extras.keys(), command
    elif words[0] == "python":
        from benchmarks.__main__ import BENCHMARKS

        assert words[3] in {*BENCHMARKS, "NAME"}, command
        sources = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
        options = [word.strip("[]") for word in words[4:] if word.strip("[").startswith("--")]
        assert [option for option in options if f'"{option}"' not in sources] == [], command


def ask(command: Command, words: list[str], place: Place, service: Served) -> None:
    """Sends a request of a page to a real service: `$KEY` is nobody's here, and nothing is fetched from the web."""
    place.provide("cat.jpg"), place.provide("dog.jpg")
    url = next(word for word in words if word.startswith("http"))
    here = re.sub(r"https?://[^/]+", service.url, url)
    words = [os.path.expandvars(here if word == url else word) for word in words]
    done = subprocess.run(
        [*words, "--silent"], cwd=place.folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, command
    assert '"caption"' in done.stdout or "fetches no images" in done.stdout, f"{command}\n{done.stdout}"


def run_in_shell(command: Command, place: Place) -> None:
    """Runs what only a shell understands, with `showtell` as a program."""
    place.provide("last-time"), place.provide("holiday")
    programs = place.folder.parent / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "showtell").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m showtell "$@"\n')
    (programs / "showtell").chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command.text}"],
        cwd=place.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert done.stdout.strip()


def _shrink(words: list[str]) -> list[str]:
    """The command with settings with which it takes a second."""
    if words[0] == "tune":
        return [*words, "--trials", "2"]
    if words[0] == "features":
        small = ["--weights", "random", "--image-size", "64", "--precision", "float32"]
        return [
            "test_resnet" if before == "--encoder" else word for before, word in pairwise(["", *words])
        ] + small
    if words[0] != "train" or words[1] == "mine.toml":
        return words
    tables = {section: dict(table) for section, table in TINY.items()}
    if words[1] in ("fine-tune", "rehearse"):
        tables = {"training": TINY["training"]}
    else:
        tables["decoder"] = SIZES.get(words[1], SIZES["attend-gru-additive"])
    return words + [
        word
        for section, table in tables.items()
        for key, value in table.items()
        for word in ("--set", f"{section}.{key}={value}")
    ]


def _as_toml(tables: dict[str, object]) -> str:
    lines = []
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        else:
            lines.insert(0, f"{name} = {json.dumps(table)}")
    return "\n".join(lines) + "\n"
