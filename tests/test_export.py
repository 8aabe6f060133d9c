"""Exported captioners: the same numbers and the same captions as torch, on every engine, for every recipe."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from showtell.captioner import Captioner
from showtell.captioning import caption_features
from showtell.data.drawn import draw_scenes
from showtell.decoders.show_tell import ShowTellDecoder
from showtell.decoding import DecodingSettings
from showtell.encoders import build_encoder
from showtell.errors import BundleError, ConfigError, ExportError, ImageError, MissingExtraError
from showtell.exporter import export_model
from showtell.portable import STEP, load_portable
from showtell.recipes import Recipe, list_recipes, load_recipe
from showtell.text import Vocabulary
from showtell.training.model import build_decoder
from tiny_runs import export_quickly, exported_run, scratch_folder, tiny_recipe, trained_run, write_bundle

CLASSICS = [name for name in list_recipes() if name != "drawn-shapes"]
WORDS = 200  # enough that two different computations would choose differently somewhere
ENGINES = ("openvino", "onnxruntime")


def random_bundle(recipe: Recipe, folder: Path, *, include_encoder: bool = True) -> Path:
    """A bundle with random weights: captions of nonsense, but the same nonsense everywhere."""
    vocabulary = Vocabulary([f"word{number}" for number in range(WORDS)])
    encoder = build_encoder(recipe.encoder, seed=0)
    decoder = build_decoder(recipe, channels=encoder.channels, vocab_size=len(vocabulary))
    reader = next(
        module
        for module in decoder.modules()
        if isinstance(module, torch.nn.Linear) and module.in_features == encoder.channels
    )
    seen = torch.from_numpy(encoder.encode(scenes(16, encoder.preprocessing.height)))
    seen = seen.reshape(-1, encoder.channels)
    with torch.no_grad():
        # Larger than at the start of training, so that one word is far likelier than the next.
        for parameter in decoder.parameters():
            parameter.mul_(2.5)
        # A random encoder gives every picture nearly the same features. Their differences are made to matter.
        reader.weight /= seen.std(dim=0) + 0.1 * seen.std()
        reader.bias.copy_(-reader.weight @ seen.mean(dim=0))
    return write_bundle(folder, recipe, encoder, decoder, vocabulary, include_encoder=include_encoder)


@functools.cache
def exported(recipe: str) -> tuple[Path, Path]:
    """Bundle and export of a classic recipe's own decoder on timm's network for tests."""
    folder = scratch_folder() / f"export-{recipe}"
    classic = load_recipe(recipe)
    small = tiny_recipe(
        decoder={"kind": classic.decoder, **classic.decoder_options},
        encoder={"output": classic.encoder.output},
    )
    bundle = random_bundle(small, folder / "bundle")
    export_quickly(bundle, folder / "exported")
    return bundle, folder / "exported"


@pytest.fixture
def has_graphs(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose graphs are there already, for tests of what else an export does."""
    bundle, folder = exported("show-tell-lstm")
    model = load_portable(folder)

    def write_encoder(_: Any, path: Path) -> bool:
        shutil.copy(folder / path.name, path)
        return model.dynamic_size

    def write_decoder(_: Any, shape: Any, words: int, unfinished: Path, names: Sequence[str]) -> Any:
        for name in names:
            shutil.copy(folder / name, unfinished)
        return model.memory, model.state

    monkeypatch.setattr("showtell.exporter.graphs.write_encoder", write_encoder)
    monkeypatch.setattr("showtell.exporter.graphs.write_decoder", write_decoder)
    return bundle


@functools.cache
def exported_tied() -> tuple[Path, Path]:
    """Bundle and export of a decoder whose output layer is its word embeddings, in another size than its state."""
    folder = scratch_folder() / "export-tied"
    recipe = tiny_recipe(
        decoder={
            "kind": "adaptive-lstm",
            "size": 40,
            "embedding_size": 24,
            "initial_state": "mean",
            "tied": True,
        }
    )
    bundle = random_bundle(recipe, folder / "bundle")
    export_quickly(bundle, folder / "exported")
    return bundle, folder / "exported"


