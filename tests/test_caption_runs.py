"""`showtell caption` over many images, in real processes: killed, interrupted, starved, repeated, and gone on with."""

from __future__ import annotations

import csv
import functools
import http.server
import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from showtell.captioner import BATCH, Captioner, start_of_batch
from showtell.cli.main import main
from showtell.decoding import DecodingSettings
from showtell.images import Allowance
from showtell.outputs.xmp import read_description

Capture = pytest.CaptureFixture[str]
SHOWTELL = [sys.executable, "-m", "showtell", "caption"]
BAD = {7: b"", 20: b"no image", 33: b"\xff\xd8\xff\xe0"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def small(photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The photographs at a size that is read at once."""
    contents = []
    for path in photographs:
        with Image.open(path) as image:
            buffer = io.BytesIO()
            image.resize((96, 72)).save(buffer, "JPEG")
        contents.append(buffer.getvalue())
    return contents


def fill(folder: Path, contents: list[bytes], count: int) -> None:
    """Makes a folder of many names for few pictures, some of them bad."""
    folder.mkdir(parents=True, exist_ok=True)
    originals = []
    for index, content in enumerate(contents):
        original = folder / f".original-{index}"
        original.write_bytes(content)
        originals.append(original)
    for number in range(count):
        name = folder / f"{number}.jpg"
        if number in BAD:
            name.write_bytes(BAD[number])
        else:
            os.link(originals[number % len(originals)], name)


def start(*words: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SHOWTELL, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_in(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.part")]


# Killed and interrupted


def stop_at(process: subprocess.Popen[str], journal: Path, lines: int, number: int) -> None:
    """Sends a signal once the journal has so many lines, and waits for the end."""
    while lines_in(journal) < lines and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(number)
    process.communicate(timeout=300)


@pytest.mark.parametrize(
    "options",
    [
        ("--format", "jsonl", "--beam", "3", "--count", "2"),
        ("--format", "csv", "--sample", "--seed", "5", "--count", "3", "--sidecar", "txt"),
        ("--format", "html", "--greedy"),
    ],
    ids=["jsonl", "samples-and-sidecars", "html"],
)
def test_a_run_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    options: tuple[str, ...], exported_model: str, small: list[bytes], tmp_path: Path
) -> None:
    chosen = random.Random(repr(options))
    count = 100
    for name in ("undisturbed", "killed"):
        fill(tmp_path / name / "photos", small, count)
    words = ["photos", "--model", exported_model, "--output", "out", *options]
    assert (
        subprocess.run([*SHOWTELL, *words], cwd=tmp_path / "undisturbed", capture_output=True).returncode == 1
    )
    killed = tmp_path / "killed"
    journal = killed / "out.part"
    stopped = []
    resume: list[str] = []
    for lines in sorted(chosen.sample(range(2, count), 3)):
        process = start(*words, *resume, folder=killed)
        stop_at(process, journal, lines, signal.SIGKILL)
        stopped.append(process.returncode)
        assert not (killed / "out").exists()
        resume = ["--resume"]
    assert stopped == [-signal.SIGKILL] * 3
    ended = subprocess.run([*SHOWTELL, *words, "--resume"], cwd=killed, capture_output=True, text=True)
    assert ended.returncode == 1  # three of the images are bad
    begun, said, *_ = ended.stderr.splitlines()
    assert re.fullmatch(
        r"showtell: going on: the results of \d+ images that were done before are kept", begun
    )
    assert said == f"showtell: error: 3 of {count} images failed:"
    assert (killed / "out").read_bytes() == (tmp_path / "undisturbed/out").read_bytes()
    for sidecar in (tmp_path / "undisturbed").rglob("*.txt"):
        assert (killed / sidecar.relative_to(tmp_path / "undisturbed")).read_bytes() == sidecar.read_bytes()
    assert not [name for name in leftovers(killed) if not name.startswith(".")]


def test_killed_at_any_time_whatsoever(exported_model: str, small: list[bytes], tmp_path: Path) -> None:
    chosen = random.Random(11)
    fill(tmp_path / "photos", small, 60)
    words = ["photos", "--model", exported_model, "--format", "json", "--output", "out.json"]
    resume = ["--resume"]  # without a journal it begins
    began = time.monotonic()
    subprocess.run([*SHOWTELL, *words], cwd=tmp_path, capture_output=True, check=False)
    whole = time.monotonic() - began
    expected = (tmp_path / "out.json").read_bytes()
    (tmp_path / "out.json").unlink()
    for _ in range(5):
        process = start(*words, *resume, folder=tmp_path)
        time.sleep(chosen.uniform(0, whole))
        process.kill()
        process.communicate(timeout=300)
    finished = (
        tmp_path / "out.json"
    ).exists()  # by one that was killed after its last image: nothing is left then
    ended = subprocess.run([*SHOWTELL, *words, *resume], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == (0 if finished else 1), ended.stderr
    assert ("nothing is left to do" in ended.stderr) == finished
    assert (tmp_path / "out.json").read_bytes() == expected
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("lines", [2, 90])
def test_ctrl_c_says_how_to_go_on(
    lines: int, exported_model: str, small: list[bytes], tmp_path: Path
) -> None:
    fill(tmp_path / "photos", small, 130)
    words = ["photos", "--model", exported_model, "--format", "jsonl", "--output", "out.jsonl"]
    process = start(*words, folder=tmp_path)
    while lines_in(tmp_path / "out.jsonl.part") < lines:
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=300)
    done = lines_in(tmp_path / "out.jsonl.part") - 1
    assert (process.returncode, output) == (130, "")
    assert error == (
        f"showtell: interrupted; the results of {done} images are kept in out.jsonl.part; the same command with "
        "--resume goes on\n"
    )
    assert leftovers(tmp_path) == ["out.jsonl.part"]
    again = subprocess.run([*SHOWTELL, *words], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2
    assert (
        "of a run that did not end. Go on with it: add --resume. Begin anew: remove that file" in again.stderr
    )
    subprocess.run([*SHOWTELL, *words, "--resume"], cwd=tmp_path, capture_output=True, check=False)
    images = [json.loads(line)["image"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert images == [f"photos/{number}.jpg" for number in range(130)]
    assert leftovers(tmp_path) == []


def test_ctrl_c_at_any_moment_is_one_line(exported_model: str, small: list[bytes], tmp_path: Path) -> None:
    fill(tmp_path / "photos", small, 60)
    words = ["photos", "--model", exported_model, "--format", "json"]
    chosen = random.Random(3)
    ended = []
    for _ in range(5):
        process = start(*words, folder=tmp_path)
        while process.poll() is None and psutil.Process(process.pid).cpu_times().user < 0.06:
            time.sleep(
                0.001
            )  # before that it is Python that starts, and no program of ours could catch anything
        time.sleep(chosen.uniform(0, 1.2))
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=300)
        assert "Traceback" not in error
        # Where the signal comes while a dataclass is being made, Python itself ends by it: to a shell that is 130, too.
        if process.returncode in (130, -signal.SIGINT):
            assert error == "showtell: interrupted\n"
        else:
            assert process.returncode == 1, error  # it was quicker
        if output:
            json.loads(output)  # whole, however far it came
        ended.append(process.returncode)
    assert 130 in ended or -signal.SIGINT in ended


@pytest.mark.parametrize("small_disk", ["24k"], indirect=True)
def test_a_full_disk_is_one_line_and_nothing_is_lost(
    small_disk: Path, exported_model: str, small: list[bytes], here: Path
) -> None:
    fill(here / "photos", small, 130)
    words = ["photos", "--model", exported_model, "--format", "jsonl"]
    expected = subprocess.run([*SHOWTELL, *words], cwd=here, capture_output=True, text=True).stdout
    output = small_disk / "out.jsonl"
    (small_disk / "filler").write_bytes(b"x" * 12_288)
    words += ["--output", str(output)]
    full = subprocess.run([*SHOWTELL, *words], cwd=here, capture_output=True, text=True)
    assert full.returncode == 1
    first, second = full.stderr.splitlines()
    assert "images are kept in" in first
    assert second == (
        f"showtell: error: the disk is full: '{output}.part'. Free some space and run the same command again"
    )
    assert lines_in(small_disk / "out.jsonl.part") > 10
    assert not output.exists()
    (small_disk / "filler").unlink()
    again = subprocess.run([*SHOWTELL, *words, "--resume"], cwd=here, capture_output=True, text=True)
    assert "the disk is full" in again.stderr  # the journal fits now, and the output beside it does not
    assert [path.name for path in small_disk.iterdir()] == ["out.jsonl.part"]
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    last = subprocess.run([*SHOWTELL, *words, "--resume"], cwd=here, capture_output=True, text=True)
    assert last.returncode == 1
    assert output.read_text() == expected
    assert [path.name for path in small_disk.iterdir()] == ["out.jsonl"]


# Resuming


def caption(*words: str) -> int:
    return main(["caption", *words])


def images_in(path: Path) -> list[str]:
    return [json.loads(line)["image"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def unfinished(
    exported_model: str, small: list[bytes], here: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The words of a command that was interrupted after twelve images, in a folder with its journal."""
    from showtell.outputs import FileDestination

    fill(here / "photos", small, 40)
    words = ["photos", "--model", exported_model, "--format", "jsonl", "--output", "out.jsonl"]
    add = FileDestination.add

    def stop(self: FileDestination, record: object) -> None:
        if self.journal.count == 12:
            raise KeyboardInterrupt
        add(self, record)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(FileDestination, "add", stop)
        assert caption(*words) == 130
    return words


def test_another_model_or_option_is_refused(
    unfinished: list[str], tiny_bundle: Path, here: Path, capsys: Capture
) -> None:
    journal = (here / "out.jsonl.part").read_bytes()
    for more, named in (
        (["--count", "2", "--beam", "2"], "count = 1, and now 2"),
        (["--format", "html"], "format = jsonl, and now html"),
        (["--model", str(tiny_bundle)], "and now "),
    ):
        capsys.readouterr()
        assert caption(*unfinished, *more, "--resume") == 2
        error = capsys.readouterr().err
        assert "out.jsonl.part was made with" in error
        assert named in error
        assert "Use the same model and options as before, or begin anew: remove that file." in error
    assert (here / "out.jsonl.part").read_bytes() == journal
    assert not (here / "out.jsonl").exists()


def test_a_folder_that_changed_meanwhile_loses_and_doubles_nothing(unfinished: list[str], here: Path) -> None:
    (here / "photos/3.jpg").unlink()
    os.link(here / "photos/.original-0", here / "photos/1b.jpg")
    assert caption(*unfinished, "--resume") == 1
    names = [Path(image).stem for image in images_in(here / "out.jsonl")]
    assert sorted(names) == sorted([*(str(number) for number in range(40)), "1b"])
    assert names[:12] == [str(number) for number in range(12)]  # done before, 3 among them
    assert leftovers(here) == []


def test_a_kill_between_the_output_and_the_end_of_the_journal_doubles_nothing(
    unfinished: list[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from showtell.outputs import Journal

    caption("photos/1.jpg", "photos/2.jpg", *unfinished[1:-1], "other.jsonl")
    (here / "other.jsonl").rename(here / "out.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda self: None)
        caption(*unfinished, "--resume", "--skip-existing")
    assert (here / "out.jsonl.part").exists()
    once = (here / "out.jsonl").read_bytes()
    caption(*unfinished, "--resume", "--skip-existing")
    assert (here / "out.jsonl").read_bytes() == once
    assert len(set(images_in(here / "out.jsonl"))) == len(once.splitlines()) == 40


def test_resuming_says_what_it_keeps_and_when_nothing_is_left(
    unfinished: list[str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from showtell.outputs import Journal

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda self: None)  # killed at the very end
        assert caption(*unfinished, "--resume") == 1  # three are bad
    error = capsys.readouterr().err
    assert "showtell: going on: the results of 12 images that were done before are kept\n" in error
    assert "nothing was left" not in error
    assert caption(*unfinished, "--resume") == 1
    error = capsys.readouterr().err
    assert (
        "the results of 40 images that were done before are kept\nshowtell: nothing was left to caption"
        in error
    )
    assert leftovers(here) == []
    before = (here / "out.jsonl").stat()
    os.link(here / "photos/0.jpg", here / "photos/new.jpg")
    for more in ([], ["--dry-run"]):
        assert caption(*unfinished, "--resume", *more) == 0
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err == (
            "showtell: nothing is left to do: no run to out.jsonl is unfinished, and that file stays as it is. For "
            "images that are new, give --skip-existing; to caption all anew, leave out --resume\n"
        )
    after = (here / "out.jsonl").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert caption(*unfinished, "--resume", "--skip-existing") == 1  # what failed is tried again
    assert images_in(here / "out.jsonl").count("photos/new.jpg") == 1


def test_a_dry_run_says_what_would_be_refused(unfinished: list[str], here: Path, capsys: Capture) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert caption(*unfinished, "--dry-run") == 2
    assert (
        "out.jsonl.part holds the results of 12 images, of a run that did not end." in capsys.readouterr().err
    )
    assert caption(*unfinished, "--dry-run", "--resume") == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [f"photos/{number}.jpg" for number in range(12, 40)]
    assert (
        "would caption 28 and pass over 0, keep the results of 12 that were done before, and write out.jsonl"
        in (output.err)
    )
    assert caption("photos", "--dry-run", "--output", "photos") == 2
    assert "--output: 'photos' is a folder; name a file" in capsys.readouterr().err
    (here / "out.jsonl.part").write_text("my notes")
    before[here / "out.jsonl.part"] = b"my notes"
    assert caption(*unfinished, "--dry-run", "--resume") == 2
    assert "out.jsonl.part is no journal" in capsys.readouterr().err
    (here / "mine.jsonl").write_text("")
    before[here / "mine.jsonl"] = b""
    assert caption("photos", "--dry-run", "--format", "jsonl", "--output", "mine.jsonl") == 0
    assert "and replace mine.jsonl\n" in capsys.readouterr().err
    assert (
        caption("photos", "--dry-run", "--format", "jsonl", "--output", "mine.jsonl", "--skip-existing") == 0
    )
    assert "and add to mine.jsonl\n" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("options", [["--output", "{}/out.txt"], ["--explain", "{}/a/b"]])
def test_a_place_that_may_not_be_written_is_said_first(
    options: list[str], small: list[bytes], capsys: Capture
) -> None:
    words = ["--dry-run"]
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # one that others may look into
        place = Path(name) / "place"
        place.mkdir()
        (Path(name) / "a.jpg").write_bytes(small[0])
        options = [option.format(place) for option in options]
        assert caption(f"{name}/a.jpg", *words, *options) == 0  # and everything is imported
        Path(name).chmod(0o755)
        place.chmod(0o555)
        capsys.readouterr()
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)  # nobody, who may not do what root may
        try:
            code = caption(f"{name}/a.jpg", *words, *options)
        finally:
            if root:
                os.seteuid(0)
        place.chmod(0o755)
        assert list(place.iterdir()) == []
    output = capsys.readouterr()
    assert (code, output.out) == (1, "")
    assert output.err == (
        f"showtell: error: not allowed to read or write: '{place}' (Permission denied). Check who may, or choose "
        "another place\n"
    )


@pytest.mark.parametrize("done", [0, 1, 7, 8, 9, 23, 24, 25, 40])
def test_a_job_goes_on_bit_for_bit_from_anywhere(done: int, exported_model: str, small: list[bytes]) -> None:
    from showtell.bulk import caption_items
    from showtell.intake import Item

    captioner = Captioner.load(exported_model)
    settings = DecodingSettings(method="sample", count=2, seed=1, max_steps=6)
    items = [Item(str(number), small[number % 6]) for number in range(41)]
    whole = list(caption_items(captioner, items, settings))
    rest = list(caption_items(captioner, items, settings, done=lambda item: int(item.name) < done))
    assert [item.name for item, _ in rest] == [item.name for item in items[done:]]
    for (_, first), (_, second) in zip(whole[done:], rest, strict=True):
        assert [(one.text, one.score) for one in first.captions] == [
            (one.text, one.score) for one in second.captions
        ]


def test_batches_begin_where_they_did() -> None:
    assert [start_of_batch(position) for position in (0, 7, 8, 23, 24, 39, 40)] == [0, 0, 8, 8, 24, 24, 40]
    assert BATCH == 16


# Existing results


@pytest.mark.parametrize("form", ["text", "json", "jsonl", "csv", "html"])
def test_a_file_is_added_to(
    form: str, exported_model: str, small: list[bytes], here: Path, capsys: Capture
) -> None:
    fill(here / "photos", small, 10)  # number 7 is bad
    words = ["--model", exported_model, "--format", form, "--output", "out", "--skip-existing"]
    assert caption("photos/[0-4].jpg", "photos/7.jpg", *words) == 1
    before = (here / "out").read_text(encoding="utf-8")
    capsys.readouterr()
    assert caption("photos", *words) == 1
    assert "showtell: 5 that were done before were passed over" in capsys.readouterr().err
    after = (here / "out").read_text(encoding="utf-8")
    once = caption("photos", "--model", exported_model, "--format", form, "--output", "once")
    assert once == 1
    assert sorted(after.splitlines()) == sorted((here / "once").read_text(encoding="utf-8").splitlines())
    assert after.startswith(before[: before.rindex("4.jpg")])
    os.link(here / "photos/1.jpg", here / "photos/99.jpg")
    (here / "photos/7.jpg").write_bytes(small[0])  # mended: what failed is tried again
    assert caption("photos", *words) == 0


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "html"])
def test_what_failed_stays_in_a_file_until_it_is_tried_again(
    form: str, exported_model: str, small: list[bytes], here: Path, capsys: Capture
) -> None:
    fill(here / "photos", small, 10)  # number 7 is bad
    words = ["--model", exported_model, "--format", form, "--output", "out", "--skip-existing"]
    assert caption("photos/1.jpg", "photos/7.jpg", *words) == 1
    assert caption("photos/2.jpg", *words) == 0  # says nothing of number 7
    assert caption("photos/[1-3].jpg", *words) == 0
    capsys.readouterr()
    assert caption("photos/[1-3].jpg", "photos/7.jpg", *words, "--dry-run") == 0
    assert capsys.readouterr().out == "photos/7.jpg\n"
    order = ["photos/1.jpg", "photos/7.jpg", "photos/2.jpg", "photos/3.jpg"]
    assert caption(*order, "--model", exported_model, "--format", form, "--output", "once") == 1
    assert (here / "out").read_text(encoding="utf-8") == (here / "once").read_text(encoding="utf-8")
    (here / "photos/7.jpg").write_bytes(small[0])
    assert caption("photos/7.jpg", *words) == 0
    order = ["photos/1.jpg", "photos/2.jpg", "photos/3.jpg", "photos/7.jpg"]
    assert caption(*order, "--model", exported_model, "--format", form, "--output", "mended") == 0
    assert (here / "out").read_text(encoding="utf-8") == (here / "mended").read_text(encoding="utf-8")


def test_what_somebody_else_wrote_is_not_added_to(
    exported_model: str, small: list[bytes], here: Path, capsys: Capture
) -> None:
    fill(here / "photos", small, 3)
    (here / "out.csv").write_text("name,caption\na.jpg,a dog\n")
    words = ["photos", "--model", exported_model, "--format", "csv", "--output", "out.csv", "--skip-existing"]
    assert caption(*words) == 2
    assert "its columns are name, caption; now they are image, rank" in capsys.readouterr().err
    assert leftovers(here) == []


def test_sidecars_are_written_once(
    exported_model: str, small: list[bytes], here: Path, capsys: Capture
) -> None:
    fill(here / "photos", small, 5)
    (here / "photos/2.txt").write_text("my own words\n")
    (here / "photos/4.png").write_bytes(small[0])
    words = ["photos", "--model", exported_model, "--sidecar", "txt"]
    assert caption(*words, "--format", "json") == 1
    output = capsys.readouterr()
    records = json.loads(output.out)
    assert ["sidecar_error" in record for record in records] == [False, False, True, False, True, True]
    assert all(record["captions"] for record in records)
    assert output.err.splitlines()[0] == "showtell: error: 3 of 6 images failed:"
    assert (
        "photos/2.jpg: its sidecar photos/2.txt exists with another text, and was not changed" in output.err
    )
    assert "photos/4.jpg: its sidecar photos/4.txt would also be that of photos/4.png, so none" in output.err
    assert "photos/4.png: its sidecar photos/4.txt would also be that of photos/4.jpg, so none" in output.err
    assert (here / "photos/2.txt").read_text() == "my own words\n"
    assert (here / "photos/1.txt").read_text() == records[1]["captions"][0]["caption"] + "\n"
    assert not (here / "photos/4.txt").exists()
    (here / "photos/4.png").unlink()
    assert caption(*words, "--skip-existing") == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("photos/4.jpg\t")
    assert caption(*words, "--overwrite") == 0
    assert (here / "photos/2.txt").read_text() != "my own words\n"


def test_xmp_sidecars_below_another_folder(exported_model: str, small: list[bytes], here: Path) -> None:
    fill(here / "photos/deep", small, 3)
    assert caption("photos", "--model", exported_model, "--sidecar", "xmp", "--sidecar-folder", "side") == 0
    assert sorted(str(path.relative_to(here)) for path in here.rglob("*.xmp")) == [
        f"side/photos/deep/{number}.xmp" for number in range(3)
    ]
    assert read_description((here / "side/photos/deep/1.xmp").read_bytes())


def test_a_dry_run_loads_no_model_and_writes_nothing(small: list[bytes], here: Path, capsys: Capture) -> None:
    fill(here / "photos", small, 3)
    (here / "photos/1.txt").write_text("my own words\n")
    (here / "model").mkdir()  # no model at all
    before = sorted(here.rglob("*"))
    words = ["photos", "gone.jpg", "--model", "model", "--dry-run", "--sidecar", "txt", "--output", "out.csv"]
    assert caption(*words) == 1
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "photos/0.jpg\tphotos/0.txt",
        "photos/1.jpg\tphotos/1.txt (exists)",
        "photos/2.jpg\tphotos/2.txt",
    ]
    assert output.err.splitlines() == [
        "showtell: would caption 3 and pass over 0, and write out.csv",
        "showtell: error: 1 of 4 images failed:",
        "showtell:   gone.jpg: no such file or folder",
    ]
    assert caption("photos", "--model", "model", "--dry-run", "--sidecar", "txt", "--skip-existing") == 0
    assert "would caption 2 and pass over 1" in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "No image was given. Give files, folders or patterns, - or --from LIST."),
        (
            ["a", "--overwrite"],
            "--overwrite has no meaning without --sidecar. Add --sidecar txt, or drop it.",
        ),
        (["a", "--sidecar-folder", "x"], "--sidecar-folder has no meaning without --sidecar"),
        (
            ["a", "--resume"],
            "--resume goes on with what a run to --output FILE left. Add --output; or, where",
        ),
        (
            ["a", "--resume", "--output", "/dev/null"],
            "--resume goes on with what a run to --output FILE left",
        ),
        (
            ["a", "--skip-existing"],
            "--skip-existing looks for sidecars, or into --output FILE. Add --sidecar or",
        ),
        (["--from", "gone.txt"], "--from: no such file or folder: 'gone.txt'"),
        (
            ["--from", "."],
            "--from: '.' is a folder; name a file that lists paths, or give the folder itself.",
        ),
        (["a", "--null"], "--null says how the paths of --from LIST are separated"),
        (["-", "--from", "-"], "Standard input cannot be both an image (-) and a list (--from -)"),
        (["a", "--sidecar", "json"], "--sidecar: must be one of txt, xmp."),
    ],
)
def test_options_that_make_no_sense_are_refused(
    words: list[str], message: str, exported_model: str, here: Path, capsys: Capture
) -> None:
    assert caption(*words, "--model", exported_model) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert list(here.iterdir()) == []


