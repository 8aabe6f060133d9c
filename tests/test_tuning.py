"""Tuning: what is tried, that it goes on as if it had never stopped, and what it leaves in the bundle."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from showtell import tuning
from showtell.bundle import find_bundle, load_bundle, store_decoding
from showtell.captioner import Captioner
from showtell.cli import tune as command
from showtell.cli.main import main
from showtell.decoding import DecodingSettings
from showtell.errors import UsageError
from showtell.files import digest_file
from showtell.tuning import JOURNAL, EncodedSplit, Tried, TuningResult, check_split, encode_split, tune
from tiny_runs import draw_dataset, scratch_folder, shared_dataset, trained_run

pytest.importorskip("optuna", reason="needs the extra tune")
Capture = pytest.CaptureFixture[str]
TRIALS = 14  # more than are drawn at random, so that the estimator has its say


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.load(trained_run())


@pytest.fixture(scope="module")
def encoded(captioner: Captioner) -> EncodedSplit:
    return encode_split(captioner, shared_dataset())


@pytest.fixture(scope="module")
def whole(captioner: Captioner, encoded: EncodedSplit) -> TuningResult:
    """A study that was never interrupted."""
    return tune(captioner, encoded, trials=TRIALS, max_beam=4)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the trained bundle, to be changed."""
    shutil.copytree(find_bundle(trained_run()), tmp_path / "model")
    return tmp_path / "model"


def rows(result: TuningResult) -> list[tuple[DecodingSettings, Any]]:
    return [(one.settings, one.scores) for one in result.tried]


def words(*more: str) -> list[str]:
    return ["tune", *more, "--data", str(scratch_folder() / "data")]


# The search


def test_the_table_has_the_scores_of_evaluate(captioner: Captioner, whole: TuningResult) -> None:
    assert 1 < len(whole.tried) <= TRIALS
    scores = [one.scores["CIDEr"] for one in whole.tried]
    assert scores == sorted(scores, reverse=True)
    assert len({one.settings for one in whole.tried}) == len(whole.tried)
    for one in (whole.tried[0], whole.tried[-1], whole.before):
        report = captioner.evaluate(shared_dataset(), split="dev", settings=one.settings)
        assert one.scores == pytest.approx(dict(report.scores), abs=1e-9)
    assert whole.before.settings == captioner.settings
    assert whole.best.scores["CIDEr"] == max(*scores, whole.before.scores["CIDEr"])


def test_the_settings_vary_in_everything_and_stay_in_bounds(whole: TuningResult) -> None:
    found = [one.settings for one in whole.tried]
    assert {settings.method for settings in found} == {"beam"}
    assert {settings.beam for settings in found} <= {1, 2, 3, 4}
    assert {settings.max_steps for settings in found} == {12}
    for name in ("beam", "length_penalty", "no_repeat_ngram", "no_double_words"):
        assert len({getattr(settings, name) for settings in found}) > 1
    assert all(
        settings.length_penalty == pytest.approx(round(settings.length_penalty, 1), abs=0)
        for settings in found
    )


