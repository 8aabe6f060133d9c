"""Building encoders: layouts, frozen and trainable, the originals of the papers, the shared backbones."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from showtell.config import EncoderConfig
from showtell.encoders import Encoder, WeightsSource, build_encoder, default_precision, restore_encoder
from showtell.encoders.folding import fold_batch_norms
from showtell.encoders.precision import resolve_precision
from showtell.errors import ConfigError, EncoderError

TINY = "test_resnet"  # timm's own network for tests


def random_encoder(name: str = TINY, **settings: object) -> Encoder:
    settings = {"precision": "float32", **settings}
    return build_encoder(EncoderConfig(name=name, weights="random", **settings))  # type: ignore[arg-type]


def random_pixels(encoder: Encoder, images: int = 2, seed: int = 0) -> np.ndarray:
    preprocessing = encoder.preprocessing
    shape = (images, preprocessing.height, preprocessing.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "size", "grid", "channels"),
    [
        ("resnet50", 224, (7, 7), 2048),
        ("resnet152", 224, (7, 7), 2048),
        ("inception_v3", 299, (8, 8), 2048),
        ("inception_resnet_v2", 299, (8, 8), 1536),
    ],
)
def test_the_papers_backbones_have_their_shapes(
    name: str, size: int, grid: tuple[int, int], channels: int
) -> None:
    encoder = random_encoder(name)
    assert (encoder.preprocessing.height, encoder.preprocessing.width) == (size, size)
    assert encoder.grid == grid
    assert encoder.cells == grid[0] * grid[1]
    assert encoder.channels == channels
    features = encoder(torch.zeros(1, 3, size, size))
    assert features.shape == (1, grid[0] * grid[1], channels)


def test_inception_expects_pixels_from_minus_one_to_one() -> None:
    preprocessing = random_encoder("inception_v3").preprocessing
    page = Image.new("RGB", (10, 10), (255, 255, 255))
    assert preprocessing.apply(page).max() == pytest.approx(1.0)
    assert preprocessing.apply(Image.new("RGB", (10, 10))).min() == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("name", "image_size", "layout", "grid"),
    [
        (TINY, 96, "nchw", (3, 3)),
        ("swin_tiny_patch4_window7_224", 224, "nhwc", (7, 7)),
        ("vit_tiny_patch16_224", 224, "tokens", (14, 14)),
        ("vit_tiny_patch16_224", 64, "tokens", (4, 4)),
        ("deit_tiny_distilled_patch16_224", 224, "tokens", (14, 14)),  # two prefix tokens
        ("convnext_atto", 64, "nchw", (2, 2)),
        ("mobilenetv3_small_050", 64, "nchw", (2, 2)),  # its classifier is wider than its grid
    ],
)
def test_every_layout_becomes_cells_by_channels(
    name: str, image_size: int, layout: str, grid: tuple[int, int]
) -> None:
    encoder = random_encoder(name, image_size=image_size)
    pixels = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(1))
    features = encoder(pixels)
    assert encoder.layout == layout
    assert encoder.grid == grid
    assert features.shape == (2, encoder.cells, encoder.channels)
    raw = encoder.backbone.forward_features(pixels)
    row, column = grid[0] - 1, 0  # the lower left cell tells rows from columns
    cell = {
        "nchw": lambda: raw[1, :, row, column],
        "nhwc": lambda: raw[1, row, column],
        "tokens": lambda: raw[1, raw.shape[1] - encoder.cells + row * grid[1] + column],
    }[layout]()
    torch.testing.assert_close(features[1, row * grid[1] + column], cell)


def test_pooled_is_the_mean_of_the_grid() -> None:
    grid, pooled = random_encoder(image_size=96), random_encoder(image_size=96, output="pooled")
    pixels = torch.randn(2, 3, 96, 96)
    assert pooled.shape == (pooled.channels,)
    assert pooled.cells == 1
    torch.testing.assert_close(pooled(pixels), grid(pixels).mean(dim=1))


def test_frozen_batch_norms_never_move() -> None:
    encoder = random_encoder(image_size=64)
    model = nn.Sequential(encoder)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    model.train()
    assert not any(module.training for module in encoder.modules())
    for seed in range(3):
        features = encoder(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))
        assert not features.requires_grad
        encoder.encode(random_pixels(encoder, seed=seed))
    assert all(not parameter.requires_grad for parameter in encoder.parameters())
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_trainable_encoder_trains() -> None:
    encoder = random_encoder(image_size=64, trainable=True)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    assert encoder.backbone.training
    encoder(torch.randn(4, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    moved = [name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.endswith("running_mean") for name in moved)
    encoder.eval()
    assert not encoder.backbone.training


def test_one_image_alone_is_too_little_for_batch_norms_over_one_cell() -> None:
    encoder = random_encoder(trainable=True, image_size=32)
    assert encoder.grid == (1, 1)
    with pytest.raises(ConfigError, match=r"test_resnet shrinks images of 32x32 .* single image.*image_size"):
        encoder(torch.zeros(1, 3, 32, 32))
    assert encoder(torch.zeros(2, 3, 32, 32)).shape == (2, 1, encoder.channels)
    assert encoder.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1, encoder.channels)


def test_encode_of_a_trainable_encoder_follows_its_weights_and_leaves_it_training() -> None:
    encoder = random_encoder(image_size=64, trainable=True).train()
    pixels = random_pixels(encoder)
    before = encoder.encode(pixels)
    with torch.no_grad():
        next(encoder.backbone.parameters()).mul_(3.0)
    assert not np.allclose(before, encoder.encode(pixels), rtol=1e-3)
    assert encoder.backbone.training


def test_encode_forgets_its_fast_copy_when_weights_are_loaded() -> None:
    encoder, other = random_encoder(image_size=64), random_encoder(image_size=64)
    other.backbone.load_state_dict({k: v * 2 for k, v in other.backbone.state_dict().items()})
    pixels = random_pixels(encoder)
    expected = other.encode(pixels)
    assert not np.allclose(encoder.encode(pixels), expected, rtol=1e-3)
    encoder.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(encoder.encode(pixels), expected)


def test_encode_gives_what_forward_gives() -> None:
    encoder = random_encoder("mobilenetv2_050", image_size=64)
    pixels = random_pixels(encoder, images=19)  # more than one piece, the last one not full
    expected = encoder(torch.from_numpy(encoder.preprocessing.normalise(pixels))).numpy()
    received = encoder.encode(pixels)
    assert received.dtype == np.float32
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(
        encoder.encode(encoder.preprocessing.normalise(pixels)), received, rtol=1e-3, atol=1e-4
    )
    assert encoder.encode(pixels[:0]).shape == (0, *encoder.shape)


def test_encode_uses_all_cores_and_leaves_torch_as_it_was() -> None:
    encoder = random_encoder(image_size=64)
    pixels = random_pixels(encoder, images=21)
    before, results, seen = torch.get_num_threads(), [], []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(encoder.encode(pixels))
            other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            other.start()
            other.join()
            seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1, 2, 2, 3, 3]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-4, atol=1e-5)
    for position in (0, 7, 20):  # in order
        alone = encoder.encode(pixels[position : position + 1])[0]
        np.testing.assert_allclose(results[2][position], alone, rtol=1e-4, atol=1e-5)


def test_encode_in_bf16_is_close_to_float32() -> None:
    full, half = random_encoder(image_size=64), random_encoder(image_size=64, precision="bf16")
    assert half.precision == "bf16"
    expected = full.encode(random_pixels(full)).ravel()
    received = half.encode(random_pixels(full)).ravel()
    assert not np.array_equal(expected, received)
    assert np.corrcoef(expected, received)[0, 1] > 0.99
    assert half.fingerprint == full.fingerprint


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 32, 32, 3), (64, 64, 3)])
def test_encode_refuses_other_pixels(shape: tuple[int, ...]) -> None:
    encoder = random_encoder(image_size=64)
    with pytest.raises(EncoderError, match=r"pixels must be uint8 \(images, 64, 64, 3\).*Received: uint8"):
        encoder.encode(np.zeros(shape, dtype=np.uint8))


def test_encode_refuses_features_that_are_not_finite() -> None:
    encoder = random_encoder(image_size=64)
    with torch.no_grad():
        list(encoder.backbone.parameters())[-1].fill_(float("nan"))
    with pytest.raises(EncoderError, match="not finite"):
        encoder.encode(random_pixels(encoder))


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "densenet121", "mobilenetv2_050", "test_vit"]
)
def test_folding_changes_nothing(name: str) -> None:
    encoder = random_encoder(name, image_size=64)
    generator = torch.Generator().manual_seed(0)
    for module in encoder.backbone.modules():  # fresh batch norms are nearly the identity
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.1)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    pixels = torch.randn(2, 3, 64, 64, generator=generator)
    folded = fold_batch_norms(encoder.backbone, pixels)
    expected, received = encoder.backbone.forward_features(pixels), folded.forward_features(pixels)
    torch.testing.assert_close(received, expected, rtol=1e-3, atol=1e-4)
    norms = [
        sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
        for network in (encoder.backbone, folded)
    ]
    assert norms[1] < norms[0] or norms[0] == 0


class _Branching(nn.Module):
    """A convolution whose output is also used without its batch norm, so that folding would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        nn.init.constant_(self.bn.weight, 2.0)

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        maps = self.conv(pixels)
        return maps + self.bn(maps)


