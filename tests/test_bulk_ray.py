"""`showtell bulk` on real Ray, in real processes: whole, killed, on two nodes, and where there is no Ray."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

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
    assert "captioned 200 images" in ended.stderr
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


def test_without_ray_the_extra_is_named(
    folder: Path, exported_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["bulk", *words(folder, tmp_path / "out", exported_model)]) == 2
    assert 'pip install "showtell[ray]"' in capsys.readouterr().err


# Killed


@contextlib.contextmanager
def begun(folder: Path, output: Path, model: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A run that has finished a shard and goes on."""
    process = subprocess.Popen(
        [*COMMAND, *words(folder, output, model, *more)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not (output / "done").is_dir() or not any((output / "done").iterdir()):
            assert process.poll() is None, "it ended before it was disturbed"
            assert time.monotonic() < deadline, "it never finished a shard"
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any("CaptionWorker" in word for word in child.cmdline())]


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
    with begun(folder, tmp_path / "out", exported_model) as process:
        time.sleep(random.Random(seed).uniform(0, 1))
        workers = workers_of(process)
        assert workers
        random.Random(seed).choice(workers).kill()
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, said
    assert "1 workers died, and their work was done again" in said
    assert "(raylet)" not in said
    same_rows(tmp_path / "out", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_driver_loses_nothing(
    seed: int, undisturbed: Path, folder: Path, exported_model: str, tmp_path: Path
) -> None:
    with begun(folder, tmp_path / "out", exported_model) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        time.sleep(random.Random(seed).uniform(0, 1))
        process.kill()
    finished = len(list((tmp_path / "out/captions").iterdir()))
    assert 0 < finished < 13
    ended = run(folder, tmp_path / "out", exported_model)
    assert "were done before" in ended.stderr
    same_rows(tmp_path / "out", undisturbed)
    assert not psutil.wait_procs(family, timeout=60)[1]  # nothing of the first run goes on


@pytest.mark.slow
def test_an_interrupt_says_how_to_go_on(
    undisturbed: Path, folder: Path, exported_model: str, tmp_path: Path
) -> None:
    with begun(folder, tmp_path / "out", exported_model) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.splitlines()[-1].endswith("the same command goes on")
    assert "Traceback" not in said
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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def node(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node of a cluster, as `ray start` begins it; ends with its whole process group."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1", *options]
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    family = []
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        for one in [*family, psutil.Process()] if process.poll() is None else family:
            if one.pid != os.getpid():
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.slow
def test_two_nodes_share_the_work_and_one_may_be_lost(
    undisturbed: Path, folder: Path, exported_model: str, tmp_path: Path
) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    temporary = Path("/tmp/showtell-ray-test")  # short: sockets lie in it
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        head = ("--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false")
        stack.enter_context(node(*head, f"--temp-dir={temporary}"))
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert time.monotonic() < deadline
            time.sleep(0.5)
        second = stack.enter_context(node(f"--address={address}"))
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        status = [str(Path(sys.executable).with_name("ray")), "status", f"--address={address}"]
        while (
            "/2.0 CPU" not in subprocess.run(status, env=environment, capture_output=True, text=True).stdout
        ):
            assert time.monotonic() < deadline
            time.sleep(1)
        command = [*COMMAND, *words(folder, tmp_path / "out", exported_model, "--ray-address", address)]
        driver = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            both: set[int] = set()
            while len(both) < 2:  # a worker on each node: each has one processor
                assert driver.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
                both = {parent.pid for process in psutil.process_iter() for parent in _raylets_of(process)}
            for one in [*psutil.Process(second.pid).children(recursive=True), psutil.Process(second.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            _, said = driver.communicate(timeout=PATIENCE)
        finally:
            driver.kill()
            driver.wait()
    assert driver.returncode == 1, said
    assert "workers died" in said
    same_rows(tmp_path / "out", undisturbed)


def _raylets_of(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        if any("CaptionWorker" in word for word in process.cmdline()):
            parent = process.parent()
            return [] if parent is None else [parent]
    return []
