"""The service as processes: ended while it works, killed, replaced, and refusing to start."""

from __future__ import annotations

import hashlib
import io
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image
from starlette.testclient import TestClient

from served import CAPTIONS, Served, kind, serving
from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.server.app import BEAT_SECONDS, create_app
from showtell.server.settings import Limits, ServerSettings


def draw(number: int) -> bytes:
    """A picture like no other."""
    picture = Image.effect_mandelbrot((96, 72), (-2, -1.5, 1 + number / 1000, 1.5), 20).convert("RGB")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


class Load:
    """Clients that ask again and again, each with pictures of its own, a new connection for each."""

    def __init__(self, service: Served, clients: int) -> None:
        self.statuses: list[int] = []
        self.lost: list[str] = []  # requests that were sent and got no answer
        self.refused = 0  # connections
        self.wrong: list[str] = []
        self._service = service
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(place,)) for place in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, place: int) -> None:
        number = place * 1000
        while not self._stop.is_set():
            number += 1
            contents = [draw(number), draw(number + 500)][: 1 + number % 2]
            options = (
                {"method": "sample", "seed": str(number)}
                if number % 3 == 0
                else {"beam": str(1 + number % 3)}
            )
            try:
                answer = httpx.post(
                    self._service.url + CAPTIONS,
                    files=[("image", content) for content in contents],
                    data=options,
                    timeout=60,
                )
            except httpx.ConnectError:
                self.refused += 1
                time.sleep(0.05)
                continue
            except httpx.TransportError as error:
                self.lost.append(repr(error))
                continue
            self.statuses.append(answer.status_code)
            if answer.status_code == 200:
                expected = [hashlib.sha256(content).hexdigest() for content in contents]
                if [image["sha256"] for image in answer.json()["images"]] != expected:
                    self.wrong.append(answer.text)
            elif answer.status_code != 503:
                self.wrong.append(answer.text)

    def wait_for(self, answers: int) -> None:
        before, end = len(self.statuses), time.monotonic() + 60
        while len(self.statuses) < before + answers:
            assert time.monotonic() < end, (self.statuses, self.lost, self.wrong)
            time.sleep(0.02)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=90)
            assert not thread.is_alive()


def test_sigterm_under_load_answers_everything_that_was_accepted(exported_model: str, tmp_path: Path) -> None:
    with serving(exported_model, tmp_path) as service:
        load = Load(service, clients=8)
        try:
            load.wait_for(20)
            assert service.end(signal.SIGTERM) == 0
        finally:
            load.stop()
        assert load.lost == []
        assert load.wrong == []
        assert load.refused > 0
        events = [line["event"] for line in service.log()]
        assert any("shutdown complete" in event for event in events)
        assert not any("traceback" in line for line in service.log())


def workers(service: Served) -> list[psutil.Process]:
    # multiprocessing has a process of its own for what it shares.
    children = psutil.Process(service.process.pid).children()
    return [one for one in children if "spawn_main" in " ".join(one.cmdline())]


def wait_for_workers(service: Served, count: int) -> None:
    """Waits until so many have been ready, dead ones among them."""
    end = time.monotonic() + 90
    while sum("startup complete" in line["event"] for line in service.log()) < count:
        assert time.monotonic() < end, service.log_file.read_text()
        time.sleep(0.1)


def test_a_killed_worker_takes_nobody_with_it(exported_model: str, tmp_path: Path) -> None:
    with serving(exported_model, tmp_path, "--workers", "2") as service:
        parent = psutil.Process(service.process.pid)
        wait_for_workers(service, 2)
        first = workers(service)
        assert len(first) == 2
        load = Load(service, clients=4)
        try:
            load.wait_for(10)
            first[0].kill()
            load.wait_for(10)  # by the other one, and then by the new one, too
            wait_for_workers(service, 3)
            assert {one.pid for one in workers(service)} - {one.pid for one in first}
            assert (
                service.metric("showtell_requests_total") >= 20
            )  # of all workers, the dead one's among them
            load.wait_for(5)
            before = len(load.lost)
            assert before <= 4  # at most one of each client was in the hands of the one that was killed
            assert service.end(signal.SIGTERM) == 0
        finally:
            load.stop()
        assert len(load.lost) == before
        assert load.wrong == []
        assert parent.pid not in psutil.pids() or parent.status() == psutil.STATUS_ZOMBIE
        assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in first)