def test_folding_is_undone_where_it_would_change_the_features() -> None:
    network, pixels = _Branching().eval(), torch.rand(1, 3, 5, 5)
    folded = fold_batch_norms(network, pixels)
    torch.testing.assert_close(folded.forward_features(pixels), network.forward_features(pixels))
    assert isinstance(folded.bn, nn.BatchNorm2d)


def test_random_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    config = EncoderConfig(name=TINY, weights="random", image_size=64)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (build_encoder(config, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    assert first.source.kind == "random"
    assert first.source.seed == 1


def test_the_fingerprint_covers_preprocessing_and_output() -> None:
    plain = random_encoder(image_size=64)
    assert random_encoder(image_size=64, output="pooled").fingerprint != plain.fingerprint
    assert random_encoder(image_size=96).fingerprint != plain.fingerprint
    assert random_encoder(image_size=64, fit="crop").fingerprint != plain.fingerprint
    with torch.no_grad():
        next(plain.backbone.parameters()).add_(1.0)
    assert plain.compute_fingerprint() != plain.fingerprint


def test_a_random_encoder_is_built_again_from_its_record() -> None:
    config = EncoderConfig(name=TINY, weights="random", image_size=64)
    encoder = build_encoder(config, seed=3)
    record = WeightsSource.from_dict(encoder.source.to_dict())
    assert record == encoder.source
    assert build_encoder(config, source=record).fingerprint == encoder.fingerprint
    changed = WeightsSource.from_dict({**encoder.source.to_dict(), "seed": 4})
    with pytest.raises(
        EncoderError, match=r"not the ones that were used: sha256.*Include the backbone in the bundle"
    ):
        build_encoder(config, source=changed)
    with pytest.raises(
        EncoderError, match="is 'resnet18' by its configuration, but its weights are of 'test_resnet'"
    ):
        build_encoder(EncoderConfig(name="resnet18"), source=record)


def test_a_trained_encoder_is_restored_from_its_tensors() -> None:
    config = EncoderConfig(name=TINY, weights="random", image_size=64, trainable=True, precision="float32")
    encoder = build_encoder(config, seed=3)
    encoder.train()
    encoder(torch.randn(4, 3, 64, 64))  # moves the batch norms
    tensors = {name: value.clone() for name, value in encoder.state_dict().items()}
    restored = restore_encoder(config, encoder.source, encoder.preprocessing, tensors)
    assert restored.compute_fingerprint() == encoder.compute_fingerprint()
    pixels = random_pixels(encoder)
    np.testing.assert_array_equal(restored.encode(pixels), encoder.encode(pixels))
    del tensors["backbone.conv1.0.weight"]
    with pytest.raises(EncoderError, match=r"missing in the file: conv1\.0\.weight"):
        restore_encoder(config, encoder.source, encoder.preprocessing, tensors)


def test_damaged_records_are_refused() -> None:
    with pytest.raises(EncoderError, match="record of the encoder's weights is damaged"):
        WeightsSource.from_dict({"name": "resnet50", "colour": "red"})
    with pytest.raises(EncoderError, match="unknown kind: 'tape'"):
        WeightsSource.from_dict({"name": "resnet50", "kind": "tape", "digest": ""})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt50", r"has no backbone 'resnt50'. Did you mean 'resnet50'"),
        ("resnet50.a9_in1k", r"resnet50 has no weights tagged 'a9_in1k'\. Did you mean '\w+_in1k'"),
        ("hf-hub:somebody/something", "has no backbone 'hf-hub:somebody/something'"),
        ("", "encoder.name must name a backbone"),
    ],
)
def test_unknown_backbones(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        random_encoder(name)


def test_an_impossible_image_size_is_named() -> None:
    with pytest.raises(EncoderError, match=r"cannot take images of 4x4|cannot be built"):
        random_encoder("inception_v3", image_size=4)


def test_no_published_weights() -> None:
    with pytest.raises(
        EncoderError, match=r"timm publishes no ImageNet weights for mobilenet_edgetpu_100.*--weights FILE"
    ):
        build_encoder(EncoderConfig(name="mobilenet_edgetpu_100"))


def test_a_hub_that_cannot_be_reached(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    program = (
        "from showtell.config import EncoderConfig\n"
        "from showtell.encoders import build_encoder\n"
        "from showtell.errors import EncoderError\n"
        "try:\n"
        "    build_encoder(EncoderConfig(name='resnet18'))\n"
        "except EncoderError as error:\n"
        "    print(error)\n"
    )
    environment = {
        **clean_environment,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "The ImageNet weights of resnet18 (timm/resnet18.a1_in1k) could not be fetched" in result.stdout
    assert "https://huggingface.co/timm/resnet18.a1_in1k" in result.stdout
    assert "--weights FILE" in result.stdout


@pytest.mark.parametrize("has_operators", [False, True])
def test_torchvision_of_another_torch_is_made_to_import(
    tmp_path: Path, clean_environment: dict[str, str], has_operators: bool
) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import torch\n"
        "schema = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'\n"
        "for name in ('nms', 'qnms'):\n"
        f"    if {has_operators}:\n"
        "        torch.library.define(f'torchvision::{name}', schema)\n"
        "    torch.library.register_fake(f'torchvision::{name}')(lambda dets, scores, iou_threshold: dets)\n"
        "ready = True\n"
    )
    zoo = Path(sys.modules["showtell.encoders.zoo"].__file__ or "")
    source = zoo.read_text(encoding="utf-8")
    (tmp_path / "part.py").write_text(source[: source.index("\nimport_torchvision()")], encoding="utf-8")
    program = "import part; part.import_torchvision(); import torchvision; print(torchvision.ready)"
    environment = {**clean_environment, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.strip() == "True", result.stderr


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("bf16") == "bf16"
    assert resolve_precision("float32") == "float32"
    for has_matrix_units, expected in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(
            torch.cpu, "_is_amx_tile_supported", lambda has=has_matrix_units: has, raising=False
        )
        assert default_precision() == resolve_precision("auto") == expected
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert default_precision() == "float32"


def shared_encoder(shared: Path, name: str, file: str, **settings: object) -> Encoder:
    settings = {"output": "pooled", "precision": "float32", **settings}
    return build_encoder(EncoderConfig(name=name, weights=str(shared / "weights" / file), **settings))  # type: ignore[arg-type]


SHARED = [
    ("mobilenet_edgetpu_100", "mobilenet_edgetpu_100.safetensors", 128 / 255, 127 / 255),
    ("mobilenetv2_100", "mobilenetv2_100_ptq.safetensors", 0.5, 0.5),
    ("tf_efficientnet_lite0", "tf_efficientnet_lite0.safetensors", 127 / 255, 128 / 255),
]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "file", "mean", "std"), SHARED)
def test_shared_backbones_are_fed_as_their_files_say(
    shared: Path, name: str, file: str, mean: float, std: float
) -> None:
    encoder = shared_encoder(shared, name, file, output="grid")
    assert encoder.shape == (49, 1280)
    assert encoder.grid == (7, 7)
    assert (encoder.preprocessing.height, encoder.preprocessing.width) == (224, 224)
    assert encoder.preprocessing.mean == pytest.approx((mean,) * 3)
    assert encoder.preprocessing.std == pytest.approx((std,) * 3)
    assert all(value.dtype == torch.float32 for value in encoder.parameters())
    assert encoder.source.file_name == file
    assert encoder.source.kind == "file"


@pytest.mark.shared
@pytest.mark.parametrize(("name", "file"), [entry[:2] for entry in SHARED[:2]])
def test_shared_backbones_recognise_photographs(
    shared: Path, photographs: list[Path], name: str, file: str
) -> None:
    encoder = shared_encoder(shared, name, file, fit="crop")
    tensors = load_file(shared / "weights" / file)
    weight, bias = tensors["classifier.weight"].float().numpy(), tensors["classifier.bias"].float().numpy()
    pictures = {path.stem: Image.open(path).convert("RGB") for path in photographs}
    pixels = np.stack([encoder.preprocessing.resize(picture) for picture in pictures.values()])
    logits = encoder.encode(pixels) @ weight.T + bias
    best = dict(zip(pictures, logits.argmax(axis=1)))
    top = dict(zip(pictures, np.argsort(-logits, axis=1)[:, :5]))
    assert best["cat"] in range(281, 286)  # tabby, tiger cat, Persian, Siamese, Egyptian cat
    assert best["coffee"] == 967  # espresso
    assert best["china"] == 698  # palace
    assert {657, 744, 812} & set(top["rocket"])  # missile, projectile, space shuttle


@pytest.mark.shared
def test_the_headless_shared_backbone_sees_the_same_as_the_others(
    shared: Path, photographs: list[Path]
) -> None:
    similarities = []
    for name, file, *_ in SHARED:
        encoder = shared_encoder(shared, name, file)
        pixels = []
        for path in photographs:
            picture = Image.open(path).convert("RGB")
            width, height = picture.size
            part = picture.crop((width // 8, height // 8, width * 7 // 8, height * 7 // 8))
            pixels += [encoder.preprocessing.resize(picture), encoder.preprocessing.resize(part)]
        features = encoder.encode(np.stack(pixels))
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        whole, parts = features[::2], features[1::2]
        similarity = parts @ whole.T
        assert (similarity.argmax(axis=1) == np.arange(len(photographs))).all(), name
        similarities.append(similarity)
    headless = similarities[2]
    assert headless[0].max() < 1.0  # a crop is not the whole
    for other in similarities[:2]:
        assert np.corrcoef(headless.ravel(), other.ravel())[0, 1] > 0.9


@pytest.mark.shared
def test_a_shared_file_under_another_name_of_backbone(shared: Path) -> None:
    with pytest.raises(
        EncoderError, match="of the backbone 'mobilenet_edgetpu_100', but 'resnet50' is asked for"
    ):
        shared_encoder(shared, "resnet50", "mobilenet_edgetpu_100.safetensors")


@pytest.mark.shared
def test_a_shared_encoder_is_found_again_by_digest(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = shared_encoder(shared, *SHARED[0][:2])
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path))
    monkeypatch.setenv("SHOWTELL_WEIGHTS", str(shared / "weights"))
    record = WeightsSource.from_dict(encoder.source.to_dict())
    config = EncoderConfig(
        name=SHARED[0][0], output="pooled", weights="/gone.safetensors", precision="float32"
    )
    assert build_encoder(config, source=record).fingerprint == encoder.fingerprint
    monkeypatch.delenv("SHOWTELL_WEIGHTS")
    with pytest.raises(EncoderError) as caught:
        build_encoder(config, source=record)
    message = str(caught.value)
    assert "mobilenet_edgetpu_100.safetensors" in message
    assert encoder.source.digest in message
    assert "mlcommons/mobile_models" in message
    assert str(tmp_path / "weights") in message
    assert "SHOWTELL_WEIGHTS" in message
