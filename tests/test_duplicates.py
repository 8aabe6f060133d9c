from __future__ import annotations

import io
import itertools
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from showtell.data.duplicates import (
    HASH_BITS,
    MAX_DISTANCE,
    BitArray,
    find_duplicates,
    group_hashes,
    hash_image,
    hash_images,
)
from showtell.data.records import CaptionedImage, Dataset
from showtell.errors import MissingExtraError, UsageError


def make_dataset(paths: list[Path]) -> Dataset:
    return Dataset("pictures", "folder", tuple(CaptionedImage(path.name, path, ("a",)) for path in paths))


def distance(one: BitArray | None, other: BitArray | None) -> int:
    assert one is not None
    assert other is not None
    return int((one != other).sum())


def save_again(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def crop(image: Image.Image, share: float) -> Image.Image:
    left, upper = share * image.width, share * image.height
    return image.crop((round(left), round(upper), round(image.width - left), round(image.height - upper)))


COPIES = {
    "quality 20": lambda image: save_again(image, 20),
    "half size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "thumbnail": lambda image: image.resize((96, 96)),
    "squashed": lambda image: image.resize((500, 300)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "cropped by 1 %": lambda image: crop(image, 0.01),
}


@pytest.mark.parametrize("change", COPIES)
def test_changed_copies_of_photographs_are_near(photographs: list[Path], change: str) -> None:
    for path in photographs:
        with Image.open(path) as image:
            assert distance(hash_image(image), hash_image(COPIES[change](image))) <= MAX_DISTANCE


def test_different_photographs_are_far_apart(photographs: list[Path]) -> None:
    hashes = hash_images(make_dataset(photographs))
    assert len(hashes) == len(photographs)
    assert min(distance(one, other) for one, other in itertools.combinations(hashes.values(), 2)) > 74


def test_find_duplicates_groups_files_by_what_they_show(photographs: list[Path], tmp_path: Path) -> None:
    copies = []
    with Image.open(photographs[1]) as image:
        for name, change in (("small.png", "thumbnail"), ("bright.jpg", "brighter")):
            COPIES[change](image).save(tmp_path / name)
            copies.append(tmp_path / name)
    calls = []
    groups = find_duplicates(
        make_dataset([*photographs, *copies]), progress=lambda done, total: calls.append((done, total))
    )
    assert groups == [tuple(sorted((photographs[1].name, "small.png", "bright.jpg")))]
    assert calls == [(number, 8) for number in range(1, 9)]
    assert find_duplicates(make_dataset(photographs)) == []


def test_missing_damaged_and_blank_images_are_left_out(photographs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "damaged.jpg").write_bytes(photographs[0].read_bytes()[:400])
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "blue.png")
    files = [tmp_path / name for name in ("damaged.jpg", "red.png", "blue.png", "missing.jpg")]
    dataset = make_dataset([*files, photographs[0]])
    assert list(hash_images(dataset)) == [photographs[0].name]
    assert find_duplicates(dataset) == []


def test_a_blank_image_has_no_hash() -> None:
    assert hash_image(Image.new("RGB", (300, 200), (12, 200, 90))) is None


def flip(bits: BitArray, positions: range) -> BitArray:
    changed = bits.copy()
    changed[list(positions)] ^= True
    return changed


def test_groups_reach_as_far_as_the_distance_and_no_further() -> None:
    bits = np.zeros(HASH_BITS, dtype=np.bool_)
    hashes = {"a": bits, "b": flip(bits, range(MAX_DISTANCE)), "c": flip(bits, range(100, 141))}
    assert group_hashes(hashes) == [("a", "b")]
    assert group_hashes(hashes, max_distance=MAX_DISTANCE + 1) == [("a", "b", "c")]
    assert group_hashes(hashes, max_distance=MAX_DISTANCE - 1) == []
    assert group_hashes({}) == []


def test_neighbours_of_neighbours_belong_together() -> None:
    bits = np.zeros(HASH_BITS, dtype=np.bool_)
    hashes = {"a": bits, "b": flip(bits, range(30)), "c": flip(bits, range(60))}
    assert distance(hashes["a"], hashes["c"]) > MAX_DISTANCE
    assert group_hashes(hashes) == [("a", "b", "c")]


def test_a_long_chain_does_not_become_one_group() -> None:
    bits = np.zeros(HASH_BITS, dtype=np.bool_)
    chain = {f"{step:02d}": flip(bits, range(30 * step)) for step in range(8)}  # 210 bits from end to end
    chain["07 again"] = chain["07"]
    assert group_hashes(chain) == [("07", "07 again")]


def test_thousands_of_copies_of_one_image_are_one_group() -> None:
    bits = np.random.default_rng(0).integers(0, 2, HASH_BITS).astype(np.bool_)
    hashes = {f"{number:04d}": flip(bits, range(number % 8)) for number in range(3000)}
    assert group_hashes(hashes) == [tuple(hashes)]


def test_a_pair_is_found_wherever_it_stands_among_thousands() -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, (2600, HASH_BITS)).astype(np.bool_)
    bits[2500], bits[2100] = flip(bits[3], range(20)), flip(bits[1500], range(20))
    hashes = {f"{row:04d}": bits[row] for row in range(2600)}
    assert group_hashes(hashes) == [("0003", "2500"), ("1500", "2100")]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), max_distance=st.integers(0, 60))
