"""The recipes: each one is what its paper or tutorial says, can be built, and takes training steps."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from showtell.config import EncoderConfig
from showtell.decoders import create_decoder
from showtell.encoders import build_encoder
from showtell.encoders.zoo import check_backbone
from showtell.errors import ConfigError
from showtell.recipes import Recipe, list_recipes, list_sequels, load_recipe
from showtell.training import SilentWatcher, train
from tiny_runs import draw_dataset

RECIPES = {
    # name -> encoder, output, channels, decoder
    "adaptive-lstm": ("resnet152", "grid", 2048, "adaptive-lstm"),
    "attend-gru-additive": ("inception_v3", "grid", 2048, "attend-gru-additive"),
    "attend-gru-dot": ("inception_resnet_v2", "grid", 1536, "attend-gru-dot"),
    "inject-lstm-bottleneck": ("inception_v3", "pooled", 2048, "inject-lstm"),
    "multi-head-lstm": ("resnet50", "grid", 2048, "multi-head-lstm"),
    "show-tell-lstm": ("resnet50", "pooled", 2048, "show-tell"),
    "show-tell-resnet152": ("resnet152", "pooled", 2048, "show-tell"),
    "top-down-lstm": ("resnet101", "grid", 2048, "top-down-lstm"),
}


def test_the_five_classics_and_three_later_ones_are_there() -> None:
    assert RECIPES.keys() <= list_recipes().keys()


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_can_be_built(name: str) -> None:
    recipe = list_recipes()[name]
    assert recipe.source
    for one in recipe.encoder.backbones():
        check_backbone(one.name)
    features = recipe.encoder.output
    decoder = create_decoder(
        recipe.decoder, recipe.decoder_options, features=features, channels=8, vocab_size=9
    )
    assert decoder.needs == features


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_it_says(name: str) -> None:
    recipe = list_recipes()[name]
    encoder, output, channels, decoder = RECIPES[name]
    assert recipe.name == name
    assert recipe.source
    assert (recipe.encoder.name, recipe.encoder.output, recipe.decoder) == (encoder, output, decoder)
    assert not recipe.encoder.trainable
    assert recipe.encoder.weights == "imagenet"
    built = create_decoder(
        recipe.decoder, recipe.decoder_options, features=output, channels=channels, vocab_size=50
    )
    assert sum(parameter.numel() for parameter in built.parameters()) > 100_000


def test_sizes_are_those_of_the_originals() -> None:
    recipes = list_recipes()
    additive, dot = recipes["attend-gru-additive"], recipes["attend-gru-dot"]
    assert additive.text.max_words == 5000
    assert additive.decoder_options["embedding_size"] == additive.decoder_options["feature_size"] == 256
    assert additive.decoder_options["hidden_size"] == 512
    assert (dot.text.max_words, dot.text.max_length, dot.decoder_options["size"]) == (20000, 64, 512)
    assert (dot.decoding.method, dot.decoding.top_k, dot.decoding.count) == ("sample", 10, 5)
    assert dot.encoder.image_size == 299
    bottleneck = recipes["inject-lstm-bottleneck"].decoder_options
    assert [bottleneck[key] for key in ("image_bottleneck", "hidden_size", "output_bottleneck")] == [
        120,
        300,
        120,
    ]
    assert bottleneck["embedding_size"] == 100
    adaptive, heads = recipes["adaptive-lstm"], recipes["multi-head-lstm"]
    assert (adaptive.decoder_options["size"], adaptive.decoding.beam) == (512, 3)
    assert (heads.decoder_options["hidden_size"], heads.decoder_options["heads"]) == (512, 8)
    assert recipes["top-down-lstm"].decoding.beam == 5
    lstm = recipes["show-tell-lstm"]
    assert (lstm.text.min_count, lstm.decoder_options["batch_norm"]) == (5, True)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_their_tables(name: str) -> None:
    recipe = list_recipes()[name]
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert load_recipe(name) == recipe


# The original encoders, from random weights: ImageNet weights are not needed to see that everything fits.


def write_random_weights(name: str, image_size: int, path: Path) -> None:
    """Writes random weights whose batch norms know their statistics.

    Without these, Inception-v3's random features grow to 1e10 from layer to layer, more than float16 can hold.
    """
    config = EncoderConfig(name=name, weights="random", image_size=image_size, trainable=True)
    backbone = build_encoder(config).backbone.train()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        backbone.forward_features(torch.randn(4, 3, image_size, image_size))
    save_file({key: tensor.contiguous() for key, tensor in backbone.state_dict().items()}, path)


class StepCounter(SilentWatcher):
    """Keeps the loss after each training step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def advance(self, amount: int, **values: float) -> None:
        self.losses += values.values()


