"""The benchmarks: their harness is fair and says what it measured; rivals do the same work as we do."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import ours, report
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.matrix import multiply
from benchmarks.models import STEPS, write_plain, write_random
from benchmarks.photographs import draw_pixels, write_photographs
from benchmarks.rivals import tutorial, tutorial_training
from benchmarks.rivals.names import TRANSFORMERS
from benchmarks.sides import Measurement, Side, Target, call, measure, ratios
from benchmarks.synthetic import load_training_recipe, read_training_data, write_training_data
from PIL import Image

TINY_DECODER = ["decoder.feature_size=16", "decoder.attention_size=16", "decoder.hidden_size=32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of random weights, and the same weights as rivals read them."""
    folder = tmp_path_factory.mktemp("model")
    overrides = ["encoder.name=test_resnet", "encoder.image_size=64", *TINY_DECODER]
    write_random(str(folder / "bundle"), "attend-gru-additive", overrides, vocab=204)()
    write_plain(str(folder / "bundle"), str(folder / "plain"))()
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Pictures of the encoder's size, so that no side resamples."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(5)]
    for path, pixels in zip(paths, draw_pixels(len(paths), 64, 64)):
        Image.fromarray(pixels).save(path)
    return [str(path) for path in paths]


# ----- rivals do the same work


