"""The captioner that comes with Showtell: small, of its own weights, without torch, and as good as it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from showtell.captioner import Captioner
from showtell.data.source import read_dataset
from showtell.library import BUNDLED, DEFAULT, bundled_names
from showtell.photographs import find_photographs
from showtell.portable import load_portable
from showtell.recipes import load_recipe

FOLDER = BUNDLED / DEFAULT
CARD = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_it_is_the_only_one_and_small() -> None:
    assert bundled_names() == [DEFAULT]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 20_000_000


def test_it_is_what_its_recipe_makes() -> None:
    model, recipe = load_portable(FOLDER), load_recipe(DEFAULT)
    assert (model.recipe.decoder, model.recipe.decoder_options) == (recipe.decoder, recipe.decoder_options)
    assert model.recipe.encoder.name == recipe.encoder.name
    assert model.recipe.decoding == recipe.decoding
    assert model.weights == "int8"
    assert model.consensus is None  # captions of the data sets are not given away
    assert model.confidence is not None


def test_its_photographs_get_different_captions_and_confidences() -> None:
    photographs = find_photographs()
    pictures = list(Captioner.load().caption(photographs.values()))
    captions = [picture.captions[0] for picture in pictures]
    assert len({caption.text for caption in captions}) >= len(photographs) - 2
    assert all(3 <= len(caption.words) <= 20 for caption in captions)
    confidences = [caption.confidence for caption in captions]
    assert all(confidence is not None and 0 < confidence < 1 for confidence in confidences)
    assert len(set(confidences)) > 3


def test_both_engines_say_nearly_the_same() -> None:
    pytest.importorskip("openvino")
    photographs = list(find_photographs().values())
    said = [
        [picture.text for picture in Captioner.load(engine=engine).caption(photographs)]
        for engine in ("onnxruntime", "openvino")
    ]
    assert sum(one == other for one, other in zip(*said, strict=True)) >= len(photographs) - 2


def test_it_needs_neither_torch_nor_a_network(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    photograph = find_photographs()["coffee"]
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a connection')\n"
        "socket.socket.connect = refuse\n"
        "from showtell.__main__ import start\n"
        f"sys.argv = ['showtell', 'caption', {str(photograph)!r}, '--engine', 'onnxruntime']\n"
        "code = start()\n"
        "sys.exit(code or ('torch' in sys.modules) * 3)\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {**clean_environment, "SHOWTELL_CACHE": str(tmp_path / "cache"), "HOME": str(home)}
    for variable in ("CI", "ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED", "XDG_CACHE_HOME"):
        environment.pop(variable, None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(photograph))
    assert list(home.rglob("*")) == []  # no engine leaves an identifier of the machine there


def test_the_card_gives_the_scores_that_training_saw() -> None:
    scores = load_portable(FOLDER).scores["dev"]  # in float32, by a narrower search
    row = re.search(r"^\| Flickr8k dev \|(.*)$", CARD, re.MULTILINE)
    assert row is not None
    bleu, _, _, cider = (float(cell) for cell in re.findall(r"\| *(\d+\.\d)(?= )", "|" + row[1])[:4])
    assert bleu == pytest.approx(100 * scores["Bleu_4"], abs=2.0)
    assert cider == pytest.approx(100 * scores["CIDEr"], abs=3.0)


def test_the_card_names_the_command_and_what_it_learned_from() -> None:
    for phrase in ("python -m benchmarks bundled", "Flickr8k", "COCO", "research", "gender"):
        assert phrase in CARD


@pytest.mark.shared
def test_it_captions_as_well_as_it_says(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "flickr8k")
    report = Captioner.load().evaluate(dataset, split="dev", max_images=150)
    scores = json.loads((FOLDER / "portable.json").read_text(encoding="utf-8"))["scores"]["dev"]
    assert report.scores["CIDEr"] > 0.8 * scores["CIDEr"]  # of 150 pictures, so roughly


def test_nothing_in_the_current_folder_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / DEFAULT).mkdir()
    monkeypatch.chdir(tmp_path)
    assert Captioner.load().digest == load_portable(FOLDER).digest
