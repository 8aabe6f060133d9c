"""`showtell bulk` on real Ray, in real processes: whole, killed, on two nodes, and where there is no Ray."""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from benchmarks.nodes import UNPROTECTED, head, node, wait_for_processors
from PIL import Image

from bulked import workers_of
from showtell.bulk.results import read_results
from showtell.cli.main import main
from showtell.outputs import Record

COMMAND = [sys.executable, "-m", "showtell", "bulk"]
PATIENCE = 280  # seconds that a run may take on a machine that is busy with other things
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred small pictures, some of them bad."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(200):
        with Image.open(photographs[number % len(photographs)]) as image:
            image.rotate(number).resize((96, 72)).save(folder / f"{number:03d}.jpg")
    (folder / "017.jpg").write_bytes(b"")
    (folder / "130.jpg").write_bytes(b"no image")
    return folder


def words(folder: Path, output: Path, model: str, *more: str) -> list[str]:
    return [
        str(folder),
        "--output",
        str(output),
        "--model",
        model,
        "--shard-size",
        "16",
        "--workers",
        "2",
        *more,
    ]


def run(folder: Path, output: Path, model: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words(folder, output, model, *more)], capture_output=True, text=True, timeout=PATIENCE
    )


def rows(output: Path) -> list[Record]:
    found = list(read_results(output))
    assert len({record.image for record in found}) == len(found)
    return found


@pytest.fixture(scope="module")
def undisturbed(folder: Path, exported_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    ended = run(folder, output, exported_model)
    assert ended.returncode == 1, ended.stderr  # two images are bad
    assert "captioned 198 images, 2 errors" in ended.stderr
    assert f"{output} is complete: 200 rows in 13 shards" in ended.stderr
    assert "2 of 200 images failed" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    return output


def test_a_run_gives_what_the_plain_captioner_gives(
    undisturbed: Path, folder: Path, exported_model: str, tmp_path: Path, capsys: Capture
) -> None:
    plain = tmp_path / "plain.jsonl"
    arguments = ["caption", str(folder), "--model", exported_model, "--threads", "1"]
    assert main([*arguments, "--format", "jsonl", "--output", str(plain)]) == 1
    expected = [Record.from_dict(json.loads(line)) for line in plain.read_text().splitlines()]
    found = rows(undisturbed)
    assert [(one.image, one.captions, bool(one.error)) for one in found] == [
        (one.image, one.captions, bool(one.error)) for one in expected
    ]
    run_of = json.loads((undisturbed / "run.json").read_text())
    assert (run_of["images"], run_of["shards"]) == (200, 13)


def test_a_second_run_does_nothing_and_needs_no_ray(
    undisturbed: Path, folder: Path, exported_model: str, capsys: Capture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "captions").iterdir()}
    assert main(["bulk", *words(folder, undisturbed, exported_model)]) == 1  # two images are bad still
    assert "captioned 0 images; 200 were done before" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "captions").iterdir()} == before


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "--ray-address 127.0.0.1:1: nobody answers there"),
        ("a..b:6379", "--ray-address a..b:6379: nobody answers there"),
        ("127.0.0.1:65536", "--ray-address 127.0.0.1:65536: nobody answers there"),
        ("127.0.0.1:\u00b2", "must be HOST:PORT"),
        (f"127.0.0.1:{'9' * 5000}", "nobody answers there"),
        ("nowhere", "must be HOST:PORT, as 10.0.0.1:6379, or auto. Received: 'nowhere'"),
        ("ray://127.0.0.1:1", "must be HOST:PORT"),
    ],
)
def test_an_address_where_no_ray_is(
    address: str, message: str, folder: Path, exported_model: str, tmp_path: Path, capsys: Capture
) -> None:
    more = ("--ray-address", address)
    assert main(["bulk", *words(folder, tmp_path / "out", exported_model, *more)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("other", ["web", "silent"])
def test_an_address_where_something_else_answers(
    other: str, folder: Path, exported_model: str, tmp_path: Path, capsys: Capture
) -> None:
    with contextlib.ExitStack() as stack:
        if other == "web":  # as the dashboard, whose port is easily taken for the other
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler))
            threading.Thread(target=server.serve_forever).start()
            stack.callback(server.shutdown)
            port = server.server_port
        else:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listener.getsockname()[1]
        more = ("--ray-address", f"127.0.0.1:{port}")
        began = time.monotonic()
        assert main(["bulk", *words(folder, tmp_path / "out", exported_model, *more)]) == 2
    assert time.monotonic() - began < 60  # Ray itself takes minutes
    assert f"--ray-address 127.0.0.1:{port}: what answers there is not Ray's" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_ray_the_extra_is_named(
    folder: Path, exported_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["bulk", *words(folder, tmp_path / "out", exported_model)]) == 2
    assert 'pip install "showtell[ray]"' in capsys.readouterr().err


# Killed


