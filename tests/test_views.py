"""Several views of each training picture through a frozen encoder: their caches, the draw among them, and runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from showtell.encoders import Encoder, FeatureCache, build_encoder, extract_features, fingerprint_features
from showtell.errors import CacheError, ConfigError, TrainingError, TrainingInterrupted
from showtell.images import View, read_view
from showtell.training import SilentWatcher, train
from showtell.training.sources import CachedImages, open_augmentation
from showtell.training.stored_features import open_features
from tiny_runs import Stopper, assert_equal_checkpoints, shared_dataset, tiny_recipe

CHANGES = {"crop": 0.6, "flip": 0.5, "color": 0.2, "views": 3}


@pytest.fixture(autouse=True)
def quick(without_plots: None) -> None:
    """No plots."""


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder(tiny_recipe().encoder)


def test_a_view_is_extracted_as_it_is_read(encoder: Encoder, tmp_path: Path) -> None:
    dataset = shared_dataset().split("train")
    augmentation = open_augmentation(tiny_recipe(augmentation=CHANGES), dataset)
    assert augmentation is not None
    views = augmentation.keep(1)
    extract_features(dataset, encoder, tmp_path, views=views)
    fingerprint = fingerprint_features(dataset, encoder, views)
    cache = FeatureCache.open(tmp_path, encoder_fingerprint=fingerprint, dataset=dataset)
    pictures = [
        read_view(encoder.preprocessing, image.path, view) for image, view in zip(dataset.images, views)
    ]
    expected = encoder.encode(np.stack(pictures))
    received = cache.features([image.id for image in dataset.images])
    np.testing.assert_allclose(received, expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())
    plain = encoder.encode(np.stack([encoder.preprocessing.read(image.path) for image in dataset.images]))
    assert np.abs(received - plain).max() > 0.1 * np.abs(plain).max()
    with pytest.raises(CacheError, match="foreign"):
        FeatureCache.open(tmp_path, encoder_fingerprint=encoder.fingerprint)


def test_fingerprints_tell_views_and_their_pictures_apart(encoder: Encoder) -> None:
    dataset = shared_dataset().split("train")
    two = replace(dataset, images=dataset.images[:2])
    others = replace(dataset, images=dataset.images[2:4])
    mirrored = [View(mirrored=True), View()]
    found = {
        fingerprint_features(images, encoder, views)
        for images in (two, others)
        for views in (None, [View()] * 2, mirrored, mirrored[::-1])
    }
    assert len(found) == 7  # plain features do not depend on the other pictures
    turned = replace(two, images=two.images[::-1])
    assert fingerprint_features(turned, encoder, mirrored[::-1]) == fingerprint_features(
        two, encoder, mirrored
    )
    assert fingerprint_features(dataset, encoder) == encoder.fingerprint


def test_the_first_view_is_the_picture_itself() -> None:
    augmentation = open_augmentation(
        tiny_recipe(augmentation=CHANGES, training={"seed": 5}), shared_dataset().split("train")
    )
    assert augmentation is not None
    assert set(augmentation.keep(0)) == {View()}
    assert not set(augmentation.keep(1)) & set(augmentation.keep(2))
    assert augmentation.keep(1) == augmentation.keep(1)


def test_one_view_is_drawn_at_each_use_and_dev_is_seen_as_it_is(encoder: Encoder, tmp_path: Path) -> None:
    dataset = shared_dataset().split("train")
    augmentation = open_augmentation(tiny_recipe(augmentation=CHANGES), dataset)
    assert augmentation is not None
    caches = [
        open_features(
            dataset,
            encoder,
            tmp_path / str(number),
            SilentWatcher(),
            views=augmentation.keep(number) if number else None,
        )
        for number in range(3)
    ]
    images = CachedImages(caches, dataset, augmentation)
    kept = np.stack([cache.features([i.id for i in dataset.images]) for [cache] in caches])
    drawn: list[int] = []
    for batch in range(40):
        loaded = images.load([4, 2, 2], (1, batch)).numpy()
        for row, index in zip(loaded, [4, 2, 2]):
            [view] = [number for number in range(3) if np.array_equal(row, kept[number, index])]
            drawn.append(view)
        assert drawn[-1] == drawn[-2]  # a picture is seen in one way in a batch
    counts = np.bincount(drawn[::3], minlength=3)
    assert counts.min() >= 5
    assert counts.sum() == 40
    np.testing.assert_array_equal(np.concatenate(list(images.feature_batches())), kept[0])


def test_views_need_a_recipe_that_can_have_them() -> None:
    cases: list[tuple[dict[str, Any], bool, str]] = [
        ({"crop": 0.8}, False, r"a frozen encoder sees each picture once.*augmentation\.views"),
        ({"flip": 0.5}, False, r"a frozen encoder sees each picture once"),
        ({"color": 0.1}, False, r"a frozen encoder sees each picture once"),
        ({"views": 4}, False, r"views = 4 would be 4 times the same"),
        ({"views": 2, "flip": 0.5}, True, r"views = 2 is for a frozen encoder"),
    ]
    for augmentation, trainable, message in cases:
        with pytest.raises(ConfigError, match=message):
            tiny_recipe(encoder={"trainable": trainable}, augmentation=augmentation)


def test_a_run_with_views_resumes_to_the_bit_and_keeps_its_caches(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        augmentation=CHANGES,
        training={"batching": "image", "batch_size": 4},
        self_critical={"epochs": 1, "batch_size": 4, "samples": 2},
    )
    features = tmp_path / "features"
    train(recipe, shared_dataset(), tmp_path / "whole", features=features)
    for name in ("", "view-1", "view-2"):
        assert (features / name / "manifest.json").is_file()
    assert not (features / "view-3").exists()
    written = (features / "view-2" / "features.npy").stat().st_mtime_ns
    for after in (3, 6):
        with pytest.raises(TrainingInterrupted):
            train(
                recipe,
                shared_dataset(),
                tmp_path / "parts",
                features=features,
                watcher=Stopper(after),
                resume=after > 3,
            )
    train(recipe, shared_dataset(), tmp_path / "parts", features=features, resume=True)
    assert_equal_checkpoints(tmp_path / "whole", tmp_path / "parts")
    assert (features / "view-2" / "features.npy").stat().st_mtime_ns == written

    other = replace(recipe, augmentation=replace(recipe.augmentation, crop=0.8))
    with pytest.raises(CacheError, match=r"view-1: foreign: .* or other views of the pictures"):
        train(other, shared_dataset(), tmp_path / "other", features=features)
    with pytest.raises(TrainingError, match=r"other settings .* augmentation\.crop \(0\.6, now 0\.8\)"):
        train(other, shared_dataset(), tmp_path / "whole", features=features, resume=True)


def test_views_of_several_backbones_lie_beside_their_plain_features(tmp_path: Path) -> None:
    fused = {"name": "test_resnet + test_efficientnet", "weights": "random"}
    one = tiny_recipe(augmentation={**CHANGES, "views": 2}, training={"epochs": 1})
    both = replace(one, encoder=replace(one.encoder, **fused))
    train(both, shared_dataset(), tmp_path / "both", features=tmp_path / "features")
    for name in ("test_resnet", "test_efficientnet"):
        assert (tmp_path / "features" / name / "view-1" / "manifest.json").is_file()
    written = (tmp_path / "features" / "test_resnet" / "view-1" / "manifest.json").stat().st_mtime_ns
    train(one, shared_dataset(), tmp_path / "one", features=tmp_path / "features")
    assert (tmp_path / "features" / "test_resnet" / "view-1" / "manifest.json").stat().st_mtime_ns == written
