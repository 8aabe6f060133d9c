"""Several backbones as one encoder: the same features as each alone, cached apart, bundled, exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from showtell.bundle import load_bundle
from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.config import EncoderConfig
from showtell.encoders import (
    Encoder,
    FeatureCache,
    WeightsSource,
    build_encoder,
    extract_features,
    list_caches,
    restore_encoder,
)
from showtell.encoders.zoo import create_backbone
from showtell.errors import CacheError, ConfigError, EncoderError
from showtell.exporter import export_model
from showtell.exporter.quantize import quantize_encoder
from showtell.portable import ENCODER, load_portable
from showtell.recipes import Recipe
from showtell.runtime import EngineOptions
from showtell.runtime.engine import open_engine
from showtell.training import train
from showtell.training.stored_features import open_features
from showtell.training.watcher import SilentWatcher
from test_export import ENGINES, WORDS, random_bundle, record_logits, scenes
from tiny_runs import POOLING, scratch_folder, shared_dataset, tiny_recipe

NAMES = ("test_resnet", "test_efficientnet")  # of two different means, deviations and interpolations
BOTH = " + ".join(NAMES)
Capture = pytest.CaptureFixture[str]


def build(name: str = BOTH, **settings: Any) -> Encoder:
    settings = {"weights": "random", "image_size": 64, "precision": "float32", **settings}
    return build_encoder(EncoderConfig(name=name, **settings))


def pictures(count: int = 3, size: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def recipe(**sections: Any) -> Recipe:
    """Trains on two backbones."""
    sections["encoder"] = {"name": BOTH, **sections.get("encoder", {})}
    sections["training"] = {"epochs": 1, **sections.get("training", {})}
    return tiny_recipe(**sections)


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SHOWTELL_WEIGHTS", raising=False)


# Configuration


def test_a_configuration_knows_its_backbones() -> None:
    one = EncoderConfig(name="resnet18", weights="folder/a + b.safetensors")
    assert one.backbones() == (one,)
    for_all = EncoderConfig(name="resnet18+resnet50", weights="random", image_size=64)
    assert for_all.name == "resnet18 + resnet50"
    assert for_all.backbones() == (
        EncoderConfig(name="resnet18", weights="random", image_size=64),
        EncoderConfig(name="resnet50", weights="random", image_size=64),
    )
    each = EncoderConfig(name="a + b + c", weights="c++/a.safetensors + imagenet + b.pth")
    assert [own.weights for own in each.backbones()] == ["c++/a.safetensors", "imagenet", "b.pth"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a + "}, r"encoder.name must name a backbone, or several .* Received: 'a \+ '"),
        ({"name": ""}, "encoder.name must name a backbone"),
        ({"name": "a + b + a"}, r"has the backbone 'a' twice, .* Received: 'a \+ b \+ a'"),
        (
            {"name": "a + b", "weights": "a.pth"},
            r"one file for each backbone, joined by ' \+ ', or imagenet or random or from for all. "
            r"Received: 1 \('a.pth'\) for 2 \('a \+ b'\)",
        ),
        ({"name": "a + b", "weights": "a.pth + b.pth + c.pth"}, r"Received: 3 .* for 2"),
        ({"name": "a", "weights": "a.pth + b.pth"}, r"Received: 2 \('a.pth \+ b.pth'\) for 1 \('a'\)"),
        ({"name": "a", "weights": "random + imagenet"}, r"Received: 2 .* for 1"),
    ],
)
def test_backbones_that_cannot_be_one_encoder_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EncoderConfig(**settings)


# Features


@pytest.mark.parametrize("output", ["grid", "pooled"])
def test_features_are_those_of_each_backbone_side_by_side(output: str) -> None:
    fused = build(output=output)
    alone = [build(name, output=output) for name in NAMES]
    seen = pictures()
    expected = np.concatenate([encoder.encode(seen) for encoder in alone], axis=-1)
    np.testing.assert_array_equal(fused.encode(seen), expected)
    assert fused.channels == sum(encoder.channels for encoder in alone)
    assert fused.shape == expected.shape[1:]
    assert fused.grid == (2, 2)
    scaled = fused.preprocessing.normalise(seen)
    np.testing.assert_allclose(fused.encode(scaled), expected, atol=1e-5)
    np.testing.assert_allclose(fused(torch.from_numpy(scaled)).numpy(), expected, atol=1e-5)
    assert fused.encode(seen[:0]).shape == (0, *fused.shape)
    with pytest.raises(EncoderError, match=r"pixels must be uint8 \(images, 64, 64, 3\)"):
        fused.encode(seen[:, :32])


def test_each_backbone_normalises_in_its_own_way() -> None:
    fused = build()
    means = [member.preprocessing.mean for member in fused.members]
    assert means == [(0.5, 0.5, 0.5), (0.485, 0.456, 0.406)]
    assert (fused.preprocessing.mean, fused.preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)


def test_all_see_the_pixels_that_the_first_one_wants() -> None:
    fused = build()
    assert build(NAMES[1]).preprocessing.interpolation == "bicubic"
    assert [member.preprocessing.interpolation for member in fused.members] == ["bilinear"] * 2
    assert fused.members[0].fingerprint == build(NAMES[0]).fingerprint
    assert fused.members[1].fingerprint != build(NAMES[1]).fingerprint  # it sees other pixels than alone
    turned = build("test_efficientnet + test_byobnet")  # both want the same
    assert [member.fingerprint for member in turned.members] == [
        build(name).fingerprint for name in ("test_efficientnet", "test_byobnet")
    ]


def test_the_fingerprint_depends_on_the_order_and_the_output() -> None:
    fused = build("test_efficientnet + test_byobnet")
    again, turned = build("test_efficientnet + test_byobnet"), build("test_byobnet + test_efficientnet")
    pooled = build("test_efficientnet + test_byobnet", output="pooled")
    assert again.fingerprint == fused.fingerprint
    assert len({fused.fingerprint, turned.fingerprint, pooled.fingerprint}) == 3


def test_it_stays_frozen() -> None:
    fused = build()
    before = {name: value.clone() for name, value in fused.state_dict().items()}
    fused.train()
    fused(torch.rand(2, 3, 64, 64))
    assert not any(module.training for module in fused.modules())
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(torch.equal(value, before[name]) for name, value in fused.state_dict().items())


def test_grids_of_different_sizes_are_refused_but_not_their_means() -> None:
    with pytest.raises(ConfigError) as caught:
        build("test_resnet + test_vit")
    assert "test_resnet has 2x2, test_vit has 4x4 cells" in str(caught.value)
    assert 'encoder.output = "pooled"' in str(caught.value)
    pooled = build("test_resnet + test_vit", output="pooled")
    assert pooled.encode(pictures()).shape == (3, 96 + 64)


def test_pictures_of_different_sizes_are_refused() -> None:
    message = "resnet18 takes 224x224, test_resnet takes 160x160. Set encoder.image_size"
    with pytest.raises(ConfigError, match=message):
        build("resnet18 + test_resnet", image_size=0)


def test_the_same_weights_under_two_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="the same backbone with the same weights twice"):
        build("resnet18 + resnet18.a1_in1k")


def test_a_mistyped_backbone_among_several_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no backbone 'test_resnt'. Did you mean 'test_resnet'"):
        build("test_efficientnet + test_resnt")


# Records


def weights_file(folder: Path, name: str) -> Path:
    """Weights of a backbone in a file that says how to feed it."""
    torch.manual_seed(5)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file(create_backbone(name, {}).state_dict(), path, metadata={"mean": "0.25", "std": "0.3"})
    return path


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    path = weights_file(tmp_path, NAMES[0])
    with pytest.raises(EncoderError, match=r"gone\.safetensors"):
        build(weights=f"{path} + {tmp_path / 'gone.safetensors'}")


def test_a_record_finds_every_backbone_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [weights_file(tmp_path / "here", name) for name in NAMES]
    fused = build(weights=" + ".join(map(str, paths)))
    record = WeightsSource.from_dict(json.loads(json.dumps(fused.source.to_dict())))
    assert record == fused.source
    assert [member.source.file_name for member in record.members] == [path.name for path in paths]
    moved = [path.rename(tmp_path / f"renamed-{path.name}") for path in paths]
    config = replace(fused.config, weights="test_resnet.safetensors + test_efficientnet.safetensors")
    monkeypatch.setenv("SHOWTELL_WEIGHTS", str(tmp_path))
    assert build_encoder(config, source=record).fingerprint == fused.fingerprint
    moved[1].unlink()
    with pytest.raises(EncoderError) as caught:
        build_encoder(config, source=record)
    assert "test_efficientnet.safetensors" in str(caught.value)
    assert fused.members[1].source.digest in str(caught.value)


def test_an_encoder_at_hand_is_restored(tmp_path: Path) -> None:
    path = weights_file(tmp_path, NAMES[0])
    fused = build(weights=f"{path} + random")
    path.unlink()
    again = restore_encoder(fused.config, fused.source, fused.preprocessing, fused.state_dict())
    assert again.fingerprint == fused.fingerprint
    assert again.preprocessing == fused.preprocessing
    np.testing.assert_array_equal(again.encode(pictures()), fused.encode(pictures()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record["members"].pop(),
        lambda record: record.pop("members"),
        lambda record: record["members"][0].pop("preprocessing"),
        lambda record: record["members"][0]["preprocessing"].update(std=[0, 0, 0]),
        lambda record: record["members"][0]["source"].update(kind="magic"),
        lambda record: record["members"][0]["source"].update(arguments={"checkpoint_path": "x.pth"}),
        lambda record: record["members"].__setitem__(0, json.loads(json.dumps({"source": record}))),
        lambda record: record.update(members="ab"),
        lambda record: record.update(kind="random"),
        lambda record: record["members"].reverse(),
    ],
)
def test_damaged_records_are_refused(damage: Any) -> None:
    fused = build()
    record = fused.source.to_dict()
    damage(record)
    with pytest.raises(EncoderError, match=r"record of the encoder's weights|but its weights are of"):
        build_encoder(fused.config, source=WeightsSource.from_dict(record))


def test_records_of_single_backbones_say_nothing_of_members() -> None:
    assert sorted(build(NAMES[0]).source.to_dict()) == [
        "address",
        "arguments",
        "digest",
        "file_name",
        "identities",
        "kind",
        "name",
        "seed",
    ]


# Caches


@pytest.fixture(scope="module")
def trained() -> Iterator[Path]:
    """A run on two backbones, whose caches are beside it."""
    run = scratch_folder() / "fused-run"
    train(recipe(), shared_dataset(), run, features=scratch_folder() / "fused-features")
    yield run
    shutil.rmtree(run)


def test_each_backbone_has_a_cache_that_single_ones_share(trained: Path) -> None:
    del trained
    folder = scratch_folder() / "fused-features"
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    fused, dataset = build(), shared_dataset().split("train")
    with FeatureCache.open(folder / NAMES[0], encoder_fingerprint=build(NAMES[0]).fingerprint) as cache:
        assert cache.shape == (4, 96)
    again = extract_features(dataset, build(NAMES[0]), folder / NAMES[0])
    assert again.images == 0
    ids = [image.id for image in dataset.images[:3]]
    parts = [FeatureCache.open(own).features(ids) for _, own in list_caches(fused, folder)]
    pixels = np.stack([fused.preprocessing.read(image.path) for image in dataset.images[:3]])
    np.testing.assert_allclose(np.concatenate(parts, axis=-1), fused.encode(pixels), atol=1e-3)


class Notes(SilentWatcher):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_what_one_backbone_has_already_is_not_computed_again(tmp_path: Path) -> None:
    dataset = shared_dataset().split("dev")
    first, both = Notes(), Notes()
    open_features(dataset, build("test_efficientnet"), None, first)
    assert [note.split(" in ")[0] for note in first.notes] == ["features of 5 images"]
    caches = open_features(dataset, build("test_efficientnet + test_byobnet"), None, both)
    assert len(both.notes) == 1
    assert "test_byobnet-" in both.notes[0]
    assert [cache.shape for cache in caches] == [(4, 256), (4, 256)]
    folders = sorted(path.name for path in (tmp_path / "cache/features").iterdir())
    assert [name.partition("-")[0] for name in folders] == ["test_byobnet", "test_efficientnet"]


def test_a_single_backbone_finds_its_cache_among_others(tmp_path: Path) -> None:
    dataset, one = shared_dataset().split("dev"), build("test_efficientnet")
    assert list_caches(one, tmp_path) == [(one, tmp_path)]
    fused = build("test_efficientnet + test_byobnet")
    open_features(dataset, fused, tmp_path, SilentWatcher())
    assert list_caches(one, tmp_path) == [(one, tmp_path / "test_efficientnet")]
    [cache] = open_features(dataset, one, tmp_path, SilentWatcher())
    assert cache.folder == tmp_path / "test_efficientnet"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == [
        "test_byobnet",
        "test_efficientnet",
    ]


def test_the_cache_of_one_backbone_is_no_folder_of_caches(tmp_path: Path) -> None:
    dataset = shared_dataset().split("dev")
    extract_features(dataset, build(NAMES[0]), tmp_path / "one")
    with pytest.raises(CacheError, match=r"of a single backbone, and the encoder has 2. Give a folder"):
        open_features(dataset, build(), tmp_path / "one", SilentWatcher())
    with pytest.raises(EncoderError, match=r"has 2 backbones. Each has a cache of its own"):
        extract_features(dataset, build(), tmp_path / "other")


def test_a_foreign_cache_in_the_folder_is_refused(tmp_path: Path) -> None:
    dataset = shared_dataset().split("dev")
    extract_features(dataset, build(NAMES[1]), tmp_path / NAMES[1])  # sees other pixels than in the fusion
    with pytest.raises(CacheError, match=r"foreign: .* test_efficientnet"):
        open_features(dataset, build(), tmp_path, SilentWatcher())


def test_the_command_fills_one_cache_for_each(tmp_path: Path, capsys: Capture) -> None:
    data = str(shared_dataset().images[0].path.parent.parent)
    words = [
        "features",
        data,
        "--image-size",
        "64",
        "--weights",
        "random",
        "--output",
        str(tmp_path / "both"),
    ]
    assert main([*words, "--encoder", NAMES[0], "--encoder", NAMES[1]]) == 0
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(report["encoder"], report["images"]) for report in reports] == [(name, 26) for name in NAMES]
    assert main([*words, "--encoder", BOTH]) == 0
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(report["images"], report["reused"]) for report in reports] == [(0, 26)] * 2
    assert main([*words, "--encoder", BOTH, "--weights", "imagenet", "--weights", "random"]) == 2
    assert "Received: 3" in capsys.readouterr().err


# Training, bundles, export


def test_a_trained_bundle_names_both_backbones_and_captions(trained: Path, photographs: list[Path]) -> None:
    bundle = load_bundle(trained)
    assert (bundle.encoder.channels, bundle.encoder.cells) == (352, 4)
    assert bundle.recipe.encoder.name == BOTH
    assert bundle.encoder_weights is None
    members = bundle.encoder.source["members"]
    assert [member["source"]["name"] for member in members] == list(NAMES)
    assert [member["source"]["digest"] for member in members] == [
        member.source.digest for member in build().members
    ]
    captions = Captioner.load(trained).caption(photographs[:2])
    assert all(picture.error is None for picture in captions)


def test_training_reads_both_caches(trained: Path, tmp_path: Path) -> None:
    again = train(
        recipe(), shared_dataset(), tmp_path / "again", features=scratch_folder() / "fused-features"
    )
    weights, expected = load_bundle(again.bundle).decoder_weights, load_bundle(trained).decoder_weights
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)
    # Without the second backbone's features, the decoder would not learn to read them.
    reader = next(name for name, value in expected.items() if value.ndim == 2 and value.shape[1] == 352)
    from showtell.training.model import build_decoder

    fresh = build_decoder(recipe(), channels=352, vocab_size=len(load_bundle(trained).vocabulary))
    moved = np.abs(expected[reader] - fresh.state_dict()[reader].numpy())
    assert moved[:, :96].max() > 0
    assert moved[:, 96:].max() > 0


def test_bundles_from_files_tell_no_folders_and_find_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [weights_file(tmp_path / f"secret {name}", name) for name in NAMES]
    weights = " + ".join(map(str, paths))
    run = tmp_path / "run"
    result = train(recipe(encoder={"weights": weights}, decoder=POOLING), shared_dataset(), run)
    assert "secret" not in (result.bundle / "bundle.json").read_text()
    assert (
        load_bundle(run).recipe.encoder.weights == "test_resnet.safetensors + test_efficientnet.safetensors"
    )
    picture = shared_dataset().images[0].path
    [before] = Captioner.load(run).caption([picture])  # the run knows where they were
    for path in paths:
        path.rename(tmp_path / path.name)
    with pytest.raises(EncoderError, match=r"not found: test_resnet\.safetensors"):
        Captioner.load(run)
    monkeypatch.setenv("SHOWTELL_WEIGHTS", str(tmp_path))
    [after] = Captioner.load(run).caption([picture])
    assert after.text == before.text


@pytest.fixture(scope="module")
def exported() -> tuple[Path, Path]:
    """A bundle that includes both backbones, and its export."""
    folder = scratch_folder() / "fused-export"
    bundle = random_bundle(recipe(), folder / "bundle")
    export_model(bundle, folder / "exported")
    return bundle, folder / "exported"


def test_an_exported_fusion_gives_the_logits_of_torch(exported: tuple[Path, Path]) -> None:
    bundle, folder = exported
    model = load_portable(folder)
    assert model.feature_shape == (4, 352)
    assert model.dynamic_size
    theirs = Captioner.load(bundle).backend
    expected = theirs.encode(scenes(3))
    for engine in ENGINES:
        ours = Captioner.load(folder, engine=engine, precision="float32").backend
        features = ours.encode(scenes(3))
        np.testing.assert_allclose(features, expected, atol=1e-4)
        for (logits, _), (right, _) in zip(
            record_logits(ours, features, WORDS), record_logits(theirs, expected, WORDS)
        ):
            np.testing.assert_allclose(logits, right, atol=1e-4)


def test_a_fusion_in_8_bits_is_near_float32(exported: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, folder = exported
    graph = tmp_path / ENCODER
    graph.write_bytes((folder / ENCODER).read_bytes())
    quantize_encoder(graph, [pixels[None] for pixels in scenes(24)])
    exact = Captioner.load(bundle).backend.encode(scenes(40)[24:])
    for name in ENGINES:
        engine = open_engine(EngineOptions(name, "float32", cache=tmp_path / "cache"))
        [rounded] = engine.open(graph, precision="float32").run([scenes(40)[24:]])
        for part in (slice(96), slice(96, None)):  # of each backbone
            ours, right = rounded[..., part], exact[..., part]
            similarity = (ours * right).sum() / np.linalg.norm(ours) / np.linalg.norm(right)
            assert 0.95 < similarity < 0.999999, f"{name}, {part}: {similarity}"


# The shared backbones

FILES = ("mobilenet_edgetpu_100.safetensors", "tf_efficientnet_lite0.safetensors")
SHARED_NAMES = tuple(file.removesuffix(".safetensors") for file in FILES)


@pytest.mark.shared
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_shared_backbones_see_together_what_each_sees(
    shared: Path, photographs: list[Path], precision: str
) -> None:
    paths = [str(shared / "weights" / file) for file in FILES]
    fused = build(" + ".join(SHARED_NAMES), weights=" + ".join(paths), image_size=0, precision=precision)
    pixels = np.stack([fused.preprocessing.read(path) for path in photographs[:3]])
    alone = [
        build(name, weights=path, image_size=0, precision=precision)
        for name, path in zip(SHARED_NAMES, paths)
    ]
    expected = np.concatenate([encoder.encode(pixels) for encoder in alone], axis=-1)
    assert expected.shape == (3, 49, 2560)
    np.testing.assert_array_equal(fused.encode(pixels), expected)
    assert [member.fingerprint for member in fused.members] == [encoder.fingerprint for encoder in alone]


@pytest.mark.shared
def test_an_exported_fusion_of_shared_backbones_sees_the_same(
    shared: Path, photographs: list[Path], tmp_path: Path
) -> None:
    weights = " + ".join(str(shared / "weights" / file) for file in FILES)
    together = {"name": " + ".join(SHARED_NAMES), "weights": weights, "image_size": 0}
    bundle = random_bundle(recipe(encoder=together), tmp_path / "bundle", include_encoder=True)
    export_model(bundle, tmp_path / "exported")
    ours = Captioner.load(tmp_path / "exported", precision="float32").backend
    theirs = Captioner.load(bundle).backend
    pixels = np.stack([ours.preprocessing.read(path) for path in photographs[:3]])
    expected = theirs.encode(pixels)
    assert np.abs(ours.encode(pixels) - expected).max() < 1e-3 * np.abs(expected).max()
