"""Every block of "From Python" in docs/captioning.md runs, on a tiny captioner in the place of the bundled one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from showtell import library
from showtell.bundle import EXPORTED, store_confidence
from showtell.captioner import Captioner
from showtell.confidence import Confidence
from showtell.errors import UsageError
from showtell.images.fetch import FetchedImage, Fetcher

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "captioning.md").read_text(encoding="utf-8")
HEADING = "## From Python"


def section() -> str:
    begin = PAGE.index(f"{HEADING}\n") + len(HEADING)
    return PAGE[begin : PAGE.index("\n## ", begin)]


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", section(), re.DOTALL)


@pytest.fixture
def place(
    exported_model: str, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with photographs, where `Captioner.load()` opens a tiny captioner that knows how sure it is."""
    bundled = tmp_path / "bundled" / library.DEFAULT
    shutil.copytree(exported_model, bundled)
    store_confidence(bundled, EXPORTED, Confidence((0.2, 0.3, 0.1, 0.0, 0.0), (0.1, 0.2, 0.3, 0.0)))
    monkeypatch.setattr(library, "BUNDLED", tmp_path / "bundled")
    (tmp_path / "photos").mkdir()
    for photograph in photographs:
        shutil.copy(photograph, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)

    def fetch(self: Fetcher, url: str) -> FetchedImage:
        """The web: it has the picture of a cat, and nothing else."""
        if "cat" not in url:
            from showtell.errors import FetchError

            raise FetchError(f"{url}: the server answers with status 404 (Not Found)")
        return FetchedImage((tmp_path / "photos" / "cat.jpg").read_bytes(), url)

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    return tmp_path


def run(code: str, names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    exec(compile(code, "docs/captioning.md", "exec"), names)
    return capsys.readouterr().out.splitlines()


def test_every_block_runs_in_order(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    printed = [run(code, names, capsys) for code in blocks()]
    first, kinds, arrays, stream, searches, words, sure, why, errors, web = printed
    assert len(first) == 1
    cat = first[0]
    assert len(kinds) == 6
    assert {kinds[0], *kinds[2:4]} == {cat}  # path, bytes and open file are one picture
    assert arrays[0] == arrays[1]
    assert len(arrays) == 5
    assert [line.split()[0] for line in stream] == ["0", "1", "2", "3"]
    assert len(searches) == 3 + 5
    scores = [float(line.split()[0]) for line in searches[:3]]
    assert scores == sorted(scores, reverse=True)
    assert "dog" in words[0].split()
    assert re.match(r"0\.\d\d \{'", sure[0])
    assert len(sure) == 3
    assert why == []
    with Image.open(place / "why.png") as figure:
        assert figure.width > 200
    assert errors == [
        f"photos/cat.jpg {cat}",
        "photos/missing.jpg: there is no such file",
        errors[2],
    ]
    assert errors[2].startswith("photos/coffee.jpg ")
    assert web == [cat, "https://example.com/dog.jpg: the server answers with status 404 (Not Found)"]


def test_all_python_of_the_part_is_in_blocks_that_run() -> None:
    text = re.sub(r"```python\n.*?```", "", section(), flags=re.DOTALL)
    assert "```" not in text
    assert not re.findall(r"^ {4}\S", text, re.MULTILINE)
    assert len(blocks()) == 10


def test_what_the_text_says_of_captioners_that_are_not_calibrated(
    model: str, photographs: list[Path]
) -> None:
    captioner = Captioner.load(model)
    [picture] = captioner.caption(photographs[0])
    assert picture.captions[0].confidence is None
    with pytest.raises(UsageError, match="does not know how sure it is"):
        list(captioner.caption(photographs[0], min_confidence=0.5))