@functools.cache
def scenes(count: int, size: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Drawn scenes as the encoder takes them."""
    return np.stack([np.asarray(scene.image) for scene in draw_scenes(count, seed=1, size=size)])


def record_logits(backend: Any, features: Any, words: int) -> list[Any]:
    """Logits of a few steps over ragged rows: image 0 has three, image 1 one, image 2 leaves after a step."""
    stepper = backend.bind(features)
    state = stepper.start(np.array([0, 0, 0, 1, 2]))
    logits = []
    rows = np.array([1, 0, 1, 3])  # beams change places, one is doubled, the last image leaves
    for step in range(3):
        tokens = np.arange(5 if step == 0 else 4) + 4 + step
        result = stepper.step(tokens % words, state)
        logits.append((result.logits, result.attention))
        state = stepper.select(result.state, rows if step == 0 else np.arange(4))
    return logits


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("recipe", CLASSICS)
def test_every_recipe_gives_the_logits_of_torch(recipe: str, engine: str) -> None:
    compare_logits(*exported(recipe), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_tied_words_are_exported_once_and_give_the_logits_of_torch(engine: str) -> None:
    import onnx

    bundle, folder = exported_tied()
    compare_logits(bundle, folder, engine)
    held = [list(tensor.dims) for tensor in onnx.load(folder / STEP).graph.initializer]
    assert held.count([WORDS + 4, 24]) + held.count([24, WORDS + 4]) == 1


def compare_logits(bundle: Path, folder: Path, engine: str) -> None:
    """Holds features, logits and attention of an exported captioner to those of its bundle."""
    ours = Captioner.load(folder, engine=engine, precision="float32").backend
    theirs = Captioner.load(bundle).backend
    features = ours.encode(scenes(3))
    expected = theirs.encode(scenes(3))
    assert features.shape == expected.shape
    np.testing.assert_allclose(features, expected, atol=1e-4)
    for (logits, attention), (expected_logits, expected_attention) in zip(
        record_logits(ours, features, WORDS), record_logits(theirs, expected, WORDS)
    ):
        np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
        assert (attention is None) == (expected_attention is None)
        if attention is not None:
            np.testing.assert_allclose(attention, expected_attention, atol=1e-5)


@pytest.mark.parametrize("recipe", CLASSICS)
def test_every_recipe_writes_the_captions_of_torch_for_200_images(recipe: str) -> None:
    bundle, folder = exported(recipe)
    settings = DecodingSettings(method="greedy", max_steps=12)
    texts = []
    for captioner in (Captioner.load(folder, precision="float32"), Captioner.load(bundle)):
        features = captioner.backend.encode(scenes(200))
        found = caption_features(captioner.backend, features, settings, positions=range(200))
        texts.append([captions[0].text for captions in found])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1, "all captions are the same, so the test shows nothing"


@pytest.mark.parametrize(
    "search", [{"method": "beam", "beam": 3}, {"method": "sample", "top_k": 5, "count": 3}]
)
def test_beams_and_samples_are_those_of_torch(search: Mapping[str, Any]) -> None:
    bundle, folder = exported("attend-gru-additive")
    settings = DecodingSettings(max_steps=8, **search)
    found = []
    for captioner in (Captioner.load(folder, precision="float32"), Captioner.load(bundle)):
        features = captioner.backend.encode(scenes(9))
        found.append(caption_features(captioner.backend, features, settings, positions=range(9)))
    for ours, theirs in zip(*found, strict=True):
        assert [caption.text for caption in ours] == [caption.text for caption in theirs]
        np.testing.assert_allclose([c.score for c in ours], [c.score for c in theirs], atol=1e-4)


def test_pictures_of_other_sizes_where_the_backbone_allows_it() -> None:
    _, folder = exported("attend-gru-additive")
    model = load_portable(folder)
    assert model.dynamic_size
    backend = Captioner.load(folder, precision="float32").backend
    small, large = backend.encode(scenes(2)), backend.encode(scenes(2, size=96))
    assert small.shape[1] < large.shape[1]
    assert np.isfinite(large).all()


def test_same_padding_is_exported_for_one_size(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        encoder={"name": "tf_efficientnet_lite0", "output": "pooled"}, decoder={"kind": "inject-lstm"}
    )
    bundle = random_bundle(recipe, tmp_path / "bundle")
    model = export_model(bundle, tmp_path / "exported")
    assert not model.dynamic_size
    ours = Captioner.load(tmp_path / "exported", precision="float32").backend
    np.testing.assert_allclose(
        ours.encode(scenes(2)), Captioner.load(bundle).backend.encode(scenes(2)), atol=1e-4
    )
    with pytest.raises(ImageError, match=r"pixels must be uint8 \(images, 64, 64, 3\)"):
        ours.encode(scenes(2, size=96))


def test_a_trained_model_captions_files_as_torch_does(photographs: list[Path]) -> None:
    run = trained_run(include_encoder=True)
    model = load_portable(exported_run())
    assert model.scores
    assert model.bundle_digest
    captioner = Captioner.load(exported_run(), precision="float32")
    mine = [picture.text for picture in captioner.caption(photographs)]
    theirs = [picture.text for picture in Captioner.load(run).caption(photographs)]
    assert mine == theirs


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    _, folder = exported("show-tell-lstm")
    with pytest.raises(BundleError, match="is exported already"):
        export_model(folder, tmp_path / "again")
    with pytest.raises(BundleError, match="no such model"):
        export_model(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(BundleError, match="not an empty folder"):
        export_model(exported("show-tell-lstm")[0], tmp_path / "full")
    assert (tmp_path / "full" / "file").read_text() == "mine"


def test_an_empty_folder_is_filled_where_it_is(
    has_graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    export_model(has_graphs, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    names = sorted(file.name for file in (tmp_path / "target").iterdir())
    assert names == ["encoder.onnx", "portable.json", "start.onnx", "step.onnx", "vocabulary.json"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert export_model(has_graphs, ".").folder == tmp_path / "here"
    assert load_portable(tmp_path / "here").recipe.name


def test_a_decoder_that_cannot_be_exported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: Any) -> None:
        raise ValueError("no graph for this")

    monkeypatch.setattr("showtell.decoders.show_tell.ShowTellDecoder.step", step)
    with pytest.raises(ExportError, match="the decoder ShowTellDecoder cannot be exported to ONNX"):
        export_quickly(exported("show-tell-lstm")[0], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_decoder_that_fixes_the_number_of_images_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ShowTellDecoder.step

    def fixing(self: ShowTellDecoder, tokens: Any, state: Any, memory: Any) -> Any:
        return step(self, tokens.view(len(memory[0]), -1).flatten(), state, memory)  # len() is a plain number

    monkeypatch.setattr(ShowTellDecoder, "step", fixing)
    message = "ShowTellDecoder cannot be exported to ONNX: .*'tokens' takes 2 images only"
    with pytest.raises(ExportError, match=message):
        export_quickly(exported("show-tell-lstm")[0], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_nothing(
    has_graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("showtell.exporter.graphs.write_decoder", fail)
    with pytest.raises(OSError, match="No space left"):
        export_model(has_graphs, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_an_empty_folder_empty(
    has_graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, moved = Path.replace, []

    def fail(self: Path, target: Path) -> Path:
        if self.parent.name.startswith(".showtell-export-"):
            moved.append(self)
            if len(moved) == 3:
                raise OSError(5, "Input/output error")
        return move(self, target)

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".showtell-export-killed").mkdir()  # what a killed export left
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="Input/output error"):
            export_model(has_graphs, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    export_model(has_graphs, tmp_path / "out")
    assert load_portable(tmp_path / "out").weights == "float32"


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_a_missing_package_names_its_extra(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"'{missing}'.*showtell\[export\]"):
        export_model(tmp_path / "bundle", tmp_path / "out")


def test_nothing_of_the_machine_is_written_into_the_graphs() -> None:
    _, folder = exported("attend-gru-additive")
    for graph in folder.glob("*.onnx"):
        content = graph.read_bytes()
        for word in (str(Path(__file__).parents[1]), str(Path.home()), "site-packages"):
            assert word.encode() not in content, f"{graph.name} holds {word}"


def test_int8_needs_pictures(tmp_path: Path, photographs: list[Path]) -> None:
    with pytest.raises(ConfigError, match="6 of 6 calibration images can be read"):
        export_model(exported("show-tell-lstm")[0], tmp_path / "out", calibrate=photographs)
    assert list(tmp_path.iterdir()) == []


def test_int8_features_are_near_those_of_float32(tmp_path: Path) -> None:
    from PIL import Image

    bundle, folder = exported("attend-gru-additive")
    pictures = []
    for number, pixels in enumerate(scenes(24)):
        pictures.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(pictures[-1])
    model = export_quickly(bundle, tmp_path / "int8", calibrate=pictures)
    assert model.weights == "int8"
    exact = Captioner.load(folder, precision="float32").backend.encode(scenes(40)[24:])
    for engine in ENGINES:
        rounded = Captioner.load(tmp_path / "int8", engine=engine).backend.encode(scenes(40)[24:])
        similarity = (exact * rounded).sum() / np.linalg.norm(exact) / np.linalg.norm(rounded)
        assert 0.97 < similarity < 0.999999, "not quantised" if similarity >= 0.999999 else "too coarse"


@pytest.mark.parametrize("engine", ENGINES)
def test_int8_stores_the_decoders_weights_in_8_bits(engine: str, tmp_path: Path) -> None:
    from showtell.exporter.quantize import compress_weights
    from showtell.runtime import EngineOptions
    from showtell.runtime.engine import open_engine

    folder = exported("attend-gru-additive")[1]
    graph = tmp_path / STEP
    graph.write_bytes((folder / STEP).read_bytes())
    compress_weights(graph)
    assert graph.stat().st_size < 0.4 * (folder / STEP).stat().st_size
    chosen = open_engine(EngineOptions(engine, "float32", cache=tmp_path / "cache"))
    backend = Captioner.load(folder, engine=engine, precision="float32").backend
    stepper = backend.bind(backend.encode(scenes(3)))
    owners = np.arange(3)
    tokens = np.array([4, 5, 6])
    exact = stepper.step(tokens, stepper.start(owners)).logits
    stepper._step = chosen.open(graph, precision="float32", compressed=True)
    rounded = stepper.step(tokens, stepper.start(owners)).logits
    difference = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 0 < difference < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("recipe", CLASSICS)
def test_the_recipes_own_encoders_are_exported(recipe: str, tmp_path: Path) -> None:
    classic = load_recipe(recipe)
    values = classic.to_dict()
    values["encoder"]["weights"] = "random"
    bundle = random_bundle(Recipe.from_dict(values), tmp_path / "bundle")
    export_model(bundle, tmp_path / "exported")
    ours, theirs = Captioner.load(tmp_path / "exported", precision="float32"), Captioner.load(bundle)
    pixels = scenes(2, size=theirs.backend.preprocessing.height)
    expected = theirs.backend.encode(pixels)
    np.testing.assert_allclose(ours.backend.encode(pixels), expected, atol=1e-4 * np.abs(expected).max())
