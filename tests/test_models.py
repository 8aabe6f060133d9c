"""The captioners that come with the project: whole, small, of frozen backbones named by digest, and able to caption."""

from __future__ import annotations

from pathlib import Path

import pytest

from showtell.bundle import load_bundle
from showtell.captioner import Captioner
from showtell.data.source import read_dataset
from showtell.packing import count_bits
from showtell.recipes import list_recipes, load_recipe

MODELS = Path(__file__).parents[1] / "models"
NAMES = sorted(path.name for path in MODELS.glob("flickr8k-*"))


def test_there_is_one_for_each_recipe_that_is_for_flickr8k() -> None:
    assert {name for name in list_recipes() if name.startswith("flickr8k")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_small_and_names_its_backbones(name: str) -> None:
    folder = MODELS / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000
    bundle = load_bundle(folder)
    assert bundle.encoder_weights is None
    assert bundle.consensus is None  # the captions of the data set are not given away
    assert count_bits(bundle.decoder_weights) == 8
    members = bundle.encoder.source["members"]
    assert len(members) == 3
    assert all(len(member["source"]["digest"]) == 64 for member in members)
    recipe = list_recipes()[name]
    assert (bundle.recipe.decoder, bundle.recipe.decoder_options) == (recipe.decoder, recipe.decoder_options)
    assert bundle.scores["dev"]["CIDEr"] > 0.55


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_captions_as_well_as_it_says(
    name: str, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOWTELL_WEIGHTS", str(shared / "weights"))
    captioner = Captioner.load(MODELS / name)
    dataset = read_dataset(shared / "data" / "flickr8k")
    report = captioner.evaluate(dataset, split="dev", max_images=150)
    assert (
        report.scores["CIDEr"] > 0.8 * load_bundle(MODELS / name).scores["dev"]["CIDEr"]
    )  # of 150 pictures, so roughly


def test_the_captioner_that_comes_along_is_there_to_train_on(photographs: list[Path]) -> None:
    """It holds its encoder, says nearly what its export says, and recipes can go on from it without other files."""
    folder = MODELS / "compact"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 18_000_000
    bundle = load_bundle(folder)
    assert bundle.encoder_weights is not None
    assert load_recipe("fine-tune", start=bundle.starting_recipe()).encoder.weights == "from"
    found = [
        [one.text for one in Captioner.load(model).caption(photographs)] for model in (folder, "compact")
    ]
    assert sum(ours == theirs for ours, theirs in zip(*found, strict=True)) >= 3  # 8 bits of another kind
