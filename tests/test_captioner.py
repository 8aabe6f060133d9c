"""The facade: kinds of images, bad ones among them, order, streaming, seeds, and evaluation in one pass."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from skimage import data

import showtell.captioner
from showtell.captioner import Captioner, ImageLike
from showtell.decoding import DecodingSettings
from showtell.errors import BundleError, ConfigError, ImageError, MetricError, SplitError, UsageError
from showtell.metrics import score
from showtell.training import TorchBackend
from tiny_runs import shared_dataset, trained_run

SAMPLING = DecodingSettings(method="sample", count=2, max_steps=8, seed=3)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.load(trained_run())


@pytest.fixture(scope="module")
def paths() -> list[Path]:
    return [image.path for image in shared_dataset().images]


@pytest.fixture
def encoded(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that go through the encoder."""
    sizes: list[int] = []
    encode = captioner.backend.encode

    def count(pixels: np.ndarray) -> np.ndarray:
        sizes.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(captioner.backend, "encode", count)
    return sizes


def texts(
    captioner: Captioner, images: Sequence[object], settings: DecodingSettings | None = None
) -> list[list[str]]:
    return [[caption.text for caption in picture.captions] for picture in captioner.caption(images, settings)]


# Images


def test_every_kind_of_image_gives_the_same_caption(captioner: Captioner, paths: list[Path]) -> None:
    path = paths[3]
    content = path.read_bytes()
    with path.open("rb") as file, Image.open(path) as image:
        kinds = [path, str(path), content, io.BytesIO(content), file, image, image.convert("RGBA")]
        found = [picture.captions for picture in captioner.caption(kinds)]
    assert len(found) == len(kinds)
    for captions in found:
        assert [caption.text for caption in captions] == [caption.text for caption in found[0]]
        assert captions[0].log_prob == pytest.approx(found[0][0].log_prob, abs=1e-4)


def test_a_caption_knows_its_words(captioner: Captioner, paths: list[Path]) -> None:
    settings = DecodingSettings(method="beam", beam=3, count=3, max_steps=10)
    for picture in captioner.caption(paths[:4], settings):
        assert picture.text == picture.captions[0].text
        assert picture.grid == (2, 2)
        assert [caption.score for caption in picture.captions] == sorted(
            (caption.score for caption in picture.captions), reverse=True
        )
        for caption in picture.captions:
            assert len(caption.words) == len(caption.word_log_probs) >= 1
            assert set(caption.words) <= set(captioner.backend.vocabulary)
            assert caption.log_prob <= sum(caption.word_log_probs) + 1e-6
            assert caption.attention is not None
            assert caption.attention.shape == (len(caption.words), 4)
            np.testing.assert_allclose(caption.attention.sum(axis=1), 1, rtol=1e-4)


