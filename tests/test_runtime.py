"""The runtime: no torch, clear refusals, a cache of compiled models that may be damaged or absent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.errors import BundleError, ConfigError, ImageError, MissingExtraError
from showtell.runtime import ENGINES, EngineOptions
from showtell.runtime.engine import open_engine
from test_architecture import REFUSE
from tiny_runs import encoders_written_once, exported_run, trained_run


@pytest.fixture(scope="module")
def exported() -> Path:
    """A trained model, exported; tests that change it copy it first."""
    return exported_run()


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


@pytest.mark.parametrize("engine", ENGINES)
def test_captioning_imports_no_torch(
    exported: Path, photographs: list[Path], engine: str, clean_environment: dict[str, str]
) -> None:
    words = ["caption", str(photographs[0]), "--model", str(exported), "--engine", engine]
    code = REFUSE.format(refused=["torch", "timm", "torchvision", "onnx"]) + (
        f"from showtell.cli.main import main\ncode = main({words!r})\n"
        "loaded = [name for name in sys.modules if name.partition('.')[0] in ('torch', 'timm', 'torchvision')]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=clean_environment
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{photographs[0]}\t")


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_is_survived_when_captioners_are_closed_in_the_order_of_their_opening(
    exported: Path, engine: str, clean_environment: dict[str, str]
) -> None:
    code = (
        "import gc, os, signal, sys\n"
        "from showtell.captioner import Captioner\n"
        f"open_one = lambda: Captioner.load({str(exported)!r}, engine={engine!r})\n"
        "first, second = open_one(), open_one()\n"
        "del first\ngc.collect()\ndel second\ngc.collect()\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('survived')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=clean_environment
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "survived\n", "")


def test_both_engines_write_the_same(exported: Path, photographs: list[Path]) -> None:
    found = [
        [
            picture.text
            for picture in Captioner.load(exported, engine=engine, precision="float32").caption(photographs)
        ]
        for engine in ENGINES
    ]
    assert found[0] == found[1]


def test_a_picture_alone_gives_what_it_gives_in_a_batch(exported: Path) -> None:
    backend = Captioner.load(exported, precision="float32").backend
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    together = backend.encode(pixels)
    np.testing.assert_allclose(backend.encode(pixels[:1]), together[:1], atol=1e-5)
    assert backend.encode(pixels[:0]).shape == (0, *together.shape[1:])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_captions(exported: Path, photographs: list[Path], threads: int) -> None:
    captioner = Captioner.load(exported, precision="float32", threads=threads)
    default = Captioner.load(exported, precision="float32")
    assert [p.text for p in captioner.caption(photographs)] == [p.text for p in default.caption(photographs)]


def test_a_damaged_image_in_a_batch_stops_nobody_else(exported: Path, photographs: list[Path]) -> None:
    results = list(Captioner.load(exported).caption([photographs[0], b"no image", photographs[1]]))
    assert [result.error is None for result in results] == [True, False, True]
    assert isinstance(results[1].error, ImageError)


@pytest.mark.parametrize("name", ["encoder.onnx", "start.onnx", "step.onnx", "vocabulary.json"])
def test_a_file_of_another_export_is_refused(copied: Path, name: str) -> None:
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=rf"{name}: its content .* is not what its manifest lists"):
        Captioner.load(copied)
    (copied / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: missing"):
        Captioner.load(copied)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", 99, "export format 99, .* Update Showtell, or export the model again"),
        ("format_version", "one", "not an exported captioner"),
        ("grid", [1], "damaged"),
        ("weights", "int3", r"weights must be one of \('float32', 'int8'\)"),
        ("vocabulary_size", 3, "They belong to different exports"),
        ("recipe", {"name": "x"}, "recipe"),
    ],
)
def test_a_damaged_manifest_is_refused(copied: Path, key: str, value: object, message: str) -> None:
    path = copied / "portable.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(BundleError, match=message):
        Captioner.load(copied)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_graph_that_is_none_is_refused(copied: Path, engine: str) -> None:
    from showtell.files import digest_file

    (copied / "step.onnx").write_bytes(b"not a graph")
    path = copied / "portable.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["step.onnx"] = digest_file(copied / "step.onnx")
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"step\.onnx: (OpenVINO|ONNX Runtime) cannot"):
        Captioner.load(copied, engine=engine)


def test_a_damaged_cache_of_compiled_models_is_made_anew(
    exported: Path, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path))
    first = [picture.text for picture in Captioner.load(exported).caption(photographs)]
    entries = list((tmp_path / "compiled").rglob("*.blob"))
    assert entries, "nothing was kept"
    for place, entry in enumerate(entries):
        content = entry.read_bytes()
        entry.write_bytes(content[: len(content) // 2] if place % 2 else b"rubbish")
    (tmp_path / "compiled" / "mine.txt").write_text("not Showtell's")
    assert [picture.text for picture in Captioner.load(exported).caption(photographs)] == first
    assert (tmp_path / "compiled" / "mine.txt").exists()


def test_changed_bytes_in_the_middle_of_the_cache_change_no_caption(
    exported: Path, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path))

    def log_probs() -> list[float]:
        captioner = Captioner.load(exported, engine="openvino", precision="float32")
        return [picture.captions[0].log_prob for picture in captioner.caption(photographs)]

    expected = log_probs()
    entries = sorted((tmp_path / "compiled").rglob("*.blob"))
    assert len(entries) >= 3
    for entry in entries:
        content = bytearray(entry.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 2000] = bytes(byte ^ 255 for byte in content[middle : middle + 2000])
        entry.write_bytes(content)
    assert log_probs() == expected
    for entry in entries:
        entry.with_suffix(".crc32").unlink()  # as after a kill between the two
    assert log_probs() == expected
    kept = [entry for entry in (tmp_path / "compiled").rglob("*") if entry.is_file()]
    assert {entry.suffix for entry in kept} == {".blob", ".crc32"}


def test_nobody_is_told(tmp_path: Path) -> None:
    script = (
        "import socket\n"
        "def refuse(*_): raise AssertionError('the network was asked')\n"
        "socket.getaddrinfo = refuse\n"
        "import showtell.runtime.openvino_engine, sys\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_done_without(
    exported: Path, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "file"))
    assert all(picture.text for picture in Captioner.load(exported).caption(photographs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "openvini"}, "engine must be one of .* Did you mean 'openvino'?"),
        ({"engine": "torch"}, "engine must be one of auto, openvino, onnxruntime"),
        ({"precision": "int4"}, "precision must be one of auto, float32, bf16"),
        ({"threads": -1}, "threads must be a whole number >= 0"),
        ({"engine": "onnxruntime", "precision": "bf16"}, "not supported by ONNX Runtime on a CPU"),
    ],
)
def test_options_that_cannot_be_are_refused(exported: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(Captioner.load(exported, **options).caption([]))  # type: ignore[arg-type]


def test_a_network_reads_arrays_that_are_not_contiguous(exported: Path) -> None:
    backend = Captioner.load(exported, precision="float32").backend
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    flipped = pixels[:, :, ::-1]
    np.testing.assert_array_equal(backend.encode(flipped), backend.encode(flipped.copy()))


def test_threads_of_the_caller_take_turns(exported: Path) -> None:
    backend = Captioner.load(exported, precision="float32").backend
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, 64, 64, 3), dtype=np.uint8)
    expected = [backend.encode(batch) for batch in pixels]
    with ThreadPoolExecutor(4) as pool:
        for found, alone in zip(pool.map(backend.encode, pixels), expected, strict=True):
            np.testing.assert_allclose(found, alone, atol=1e-5)


def test_int8_has_no_other_precision(copied: Path) -> None:
    path = copied / "portable.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "int8"}))
    assert Captioner.load(copied).backend.precision == "float32"
    with pytest.raises(ConfigError, match=r"quantised to 8 bits\. Leave it out"):
        Captioner.load(copied, precision="bf16")


def test_a_user_without_a_home_folder_does_without_the_cache(
    exported: Path, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SHOWTELL_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    assert all(picture.text for picture in Captioner.load(exported).caption(photographs))


def test_a_bundle_does_not_run_on_an_engine(exported: Path) -> None:
    run = trained_run(include_encoder=True)
    with pytest.raises(ConfigError, match=r"a bundle runs on torch, not on 'openvino'\. Export it first"):
        Captioner.load(run, engine="openvino")
    with pytest.raises(ConfigError, match="precision = 'bf16' is an option of exported captioners"):
        Captioner.load(run, precision="bf16")
    with pytest.raises(ConfigError, match=r"Did you mean 'openvino'\?"):
        Captioner.load(run, engine="openvini")
    with pytest.raises(ConfigError, match="threads must be a whole number >= 0"):
        Captioner.load(run, threads=-1)


@pytest.mark.parametrize(
    ("engine", "wanted"), [("openvino", r'"showtell\[runtime\]"$'), ("onnxruntime", "showtell$")]
)
def test_a_missing_engine_names_what_to_install(
    engine: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(MissingExtraError, match=f"pip install {wanted}"):
        open_engine(EngineOptions(engine=engine))
    other = next(name for name in ENGINES if name != engine)
    assert open_engine(EngineOptions()).name == other


def test_without_any_engine_the_one_that_comes_with_showtell_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"'onnxruntime'.*pip install showtell$"):
        open_engine(EngineOptions())


def test_the_command_line_exports_and_captions(
    photographs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained_run(include_encoder=True)
    assert main(["export", str(run), "--output", str(tmp_path / "model")]) == 0
    printed = capsys.readouterr()
    assert "for pictures of any size" in printed.err
    size = sum(file.stat().st_size for file in (tmp_path / "model").iterdir())
    assert json.loads(printed.out) == {"output": str(tmp_path / "model"), "bytes": size, "weights": "float32"}
    words = ["caption", str(photographs[0]), "--model", str(tmp_path / "model")]
    assert main([*words, "--threads", "1"]) == 0
    assert capsys.readouterr().out.count("\t") == 1
    assert main([*words, "--threads", "0"]) == 2
    assert "--threads" in capsys.readouterr().err
    assert main([*words, "--precision", "int4"]) == 2
    assert main([*words, "--engine", "torch"]) == 2
    assert main(["export", str(run), "--output", str(tmp_path / "model")]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert (
        main(["export", str(run), "--output", str(tmp_path / "other"), "--int8", str(tmp_path / "model")])
        == 2
    )
    assert "no images" in capsys.readouterr().err


def test_a_calibration_picture_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, pixels in enumerate(
        np.random.default_rng(0).integers(0, 256, (11, 80, 80, 3), dtype=np.uint8)
    ):
        Image.fromarray(pixels).save(pictures / f"{number:02}.png")
    (pictures / "05.png").write_bytes(b"no picture")
    words = ["export", str(trained_run(include_encoder=True)), "--output", str(tmp_path / "out")]
    with encoders_written_once():
        assert main([*words, "--int8", str(pictures)]) == 1
    printed = capsys.readouterr()
    assert "05.png" in printed.err
    assert json.loads(printed.out)["weights"] == "int8"
    (pictures / "06.png").write_bytes(b"")
    words[-1] = str(tmp_path / "other")
    assert main([*words, "--int8", str(pictures)]) == 2
    assert "9 of 11 calibration images can be read" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