@contextlib.contextmanager
def begun(
    folder: Path, output: Path, model: str, *more: str, finished: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """A run that has finished some of its 13 shards and goes on."""
    with subprocess.Popen(
        [*COMMAND, *words(folder, output, model, *more)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while len(list((output / "done").glob("*.json"))) < finished:
                assert process.poll() is None, "it ended before it was disturbed"
                assert time.monotonic() < deadline, "it never finished a shard"
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def same_rows(first: Path, second: Path) -> None:
    assert rows(first) == rows(second)
    listed = [json.loads((output / "manifest.json").read_text()) for output in (first, second)]
    assert listed[0] == listed[1]
    assert listed[0]["complete"] is True


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_worker_loses_nothing(
    seed: int, undisturbed: Path, folder: Path, exported_model: str, tmp_path: Path
) -> None:
    when = random.Random(seed).randint(1, 6)
    with begun(folder, tmp_path / "out", exported_model, finished=when) as process:
        workers = workers_of(process.pid, "CaptionWorker")
        assert workers
        random.Random(seed).choice(workers).kill()
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, said
    assert "1 worker died; the work was done again" in said
    assert "(raylet)" not in said
    same_rows(tmp_path / "out", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_driver_loses_nothing(
    seed: int, undisturbed: Path, folder: Path, exported_model: str, tmp_path: Path
) -> None:
    when = random.Random(seed).randint(1, 6)
    with begun(folder, tmp_path / "out", exported_model, finished=when) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    finished = len(list((tmp_path / "out/captions").iterdir()))
    assert 0 < finished < 13
    ended = run(folder, tmp_path / "out", exported_model)
    assert "were done before" in ended.stderr
    same_rows(tmp_path / "out", undisturbed)
    assert not psutil.wait_procs(family, timeout=150)[1]  # Ray's own agents wait for a minute


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_how_to_go_on(
    number: signal.Signals, undisturbed: Path, folder: Path, exported_model: str, tmp_path: Path
) -> None:
    with begun(folder, tmp_path / "out", exported_model) as process:
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.splitlines()[-1].endswith("the same command goes on")
    assert "Traceback" not in said
    assert "*** SIG" not in said  # Ray's own word
    run(folder, tmp_path / "out", exported_model)
    same_rows(tmp_path / "out", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["128k"], indirect=True)
def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(
    undisturbed: Path, folder: Path, exported_model: str, small_disk: Path
) -> None:
    output, ballast = small_disk / "out", small_disk / "ballast"
    with begun(folder, output, exported_model) as process:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"0" * 4096)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "the disk is full" in said
    assert "Traceback" not in said
    ballast.unlink()
    run(folder, output, exported_model)
    same_rows(output, undisturbed)


# A cluster of two nodes


@contextlib.contextmanager
def two_nodes() -> Iterator[tuple[str, psutil.Process, psutil.Process]]:
    """A cluster of two nodes with one processor each, on ports of this machine; gives its address, and the nodes."""
    with head(1) as (address, first), node(1, f"--address={address}") as second:
        wait_for_processors(address, 2)
        yield address, first, second


@pytest.mark.slow
def test_two_nodes_share_the_work_and_one_may_be_lost(
    undisturbed: Path, folder: Path, exported_model: str, tmp_path: Path
) -> None:
    with two_nodes() as (address, first, second):
        shared = [*COMMAND, *words(folder, tmp_path / "shared", exported_model, "--ray-address", address)]
        ended = subprocess.run(shared, env=UNPROTECTED, capture_output=True, text=True, timeout=PATIENCE)
        assert ended.returncode == 1, ended.stderr
        found = re.search(
            r"spread over 2 nodes: .* \(node (\w+)\) (\d+), .* \(node (\w+)\) (\d+)$", ended.stderr, re.M
        )
        assert found, ended.stderr
        assert found[1] != found[3]
        assert int(found[2]) + int(found[4]) == 200
        assert min(int(found[2]), int(found[4])) >= 16  # a shard at least
        assert "died" not in ended.stderr
        same_rows(tmp_path / "shared", undisturbed)

        output = tmp_path / "halved"
        halved = [*COMMAND, *words(folder, output, exported_model, "--ray-address", address)]
        driver = subprocess.Popen(halved, env=UNPROTECTED, stderr=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + PATIENCE
            stopped: list[psutil.Process] = []
            finished: list[Path] = []
            while not finished:
                if not stopped and (stopped := workers_of(first.pid, "CaptionWorker")):
                    stopped[0].suspend()  # so that whatever is finished first, the second node has done
                finished = list((output / "done").glob("*.json"))
                assert driver.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert len(stopped) == len(workers_of(second.pid, "CaptionWorker")) == 1
            workers_of(second.pid, "CaptionWorker")[0].suspend()  # with what it has been given
            assert len(list((output / "done").iterdir())) < 13
            stopped[0].resume()
            for one in [*second.children(recursive=True), second]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            _, said = driver.communicate(timeout=PATIENCE)
        finally:
            driver.kill()
            driver.wait()
    assert driver.returncode == 1, said
    assert "1 worker died; the work was done again" in said
    same_rows(output, undisturbed)
