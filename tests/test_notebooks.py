"""The notebooks: what is committed is small and calls the public API alone; executed, they show what they promise."""

from __future__ import annotations

import ast
import base64
import importlib
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ALLOWED = {"showtell", "numpy", "matplotlib", "PIL"}
MOST_LINES = 32  # of a cell
ABSOLUTE = re.compile(r"(?<![\w.~:/<=])/(?!path/to)\w+/\w|[A-Za-z]:\\\\|~/")
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def sources(path: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == kind]


def imported(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yields module and name of each import; None for a whole module."""
    for source in sources(path, "code"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from ((alias.name, None) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                yield from ((node.module or "", alias.name) for alias in node.names)


def test_there_are_five_in_order_and_each_is_on_their_page() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["0-", "1-", "2-", "3-", "4-"]
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS if f"](../notebooks/{path.name})" not in page] == []


@each
def test_what_is_committed_has_no_outputs_and_no_folders_of_a_machine(path: Path) -> None:
    cells = [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"] is not None] == []
    assert path.stat().st_size < 20_000
    text = "\n".join(sources(path, "code") + sources(path, "markdown"))
    assert ABSOLUTE.findall(text) == []


def test_folders_of_a_machine_are_seen() -> None:
    assert all(
        ABSOLUTE.search(text) for text in ('Path("/home/me/data")', "see /tmp/x", "~/data", r"C:\\data")
    )
    assert not any(ABSOLUTE.search(text) for text in ("../models", "a / b", "/path/to/flickr8k", "1/2"))


@each
def test_a_notebook_calls_the_public_api_alone(path: Path) -> None:
    modules = {module.partition(".")[0] for module, _ in imported(path)}
    assert modules - ALLOWED - set(sys.stdlib_module_names) == set()
    assert "showtell" in modules
    for name, member in imported(path):
        if name.partition(".")[0] != "showtell":
            continue
        assert member is not None, f"{name}: import names, not modules"
        assert not any(part.startswith("_") for part in (*name.split("."), member))
        module = importlib.import_module(name)
        assert member in getattr(module, "__all__", vars(module)), f"{member} is not public in {name}"
    assert not re.search(r"(?<![\w)])\w+\._[a-z]", "\n".join(sources(path, "code")))


@each
def test_a_notebook_says_what_one_learns_and_has_short_cells(path: Path) -> None:
    first = sources(path, "markdown")[0]
    assert first.startswith(f"# {path.name[0]}. ")
    assert re.search(r"You will learn\n\n(- .*\n?){3,5}", first)
    assert max(len(source.splitlines()) for source in sources(path, "code")) <= MOST_LINES
    assert len(sources(path, "code")) <= 15


def test_all_notebooks_begin_alike() -> None:
    """Runs are shared, so data and encoder must be the same."""
    code = [sources(path, "code") for path in NOTEBOOKS]
    assert len({cells[0] for cells in code}) == 1
    assert len({cells[1] for cells in code[1:]}) == 1


@each
def test_links_of_a_notebook_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", "\n".join(sources(path, "markdown")))
    assert [target for target in targets if not (FOLDER / target).exists()] == []


Executed = dict[str, "Shown"]


class Shown:
    """What an executed notebook shows."""

    def __init__(self, notebook: dict[str, Any]) -> None:
        self.text, self.errors, self.figures = "", "", []
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                if output["output_type"] == "stream":
                    text = "".join(output["text"])
                    self.errors += text if output["name"] == "stderr" else ""
                    self.text += text if output["name"] == "stdout" else ""
                elif "image/png" in output.get("data", {}):
                    data = base64.b64decode("".join(output["data"]["image/png"]))
                    self.figures.append(Image.open(io.BytesIO(data)).convert("RGB"))

    def find(self, pattern: str) -> tuple[str, ...]:
        """Returns the groups of a line; fails where there is none."""
        found = re.search(pattern, self.text, re.MULTILINE)
        assert found, f"{pattern!r} is not in:\n{self.text}"
        return found.groups()


def execute(names: Sequence[str], folder: Path) -> Executed:
    """Executes notebooks as `make notebooks` does, in one call and with a feature cache of their own."""
    pytest.importorskip("nbclient", reason='needs the extra: pip install "showtell[notebooks]"')
    environment = {key: value for key, value in os.environ.items() if key != "FLICKR8K"}
    environment["SHOWTELL_CACHE"] = str(folder / "cache")
    paths = [path for name in names for path in NOTEBOOKS if path.name.startswith(name)]
    assert len(paths) == len(names)
    command = [
        sys.executable,
        str(FOLDER / "execute.py"),
        *map(str, paths),
        "--output",
        str(folder / "executed"),
    ]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stderr
    shown = {path.name[0]: Shown(read(folder / "executed" / path.name)) for path in paths}
    for name, one in shown.items():
        assert one.errors == "", f"{name}: {one.errors}"
        for figure in one.figures:
            assert 300 < figure.width <= 1200
            assert np.asarray(figure).std() > 10  # something is drawn
    return shown


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    return execute("01", tmp_path_factory.mktemp("notebooks"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    return execute("234", tmp_path_factory.mktemp("notebooks"))


def test_exploring_shows_pictures_lengths_words_and_copies(untrained: Executed) -> None:
    shown = untrained["0"]
    assert len(shown.figures) == 4
    assert shown.find(r"^train: ([\d,]+) pictures, ([\d,]+) captions") == ("1,200", "6,000")
    assert shown.find(r"^errors: (\d+)") == ("0",)
    longest = int(shown.find(r"^The longest caption has (\d+) words")[0])
    assert 10 <= longest <= 20
    covered = [float(share) for share in re.findall(r"^ +\d+ times +[\d,]+ +([\d.]+)%", shown.text, re.M)]
    assert len(covered) >= 5
    assert covered == sorted(covered, reverse=True)
    shown.find(r"^The planted copy was found: True$")


def test_data_and_model_shows_the_way_of_a_batch(untrained: Executed) -> None:
    shown = untrained["1"]
    assert len(shown.figures) == 2
    vocabulary = int(shown.find(r"^(\d+) numbers;")[0])
    captions, steps = map(int, shown.find(r"^captions: \((\d+), (\d+)\)"))
    words, cells = map(int, shown.find(r"^attention: \((\d+), (\d+)\)"))
    shown.find(r"^inputs:  \(8, 3, 128, 128\)")
    shown.find(rf"^features: \(8, {cells}, 512\)")
    shown.find(rf"^logits:    \({words}, {vocabulary}\)")
    shown.find(rf"^real words: {words} of {captions * steps} places")
    loss = float(shown.find(r"^loss ([\d.]+); logarithm")[0])
    assert loss == pytest.approx(math.log(vocabulary), abs=0.3)


@pytest.mark.slow
def test_training_learns_and_goes_on_to_the_bit(trained: Executed) -> None:
    shown = trained["2"]
    assert len(shown.figures) == 1
    first, last = map(float, shown.find(r"^The loss fell from ([\d.]+) to ([\d.]+)\.$"))
    assert last < first - 1.5
    assert float(shown.find(r"CIDEr ([\d.]+) on 50 pictures of dev")[0]) > 1.0
    shown.find(r"kB  checkpoint\.safetensors$")
    shown.find(r"^stopped and saved after epoch 1, batch 2\.")
    shown.find(r"^resumed after epoch 1, batch 2$")
    shown.find(r"^The weights are equal, bit for bit: True$")
    one, other = re.findall(r"^losses: (\[.*\])$", shown.text, re.M)
    assert one == other


@pytest.mark.slow
def test_inference_searches_samples_and_compares_the_five(trained: Executed) -> None:
    shown = trained["3"]
    assert len(shown.figures) == 4
    distinct = [int(number) for number in re.findall(r"^temperature .*: (\d) different", shown.text, re.M)]
    assert len(distinct) == 3
    assert distinct[0] <= distinct[2] >= 4
    rows = re.findall(r"^([a-z\d-]+) +[\d.]+ +[\d.]+ +([\d.]+)  \[([\d.]+), ([\d.]+)\]$", shown.text, re.M)
    assert len(rows) == 5
    for name, score, low, high in rows:
        assert float(low) <= float(score) <= float(high), name
        assert float(score) > 0.5, name  # a captioner that says the same of all pictures has less


@pytest.mark.slow
def test_a_domain_is_learnt_with_its_words(trained: Executed) -> None:
    shown = trained["4"]
    assert len(shown.figures) == 2
    shown.find(r"^Words of the theme that it knows: \[\]$")
    assert {"star", "stars"} <= set(shown.find(r"^\d+ new words: (.*)$")[0].split())
    number = r"[+-][\d.]+"
    lines = rf"^(.*): CIDEr [\d.]+ before, [\d.]+ after \(({number}) \[({number}), {number}\]\)$"
    gained, forgotten, gained_mixed, forgotten_mixed = re.findall(lines, shown.text, re.M)
    assert (gained[0], forgotten[0]) == ("my pictures", "the old data")
    assert float(gained[2]) > 0  # the lower end of the interval
    assert float(gained_mixed[2]) > 0
    assert float(forgotten[1]) < 0  # as the text says
    assert float(forgotten_mixed[1]) > float(forgotten[1])


def call(*words: object, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Calls `execute.py` from a folder."""
    command = [sys.executable, str(FOLDER / "execute.py"), *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **variables}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def write_notebook(path: Path, source: str) -> Path:
    cell = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def test_folders_of_the_environment_are_those_of_the_caller(tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason='needs the extra: pip install "showtell[notebooks]"')
    names = ("FLICKR8K", "SHOWTELL_WEIGHTS", "SHOWTELL_CACHE")
    shown = write_notebook(
        tmp_path / "0-a.ipynb", f"import os\nprint([os.environ[name] for name in {names}])"
    )
    (tmp_path / "flickr8k").mkdir()
    ended = call(
        shown.name,
        "--flickr8k",
        "flickr8k",
        "--output",
        "out",
        folder=tmp_path,
        SHOWTELL_WEIGHTS=f"weights{os.pathsep}{os.pathsep}{tmp_path / 'more'}",
        SHOWTELL_CACHE="cache",
    )
    assert ended.returncode == 0, ended.stderr
    weights = f"{tmp_path / 'weights'}{os.pathsep}{tmp_path / 'more'}"
    expected = [str(tmp_path / "flickr8k"), weights, str(tmp_path / "cache")]
    assert Shown(read(tmp_path / "out" / shown.name)).text == f"{expected}\n"


def test_a_notebook_whose_process_is_killed_is_named(tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason='needs the extra: pip install "showtell[notebooks]"')
    killed = write_notebook(tmp_path / "0-a.ipynb", "import os\nos.kill(os.getpid(), 9)")
    ended = call(killed, "--output", "out", folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "make notebooks: 0-a.ipynb: the process that executed it was ended from outside."
    )
    assert ended.stderr.count("\n") == 1


def test_a_mistake_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    for words, message in (
        (["--flickr8k", "none"], "none: no such folder. Give the one that holds Flickr8k."),
        (["--output", "file"], "file: cannot be the folder of copies: File exists."),
        (["missing.ipynb"], "missing.ipynb: no such notebook."),
        (["file"], "file: cannot be read as a notebook: "),
    ):
        ended = call("--output", "out", *words, folder=tmp_path)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith(f"make notebooks: {message}"), words
        assert ended.stderr.count("\n") == 1, ended.stderr