@pytest.mark.usefixtures("without_plots")
@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("show-tell-lstm", 32),
        ("show-tell-resnet152", 32),
        ("inject-lstm-bottleneck", 75),  # the smallest that Inception takes
        ("attend-gru-additive", 107),  # 2 x 2 cells
        ("attend-gru-dot", 107),
        ("adaptive-lstm", 64),  # 2 x 2 cells
        ("multi-head-lstm", 64),
        ("top-down-lstm", 64),
    ],
)
def test_the_original_encoder_takes_two_training_steps(name: str, image_size: int, tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path / "data", train=4, dev=1, test=1)
    weights = "random"
    if RECIPES[name][0] == "inception_v3":
        weights = str(tmp_path / "weights.safetensors")
        write_random_weights(RECIPES[name][0], image_size, tmp_path / "weights.safetensors")
    recipe = load_recipe(
        name,
        [
            f"encoder.weights={weights}",
            f"encoder.image_size={image_size}",
            "text.min_count=1",
            "training.epochs=1",
            "training.batching=image",
            "training.batch_size=2",
        ],
    )
    assert recipe.encoder.name == RECIPES[name][0]
    watcher = StepCounter()
    result = train(recipe, dataset, tmp_path / "run", features=tmp_path / "features", watcher=watcher)
    assert len(watcher.losses) == 2
    assert result.scores.keys() >= {"CIDEr", "Bleu_4"}


# Files of one's own


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_file_can_start_from_a_shipped_recipe(tmp_path: Path) -> None:
    text = 'base = "attend-gru-additive"\n[training]\nepochs = 3\n[decoder]\nhidden_size = 64\n'
    mine, base = load_recipe(write(tmp_path, text)), load_recipe("attend-gru-additive")
    assert mine.name == "mine"
    assert mine.training.epochs == 3
    assert mine.training.batch_size == base.training.batch_size
    assert mine.decoder_options == {**base.decoder_options, "hidden_size": 64}
    assert mine.encoder == base.encoder


def test_another_kind_of_decoder_starts_from_its_own_defaults(tmp_path: Path) -> None:
    text = 'base = "attend-gru-additive"\n[decoder]\nkind = "attend-gru-dot"\n'
    mine = load_recipe(write(tmp_path, text))
    assert (mine.decoder, mine.decoder_options) == ("attend-gru-dot", {})


def test_overrides_reach_every_section() -> None:
    recipe = load_recipe(
        "show-tell-lstm",
        [
            "training.seed=4",
            "encoder.name=resnet18",
            "text.max_words=9",
            "decoder.dropout=0.1",
            "decoding.method=beam",
        ],
    )
    assert (recipe.training.seed, recipe.encoder.name, recipe.text.max_words) == (4, "resnet18", 9)
    assert (recipe.decoder_options["dropout"], recipe.decoding.method) == (0.1, "beam")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[decoder", "mine.toml: not valid TOML"),
        ("", r"must name its decoder: \[decoder\] kind = ... Received: None"),
        ("[decoder]\nkind = 3", "must name its decoder.* Received: 3"),
        (
            '[decoder]\nkind = "show-tell"\n[trainig]\nseed = 1',
            "unknown section 'trainig'. Did you mean 'training'",
        ),
        ('training = 3\n[decoder]\nkind = "show-tell"', "training must be a table. Received: 3"),
        ('[name]\na = 1\n[decoder]\nkind = "show-tell"', "name must be text"),
        (
            '[decoder]\nkind = "show-tell"\n[training]\nepoch = 1',
            "training has no key 'epoch'. Did you mean 'epochs'",
        ),
        ('[decoder]\nkind = "show-tell"\n[training]\nepochs = "9"', "training.epochs must be of type int"),
        ('[decoder]\nkind = "show-tell"\n[decoding]\nbeams = 3', "'beams'. Did you mean 'beam'"),
        (
            'base = "show-tel-lstm"',
            "base = 'show-tel-lstm' is not a shipped recipe. Did you mean 'show-tell-lstm'",
        ),
        ("base = [1]", r"base = \[1\] is not a shipped recipe"),
    ],
)
def test_files_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path, text))


def test_recipes_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"There is no recipe 'show-tell-lsmt'. Did you mean 'show-tell-lstm'"
    ):
        load_recipe("show-tell-lsmt")
    with pytest.raises(ConfigError, match=r"none\.toml: the recipe cannot be read: "):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bytes\.toml: the recipe cannot be read"):
        load_recipe(tmp_path / "bytes.toml")


def test_the_files_themselves_hold_no_key_that_has_no_effect() -> None:
    folder = Path(__file__).resolve().parents[1] / "src/showtell/recipes"
    files = sorted(folder.glob("*.toml"))
    assert {path.stem for path in files} == list_recipes().keys() | list_sequels().keys()
    start = list_recipes()["compact"]
    for path in files:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        read = load_recipe(path.stem, start=start).to_dict()
        for section, values in tables.items():
            if isinstance(values, dict):
                assert values.items() <= read[section].items()
