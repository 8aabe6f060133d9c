"""Bundles: written, found, read back, and refused where their parts do not fit together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from showtell.bundle import find_bundle, load_bundle, save_bundle
from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.errors import BundleError, EncoderError, ShowtellError
from showtell.files import digest_file
from showtell.packing import compress, expand
from showtell.text import Vocabulary
from showtell.training import train
from showtell.training.model import open_backend
from tiny_runs import POOLING, shared_dataset, tiny_recipe, trained_run


@pytest.fixture(scope="module")
def whole() -> Path:
    """A bundle that includes its frozen encoder."""
    return find_bundle(trained_run(include_encoder=True))


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[Any], Any]) -> None:
    """Changes bundle.json."""
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def list_again(folder: Path, name: str) -> None:
    """Makes bundle.json list a file as it is now."""
    edit(folder, lambda manifest: manifest["files"].update({name: digest_file(folder / name)}))


# Round trips


def test_what_is_saved_is_loaded(whole: Path, tmp_path: Path) -> None:
    bundle = load_bundle(whole)
    digest = save_bundle(bundle, tmp_path / "again")
    assert digest == digest_file(tmp_path / "again/bundle.json") == bundle.digest
    again = load_bundle(tmp_path / "again")
    for name in ("recipe", "vocabulary", "preprocessing", "encoder", "split_fingerprint", "scores", "digest"):
        assert getattr(again, name) == getattr(bundle, name), name
    for weights, right in (
        (again.decoder_weights, bundle.decoder_weights),
        (again.encoder_weights, bundle.encoder_weights),
    ):
        assert weights is not None
        assert right is not None
        assert weights.keys() == right.keys()
        for name, array in weights.items():
            assert (array.dtype, array.shape) == (right[name].dtype, right[name].shape), name
            np.testing.assert_array_equal(array, right[name])
    assert bundle.split_fingerprint == shared_dataset().fingerprint()
    assert bundle.scores["dev"]["images"] == 5
    assert {"CIDEr", "Bleu_4", "epoch", "beam"} <= bundle.scores["dev"].keys()


def test_vocabulary_is_counted_on_the_training_split_alone(whole: Path) -> None:
    training = shared_dataset().split("train")
    captions = [caption for image in training.images for caption in image.captions]
    assert load_bundle(whole).vocabulary == Vocabulary.from_captions(captions)


def test_a_referenced_encoder_captions_like_an_included_one(whole: Path) -> None:
    run = trained_run()
    referenced = find_bundle(run)
    assert not (referenced / "encoder.safetensors").exists()
    assert json.loads((referenced / "bundle.json").read_text())["encoder"]["included"] is False
    paths = [image.path for image in shared_dataset().split("test").images]
    captions = [[picture.text for picture in Captioner.load(model).caption(paths)] for model in (run, whole)]
    assert captions[0] == captions[1]


def test_a_trained_encoder_is_included_and_has_its_own_fingerprint(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        encoder={"trainable": True, "image_size": 32},
        decoder=POOLING,
        training={"epochs": 1, "encoder_learning_rate": 0.01},
    )
    result = train(recipe, shared_dataset(), tmp_path / "run")
    bundle = load_bundle(result.bundle)
    assert bundle.encoder_weights is not None
    started_from = json.loads((tmp_path / "run/recipe.json").read_text())["fingerprints"]["encoder"]
    assert bundle.encoder.fingerprint != started_from
    backend = open_backend(bundle, result.bundle)
    assert backend.encoder is not None
    assert backend.encoder.fingerprint == bundle.encoder.fingerprint
    assert not backend.encoder.training
    for name, tensor in backend.encoder.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), bundle.encoder_weights[name])


def test_nothing_is_pickled() -> None:
    suffixes = {path.suffix for path in trained_run(include_encoder=True).rglob("*") if path.is_file()}
    assert suffixes == {".json", ".jsonl", ".png", ".safetensors", ".lock"}  # the lock is empty


def test_a_bundle_can_be_moved(copy: Path, whole: Path) -> None:
    moved = copy.rename(copy.with_name("моё 模型"))
    assert load_bundle(moved).digest == load_bundle(whole).digest


def test_a_folder_with_something_in_it_is_not_overwritten(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with pytest.raises(BundleError, match=r"not empty. Choose a new folder"):
        save_bundle(load_bundle(whole), tmp_path)


# Finding


def test_a_run_means_its_best_bundle() -> None:
    run = trained_run()
    assert find_bundle(run) == run / json.loads((run / "best.json").read_text())["bundle"]
    assert find_bundle(find_bundle(run)) == find_bundle(run)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model"):
        find_bundle(tmp_path / "none")
    with pytest.raises(BundleError, match=r"not a bundle \(no bundle.json\) and not a run folder"):
        find_bundle(tmp_path)
    (tmp_path / "recipe.json").touch()
    with pytest.raises(BundleError, match="a run without a finished evaluation yet"):
        find_bundle(tmp_path)
    for content, name in (('{"bundle": "bundles/x"}', "'bundles/x'"), ("[]", "None"), ('{"bundle": 3}', "3")):
        (tmp_path / "best.json").write_text(content)
        with pytest.raises(BundleError, match=rf"best\.json: names the bundle {name}, which is not there"):
            find_bundle(tmp_path)
    (tmp_path / "best.json").write_text("{")
    with pytest.raises(BundleError, match=r"best\.json: cannot be read"):
        find_bundle(tmp_path)


# Refusals


@pytest.mark.parametrize("name", ["vocabulary.json", "decoder.safetensors", "encoder.safetensors"])
def test_parts_that_are_missing_truncated_or_foreign(name: str, copy: Path) -> None:
    path = copy / name
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(
        BundleError, match=rf"{name}: its content .* truncated, changed, or from another bundle"
    ):
        load_bundle(copy)
    list_again(copy, name)  # even where somebody made the list fit
    with pytest.raises(BundleError, match=name):
        load_bundle(copy)
    path.unlink()
    with pytest.raises(BundleError, match=rf"{name}: missing. The bundle is incomplete"):
        load_bundle(copy)


def test_a_vocabulary_of_another_size(copy: Path) -> None:
    vocabulary = load_bundle(copy).vocabulary
    Vocabulary(vocabulary.words[:-1]).save(copy / "vocabulary.json")
    with pytest.raises(BundleError, match=r"vocabulary\.json: its content"):
        load_bundle(copy)
    list_again(copy, "vocabulary.json")
    size = len(vocabulary)
    with pytest.raises(BundleError, match=rf"the vocabulary has {size - 1} ids, .* trained with {size}"):
        load_bundle(copy)
    edit(copy, lambda manifest: manifest["vocabulary"].update(size=size - 1))
    with pytest.raises(BundleError, match=r"decoder\.safetensors: the weights do not fit .* vocabulary"):
        Captioner.load(copy)


def test_decoder_weights_of_another_recipe(copy: Path) -> None:
    edit(copy, lambda manifest: manifest["recipe"]["decoder"].update(hidden_size=8))
    with pytest.raises(BundleError, match=r"decoder\.safetensors: the weights do not fit the recipe"):
        Captioner.load(copy)
    edit(copy, lambda manifest: manifest["recipe"]["decoder"].update(kind="attend-gru-dt"))
    with pytest.raises(
        BundleError, match=r"bundle\.json: the recipe's decoder .* Did you mean 'attend-gru-dot'"
    ):
        Captioner.load(copy)


def test_another_encoder(copy: Path) -> None:
    edit(copy, lambda manifest: manifest["encoder"].update(fingerprint="0" * 64))
    with pytest.raises(BundleError, match=r"'test_resnet' built here .* is not the one that the decoder"):
        Captioner.load(copy)


@pytest.mark.parametrize("run", [trained_run, partial(trained_run, include_encoder=True)])
def test_another_preprocessing(run: Callable[[], Path], tmp_path: Path) -> None:
    """Pictures that are cropped for an encoder that learned on squashed ones give worse captions, silently."""
    folder = Path(shutil.copytree(find_bundle(run()), tmp_path / "copy"))
    edit(folder, lambda manifest: manifest["preprocessing"].update(fit="crop"))
    with pytest.raises(BundleError, match=r"They belong to different|is not the one that the decoder"):
        Captioner.load(folder)


@pytest.mark.parametrize("version", [2, 999])
def test_a_newer_format(version: int, copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(format_version=version, showtell="9.1"))
    with pytest.raises(BundleError, match=rf"bundle format {version}, written by Showtell 9\.1.* Update"):
        load_bundle(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "null", "{}", '{"format_version": "1"}'])
def test_a_bundle_json_that_is_none(content: str, copy: Path) -> None:
    (copy / "bundle.json").write_text(content)
    with pytest.raises(BundleError, match=r"bundle\.json: (cannot be read|not a Showtell bundle)"):
        load_bundle(copy)


def paths_in(value: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*before, key)
            yield from paths_in(inner, (*before, key))


def test_every_damage_of_bundle_json_is_an_error_of_ours(copy: Path) -> None:
    """Each key is left out, then has a value of another type: captioning works, or a ShowtellError says why."""
    text = (copy / "bundle.json").read_text()
    refused = 0
    for path in paths_in(json.loads(text)):
        if path[0] in ("scores", "showtell"):
            continue
        for value in ("missing", None, [1], "x"):
            manifest = json.loads(text)
            table = manifest
            for key in path[:-1]:
                table = table[key]
            if value == "missing":
                del table[path[-1]]
            else:
                table[path[-1]] = value
            (copy / "bundle.json").write_text(json.dumps(manifest))
            try:
                load_bundle(copy)
            except BundleError as error:
                assert str(copy) in str(error)  # noqa: PT017
                refused += 1
    assert refused > 100


def test_a_damaged_record_of_the_weights(copy: Path) -> None:
    edit(copy, lambda manifest: manifest["encoder"]["source"].pop("name"))
    with pytest.raises(ShowtellError, match="record of the encoder's weights is damaged"):
        Captioner.load(copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("digest", None),
        ("digest", 7),
        ("seed", "x"),
        ("identities", [[]]),
        ("arguments", {"checkpoint_path": "weights.pth"}),  # timm would unpickle that file
        ("arguments", {"pretrained": True}),
    ],
)
def test_a_record_of_the_weights_that_showtell_does_not_write(key: str, value: object, copy: Path) -> None:
    edit(copy, lambda manifest: manifest["encoder"]["source"].update({key: value}))
    with pytest.raises(EncoderError, match=rf"record of the encoder's weights is damaged: .*{key}"):
        Captioner.load(copy)


@pytest.mark.parametrize(("key", "value"), [("channels", -1), ("cells", 0), ("included", "yes")])
def test_values_that_no_encoder_has(key: str, value: object, copy: Path) -> None:
    edit(copy, lambda manifest: manifest["encoder"].update({key: value}))
    with pytest.raises(BundleError, match=rf"damaged: encoder\.{key} must be .* Received: {value!r}"):
        load_bundle(copy)


def test_half_written_bundles_are_none(copy: Path) -> None:
    (copy / "bundle.json").unlink()  # it is written last
    with pytest.raises(BundleError, match="not a bundle"):
        load_bundle(copy)


# Backbones that came from elsewhere


@pytest.mark.shared
def test_a_frozen_backbone_is_found_by_its_digest(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SHOWTELL_WEIGHTS", raising=False)
    weights = tmp_path / "here" / "mobilenet_edgetpu_100.safetensors"
    weights.parent.mkdir()
    shutil.copy(shared / "weights" / weights.name, weights)
    recipe = tiny_recipe(
        encoder={"name": "mobilenet_edgetpu_100", "weights": str(weights), "image_size": 64},
        training={"epochs": 1},
    )
    dataset = replace(
        shared_dataset(), images=tuple(image for image in shared_dataset().images if image.split != "test")
    )
    result = train(recipe, dataset, tmp_path / "run")
    picture = dataset.images[0].path
    [before] = Captioner.load(result.bundle).caption([picture])  # where it was in training
    assert str(tmp_path) not in (result.bundle / "bundle.json").read_text()
    assert load_bundle(result.bundle).recipe.encoder.weights == weights.name
    weights.rename(tmp_path / "here" / "renamed.pth.gone")
    with pytest.raises(EncoderError) as error:
        Captioner.load(result.bundle)
    source = load_bundle(result.bundle).encoder.source
    for told in (source["digest"], "mobilenet_edgetpu_100.safetensors", "It comes from", "SHOWTELL_WEIGHTS"):
        assert told in str(error.value)
    monkeypatch.setenv("SHOWTELL_WEIGHTS", str(shared / "weights"))
    [found] = Captioner.load(result.bundle).caption([picture])
    assert found.text == before.text


def test_random_weights_of_another_version_are_noticed(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(find_bundle(trained_run()), tmp_path / "copy"))
    edit(folder, lambda manifest: manifest["encoder"]["source"].update(seed=5))
    with pytest.raises(EncoderError, match="random weights of test_resnet are not the ones that were used"):
        Captioner.load(folder)


def test_weights_are_read_as_they_are_on_disk(whole: Path) -> None:
    from safetensors.torch import load_file

    bundle = load_bundle(whole)
    right = load_file(whole / "decoder.safetensors")
    backend = open_backend(bundle, whole)
    for name, tensor in backend.decoder.state_dict().items():
        assert torch.equal(tensor, right[name])


# Packed


def test_half_the_size_and_the_same_captions(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", str(whole.parents[1]), "--output", str(tmp_path / "half"), "--bits", "16"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["bits"] == 16
    assert told["bytes"] == sum(file.stat().st_size for file in (tmp_path / "half").iterdir())
    sizes = [(folder / "decoder.safetensors").stat().st_size for folder in (whole, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    exact, halved = load_bundle(whole), load_bundle(tmp_path / "half")
    for name, weights in exact.decoder_weights.items():
        assert halved.decoder_weights[name].dtype == np.float16
        np.testing.assert_allclose(halved.decoder_weights[name], weights, rtol=1e-3, atol=1e-6)
    assert halved.scores == exact.scores
    found = [
        [found[0].text for found in report.captions.values()]
        for report in (
            Captioner.load(folder).evaluate(shared_dataset(), split="dev")
            for folder in (whole, tmp_path / "half")
        )
    ]
    assert found[0] == found[1]


def test_a_packed_copy_is_the_bundle(whole: Path, tmp_path: Path) -> None:
    assert main(["pack", str(whole), "--output", str(tmp_path / "packed")]) == 0
    assert load_bundle(tmp_path / "packed").digest == load_bundle(whole).digest
    assert main(["pack", str(whole), "--output", str(tmp_path / "packed")]) == 2


def test_a_quarter_of_the_size_and_nearly_the_same_weights(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", str(whole), "--output", str(tmp_path / "small"), "--bits", "8"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["bits"] == 8
    sizes = [(folder / "decoder.safetensors").stat().st_size for folder in (whole, tmp_path / "small")]
    assert sizes[1] < 0.45 * sizes[0]  # a scale for each row weighs much where rows are as short as here
    exact, small = load_bundle(whole), load_bundle(tmp_path / "small")
    kept = expand(small.decoder_weights)
    assert kept.keys() == exact.decoder_weights.keys()
    matrices = 0
    for name, weights in exact.decoder_weights.items():
        if weights.ndim == 2:
            matrices += 1
            assert small.decoder_weights[name].dtype == np.int8
            step = np.abs(weights).max(axis=1, keepdims=True) / 127
            assert (np.abs(kept[name] - weights) <= 0.501 * step).all()
        else:
            np.testing.assert_allclose(kept[name], weights, rtol=1e-3, atol=1e-6)
    assert matrices > 5
    captioner = Captioner.load(tmp_path / "small")
    assert all(found[0].text for found in captioner.evaluate(shared_dataset(), split="dev").captions.values())


@pytest.mark.parametrize("bits", ["16", "8"])
def test_what_was_packed_small_stays_small(
    bits: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *again = (tmp_path / name for name in ("first", "again", "8", "16"))
    for source, target, options in (
        (whole, first, ["--bits", bits]),
        (first, again[0], []),
        (first, again[1], ["--bits", "8"]),
        (again[1], again[2], ["--bits", "16"]),
    ):
        assert main(["pack", str(source), "--output", str(target), *options]) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert told["bits"] == (8 if target in again[1:] else int(bits))


def test_an_encoder_that_is_included_is_halved_too_and_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    run = trained_run(include_encoder=True)
    assert main(["pack", str(run), "--output", str(tmp_path / "half"), "--bits", "16"]) == 0
    exact, halved = load_bundle(find_bundle(run)), load_bundle(tmp_path / "half")
    assert exact.encoder_weights is not None
    assert halved.encoder_weights is not None
    for name, weights in exact.encoder_weights.items():
        if weights.dtype.kind == "f":
            assert halved.encoder_weights[name].dtype == np.float16
            np.testing.assert_allclose(halved.encoder_weights[name], weights, rtol=1e-3, atol=1e-6)
    assert halved.encoder.fingerprint != exact.encoder.fingerprint
    picture = shared_dataset().images[0].path
    first, second = (Captioner.load(model).caption(picture) for model in (run, tmp_path / "half"))
    assert next(iter(first)).text == next(iter(second)).text  # the loaded one is the one that was packed
    assert main(["pack", str(tmp_path / "half"), "--output", str(tmp_path / "again"), "--bits", "16"]) == 0
    assert load_bundle(tmp_path / "again").encoder.fingerprint == halved.encoder.fingerprint


def test_rows_of_zeros_stay_zeros(whole: Path) -> None:
    bundle = load_bundle(whole)
    name = next(name for name, array in bundle.decoder_weights.items() if array.ndim == 2)
    zeros = {name: np.zeros_like(bundle.decoder_weights[name])}
    packed = compress(replace(bundle, decoder_weights=zeros), 8)
    assert not expand(packed.decoder_weights)[name].any()


@pytest.mark.parametrize("bits", [16, 8])
def test_weights_that_float16_cannot_hold(bits: int, whole: Path) -> None:
    bundle = load_bundle(whole)
    name = next(name for name, array in bundle.decoder_weights.items() if array.ndim == 1)
    large = {**bundle.decoder_weights, name: bundle.decoder_weights[name] + np.float32(1e6)}
    with pytest.raises(BundleError, match=rf"{name} has weights up to 1e\+06, which float16 cannot hold"):
        compress(replace(bundle, decoder_weights=large), bits)
