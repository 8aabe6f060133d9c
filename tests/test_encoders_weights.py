"""Weights files: what is read and what is refused, how a file wants to be built, where files are found."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from showtell.config import EncoderConfig
from showtell.encoders import Encoder, build_encoder, find_weights
from showtell.encoders import weights as weights_module
from showtell.encoders.metadata import BuildNotes, parse_build, parse_feed, replace_by_identity
from showtell.encoders.weights import digest_tensors, read_weights
from showtell.encoders.zoo import timm
from showtell.errors import EncoderError

TINY = "test_resnet"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """A full checkpoint, classifier included."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(TINY)
    return dict(network.state_dict())


def build(path: Path, **settings: Any) -> Encoder:
    return build_encoder(
        EncoderConfig(
            **{"name": TINY, "weights": str(path), "image_size": 64, "precision": "float32", **settings}
        )
    )


def test_every_kind_of_file_gives_the_same_encoder(tmp_path: Path, state: dict[str, Tensor]) -> None:
    headless = {name: value for name, value in state.items() if not name.startswith("fc.")}
    assert len(headless) < len(state)
    safetensors.torch.save_file(state, tmp_path / "full.safetensors")
    safetensors.torch.save_file(headless, tmp_path / "headless.safetensors")
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "wrapped.pth")
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "parallel.pt")
    uncounted = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(uncounted, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    encoders = [build(path) for path in sorted(tmp_path.iterdir())]
    assert len(encoders) == 6
    assert len({encoder.fingerprint for encoder in encoders}) == 1
    assert len({encoder.source.digest for encoder in encoders}) == 6
    expected = state["conv1.0.weight"]
    assert all(torch.equal(encoder.backbone.state_dict()["conv1.0.weight"], expected) for encoder in encoders)


def test_float16_becomes_float32(tmp_path: Path, state: dict[str, Tensor]) -> None:
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    safetensors.torch.save_file(halves, tmp_path / "half.safetensors")
    encoder = build(tmp_path / "half.safetensors")
    assert all(value.dtype == torch.float32 for value in encoder.parameters())
    expected = state["conv1.0.weight"].half().float()
    assert torch.equal(encoder.backbone.state_dict()["conv1.0.weight"], expected)


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("conv1.0", "stem"): value for name, value in state.items()}


def _reshaped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "conv1.0.weight": torch.zeros(5, 3, 3, 3)}


def _infinite(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "conv1.0.weight": torch.full_like(state["conv1.0.weight"], float("inf"))}


def _whole(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "conv1.0.weight": state["conv1.0.weight"].to(torch.int8)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_renamed, r"missing in the file: conv1\.0\.weight; unexpected in the file: stem\.weight"),
        (
            _reshaped,
            r"of another shape: conv1\.0\.weight: the file has \(5, 3, 3, 3\), the backbone \(\d+, 3, 3, 3\)",
        ),
        (_infinite, r"the tensor conv1\.0\.weight has values that are not finite"),
        (_whole, r"the tensor conv1\.0\.weight holds whole numbers \(torch\.int8\)"),
    ],
)
def test_weights_that_do_not_fit(
    tmp_path: Path,
    state: dict[str, Tensor],
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
) -> None:
    path = tmp_path / "changed.safetensors"
    safetensors.torch.save_file(change(state), path)
    with pytest.raises(EncoderError, match=message) as caught:
        build(path)
    assert str(path) in str(caught.value)


class _Runs:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path, form: str) -> None:
    target, path = tmp_path / "ran", tmp_path / "evil.pth"
    content = {"state_dict": {"conv1.0.weight": torch.zeros(1)}, "extra": _Runs(target)}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"extra": _Runs(target)}))
    with pytest.raises(
        EncoderError, match=r"refused: .* a pickle that holds more than tensors.*could run code"
    ) as caught:
        build(path)
    assert not target.exists()
    assert "weights_only" not in str(caught.value)  # torch's own advice is to run it
    assert ".safetensors" in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "zeros"])