@pytest.mark.parametrize("beam", [1, 3])
def test_the_tutorial_pipeline_gives_our_captions(
    model: Path, pictures: list[str], beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    bundle, plain = str(model / "bundle"), str(model / "plain")
    mine = ours.caption(bundle, "torch", "auto", pictures, beam=beam, steps=7)()["captions"]
    theirs = tutorial.caption(plain, pictures, beam=beam, steps=7)()["captions"]
    assert theirs == mine
    assert len(set(mine)) > 1  # the pictures matter
    assert {len(text.split()) for text in mine} == {7}  # nobody ends early


def test_the_tutorial_pipeline_ends_greedy_captions_as_we_do(model: Path, tmp_path: Path) -> None:
    # With a wider beam the algorithms differ from the first ended caption on: the tutorials go on narrower.
    from safetensors.torch import save_file

    from showtell.decoders import TorchStepper, create_decoder
    from showtell.decoding import decode
    from showtell.text import SPECIAL

    facts, tensors = tutorial.read_plain(model / "plain")
    tensors["decoder.output.bias"][SPECIAL.end] = 2.0  # so that captions end after a few words
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    save_file(tensors, tmp_path / "weights.safetensors")
    pipeline = tutorial.Pipeline(tmp_path, beam=1, steps=12, length_penalty=0.6)
    decoder = create_decoder(
        "attend-gru-additive",
        facts["decoder_options"],
        features="grid",
        channels=facts["channels"],
        vocab_size=204,
    )
    own = {name.removeprefix("decoder."): value for name, value in tensors.items() if "decoder." in name}
    decoder.load_state_dict(own)
    settings = ours.beam_settings(beam=1, steps=12, length_penalty=0.6)
    features = torch.randn(20, 4, facts["channels"], generator=torch.Generator().manual_seed(1))
    found = decode(TorchStepper(decoder.eval(), features, vocab_size=204), settings, SPECIAL)
    mine = [list(hypotheses[0].tokens) for hypotheses in found]
    theirs = [pipeline.search(one.unsqueeze(0)) for one in features]
    assert theirs == mine
    assert len({len(tokens) for tokens in mine}) > 3  # captions do end, and not all at once


def test_the_tutorial_encoder_gives_our_features(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    mine = ours.encode(str(model / "bundle"), "torch", "auto", batch=3)()
    theirs = tutorial.encode(str(model / "plain"), batch=3)()
    assert mine["precision"] == "float32"
    np.testing.assert_allclose(mine["features"], theirs["features"], atol=1e-4)


def test_the_tutorial_loss_is_our_loss(model: Path) -> None:
    from torch.nn.functional import cross_entropy

    from showtell.decoders import CaptionBatch, create_decoder

    facts, tensors = tutorial.read_plain(model / "plain")
    facts["decoder_options"] = {**facts["decoder_options"], "dropout": 0.0}
    rival = tutorial.build_decoder(facts, tensors)
    decoder = create_decoder(
        "attend-gru-additive",
        facts["decoder_options"],
        features="grid",
        channels=facts["channels"],
        vocab_size=204,
    )
    decoder.load_state_dict(rival.state_dict())
    captions = [[1, 8, 9, 10, 2], [1, 20, 21, 2], [1, 30, 2]]
    padded = tutorial_training.pad(captions)
    owners = torch.tensor([1, 0, 1])
    features = torch.randn(2, 4, facts["channels"], generator=torch.Generator().manual_seed(2))
    batch = CaptionBatch(padded[:, :-1], padded[:, 1:], [len(caption) - 1 for caption in captions], owners)
    mine = cross_entropy(decoder(features, batch).logits, batch.pack(batch.targets))
    theirs = tutorial_training.compute_loss(rival, features[owners], padded)
    assert theirs.item() == pytest.approx(mine.item(), rel=1e-5)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_models_write_captions_of_the_length_asked_for(name: str, pictures: list[str]) -> None:
    huggingface = _import_huggingface()
    one_round = huggingface.caption(name, pictures[:2], steps=5, layers=1, hidden=64)
    assert one_round() == {"units": 2, "tokens": [5, 5]}


@pytest.mark.parametrize(("name", "millions"), [("blip-base", 224), ("vit-gpt2", 239)])
def test_transformers_models_have_the_published_sizes(name: str, millions: int) -> None:
    huggingface = _import_huggingface()
    with torch.device("meta"):
        model, _ = huggingface.BUILDERS[name]()
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=1)


def _import_huggingface() -> Any:
    pytest.importorskip("transformers", reason="needs the extra bench")
    return importlib.import_module("benchmarks.rivals.huggingface")


# ----- the harness

COUNTING = """
import os, time
def open_counter(step):
    rounds = []
    def one_round():
        rounds.append(step)
        print("noise on standard output")
        time.sleep(0.01 * step)
        return {"units": 2, "rounds": len(rounds), "process": os.getpid()}
    return one_round
def open_failing():
    def one_round():
        raise ValueError("this side is broken")
    return one_round
"""


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with sides for tests, that workers can import."""
    (tmp_path / "counting_sides.py").write_text(COUNTING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "counting_sides"


def test_sides_work_in_turn_each_in_one_process(counting: str, capfd: pytest.CaptureFixture[str]) -> None:
    sides = {name: Side(f"{counting}:open_counter", {"step": step}) for name, step in (("a", 1), ("b", 5))}
    found = measure(sides, rounds=3, warmups=1, threads=1)
    for side in found.values():
        assert [result["rounds"] for result in side.results] == [2, 3, 4]  # the first was the warm-up
        assert len({result["process"] for result in side.results}) == 1
        assert side.units == (2, 2, 2)
        assert side.peak_rss_mb > 1
    assert found["a"].results[0]["process"] != found["b"].results[0]["process"]
    assert found["a"].rate > found["b"].rate
    order = [line.split(":")[0].strip() for line in capfd.readouterr().err.splitlines() if line.endswith("s")]
    assert order == ["b", "a", "a", "b", "b", "a"]  # after the warm-up, whose lines say so


def test_a_side_that_fails_stops_the_benchmark_and_shows_its_error(
    counting: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="counting_sides:open_failing failed"):
        call(f"{counting}:open_failing", threads=1)
    assert "this side is broken" in capfd.readouterr().err


def test_ratios_and_spread() -> None:
    mine = Measurement((1.0, 1.0, 2.0), (10, 10, 10), 100.0, ())
    rival = Measurement((4.0, 8.0, 4.0), (10, 10, 10), 200.0, ())
    compared = ratios(mine, rival)
    assert compared["of_medians"] == 4.0
    assert compared["rounds"] == [4.0, 8.0, 2.0]
    assert compared["median"] == 4.0
    assert compared["quartiles"] == [3.0, 6.0]
    assert mine.summary("images")["images_per_second"]["median"] == 10.0
    assert mine.summary("images")["milliseconds_each"] == 100.0


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        (Target("x", 4.0, at_least=4.0), True),
        (Target("x", 3.9, at_least=4.0), False),
        (Target("x", 0.5, at_most=0.5), True),
        (Target("x", 0.6, at_most=0.5), False),
        (Target("x", 0.6, at_most=0.5, applies=False), None),
    ],
)
def test_targets(target: Target, reached: bool | None) -> None:
    assert target.summary()["reached"] is reached


def test_photographs_are_all_different_and_of_the_size_asked_for(tmp_path: Path) -> None:
    paths = write_photographs(tmp_path, 8, width=160, height=120)
    assert len({path.read_bytes() for path in paths}) == 8
    for path in paths:
        with Image.open(path) as image:
            assert (image.size, image.format) == ((160, 120), "JPEG")
    before = paths[0].stat().st_mtime_ns
    assert write_photographs(tmp_path, 3, width=160, height=120) == paths[:3]
    assert paths[0].stat().st_mtime_ns == before  # what is there is kept


def test_synthetic_data_is_a_data_set_with_its_features(tmp_path: Path) -> None:
    from showtell.encoders import FeatureCache, build_encoder
    from showtell.text import Vocabulary

    overrides = [*TINY_DECODER, "encoder.image_size=64"]
    folder = tmp_path / "data"
    write_training_data(
        str(folder), images=60, dev=4, encoder="test_resnet", overrides=overrides, words=300
    )()
    dataset = read_training_data(folder)
    assert dataset.counts() == {"train": 60, "dev": 4}
    encoder = build_encoder(load_training_recipe("test_resnet", overrides).encoder)
    with FeatureCache.open(
        folder / "features", encoder_fingerprint=encoder.fingerprint, dataset=dataset
    ) as cache:
        assert cache.features(["0", "63"]).min() == 0.0
    captions = [caption for image in dataset.images for caption in image.captions]
    assert len(Vocabulary.from_captions(captions).words) == 300
    assert 10 < sum(len(caption.split()) for caption in captions) / len(captions) < 12


def test_matrix_products_are_measured_in_three_precisions() -> None:
    rates = multiply(64)()["rates"]
    assert set(rates) == {"float32", "bf16", "int8"}
    assert all(math.isfinite(rate) and rate > 0 for rate in rates.values())


# ----- the commands


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"python -m benchmarks {name}" in capsys.readouterr().out


def test_an_unknown_name_lists_the_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capton"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(name in printed.err for name in BENCHMARKS)


ROUNDS = ["--rounds", "2", "--warmups", "1", "--threads", "1"]
SMALL = ["--encoder", "test_resnet", "--engine", "torch"]
TINY_RUNS = {
    "encode": [*ROUNDS, *SMALL, "--batch", "2", "--size", "64"],
    "caption": [*ROUNDS, *SMALL, "--repeats", "1", "--width", "320", "--height", "240"],
    "cold_start": [*ROUNDS, "--encoder", "test_resnet"],
    "batch": [*ROUNDS, *SMALL, "--images", "4"],
    "features": [*ROUNDS, *SMALL, "--count", "6", "--rival-count", "2"],
    "memory": ["--counts", "24", "48", "--words", "50", "--threads", "1", "--encoder", "test_resnet"],
    "scale": ["--counts", "24", "--words", "50", "--threads", "1", *SMALL],
}
TRAIN = [
    *ROUNDS,
    "--encoder",
    "test_resnet",
    "--captions",
    "10",
    "--steps",
    "1",
    "--rival-steps",
    "1",
    "--words",
    "50",
]


def run_tiny(name: str, options: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([name, *options]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert {"benchmark", "machine", "versions", "targets"} <= set(found)
    assert found["machine"]["cores"] >= 1
    return found


def test_a_real_run_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_tiny("train", TRAIN, capsys)
    assert set(found["sides"]) == {"showtell", "tutorial"}
    assert found["captions_per_batch"] == 10
    assert found["targets"][0]["at_least"] == 4.0


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY_RUNS)
def test_real_runs(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = run_tiny(name, TINY_RUNS[name], capsys)
    assert report.draw(found, tmp_path / "plot.png")


@pytest.mark.slow
def test_fine_tuning_says_what_each_way_takes(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--encoder", "test_resnet", "--images", "4", "--size", "64", "--steps", "2", "--threads", "1"]
    found = run_tiny("fine_tuning", options, capsys)
    assert set(found["ways"]) == {"kept", "recomputed", "in_parts"}
    assert all(way["peak_rss_mb"] > 100 and way["images_per_second"] > 0 for way in found["ways"].values())


@pytest.mark.slow
def test_a_folder_is_captioned_like_the_tutorials(capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        *ROUNDS,
        *SMALL,
        "--folder",
        "8",
        "--tutorial-images",
        "3",
        "--width",
        "320",
        "--height",
        "240",
    ]
    found = run_tiny("caption", options, capsys)
    assert found["benchmark"] == "caption-folder"
    assert found["same_captions_as_tutorial"] == 1.0
    assert found["search"] == {"beam": 3, "steps": STEPS}


# ----- the report


def line(name: str, **facts: Any) -> dict[str, Any]:
    machine = {"processor": "Abacus", "cores": 2, "flags": ["avx512f"], "load": 0.5}
    return {"benchmark": name, "machine": machine, "versions": {"torch": "2.13"}, **facts}


def test_report_draws_and_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rate = {"median": 8.0, "quartiles": [7.0, 9.0], "rounds": [8.0]}
    targets = [
        Target("times as fast", 4.2, at_least=4.0).summary(),
        Target("ms", 20.0, at_most=15.0).summary(),
    ]
    sides = {"showtell": {"images_per_second": rate}, "tutorial": {"images_per_second": rate}}
    growth = {"train": {"10": {"milliseconds_per_image": 2.0, "peak_rss_mb": 300.0}}}
    results = tmp_path / "results.jsonl"
    lines = [
        line("caption", targets=[Target("outdated", 1.0, at_least=2.0).summary()]),
        line("caption", unit="images", sides=sides, targets=targets),
        line(
            "decode", unit="images", sizes={"20x10": {"sides": sides}, "40x20": {"sides": sides}}, targets=[]
        ),
        line("score", sides={"showtell": {"seconds": rate}, "pycocoevalcap": {"seconds": rate}}, targets=[]),
        line("scale", by_number_of_images=growth, targets=[]),
    ]
    results.write_text("\n".join(map(json.dumps, lines)) + "\n")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    options = [str(results), "--plots", str(tmp_path / "plots"), "--readme", str(readme)]
    assert main(["report", *options]) == 0
    text = readme.read_text()
    assert "| `caption` | times as fast | 4.2 | >= 4 | yes |" in text
    assert "| `caption` | ms | 20 | <= 15 | no |" in text
    assert "Abacus, 2 cores" in text
    assert "old" not in text
    assert "outdated" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    for name in ("caption", "decode", "score", "scale"):
        with Image.open(tmp_path / "plots" / f"{name}.png") as image:
            assert image.width > 400
    assert main(["report", *options]) == 0
    assert readme.read_text() == text  # again gives the same


def test_report_refuses_what_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"benchmark": "x"}\nnothing\n')
    with pytest.raises(SystemExit, match=r"results\.jsonl, line 2: not a line of a benchmark"):
        report.read_lines([tmp_path / "results.jsonl"])


def test_the_readme_has_a_place_for_the_table_and_names_every_benchmark() -> None:
    text = report.README.read_text()
    assert report.BEGIN in text
    assert report.END in text
    assert [name for name in BENCHMARKS if name != "report" and f"| `{name}` |" not in text] == []
