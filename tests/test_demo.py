"""The demonstration: photographs from two packages, captioned and explained without torch."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.demo import run_demo
from showtell.errors import UsageError
from showtell.photographs import PHOTOGRAPHS, find_photographs


def test_every_photograph_is_captioned_and_explained(exported_model: str, tmp_path: Path) -> None:
    heard: dict[str, str] = {}
    result = run_demo(Captioner.load(exported_model), tmp_path, said=heard.__setitem__)
    assert sorted(Path(name).stem for name in heard) == sorted(PHOTOGRAPHS)
    assert sorted(path.name for path in result.photographs.iterdir()) == sorted(heard)
    page = result.sheet.read_text(encoding="utf-8")
    assert page.count("<figure") == len(PHOTOGRAPHS)
    assert all(caption in page for caption in heard.values())
    assert page.count("data:image/webp") == len(PHOTOGRAPHS)
    for path in result.explanations:
        with Image.open(path) as figure:
            assert figure.width >= 400
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert [word["word"] for word in told["words"]] == heard[
            next(name for name in heard if Path(name).stem == path.stem)
        ].split()


def test_a_second_demonstration_replaces_the_first(exported_model: str, tmp_path: Path) -> None:
    captioner = Captioner.load(exported_model)
    first = run_demo(captioner, tmp_path)
    files = sorted(tmp_path.rglob("*"))
    assert run_demo(captioner, tmp_path).sheet == first.sheet
    assert sorted(tmp_path.rglob("*")) == files


def test_without_photographs_it_says_what_brings_them(exported_model: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pip install scikit-image scikit-learn"):
        run_demo(Captioner.load(exported_model), tmp_path, {})


def test_photographs_of_a_package_that_is_not_there_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(find_photographs()) == set(PHOTOGRAPHS)
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert set(find_photographs()) == {"flower", "palace"}


def test_the_command_prints_the_page_last_and_says_how_to_repeat_it(
    exported_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--model", exported_model, "--output", "my demo"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'my demo' / 'captions.html'}\n"
    command = re.search(r"by hand: showtell (.*)", printed.err)
    assert command is not None
    page = (tmp_path / "my demo" / "captions.html").read_text(encoding="utf-8")
    assert main(shlex.split(command[1])) == 0
    again = (tmp_path / "my demo" / "captions.html").read_text(encoding="utf-8")
    captions = re.compile(r"<figcaption.*?</figcaption>", re.DOTALL)
    assert sorted(captions.findall(again)) == sorted(captions.findall(page))


def test_it_needs_no_torch(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    code = (
        "import sys; from showtell.__main__ import start; sys.argv = ['showtell', 'demo']; "
        "code = start(); sys.exit(code or ('torch' in sys.modules) * 3)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=clean_environment, cwd=tmp_path)
    assert done.returncode == 0
