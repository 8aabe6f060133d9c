"""The frame of the command line: finding commands, errors, exit codes, streams, speed."""

from __future__ import annotations

import argparse
import errno
import os
import pty
import resource
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import showtell
from showtell.cli import main as cli_main
from showtell.cli import progress
from showtell.cli.arguments import existing, integer, one_of, real, writable_file, writable_folder
from showtell.cli.main import build_parser, describe_os_error, main
from showtell.cli.output import print_table, write_json, write_text
from showtell.errors import ImageError, TrainingInterrupted, UsageError

SHOWTELL = [sys.executable, "-m", "showtell"]
COMMANDS = [
    "caption",
    "bulk",
    "alt",
    "data",
    "data check",
    "features",
    "train",
    "evaluate",
    "score",
    "report",
    "serve",
    "tune",
    "calibrate",
    "remember",
    "distill",
    "export",
    "pack",
    "models",
    "recipes",
    "demo",
    "tutorial",
]
Capture = pytest.CaptureFixture[str]


def run_process(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SHOWTELL, *words], capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Runs `showtell recipes` in a state in which it raises the given error."""

    def run(error: BaseException) -> int:
        def fail(arguments: argparse.Namespace) -> int:
            raise error

        monkeypatch.setattr(cli_main.recipes, "run", fail)
        return main(["recipes"])

    return run


# Finding commands


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_its_command(command: str, capsys: Capture) -> None:
    assert main([*command.split(), "--help"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"usage: showtell {command} ")
    assert output.err == ""


def test_help_lists_every_command_with_a_summary(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out
    for command in build_parser()[1].choices:
        assert f"\n    {command} " in lines
    assert set(build_parser()[1].choices) == {command.split()[0] for command in COMMANDS}


def test_no_option_of_any_command_lacks_help() -> None:
    for command in COMMANDS:
        if command == "data":
            continue  # it has no options of its own
        parser = build_parser()[1].choices[command.split()[0]]
        if " " in command:
            parser = parser.get_default("commands").choices[command.split()[1]]
        for action in parser._actions:
            assert action.help, f"{command}: {action.dest} has no help"


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"showtell {showtell.__version__}\n"


def test_without_a_command_help_goes_to_standard_error(capsys: Capture) -> None:
    assert main([]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("usage: showtell ")
    assert main(["data"]) == 2
    assert capsys.readouterr().err.startswith("usage: showtell data ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian x", "showtell has no command 'trian'. Did you mean 'train'? Its commands: caption, "),
        ("data chek x", "showtell data has no command 'chek'. Did you mean 'check'? Its commands: check."),
        ("--debg recipes", "there is no option '--debg'. Did you mean '--debug'?"),
        ("caption x.jpg --modle m", "there is no option '--modle'. Did you mean '--model'?"),
        ("score --outptu=x a b", "there is no option '--outptu'. Did you mean '--output'?"),
        ("evaluate . --data . --spl dev", "there is no option '--spl'."),
        (
            "caption -x.jpg",
            "there is no option '-x.jpg'. If it is a file's name, write './-x.jpg', or -- before it.",
        ),
        (
            "caption --output -o.txt x.jpg",
            "'-o.txt'. If it is a file's name, write './-o.txt', or -- before it.",
        ),
        ("alt -p.html", "there is no option '-p.html'. If it is a file's name, write './-p.html'"),
        ("recipes a b", "unrecognized arguments: b. Help: showtell"),
        ("recipes -q", "there is no option '-q'."),
        ("evaluate . --data . --split tets", "must be one of train, dev, test. Did you mean 'test'?"),
        ("caption x --model . --beam 0", "--beam: must be a whole number of at least 1. Received: '0'"),
        ("caption x --model . --top-p 2", "--top-p: must be a number above 0 and at most 1. Received: '2'"),
        ("serve --hang-timeout 1", "--hang-timeout: must be a number at least 5. Received: '1'"),
        ("score a b --metrics blue", "no such file or folder: 'a'"),
        ("score --metrics cidr . .", "unknown metric 'cidr'. Did you mean 'cider'?"),
        ("score --metrics , . .", "no metric was named. Choose from: Bleu, ROUGE_L, CIDEr, METEOR"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(line: str, message: str, capsys: Capture) -> None:
    assert main(line.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("showtell: error: ")
    assert output.err.count("\n") == 1
    assert message in output.err


def test_help_wins_over_a_later_mistake_and_options_end_at_two_dashes(
    capsys: Capture, tmp_path: Path
) -> None:
    assert main(["recipes", "--", "--modle"]) == 2
    assert "--modle" in capsys.readouterr().err  # as the name of a recipe
    assert main(["recipes", "--help"]) == 0


# Errors


def test_an_error_of_ours_is_one_line_with_its_exit_code(
    failing: Callable[..., int], capsys: Capture
) -> None:
    assert failing(UsageError("a beam of -1")) == 2
    assert capsys.readouterr().err == "showtell: error: a beam of -1\n"
    assert failing(ImageError("cat.jpg is no image")) == 1
    assert capsys.readouterr().err == "showtell: error: cat.jpg is no image\n"


def test_a_programming_error_keeps_its_traceback(failing: Callable[..., int]) -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


def test_an_interrupt_is_one_line_and_130(failing: Callable[..., int], capsys: Capture) -> None:
    assert failing(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "showtell: interrupted\n"
    assert failing(TrainingInterrupted("saved; go on with --resume")) == 130
    assert capsys.readouterr().err == "showtell: saved; go on with --resume\n"


@pytest.mark.parametrize("words", [["--debug", "recipes", "nosuch"], ["recipes", "nosuch", "--debug"]])
def test_debug_shows_the_traceback_before_the_line(words: list[str], capsys: Capture) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback ")
    assert error.splitlines()[-1].startswith("showtell: error: ")
    assert main(["recipes", "nosuch"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "run/a.json"),
            "the disk is full: 'run/a.json'. Free some",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a"),
            "not allowed to read or write: 'a' (Permission",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", Path("b")),
            "not allowed to read or write: 'b' (Read-only",
        ),
        (
            OSError(errno.EMFILE, "Too many open files", "c"),
            "too many files are open in this process. Raise the",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "d"), "Is a directory: 'd'"),
        (OSError("broken data stream"), "broken data stream"),
        (OSError(), "OSError"),
    ],
)
def test_an_operating_system_error_is_explained(
    error: OSError, message: str, failing: Callable[..., int], capsys: Capture
) -> None:
    assert describe_os_error(error).startswith(message)
    assert failing(error) == 1
    assert capsys.readouterr().err.startswith(f"showtell: error: {message}")


# Streams, in real processes


def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*SHOWTELL, "recipes", "--json"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("showtell: error: the disk is full")
    assert ended.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [*SHOWTELL, "recipes", "--json"], stdout=writing, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_terminal_without_unicode_gets_escapes(tmp_path: Path) -> None:
    recipe = tmp_path / "日本.toml"
    recipe.write_text('base = "show-tell-lstm"\n')
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    ended = run_process("recipes", str(recipe), "--json", env=environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert r'"name": "\u65e5\u672c"' in ended.stdout


def test_ctrl_c_ends_a_real_process_with_130_and_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "references.json")  # the command waits here for a writer
    (tmp_path / "hypotheses.json").write_text("[]")
    words = [*SHOWTELL, "score", str(tmp_path / "references.json"), str(tmp_path / "hypotheses.json")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        descriptor = None
        while descriptor is None:  # opening the pipe without blocking succeeds once the command reads it
            try:
                descriptor = os.open(tmp_path / "references.json", os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        os.close(descriptor)  # a signal that came just before the command began to read would not wake it
        try:
            output, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, output, error) == (130, "", "showtell: interrupted\n")


def test_the_installed_command_is_the_module() -> None:
    ended = subprocess.run(
        [Path(sys.executable).parent / "showtell", "--version"], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, f"showtell {showtell.__version__}\n")


PROGRESS = """
from showtell.cli.progress import BarWatcher, show_progress
with show_progress("captions", "images") as progress:
    progress(3, 10)
    progress(10, 10)