def test_a_worker_that_hangs_is_killed_and_replaced(exported_model: str, tmp_path: Path) -> None:
    """One that is stopped lives, and does nothing any more: as one that is stuck."""
    with serving(exported_model, tmp_path, "--workers", "2", "--hang-timeout", "5") as service:
        wait_for_workers(service, 2)
        time.sleep(1.5)  # both have given a sign of life
        stuck, sound = workers(service)
        stuck.suspend()
        wait_for_workers(service, 3)
        found = workers(service)
        assert len(found) == 2
        assert sound in found
        assert stuck not in found
        killed = [line for line in service.log() if "no sign of life" in line["event"]]
        assert [(line["worker"], line["seconds"]) for line in killed] == [(stuck.pid, 5.0)]
        answer = httpx.post(service.url + CAPTIONS, files={"image": draw(1)}, timeout=60)
        assert answer.status_code == 200
        assert service.end(signal.SIGTERM) == 0


def test_networks_that_do_not_come_back_are_no_sign_of_life(
    exported_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = Captioner.load(exported_model, engine="onnxruntime", threads=1)
    settings = ServerSettings(models=(exported_model,), hosts=("testserver",), limits=Limits(seconds=0.5))
    beats: list[float] = []
    stuck, encode = threading.Event(), captioner.backend.encode

    def hang(pictures: Any) -> Any:
        assert stuck.wait(60)
        return encode(pictures)

    with TestClient(create_app(settings, captioner, beat=lambda: beats.append(time.monotonic()))) as client:
        assert client.get("/readyz").status_code == 200
        monkeypatch.setattr(captioner.backend, "encode", hang)
        late = client.post(CAPTIONS, files={"image": draw(2)})
        assert (late.status_code, kind(late)) == (503, "late")
        end = time.monotonic() + 30
        while (ready := client.get("/readyz")).status_code == 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert kind(ready) == "not-ready"
        before = len(beats)
        assert before
        time.sleep(2.5 * BEAT_SECONDS)
        assert len(beats) == before
        stuck.set()
        while len(beats) == before or client.get("/readyz").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_what_cannot_be_served_is_said_in_one_line(
    exported_model: str, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys").write_text("alice short\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, expected in (
            (("--model", str(tiny_bundle)), "runs exported models only"),
            (("--model", exported_model, "--port", port), f"127.0.0.1:{port} cannot be listened on"),
            (
                ("--model", exported_model, "--keys", str(tmp_path / "keys")),
                "line 1: the key of 'alice' has 5",
            ),
            (("--model", exported_model, "--rate", "5"), "--rate limits keys, and there are none"),
            (("--model", exported_model, "--max-images", "100"), "has no room for the 100"),
            (("--model", exported_model, "--allow-origin", "shop"), "An origin is a scheme and a host"),
            (
                ("--model", exported_model, "--engine", "torch"),
                "runs exported models, on openvino or onnxruntime",
            ),
        ):
            assert main(["serve", *words]) == 2
            said = capsys.readouterr()
            assert said.out == ""
            assert expected in said.err
            assert said.err.count("\n") == 1


def test_no_torch_in_the_service(exported_model: str, tmp_path: Path, photographs: list[Path]) -> None:
    """The process maps no library of torch, also after it has captioned."""
    with serving(exported_model, tmp_path) as service:
        with service.client() as client:
            picture = {"image": photographs[0].read_bytes()}
            assert client.post(CAPTIONS, files=picture, data={"explain": "true"}).status_code == 200
            assert client.get("/openapi.json").status_code == 200
            assert kind(client.get("/nothing")) == "not-found"
        maps = Path(f"/proc/{service.process.pid}/maps")
        if not maps.exists():
            pytest.skip("needs /proc")
        libraries = maps.read_text()
    assert "onnxruntime" in libraries
    assert "/torch/" not in libraries