# Input


def test_a_list_that_can_be_read_only_once_does_for_sidecars_too(
    exported_model: str, small: list[bytes], here: Path
) -> None:
    fill(here / "photos", small, 2)
    read, write = os.pipe()
    os.write(write, b"photos/0.jpg\nphotos/1.jpg\n")
    os.close(write)
    words = [*SHOWTELL, "--model", exported_model, "--from", f"/dev/fd/{read}", "--sidecar", "txt"]
    done = subprocess.run(words, pass_fds=[read], capture_output=True, text=True)
    os.close(read)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    assert sorted(path.name for path in here.glob("photos/*.txt")) == ["0.txt", "1.txt"]


def test_closed_standard_input_is_said(exported_model: str, here: Path) -> None:
    words = shlex.join([*SHOWTELL, "-", "--model", exported_model])
    done = subprocess.run(["sh", "-c", f"{words} <&-"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Standard input (-) was asked for, but it is closed" in done.stderr


def test_addresses_on_the_web_are_fetched_but_not_private_ones(
    exported_model: str, small: list[bytes], here: Path, capsys: Capture
) -> None:
    fill(here / "photos", small, 1)
    addresses = ["http://127.0.0.1:1/a.jpg?key=secret", "http://2130706433/a.jpg", "file:///etc/passwd"]
    assert caption(*addresses, "photos/0.jpg", "--format", "jsonl", "--model", exported_model) == 1
    output = capsys.readouterr()
    *refused, captioned = [json.loads(line) for line in output.out.splitlines()]
    assert [record["image"] for record in (*refused, captioned)] == [*addresses, "photos/0.jpg"]
    assert captioned["captions"]
    assert "not public (this machine itself)" in refused[0]["error"]
    assert all(record["error"] for record in refused)
    assert "secret" not in refused[0]["error"]
    assert "3 of 4 images failed" in output.err


@pytest.fixture
def served(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """The address of a server that gives what lies in the folder, and the paths that it was asked for."""
    from showtell.images.fetch import Fetcher
    from showtell.intake import items

    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(here))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        # What is public is the fetcher's own matter and its tests'; here the server is on this machine.
        monkeypatch.setattr(items, "_open_fetcher", lambda: Fetcher(allow_private=True))
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_an_address_on_the_web_is_captioned_as_the_file_is(
    exported_model: str, small: list[bytes], here: Path, capsys: Capture, served: tuple[str, list[str]]
) -> None:
    fill(here / "photos", small, 1)
    address = f"{served[0]}/photos/0.jpg"
    words = [address, "photos/0.jpg", f"{address}.gone", "--format", "jsonl", "--model", exported_model]
    assert caption(*words) == 1
    web, file, gone = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert web["captions"] == file["captions"]
    assert web["image"] == address
    assert "404" in gone["error"]


@pytest.mark.parametrize("kept", [64 << 20, 1], ids=["room", "no room"])
def test_an_image_on_the_web_is_fetched_once_however_often_it_is_looked_at(
    kept: int,
    exported_model: str,
    small: list[bytes],
    here: Path,
    served: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from showtell.cli import caption as command

    fill(here / "photos", small, 8)  # number 7 is no image
    monkeypatch.setattr(command, "KEPT", kept)
    allowances: list[Allowance] = []
    monkeypatch.setattr(
        "showtell.images.Allowance", lambda size: allowances.append(Allowance(size)) or allowances[-1]
    )
    address, asked = served
    words = [f"{address}/photos/{number}.jpg" for number in range(8)]
    words += ["--model", exported_model, "--format", "html", "--output", "page.html", "--explain", "why"]
    assert caption(*words) == 1
    assert (here / "page.html").read_text(encoding="utf-8").count("data:image/webp") == 7
    assert len(list(here.glob("why/*.png"))) == 7
    if kept > 1:
        assert sorted(asked) == [f"/photos/{number}.jpg" for number in range(8)]
    else:
        assert asked.count("/photos/0.jpg") > 1
    [allowance] = allowances
    assert allowance.take(kept)  # all of it was given back


def test_standard_input_is_one_image_or_a_list(exported_model: str, small: list[bytes], here: Path) -> None:
    fill(here / "photos", small, 3)
    words = [*SHOWTELL, "--model", exported_model, "--format", "jsonl"]
    one = subprocess.run([*words, "-"], input=small[1], capture_output=True)
    assert (one.returncode, json.loads(one.stdout)["image"]) == (0, "-")
    names = b"photos/2.jpg\0photos/0.jpg\0gone\n.jpg\0"
    several = subprocess.run(
        [*words, "--from", "-", "--null", "--sidecar", "txt"], input=names, capture_output=True
    )
    assert several.returncode == 1
    records = [json.loads(line) for line in several.stdout.splitlines()]
    assert [record["image"] for record in records] == ["photos/2.jpg", "photos/0.jpg", "gone\n.jpg"]
    assert records[2]["error"] == "no such file or folder"
    assert sorted(path.name for path in here.glob("photos/*.txt")) == ["0.txt", "2.txt"]
    nothing = subprocess.run([*words, "--from", "-"], input=b"", capture_output=True)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, b"", b"")


STRANGE = [
    b"two\nlines.jpg",
    b"tab\t.jpg",
    b'"quo\'tes,".jpg',
    b"latin-\xe9.jpg",
    b"back\\slash.jpg",
    b"-dash.jpg",
]


@pytest.mark.parametrize("form", ["text", "json", "jsonl", "csv", "html"])
def test_strange_names_work_in_every_output(
    form: str, exported_model: str, small: list[bytes], here: Path
) -> None:
    (here / "photos").mkdir()
    for name in STRANGE:
        (here / "photos" / os.fsdecode(name)).write_bytes(small[0])
    (here / os.fsdecode(b"photos/bad-\xff\n.jpg")).touch()
    words = [*SHOWTELL, "photos", "--model", exported_model, "--format", form]
    printed = subprocess.run([*words, "--sidecar", "txt"], capture_output=True)
    assert printed.returncode == 1
    assert b"bad-\\xff\\n.jpg: the file is empty (0 bytes)\n" in printed.stderr
    text = printed.stdout.decode("utf-8")
    assert len(list((here / "photos").glob("*.txt"))) == len(STRANGE)
    for name in STRANGE:
        assert (here / "photos" / os.fsdecode(name)).with_suffix(".txt").exists()
    if form == "text":
        assert text.count("\n") == text.count("\t") == len(STRANGE)
    elif form == "csv":
        assert len(list(csv.DictReader(io.StringIO(text, newline="")))) == len(STRANGE) + 1
    elif form in ("json", "jsonl"):
        records = json.loads(text) if form == "json" else [json.loads(line) for line in text.split("\n")[:-1]]
        assert {record["image"] for record in records} >= {"photos/two\nlines.jpg", "photos/latin-\\xe9.jpg"}
        assert sum("image_bytes" in record for record in records) == 2
    (here / "out").unlink(missing_ok=True)
    written = subprocess.run([*words, "--output", "out"], capture_output=True)
    assert written.returncode == 1
    assert (here / "out").read_bytes() == printed.stdout


@pytest.fixture
def extremes(here: Path, small: list[bytes]) -> dict[str, str]:
    """Files that are at the edge of being images, with what is said of each; "" is a caption."""
    Image.new("RGB", (1, 1), "red").save(here / "pixel.png")
    Image.new("RGB", (20_000, 10), "red").save(here / "line.png")
    Image.new("1", (30_000, 30_000)).save(here / "huge.png")
    (here / "empty.jpg").touch()
    (here / "wrong.png").write_bytes(small[0])  # a JPEG
    (here / "text.jpg").write_text("no image")
    (here / "torn.jpg").write_bytes(small[0][:900])
    (here / "folder.jpg").mkdir()
    os.mkfifo(here / "pipe.jpg")
    return {
        "pixel.png": "",
        "line.png": "",
        "huge.png": "900,000,000 pixels exceed the limit",
        "empty.jpg": "the file is empty (0 bytes)",
        "wrong.png": "",
        "text.jpg": "not an image that can be read",
        "torn.jpg": "truncated",
        "folder.jpg": "the folder has no images",
        "pipe.jpg": "is not a regular file",
    }


def test_files_at_the_edge_among_good_ones(
    extremes: dict[str, str], exported_model: str, here: Path, small: list[bytes], capsys: Capture
) -> None:
    (here / "good.jpg").write_bytes(small[0])
    assert caption("good.jpg", *extremes, "--model", exported_model, "--format", "json") == 1
    good, *records = json.loads(capsys.readouterr().out)
    assert good["captions"]
    for record, (name, error) in zip(records, extremes.items(), strict=True):
        assert record["image"] == name
        assert error in record.get("error", ""), record
        assert bool(record.get("captions")) == (not error)


def test_a_folder_that_may_not_be_opened_does_not_stop_the_others(
    exported_model: str, small: list[bytes], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    fill(here / "a", small, 1)
    fill(here / "b", small, 1)
    scandir = os.scandir

    def refuse(path: str) -> object:  # root may open every folder, so permissions alone would not do
        if path == "a":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert caption("a", "b", "--model", exported_model) == 1
    output = capsys.readouterr()
    assert output.out.startswith("b/0.jpg\t")
    assert "showtell:   a: no permission to open this folder" in output.err


@pytest.mark.slow
def test_ten_thousand_images_take_constant_memory_and_no_descriptors(
    exported_model: str, small: list[bytes], tmp_path: Path
) -> None:
    fill(tmp_path / "photos", small, 10_000)
    # One thread: on several, OpenVINO itself grows at times (docs/captioning.md), which would hide what is ours.
    words = [
        "photos",
        "--model",
        exported_model,
        "--format",
        "jsonl",
        "--output",
        "out.jsonl",
        "--threads",
        "1",
    ]
    process = start(*words, folder=tmp_path)
    watched = psutil.Process(process.pid)
    memory: dict[int, int] = {}
    descriptors: dict[int, int] = {}
    while process.poll() is None:
        done = lines_in(tmp_path / "out.jsonl.part")
        try:
            memory[done], descriptors[done] = watched.memory_info().rss, watched.num_fds()
        except psutil.Error:
            break
        time.sleep(0.1)
    process.communicate(timeout=300)
    early = max(value for done, value in memory.items() if 500 <= done <= 2500)
    late = max(value for done, value in memory.items() if done >= 7500)
    assert late - early < 10_000_000, (early, late)
    early = max(value for done, value in descriptors.items() if 500 <= done <= 2500)
    late = max(value for done, value in descriptors.items() if done >= 7500)
    assert late <= early + 2, (early, late)
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["image"] for line in lines] == [
        f"photos/{number}.jpg" for number in range(10_000)
    ]