def test_bad_images_have_an_error_and_disturb_nobody(
    captioner: Captioner, paths: list[Path], tmp_path: Path, encoded: list[int]
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not a picture")
    bad = [tmp_path / "none.jpg", tmp_path / "empty.jpg", tmp_path / "text.png", b"", tmp_path]
    good = paths[:5]
    mixed = [item for pair in zip(good, bad) for item in pair]
    pictures = list(captioner.caption(mixed))
    right = list(captioner.caption(good))
    assert [picture.error is None for picture in pictures] == [True, False] * 5
    for picture, expected in zip(pictures[::2], right):
        assert picture.text == expected.text
    for picture in pictures[1::2]:
        assert picture.captions == ()
        with pytest.raises(ImageError):
            _ = picture.text
    assert sum(encoded) == 10


def test_only_bad_images(captioner: Captioner, encoded: list[int]) -> None:
    pictures = list(captioner.caption([b"", b"x"]))
    assert [isinstance(picture.error, ImageError) for picture in pictures] == [True, True]
    assert list(captioner.caption([])) == []
    assert encoded == []


def test_order_is_kept(captioner: Captioner, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = [texts(captioner, [path])[0] for path in paths]
    monkeypatch.setattr(showtell.captioner, "BATCH", 4)
    assert texts(captioner, paths) == one_by_one
    assert texts(captioner, paths[::-1]) == one_by_one[::-1]


# Streams


def test_images_are_taken_as_they_are_needed(
    captioner: Captioner, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showtell.captioner, "BATCH", 3)
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield paths[taken % len(paths)]

    results = captioner.caption(endless())
    assert taken == 0
    for number in range(1, 11):
        next(results)
        assert taken <= number + 2 * 3 + 3
    threads = threading.active_count()
    results.close()
    assert threading.active_count() < threads
    assert taken < 20


def test_an_error_of_the_source_reaches_the_caller(captioner: Captioner, paths: list[Path]) -> None:
    def broken() -> Iterator[Path]:
        yield paths[0]
        raise OSError("the network drive is gone")

    with pytest.raises(OSError, match="network drive is gone"):
        list(captioner.caption(broken()))


# Sampling


def test_seeds_reproduce_samples(captioner: Captioner, paths: list[Path]) -> None:
    first = texts(captioner, paths, SAMPLING)
    assert texts(captioner, paths, SAMPLING) == first
    assert texts(captioner, paths, replace(SAMPLING, seed=4)) != first
    assert len({tuple(captions) for captions in texts(captioner, [paths[0]] * 10, SAMPLING)}) > 5


def test_samples_depend_neither_on_batches_nor_on_bad_images(
    captioner: Captioner, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = texts(captioner, paths, SAMPLING)
    with_bad = [*paths[:2], b"", *paths[3:]]
    assert texts(captioner, with_bad, SAMPLING) == [*first[:2], [], *first[3:]]
    monkeypatch.setattr(showtell.captioner, "BATCH", 5)
    assert texts(captioner, paths, SAMPLING) == first
    assert texts(captioner, with_bad, SAMPLING) == [*first[:2], [], *first[3:]]


# Evaluation


def test_each_image_is_encoded_once_and_scores_are_those_of_the_captions(
    captioner: Captioner, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showtell.captioner, "BATCH", 2)
    seen: list[tuple[int, int]] = []
    report = captioner.evaluate(
        shared_dataset(), split="test", progress=lambda done, total: seen.append((done, total))
    )
    images = shared_dataset().split("test").images
    assert encoded == [2, 2, 1]
    assert seen == [(number, 5) for number in range(1, 6)]
    assert list(report.captions) == [image.id for image in images]
    captions = texts(captioner, [image.path for image in images])
    hypotheses = {image.id: found[0] for image, found in zip(images, captions)}
    expected = score({image.id: image.captions for image in images}, hypotheses)
    assert report.scores == expected.corpus
    assert report.per_image == expected.per_image
    assert report.bundle_digest == captioner.digest != ""
    assert report.settings == captioner.settings


def test_several_captions_are_kept_and_the_best_is_scored(captioner: Captioner) -> None:
    settings = DecodingSettings(method="beam", beam=3, count=3, max_steps=8)
    report = captioner.evaluate(shared_dataset(), split="dev", settings=settings)
    best = {identifier: captions[0].text for identifier, captions in report.captions.items()}
    references = {image.id: image.captions for image in shared_dataset().split("dev").images}
    assert report.scores == score(references, best).corpus
    assert all(len(captions) == 3 for captions in report.captions.values())


def test_only_the_first_images(captioner: Captioner, encoded: list[int]) -> None:
    report = captioner.evaluate(shared_dataset(), split="dev", max_images=3)
    assert list(report.captions) == [image.id for image in shared_dataset().split("dev").images[:3]]
    assert encoded == [3]


def test_two_images_with_one_id_are_refused_before_anything_is_decoded(
    captioner: Captioner, encoded: list[int]
) -> None:
    dataset = shared_dataset()
    images = (*dataset.images, replace(dataset.images[-1], captions=("another",)))
    with pytest.raises(MetricError, match=rf"has 2 images with the id '{dataset.images[-1].id}'"):
        captioner.evaluate(replace(dataset, images=images), split="test")
    assert encoded == []


def test_what_cannot_be_evaluated(captioner: Captioner, tmp_path: Path) -> None:
    dataset = shared_dataset()
    with pytest.raises(SplitError, match=r"no images in split 'tset'. Did you mean 'test'"):
        captioner.evaluate(dataset, split="tset")
    lost = replace(dataset.images[-1], path=tmp_path / "gone.png")
    with pytest.raises(ImageError, match=r"gone\.png"):
        captioner.evaluate(replace(dataset, images=(*dataset.images[:-1], lost)), split="test")
    silent = replace(dataset.images[-1], captions=())
    with pytest.raises(MetricError, match=silent.id):
        captioner.evaluate(replace(dataset, images=(silent,)), split="test")


# Loading


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model"):
        Captioner.load(tmp_path / "none")


def test_a_captioner_without_its_encoder(captioner: Captioner, paths: list[Path]) -> None:
    backend = captioner.backend
    assert isinstance(backend, TorchBackend)
    blind = TorchBackend(
        None,
        backend.decoder,
        preprocessing=backend.preprocessing,
        vocabulary=backend.vocabulary,
        grid=backend.grid,
    )
    with pytest.raises(ConfigError, match="opened without its encoder"):
        list(Captioner(blind, captioner.settings).caption(paths[:1]))


# Arrays, and one image by itself


def test_an_array_has_the_caption_of_its_png(captioner: Captioner, tmp_path: Path) -> None:
    colour, grey, deep = data.astronaut(), data.camera(), data.camera().astype(np.uint16) << 7
    glass = np.dstack([data.chelsea(), data.chelsea()[..., 0]])
    mask = data.horse()
    kinds = {"colour": colour, "flipped": colour[::-1, ::-1], "every-other": colour[::2, ::3], "grey": grey}
    kinds |= {"deep": deep, "glass": glass, "mask": mask, "Fortran": np.asfortranarray(colour)}
    for name, array in kinds.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    files = list(captioner.caption([tmp_path / f"{name}.png" for name in kinds]))
    for picture, expected in zip(captioner.caption(kinds.values()), files, strict=True):
        assert picture == expected
    thirds = list(captioner.caption([grey[..., None], colour / 255, (colour / 255).astype(np.float32)]))
    same = list(captioner.caption([grey, colour, colour]))
    assert thirds == same
    for path, array in ((tmp_path / "deep.png", deep), (tmp_path / "glass.png", glass)):
        assert list(captioner.caption(path)) == list(captioner.caption(array))


def test_one_image_need_not_be_in_a_list(captioner: Captioner, paths: list[Path]) -> None:
    path = paths[0]
    [expected] = captioner.caption([path])
    with path.open("rb") as file, Image.open(path) as image:
        ones: list[ImageLike] = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), file]
        ones += [image.copy(), image, np.asarray(image)]
        for one in ones:
            assert list(captioner.caption(one)) == [expected]
        [features], [same] = captioner.encode(path), captioner.encode(np.asarray(image))
    np.testing.assert_array_equal(same, features)
    for nothing in (None, 3, object()):
        with pytest.raises(UsageError, match="must be one image or an iterable of images"):
            list(captioner.caption(nothing))  # type: ignore[arg-type]


def test_four_dimensions_are_a_batch(captioner: Captioner) -> None:
    batch = np.stack([data.astronaut()[:300, :300], data.chelsea()[:300, :300], data.coffee()[:300, :300]])
    expected = list(captioner.caption(list(batch)))
    assert list(captioner.caption(batch)) == expected
    assert list(captioner.caption((batch / 255).astype(np.float32))) == expected
    assert list(captioner.caption(batch[:0])) == []
    [wrong] = captioner.caption([batch])
    assert "It is a batch of pictures: give it by itself" in str(wrong.error)
    first, *_ = captioner.caption(batch.transpose(0, 3, 1, 2))
    assert "array.transpose(1, 2, 0)" in str(first.error)


def test_bad_arrays_disturb_nobody(captioner: Captioner) -> None:
    good = data.chelsea()
    pictures = list(captioner.caption([good, good.astype(float), good[:0], np.array(["a.jpg"]), good]))
    assert [picture.error is None for picture in pictures] == [True, False, False, False, True]
    assert pictures[0] == pictures[4]
    with pytest.raises(ImageError, match=r"array / 255"):
        _ = pictures[1].text


def test_a_generator_may_use_its_memory_again(captioner: Captioner) -> None:
    frames = [np.ascontiguousarray(data.astronaut()[place : place + 200]) for place in range(0, 300, 10)]
    buffer = np.empty_like(frames[0])

    def film() -> Iterator[np.ndarray]:
        for frame in frames:
            buffer[:] = frame
            yield buffer

    assert list(captioner.caption(film())) == list(captioner.caption(frames))


def test_the_frames_of_an_animation(captioner: Captioner, tmp_path: Path) -> None:
    frames = [Image.fromarray(data.astronaut()[place : place + 64, :64]) for place in range(0, 400, 20)]
    frames[0].save(tmp_path / "film.png", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "film.png") as film:
        assert list(captioner.caption(ImageSequence.Iterator(film))) == list(captioner.caption(frames))


def test_a_pillow_image_may_come_again_and_again(captioner: Captioner, photographs: list[Path]) -> None:
    for _ in range(5):
        with Image.open(photographs[0]) as image:
            first, *others = captioner.caption([image] * 8, workers=4)
        assert first.error is None
        assert [other.text for other in others] == [first.text] * 7


def test_what_cannot_hold_is_refused_before_an_image_is_taken(exported_model: str) -> None:
    captioner = Captioner.load(exported_model)

    def never() -> Iterator[Path]:
        raise AssertionError("an image was taken")
        yield Path()

    beam = replace(captioner.settings, method="beam", beam=2, consensus=0.0)
    with pytest.raises(ConfigError, match="zebrafish"):
        captioner.caption(never(), replace(beam, include=("zebrafish",)))
    with pytest.raises(ConfigError, match="does not know the captions of its training pictures"):
        captioner.caption(never(), replace(beam, consensus=0.5))
    with pytest.raises(UsageError, match="one image or an iterable of images"):
        captioner.caption(3)  # type: ignore[arg-type]
    captioner.caption(never(), beam).close()