with BarWatcher() as watcher:
    watcher.note("9 words")
    watcher.stage("epoch 1", 4, "captions")
    watcher.advance(4, loss=1.23456)
"""


def test_progress_is_a_line_where_nobody_watches_and_bars_on_a_terminal() -> None:
    piped = subprocess.run([sys.executable, "-c", PROGRESS], capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == ("", "showtell: 9 words\n")
    ours, theirs = pty.openpty()
    try:
        words = [sys.executable, "-c", PROGRESS]
        watched = subprocess.run(words, stdout=subprocess.PIPE, stderr=theirs, check=True)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert watched.stdout == b""
    for expected in (
        "captions: 100%",
        "10/10",
        "showtell: 9 words\r\n",
        "epoch 1: 100%",
        "4/4",
        "loss=1.235",
    ):
        assert expected in shown


def test_progress_is_a_line_now_and_then_where_standard_error_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.show_progress("captions", "images") as update:
        for done in range(5_000, 10_000, 100):  # a resumed one: what was there is no speed
            update(done, 100_000)
            now[0] += 3
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "showtell: captions: 7,000 of 100,000 images, 33/s, 46 minutes left",
        "showtell: captions: 9,000 of 100,000 images, 33/s, 46 minutes left",
    ]
    with progress.BarWatcher() as watcher:
        watcher.stage("epoch 1/2", 400, "captions")
        for _ in range(70):
            now[0] += 1
            watcher.advance(4, loss=1.23456)
    assert (
        capsys.readouterr().err
        == "showtell: epoch 1/2: 240 of 400 captions, 4/s, 40 seconds left, loss 1.235\n"
    )


def test_each_stage_of_the_work_has_its_own_speed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.show_stages("images") as update:
        for stage, seconds in (("pictures", 1), ("captions of compact", 10)):
            for done in range(1, 71):
                now[0] += seconds
                update(stage, done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [
        "showtell: pictures: 61 of 100 images, 1/s, 39 seconds left",
        "showtell: captions of compact: 7 of 100 images, 0.1/s, 16 minutes left",
    ]


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    # Processor time, not the clock: starting waits for nothing, and a busy machine must not fail this.
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_process("caption", "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert statistics.median(seconds) < 0.3


# Argument types


def test_one_of_takes_other_spellings_and_suggests() -> None:
    convert = one_of("train", "dev", val="dev")
    assert [convert("train"), convert("val")] == ["train", "dev"]
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"one of train, dev. Did you mean 'train'\? Received: 'trian'"
    ):
        convert("trian")


@pytest.mark.parametrize("word", ["-1", "1.5", "x", "", "1e3"])
def test_integer_refuses(word: str) -> None:
    assert integer(minimum=0)("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match=f"whole number of at least 0. Received: '{word}'"):
        integer(minimum=0)(word)


@pytest.mark.parametrize("word", ["0", "-1", "nan", "inf", "1.01", "x"])
def test_real_refuses(word: str) -> None:
    convert = real(above=0, maximum=1)
    assert [convert("1"), convert("1e-3")] == [1.0, 0.001]
    with pytest.raises(argparse.ArgumentTypeError, match=f"number above 0 and at most 1. Received: '{word}'"):
        convert(word)


def test_paths_are_checked_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "captions.json").touch()
    assert existing(str(tmp_path / "captions.json")) == tmp_path / "captions.json"
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"no such file or folder: .* Did you mean 'captions.json'\?"
    ):
        existing(str(tmp_path / "caption.json"))
    with pytest.raises(argparse.ArgumentTypeError, match="no such file or folder"):
        existing(str(tmp_path / "nowhere" / "deep"))
    with pytest.raises(argparse.ArgumentTypeError, match="is a folder; name a file"):
        writable_file(str(tmp_path))
    with pytest.raises(argparse.ArgumentTypeError, match=r"'.*nowhere' does not exist; make it first"):
        writable_file(str(tmp_path / "nowhere" / "report.json"))
    with pytest.raises(argparse.ArgumentTypeError, match="is a file; name a folder"):
        writable_folder(str(tmp_path / "captions.json"))
    assert writable_folder(str(tmp_path / "new" / "deep")) == tmp_path / "new" / "deep"


# Output


def test_files_keep_every_caption_and_replace_through_links(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    write_json(tmp_path / "link.json", {"caption": "ein Hund 犬", "broken": "\udcff"})
    assert (tmp_path / "link.json").is_symlink()
    assert "ein Hund 犬" in (tmp_path / "real.json").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "real.json"]


def test_a_device_is_written_to_and_not_replaced() -> None:
    with pytest.raises(OSError, match="No space left"):
        write_text(Path("/dev/full"), "text")
    assert Path("/dev/full").is_char_device()


def test_tables_are_aligned(capsys: Capture) -> None:
    print_table(("name", "n"), [("a", "1"), ("longer", "22")])
    assert capsys.readouterr().out == "name    n\na       1\nlonger  22\n"