def test_groups_equal_a_plain_search_in_any_order(seed: int, max_distance: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2, (4, HASH_BITS)).astype(np.bool_)
    noise = rng.random((24, HASH_BITS)) < rng.choice([0.0, 0.04, 0.1], (24, 1))
    hashes = {f"{row:02d}": centres[row % 4] ^ noise[row] for row in range(24)}
    groups = group_hashes(hashes, max_distance=max_distance)
    shuffled = list(hashes.items())
    random.Random(seed).shuffle(shuffled)
    assert group_hashes(dict(shuffled), max_distance=max_distance) == groups

    def is_narrow(ids: tuple[str, ...]) -> bool:
        pairs = itertools.combinations(ids, 2)
        return all(distance(hashes[one], hashes[other]) <= 2 * max_distance for one, other in pairs)

    members = [id for group in groups for id in group]
    assert len(members) == len(set(members))
    for closure in close_plainly(hashes, max_distance):
        inside = [group for group in groups if set(group) <= set(closure)]
        assert inside == [closure] if is_narrow(closure) else all(is_narrow(group) for group in inside)


def close_plainly(hashes: dict[str, BitArray], max_distance: int) -> list[tuple[str, ...]]:
    """Transitive closures of two or more ids, by definition."""
    left, closures = sorted(hashes), []
    while left:
        closure = [left.pop(0)]
        for member in closure:  # grows while it is walked
            near = [id for id in left if distance(hashes[member], hashes[id]) <= max_distance]
            closure += near
            left = [id for id in left if id not in near]
        closures.append(tuple(sorted(closure)))
    return [closure for closure in closures if len(closure) > 1]


@pytest.mark.parametrize("max_distance", [-1, 128])
def test_a_distance_that_makes_no_sense_is_refused(max_distance: int) -> None:
    with pytest.raises(UsageError, match=f"between 0 and 127 of 256 bits.*Received: {max_distance}"):
        group_hashes({}, max_distance=max_distance)


def test_without_imagehash_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, photographs: list[Path]
) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(
        MissingExtraError, match=r"near-duplicate images needs.*'imagehash'.*showtell\[train\]"
    ):
        find_duplicates(make_dataset(photographs))


@pytest.mark.shared
def test_real_photographs_of_one_domain_are_told_apart(shared: Path) -> None:
    paths = sorted((shared / "data" / "flickr8k" / "images").glob("28*.jpg"))
    paths.append(shared / "data" / "flickr8k" / "images" / "3050606344_af711c726c.jpg")
    assert len(paths) > 100
    # One photograph was uploaded twice.
    assert find_duplicates(make_dataset(paths)) == [
        ("2851198725_37b6027625.jpg", "3050606344_af711c726c.jpg")
    ]