def test_damaged_files(tmp_path: Path, state: dict[str, Tensor], suffix: str, damage: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    whole = path.read_bytes()
    contents = {
        "truncated": whole[: len(whole) // 2], "empty": b"", "text": b"<html>" * 20, "zeros": bytes(999)
    }  # fmt: skip
    path.write_bytes(contents[damage])
    with pytest.raises(EncoderError, match="damaged") as caught:
        build(path)
    assert str(path) in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(
        EncoderError, match=r"nothing\.pth: there is no such weights file.*\"imagenet\", \"random\""
    ):
        build(tmp_path / "nothing.pth")
    with pytest.raises(EncoderError, match="is a folder, not a weights file"):
        build(tmp_path)
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(EncoderError, match=r"must be one of \.safetensors, \.pth"):
        build(tmp_path / "weights.h5")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(EncoderError, match="holds no tensors by name"):
        build(tmp_path / "empty.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(EncoderError, match="holds no tensors by name"):
        build(tmp_path / "list.pth")


def test_metadata_builds_and_feeds_the_backbone(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "described.safetensors"
    metadata = {
        "timm": f"create_model('{TINY}', drop_rate=0.0); then act1 = nn.Identity()",
        "mean": "0.1, 0.2, 51/255",
        "std": "128/255 on every channel",
        "input": "RGB 96x96",
        "source": "a page",
    }
    safetensors.torch.save_file(state, path, metadata)
    encoder = build(path, image_size=0)
    assert encoder.preprocessing.mean == pytest.approx((0.1, 0.2, 0.2))
    assert encoder.preprocessing.std == pytest.approx((128 / 255,) * 3)
    assert (encoder.preprocessing.height, encoder.preprocessing.width) == (96, 96)
    assert isinstance(encoder.backbone.act1, nn.Identity)
    assert encoder.source.arguments == (("drop_rate", 0.0),)
    assert encoder.source.identities == (("act1",),)
    assert encoder.source.address == "a page"
    assert build(path).preprocessing.height == 64  # asked for, so it wins
    with pytest.raises(EncoderError, match=f"of the backbone '{TINY}', but 'resnet18' is asked for"):
        build(path, name="resnet18")


def test_metadata_that_names_no_module(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "wrong.safetensors"
    safetensors.torch.save_file(
        state, path, {"timm": f"create_model('{TINY}'); then layer9[0].act = nn.Identity()"}
    )
    with pytest.raises(
        EncoderError, match=r"replaces the module layer9\[0\]\.act, which the backbone does not have"
    ):
        build(path)


def test_metadata_arguments_that_timm_refuses(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "wrong.safetensors"
    safetensors.torch.save_file(state, path, {"timm": f"create_model('{TINY}', colour='red')"})
    with pytest.raises(EncoderError, match=r"cannot be built with .*colour"):
        build(path)


def test_the_shared_files_metadata_is_understood() -> None:
    notes = parse_build(
        "create_model('mobilenet_edgetpu_100', pad_type='same'); then blocks[0][0].bn1.act = nn.Identity()",
        "f",
    )
    assert notes == BuildNotes(
        "mobilenet_edgetpu_100", (("pad_type", "same"),), (("blocks", 0, 0, "bn1", "act"),)
    )
    notes = parse_build("create_model('tf_efficientnet_lite0', num_classes=0)", "f")
    assert notes == BuildNotes("tf_efficientnet_lite0")
    notes = parse_build("create_model('x', bn_eps=1e-3, sizes=(1, -2), flag=True)", "f")
    assert notes.arguments == (("bn_eps", 1e-3), ("sizes", (1, -2)), ("flag", True))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "__import__('os').system('touch ran')",
        "create_model(__import__('os').system('touch ran'))",
        "create_model('resnet18', drop_rate=__import__('os').system('touch ran'))",
        "create_model('resnet18', checkpoint_path='/tmp/evil.pth')",
        "create_model('resnet18', pretrained=True)",
        "create_model('resnet18', pretrained_cfg={'url': 'http://x'})",
        "create_model('resnet18', features_only=True)",
        "create_model('resnet18', num_classes=10)",
        "create_model('resnet18', **{'pretrained': True})",
        "create_model('resnet18', 'resnet50')",
        "create_model(*['resnet18'])",
        "create_model()",
        "timm.create_model('resnet18')",
        "create_model('resnet18'); import os",
        "create_model('resnet18'); then import os",
        "create_model('resnet18'); then os.system('touch ran')",
        "create_model('resnet18'); then act1 = os.system('touch ran')",
        "create_model('resnet18'); then act1 = nn.ReLU()",
        "create_model('resnet18'); then act1 = nn.Identity(1)",
        "create_model('resnet18'); then act1, bn1 = nn.Identity()",
        "create_model('resnet18'); then layers[f()].act = nn.Identity()",
        "create_model('resnet18'); then layers['a'].act = nn.Identity()",
        "create_model('resnet18'); then layers[True].act = nn.Identity()",
        "create_model('resnet18'); then f().act = nn.Identity()",
        "create_model('resnet18'); then a = b = nn.Identity()",
        "create_model('resnet18'); then a = nn.Identity(); b = nn.Identity()",
        "create_model('resnet18'",
        "(" * 5000,
        "create_model('resnet18')\0",
    ],
)
def test_metadata_is_never_run(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError, match="It is read, never run"):
        parse_build(text, "file")
    assert not list(tmp_path.iterdir())


@given(st.text(alphabet="create_model('resnet18')=; then.[]0nIdy,*{}:\n", max_size=80))
def test_metadata_gives_notes_or_an_encoder_error(text: str) -> None:
    try:
        notes = parse_build(text, "file")
    except EncoderError:
        return
    assert isinstance(notes.name, str)


@pytest.mark.parametrize(
    "path", [("__class__",), ("conv", "weight"), ("forward",), ("conv", "__dict__", "x")]
)
def test_only_modules_are_replaced(path: tuple[str, ...]) -> None:
    network = nn.Sequential()
    network.add_module("conv", nn.Conv2d(1, 1, 1))
    with pytest.raises(EncoderError, match="which the backbone does not have"):
        replace_by_identity(network, path, "file")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", "grey"), ("mean", "0.1, 0.2"), ("std", "1/0"), ("std", "-1"), ("mean", "0.5; import os"),
        ("input", "BGR 224x224"), ("input", "RGB 0x224"), ("input", "RGB 224"),
    ],
)  # fmt: skip
def test_feeding_that_cannot_be_understood(key: str, value: str) -> None:
    with pytest.raises(EncoderError, match=f'file: the metadata\'s "{key}" must .*{re.escape(repr(value))}'):
        parse_feed({key: value}, "file")


def test_feeding_that_is_impossible(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "zero.safetensors"
    safetensors.torch.save_file(state, path, {"std": "0.0"})
    with pytest.raises(
        EncoderError, match=r"zero\.safetensors: the metadata cannot be right: .*std must be above 0"
    ):
        build(path)


def test_files_are_found_by_digest_whatever_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, cache = (tmp_path / name for name in ("first", "second", "cache"))
    for folder in (first, second, cache / "weights"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("SHOWTELL_WEIGHTS", f"{first}:{second}")
    monkeypatch.setenv("SHOWTELL_CACHE", str(cache))
    content = b"some weights"
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(
        EncoderError, match=f"not found: m.pth with sha256 {digest}. It comes from the page"
    ) as caught:
        find_weights(digest, file_name="m.pth", address="the page")
    assert all(str(folder) in str(caught.value) for folder in (first, second, cache / "weights"))
    (first / "m.pth").write_bytes(b"other weights")  # the right name is not enough
    for folder in (cache / "weights", second):
        (folder / "renamed.safetensors").write_bytes(content)
        assert find_weights(digest, file_name="m.pth") == folder / "renamed.safetensors"
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "m.pth").write_bytes(content)
    assert find_weights(digest, extra=[extra]) == extra / "m.pth"


def test_a_file_that_cannot_be_read_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(name.encode())

    def read(path: Path) -> str:
        if path.name == "a.pth":
            raise PermissionError(13, "Permission denied", str(path))
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(weights_module, "digest_file", read)
    digest = hashlib.sha256(b"b.pth").hexdigest()
    assert find_weights(digest, extra=[tmp_path]) == tmp_path / "b.pth"


def test_digests_are_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(b"one")
    reads: list[Path] = []
    original = weights_module.digest_file
    monkeypatch.setattr(weights_module, "digest_file", lambda path: reads.append(path) or original(path))
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "none"))
    one, three = (hashlib.sha256(content).hexdigest() for content in (b"one", b"three"))
    assert find_weights(one, extra=[tmp_path]) == path
    assert find_weights(one, extra=[tmp_path]) == path
    assert len(reads) == 1
    path.write_bytes(b"three")
    assert find_weights(three, extra=[tmp_path]) == path
    with pytest.raises(EncoderError, match="were not found"):
        find_weights(one, extra=[tmp_path])


def test_the_digest_of_tensors_sees_names_types_shapes_and_values() -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    digest = digest_tensors(tensors)
    assert digest == digest_tensors(dict(reversed(tensors.items())))
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(1)},
    ]
    assert len({digest, *map(digest_tensors, others)}) == 5
    last = torch.arange(6.0).reshape(2, 3).to(memory_format=torch.contiguous_format)
    assert digest_tensors({"a": last}) == digest_tensors({"a": last.t().contiguous().t()})


def test_reading_keeps_the_metadata(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", {"licence": "Apache-2.0"})
    assert read_weights(tmp_path / "m.safetensors").metadata == {"licence": "Apache-2.0"}


def test_a_file_is_found_by_its_name_in_the_folders_for_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from showtell.encoders.weights import locate_weights

    (tmp_path / "own").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "own/a.safetensors").write_bytes(b"")
    monkeypatch.setenv("SHOWTELL_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path / "here")
    assert locate_weights("a.safetensors") == tmp_path / "own/a.safetensors"
    # A file that is where the name says comes first; what has a folder is a path and nothing else.
    Path("a.safetensors").write_bytes(b"")
    assert locate_weights("a.safetensors") == Path("a.safetensors")
    assert locate_weights("nowhere/a.safetensors") == Path("nowhere/a.safetensors")
    assert locate_weights("b.safetensors") == Path("b.safetensors")
