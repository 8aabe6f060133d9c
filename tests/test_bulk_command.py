"""The command `showtell bulk`: its exit code where rows failed, and what it refuses before there is a plan."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bulked import draw_pictures, write_folder, write_table, write_tar
from showtell.bulk.results import read_results
from showtell.cli.main import main

Capture = pytest.CaptureFixture[str]


def test_words_that_the_captioner_does_not_know_are_refused_before_there_is_a_plan(
    photographs: list[Path], exported_model: str, tmp_path: Path, capsys: Capture
) -> None:
    words = ["bulk", str(photographs[0]), "--model", exported_model, "--output", str(tmp_path / "out")]
    assert main([*words, "--beam", "3", "--include", "qwxyz"]) == 2
    assert "qwxyz" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_refused_run_leaves_nothing_in_a_folder_of_photographs(
    photographs: list[Path], exported_model: str, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.jpg").write_bytes(photographs[0].read_bytes())
    assert main(["bulk", str(own), "--model", exported_model, "--output", str(own)]) == 2
    assert [path.name for path in own.iterdir()] == ["a.jpg"]


def test_an_output_that_is_a_file(
    photographs: list[Path], exported_model: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "out").write_text("mine")
    words = ["bulk", str(photographs[0]), "--model", exported_model]
    assert main([*words, "--output", str(tmp_path / "out")]) == 2
    assert f"argument --output: {str(tmp_path / 'out')!r} is a file; name a folder" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("command", ["bulk", "features"])
def test_the_home_of_nobody_is_a_folder_of_that_name(
    command: str, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [command, "nothing", "--output", "~nobody-of-this-name/out"]
    assert main(words) in (1, 2)
    assert "nothing" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_plan_that_is_interrupted_leaves_nothing(
    number: signal.Signals, exported_model: str, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    (tmp_path / "temporary").mkdir()
    os.mkfifo(tmp_path / "list.txt")
    words = ["bulk", "list.txt", "--kind", "list", "--model", exported_model, "--output", "out"]
    with (
        subprocess.Popen(
            [sys.executable, "-m", "showtell", *words],
            cwd=tmp_path,
            env={**clean_environment, "TMPDIR": str(tmp_path / "temporary")},
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        (tmp_path / "list.txt").open("w") as file,
    ):  # it waits here until the list is read
        file.write("a.jpg\n")
        file.flush()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1].endswith("the same command goes on")
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("nothing", "no such file or folder"),
        ("nothing/*.jpg", "no image"),
        ("empty", "no images"),
        ("nothing.tar", "no such file or folder"),
        ("nothing-{0..1}.tar", "no such file or folder"),
        ("nothing.parquet", "no such file or folder"),
    ],
)
def test_what_is_not_there_is_an_input_that_failed_for_every_command(
    word: str, problem: str, exported_model: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "empty").mkdir()
    words = [str(tmp_path / word), "--model", exported_model]
    for command in ("caption", "bulk"):
        assert main([command, *words, "--output", str(tmp_path / command)]) == 1
        assert problem in capsys.readouterr().err
    assert not (tmp_path / "bulk").exists()  # there is no plan of it


def test_failed_rows_are_tried_again_and_told_until_they_are_done(
    photographs: list[Path], exported_model: str, tmp_path: Path, capsys: Capture
) -> None:
    pictures = draw_pictures(photographs, 3)
    tar, output = tmp_path / "a.tar", tmp_path / "out"
    command = ["bulk", str(tar), "--model", exported_model, "--output", str(output), "--workers", "1"]
    write_tar(tar, {**pictures, "001.jpg": b"no image"})

    def run(*more: str) -> tuple[int, str]:
        return main([*command, *more]), capsys.readouterr().err

    code, said = run()
    assert (code, "1 of 3 images failed" in said) == (1, True)
    assert "captioned 2 images, 1 error in " in said
    assert "is complete: 3 rows in 1 shard\n" in said
    code, said = run()
    assert (code, "captioned 0 images; 3 were done before" in said) == (1, True)
    assert "rows of earlier runs have an error: 1. --retry-failed does their shards again" in said
    tar.unlink()
    code, said = run("--retry-failed")
    assert (code, "1 of 1 shard could not be done" in said) == (1, True)
    assert "a.tar: cannot be read: No such file" in said
    assert len(list(read_results(output))) == 3  # what was there before
    write_tar(tar, pictures)
    code, said = run("--retry-failed")
    assert (code, "error" in said) == (0, False)
    assert not any(record.error for record in read_results(output))
    assert run()[0] == 0


def test_a_caption_that_was_there_is_kept_where_its_image_is_gone(
    photographs: list[Path], exported_model: str, tmp_path: Path, capsys: Capture
) -> None:
    folder = write_folder(tmp_path / "in", {**draw_pictures(photographs, 4), "000.jpg": b"no image"})
    command = ["bulk", str(folder), "--model", exported_model, "--output", str(tmp_path / "out")]
    assert main([*command, "--workers", "1"]) == 1
    before = list(read_results(tmp_path / "out"))
    (folder / "000.jpg").write_bytes((folder / "001.jpg").read_bytes())
    (folder / "002.jpg").unlink()
    (folder / "003.jpg").write_bytes(b"spoilt, too")
    assert main([*command, "--workers", "1", "--retry-failed"]) == 0
    after = list(read_results(tmp_path / "out"))
    assert before[0].error
    assert after[1:] == before[1:]
    assert not any(record.error for record in after)
    capsys.readouterr()


def test_what_lies_below_a_folder_of_images_is_told(
    photographs: list[Path], exported_model: str, tmp_path: Path, capsys: Capture
) -> None:
    pictures = draw_pictures(photographs, 2)
    folder = write_folder(tmp_path / "in", pictures)
    (folder / "more" / "tables").mkdir(parents=True)
    write_tar(folder / "more" / "a.tar", pictures)
    write_tar(folder / "more" / "b.tar.gz", pictures, "w:gz")
    write_table(folder / "more" / "tables" / "c.parquet", pictures)
    command = ["bulk", str(folder), "--model", exported_model, "--output", str(tmp_path / "out")]
    assert main([*command, "--workers", "1"]) == 0
    said = capsys.readouterr().err
    assert (
        "Passed over in folders: Parquet files (1) and tar files (2). These are looked for in a folder itself"
        in said
    )
    assert "is complete: 2 rows" in said
    command[-1] = str(tmp_path / "told")
    assert main([*command, "--workers", "1", "--kind", "images"]) == 0
    assert "Passed over" not in capsys.readouterr().err  # as it was said
    command[1] = str(folder / "more")
    command[-1] = str(tmp_path / "other")
    for path in (folder / "more").glob("*.tar*"):
        path.unlink()
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "there are no images here. Passed over in folders: Parquet files (1)." in said


def test_columns_are_of_parquet(
    photographs: list[Path], exported_model: str, tmp_path: Path, capsys: Capture
) -> None:
    command = ["bulk", str(photographs[0]), "--model", exported_model, "--output", str(tmp_path / "out")]
    assert main([*command, "--image-column", "photo"]) == 2
    assert "--image-column and --key-column are of Parquet files" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_model_is_refused_with_the_name_of_the_first(
    photographs: list[Path], exported_model: str, tmp_path: Path, capsys: Capture
) -> None:
    command = ["bulk", str(photographs[0]), "--output", str(tmp_path / "out"), "--workers", "1"]
    assert main([*command, "--model", exported_model]) == 0
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err
    assert re.search(r"was made with model = [0-9a-f]{12}\.\.\., and now [0-9a-f]{12}\.\.\.", said)
    assert f"The model of then was called {exported_model}." in said
    written = json.loads((tmp_path / "out" / "run.json").read_text())
    del written["called"]  # where nobody wrote it down
    (tmp_path / "out" / "run.json").write_text(json.dumps(written))
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "Use the same input, model and options" in said
    assert "was called" not in said


def test_rows_that_nobody_lists_are_not_kept(
    photographs: list[Path], exported_model: str, tmp_path: Path
) -> None:
    """Only of the file that the shard is known by: others may be of another model."""
    folder = write_folder(tmp_path / "in", {**draw_pictures(photographs, 2), "000.jpg": b"no image"})
    command = ["bulk", str(folder), "--model", exported_model, "--format", "jsonl", "--workers", "1"]
    rows = tmp_path / "out" / "captions" / "000000.jsonl"
    command += ["--output", str(tmp_path / "out")]
    assert main(command) == 1
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    lines[0] = {**lines[1], "image": lines[0]["image"]}
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([*command, "--retry-failed"]) == 1
    found = list(read_results(tmp_path / "out"))
    assert [bool(record.error) for record in found] == [True, False]