def test_images_are_encoded_once(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    encode = captioner.backend.encode
    monkeypatch.setattr(
        captioner.backend, "encode", lambda pixels: (sizes.append(len(pixels)), encode(pixels))[1]
    )
    seen: list[tuple[int, int]] = []
    split = encode_split(captioner, shared_dataset(), max_images=3, progress=lambda *at: seen.append(at))
    assert [image.split for image in split.dataset.images] == ["dev"] * 3
    result = tune(captioner, split, trials=2, progress=lambda *at: seen.append(at))
    assert result.record["images"] == 3
    assert sizes == [3]
    assert seen == [(3, 3), (0, 2), (1, 2), (2, 2)]


def test_what_was_tried_is_not_tried_again(
    captioner: Captioner, encoded: EncodedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[DecodingSettings] = []
    original = tuning._try

    def count(captioner: Captioner, encoded: EncodedSplit, settings: DecodingSettings) -> Any:
        tried.append(settings)
        return original(captioner, encoded, settings)

    monkeypatch.setattr(tuning, "_try", count)
    monkeypatch.setattr(tuning, "MAX_PENALTY", 0.1)
    result = tune(captioner, encoded, trials=20, max_beam=1)  # twelve ways in all
    assert len(tried) == 1 + len(result.tried) <= 13
    assert result.record["trials"] == 20


def test_another_metric_ranks_and_narrow_beams_win_ties(captioner: Captioner, encoded: EncodedSplit) -> None:
    result = tune(captioner, encoded, trials=4, metric="Bleu_1")
    scores = [(-one.scores["Bleu_1"], one.settings.beam) for one in result.tried]
    assert scores == sorted(scores)
    with pytest.raises(
        UsageError, match=r"Unknown metric 'CIDER'\. Did you mean 'CIDEr'\? Choose from: CIDEr, "
    ):
        tune(captioner, encoded, metric="CIDER")


def test_what_a_model_had_stays_where_nothing_is_better() -> None:
    before = Tried(DecodingSettings(beam=3), {"CIDEr": 0.5}, 1.0)
    worse = replace(before, settings=DecodingSettings(beam=1), scores={"CIDEr": 0.5})
    better = replace(worse, scores={"CIDEr": 0.6})
    assert TuningResult("CIDEr", before, (worse,)).best is before
    assert TuningResult("CIDEr", before, (better, worse)).best is better


# Resuming


def test_a_study_that_failed_goes_on_as_if_it_had_not(
    captioner: Captioner,
    encoded: EncodedSplit,
    whole: TuningResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, calls = tuning._try, 0

    def fail(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_try", fail)
        with pytest.raises(KeyboardInterrupt):
            tune(captioner, encoded, folder=tmp_path, trials=TRIALS, max_beam=4)
    with pytest.raises(UsageError, match=r"holds a study already\. Add --resume"):
        tune(captioner, encoded, folder=tmp_path, trials=TRIALS, max_beam=4)
    found = tune(captioner, encoded, folder=tmp_path, resume=True, trials=TRIALS, max_beam=4)
    assert rows(found) == rows(whole)
    assert found.record == whole.record
    more = tune(captioner, encoded, folder=tmp_path, resume=True, trials=TRIALS + 2, max_beam=4)
    assert more.record["trials"] == TRIALS + 2
    assert {settings for settings, _ in rows(whole)} <= {settings for settings, _ in rows(more)}


def test_a_killed_process_is_resumed(whole: TuningResult, tmp_path: Path, capsys: Capture) -> None:
    study = tmp_path / "study"
    line = words(str(trained_run()), "--output", str(study), "--trials", str(TRIALS), "--max-beam", "4")
    slow = "import time, showtell.tuning as t; f = t._try; t._try = lambda *a: (time.sleep(0.2), f(*a))[1]; "
    code = f"{slow}from showtell.cli.main import main; main({line!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        journal = study / JOURNAL
        if journal.exists() and journal.read_text().count('"scores"') >= 4:
            break
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with (study / JOURNAL).open("ab") as file:  # and in the worst moment
        file.write(b'{"op_code": 5, "wor')
    lock = study / f"{JOURNAL}.lock"  # Optuna's
    lock.unlink(missing_ok=True)
    lock.symlink_to(JOURNAL)
    assert main(line) == 2
    assert "Add --resume" in capsys.readouterr().err
    assert main([*line, "--resume"]) == 0
    output = capsys.readouterr().out
    table = json.loads((study / "tuning.json").read_text())
    assert [(one["settings"], one["scores"]) for one in table["tried"]] == [
        (settings.to_dict(), scores) for settings, scores in rows(whole)
    ]
    assert json.loads(output.splitlines()[-1])["settings"] == whole.best.settings.to_dict()


def test_a_study_is_resumed_with_what_it_was_begun_with(
    captioner: Captioner, encoded: EncodedSplit, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    tune(captioner, encoded, folder=study, trials=1)
    other = Captioner(captioner.backend, captioner.settings, digest="f" * 64)
    fewer = encode_split(captioner, shared_dataset(), max_images=2)
    for changed, message in (
        ((other, encoded, {}), rf"another model \({captioner.digest[:12]}, now ffffffffffff\)"),
        ((captioner, fewer, {}), r"another data \([0-9a-f]{12}, now [0-9a-f]{12}\)"),
        (
            (captioner, encoded, {"metric": "Bleu_4", "seed": 3}),
            "metric .CIDEr, now Bleu_4. and another seed .0, now 3.",
        ),
        ((captioner, encoded, {"max_beam": 3}), r"another max_beam \(5, now 3\)"),
    ):
        with pytest.raises(UsageError, match=message):
            tune(*changed[:2], folder=study, resume=True, trials=2, **changed[2])
    assert tune(captioner, encoded, folder=study, resume=True, trials=2).record["trials"] == 2


def test_folders_that_are_no_study_are_left_alone(
    captioner: Captioner, encoded: EncodedSplit, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(UsageError, match="not empty and not a study"):
            tune(captioner, encoded, folder=tmp_path, resume=resume)
    for damage in ('{"op_code": 99}\n', "[]\n", "no json\n{}\n"):
        study = tmp_path / "damaged"
        study.mkdir(exist_ok=True)
        (study / JOURNAL).write_text(damage)
        with pytest.raises(UsageError, match="damaged, so the study cannot be resumed"):
            tune(captioner, encoded, folder=study, resume=True)


# What is refused


@pytest.mark.parametrize("split", ["test", "train"])
def test_only_dev_is_for_choosing(split: str, capsys: Capture) -> None:
    with pytest.raises(UsageError, match=f"Tuning on the split '{split}' is refused"):
        check_split(split)
    assert main(words(str(trained_run()), "--split", split)) == 2
    error = capsys.readouterr().err
    reason = "too good to be compared" if split == "test" else "knows its training images too well"
    assert reason in error
    assert "Tune on dev, then evaluate on test." in error


def test_a_missing_package_names_its_extra(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(words(str(trained_run()))) == 2
    assert 'pip install "showtell[tune]"' in capsys.readouterr().err


def test_a_missing_dev_split_is_named(capsys: Capture, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "data", train=2, dev=0, test=2)
    assert main(["tune", str(trained_run()), "--data", str(tmp_path / "data")]) == 2
    assert "has no images in split 'dev'" in capsys.readouterr().err


def test_what_has_no_bundle_cannot_be_written_to(capsys: Capture, tmp_path: Path) -> None:
    run = str(trained_run())
    assert main(words(run, run, "--write")) == 2
    assert "--write: an ensemble has no bundle of its own" in capsys.readouterr().err
    (tmp_path / "portable.json").write_text("{}")
    assert main(words(str(tmp_path), "--write")) == 2
    assert "is an exported model. Tune its bundle, and export that again." in capsys.readouterr().err
    assert main(words(run, "--resume")) == 2
    assert "--resume needs --output" in capsys.readouterr().err


def test_the_command_line_offers_what_there_is() -> None:
    assert command.METRICS == tuning.METRICS
    assert (command.TRIALS, command.MAX_BEAM) == (tuning.TRIALS, tuning.MAX_BEAM)


# The bundle


def test_the_best_settings_become_the_defaults(bundle: Path, capsys: Capture) -> None:
    before = load_bundle(bundle)
    others = {name: digest_file(bundle / name) for name in ("vocabulary.json", "decoder.safetensors")}
    assert main(words(str(bundle), "--trials", "6", "--write")) == 0
    output = capsys.readouterr()
    last = json.loads(output.out.splitlines()[-1])
    after = load_bundle(bundle)
    assert after.recipe.decoding.to_dict() == last["settings"]
    assert after.recipe == replace(before.recipe, decoding=after.recipe.decoding)
    assert after.digest != before.digest
    assert after.digest[:12] in output.err
    assert {name: digest_file(bundle / name) for name in others} == others
    assert after.tuning["metric"] == "CIDEr"
    assert (after.tuning["split"], after.tuning["images"], after.tuning["trials"]) == ("dev", 5, 6)
    assert after.tuning["before"]["settings"] == before.recipe.decoding.to_dict()
    assert after.tuning["scores"] == last["scores"]
    captioner = Captioner.load(bundle)
    assert captioner.settings == after.recipe.decoding
    assert dict(captioner.evaluate(shared_dataset(), split="dev").scores) == pytest.approx(last["scores"])


def test_the_table_is_printed_best_first(bundle: Path, capsys: Capture) -> None:
    assert main(words(str(bundle), "--trials", "5", "--metric", "bleu_4", "--max-beam", "2")) == 0
    output = capsys.readouterr()
    header, *table, last = output.out.splitlines()
    assert header.split()[:5] == ["beam", "length", "penalty", "no", "repeated"]
    assert header.split()[-4:] == ["Bleu_4", "CIDEr", "ROUGE_L", "seconds"]
    assert len([row for row in table if row.startswith("was")]) == 1
    scores = [float(row.split()[-4]) for row in table]
    assert scores == sorted(scores, reverse=True)
    best = json.loads(last)
    assert scores[0] == pytest.approx(100 * best["scores"]["Bleu_4"], abs=0.01)
    options = output.err.split("the best as options: ")[1].split()
    # What is told as options means the same settings.
    report = bundle.parent / "report.json"
    data = ["--data", str(scratch_folder() / "data"), "--split", "dev", "--output", str(report)]
    assert main(["evaluate", str(bundle), *data, *options]) == 0
    assert json.loads(report.read_text())["settings"] == best["settings"]
    assert load_bundle(bundle).tuning == {}


def test_a_new_bundle_is_written_and_renewed(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    study = tmp_path / "study"
    line = words(str(bundle), "--output", str(study))
    digest = load_bundle(bundle).digest
    (study / "bundle").mkdir(parents=True)  # what a killed run left there
    (study / "bundle" / "vocabulary.json").write_text("{")
    (study / JOURNAL).touch()
    assert main([*line, "--trials", "2", "--resume"]) == 0
    first = load_bundle(study / "bundle")
    assert main([*line, "--trials", "9", "--resume"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    second = load_bundle(study / "bundle")
    assert (first.tuning["trials"], second.tuning["trials"]) == (2, 9)
    assert second.recipe.decoding.to_dict() == last["settings"]
    assert json.loads((study / "tuning.json").read_text())["settings"] == last["settings"]
    assert load_bundle(bundle).digest == digest  # the model itself is as it was
    assert sorted(path.name for path in study.iterdir()) == [".lock", "bundle", JOURNAL, "tuning.json"]


def test_a_bundle_is_never_half_written(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_bundle(bundle)

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="No space left"):
            store_decoding(bundle, DecodingSettings(beam=7), {"metric": "CIDEr"})
    assert load_bundle(bundle).digest == before.digest
    assert store_decoding(bundle, DecodingSettings(beam=7), {"metric": "CIDEr"}) == load_bundle(bundle).digest
    assert load_bundle(bundle).recipe.decoding == DecodingSettings(beam=7)


def test_an_ensemble_is_tuned_too(capsys: Capture, tmp_path: Path) -> None:
    run = str(trained_run())
    assert main(words(run, run, "--trials", "2", "--output", str(tmp_path / "study"))) == 0
    digest = load_bundle(trained_run()).digest
    table = json.loads((tmp_path / "study" / "tuning.json").read_text())
    assert len(table["tried"]) == 2
    assert not (tmp_path / "study" / "bundle").exists()
    assert f"{digest}+{digest}" in (tmp_path / "study" / JOURNAL).read_text()
