"""What the service withstands: bodies of any size, speed and kind, clients that leave, strangers, odd HTTP."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from served import CAPTIONS, Served, kind, problem, read_answer, serving
from showtell.captioner import Captioner
from showtell.images import fetch
from showtell.server.app import create_app
from showtell.server.settings import ServerSettings

LIMIT = 200_000  # bytes of a body
KEY, SLOW_KEY = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
HEAD = f"POST {CAPTIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def service(exported_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    options = (
        "--max-body",
        str(LIMIT / 2**20),
        "--body-timeout",
        "2",
        "--max-pixels",
        "0.5",
        "--queue",
        "40",
    )
    with serving(exported_model, folder, *options) as running:
        yield running


@pytest.fixture(scope="module")
def keyed(exported_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys").write_text(f"# who may ask\nalice {KEY}\nbob {SLOW_KEY} 3\n")
    many = "".join(f"other{number} {secrets.token_urlsafe(24)}\n" for number in range(2000))
    options = ("--keys", str(folder / "keys"), "--allow-origin", "https://shop.example", "--urls", "none")
    with serving(exported_model, folder, *options, SHOWTELL_API_KEYS=many) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test nothing is open, queued or in memory."""
    yield
    if "service" in request.fixturenames:
        service: Served = request.getfixturevalue("service")
        end = time.monotonic() + 20
        gauges = ("showtell_queue_images", "showtell_body_bytes")
        while left := [name for name in gauges if service.metric(name)]:
            assert time.monotonic() < end, left
            time.sleep(0.05)
        assert service.metric("showtell_open_requests") == 1  # that for the metrics themselves


def test_a_body_that_says_it_is_too_large_is_not_read(service: Served) -> None:
    with service.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: {10**12}\r\n\r\n".encode())
        status, headers, body = read_answer(connection)
    assert (status, headers["connection"]) == (413, "close")
    assert json.loads(body)["detail"].startswith("A body has at most 200,000 bytes")


def test_a_body_without_end_is_cut_off(service: Served) -> None:
    with service.connect() as connection:
        connection.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        sent = 0
        try:
            for _ in range(1000):
                connection.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
        assert sent < 20_000_000
    with service.client() as client:
        assert client.get("/readyz").status_code == 200


def test_whoever_sends_too_much_still_reads_why(service: Served) -> None:
    with service.client() as client:
        answer = client.post(CAPTIONS, files={"image": b"x" * (LIMIT + 1)})
        assert (answer.status_code, kind(answer)) == (413, "too-large")
        # The same, without a length: only counting tells.
        answer = client.post(
            CAPTIONS, content=iter([b" " * 1000] * 500), headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, kind(answer)) == (413, "too-large")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(LIMIT - 3000, LIMIT + 3000), chunk=st.integers(1000, 70_000), declared=st.booleans())
def test_the_limit_is_exact_however_the_body_comes(
    service: Served, size: int, chunk: int, declared: bool
) -> None:
    start, end = b'{"images": [{"base64": "', b'"}]}'
    body = start + b"A" * (size - len(start) - len(end)) + end
    parts = [body[place : place + chunk] for place in range(0, len(body), chunk)]
    headers = {"Content-Type": "application/json", **({"Content-Length": str(size)} if declared else {})}
    answer = httpx.post(service.url + CAPTIONS, content=iter(parts), headers=headers, timeout=30)
    assert kind(answer) == ("too-large" if size > LIMIT else answer.json()["type"].rpartition(":")[2])
    assert (answer.status_code == 413) == (size > LIMIT)


def test_slow_bodies_and_headers_are_given_up(service: Served) -> None:
    """All at once, as a slow-loris client does: nobody else waits for them."""
    slow = [service.connect() for _ in range(40)]
    try:
        for place, connection in enumerate(slow):
            length = "Content-Length: 1000\r\n\r\n" if place % 2 else ""
            connection.sendall(f"{HEAD}{length}".encode())
        with service.client() as client:
            begin = time.monotonic()
            assert client.get("/healthz").status_code == 200
            assert time.monotonic() - begin < 5
        begin = time.monotonic()
        answers: list[int] = []
        while time.monotonic() - begin < 30 and len(answers) < len(slow):
            answers = []
            for connection in slow:
                connection.settimeout(0.01)
                with contextlib.suppress(OSError):
                    connection.sendall(b"x" if len(answers) % 2 else b"X-Slow: 1\r\n")
                try:
                    answers.append(len(connection.recv(1, socket.MSG_PEEK)))
                except TimeoutError:
                    break
                except OSError:
                    answers.append(0)
            time.sleep(0.2)
        assert len(answers) == len(slow)
    finally:
        for connection in slow:
            connection.close()


def test_a_slow_body_is_a_timeout(service: Served) -> None:
    with service.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: 1000\r\n\r\n{{".encode())
        status, headers, body = read_answer(connection)
    # What RFC 9110 (15.5.9) has for it. A browser may then ask once more by itself, which does no harm here.
    assert (status, headers["connection"]) == (408, "close")
    assert "did not come within 2 s" in json.loads(body)["detail"]


def test_a_client_that_waits_to_be_asked_is_told_without_sending(service: Served) -> None:
    with service.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: {LIMIT + 1}\r\nExpect: 100-continue\r\n\r\n".encode())
        status, _, _ = read_answer(connection)
    assert status == 413


def test_large_pictures_in_small_files_are_refused(service: Served) -> None:
    import io

    from PIL import Image

    bomb = io.BytesIO()
    Image.new("1", (1000, 1000)).save(bomb, "PNG")
    with service.client() as client:
        answer = client.post(CAPTIONS, files={"image": bomb.getvalue()})
    assert (answer.status_code, kind(answer)) == (422, "unreadable-image")
    assert "1,000,000 pixels exceed the limit of 500,000" in problem(answer)["detail"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("GET /v1/models HTTP/1.0\r\n\r\n", 200),
        ("GET /v1/models HTTP/1.0\r\nHost: attacker.example\r\n\r\n", 421),
        ("POST /v1/captions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{", 400),
        ("GET /../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("GET /../app.py HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("GET http://169.254.169.254/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", 421),
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),  # no Host
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /v1/models HTTP/1.1\r\nHost: a b/<c>\r\n\r\n", 400),
        ("GET /v1/models HTTP/1.1\r\nHost: attacker.example\r\n\r\n", 421),
        ("GET /v1/models HTTP/1.1\r\nHost: LOCALHOST.:80\r\n\r\n", 200),
        ("GET /v1/models HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", 200),
        ("GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
        ("NOTHING\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS on a plain port
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + "y" * 40_000 + "\r\n\r\n", 431),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + "X: y\r\n" * 8000, 431),
        ("GET /wowme?image=" + "y" * 70_000 + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (f"{HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ],
)
def test_odd_http_gets_a_clear_answer(service: Served, sent: str, status: int) -> None:
    with service.connect() as connection:
        connection.sendall(sent.encode("latin-1"))
        found, headers, body = read_answer(connection)
    assert found == status
    if status != 200:
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["status"] == status


def test_pipelined_requests_are_answered_in_their_order(service: Served) -> None:
    with service.connect() as connection:
        paths = ("/healthz", "/nothing", "/v1/models", "/readyz")
        connection.sendall(
            b"".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths)
        )
        data = b""
        while data.count(b"HTTP/1.1 ") < 4 or not data.rstrip().endswith(b"}"):
            data += connection.recv(65536)
    assert [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200, 200]


def test_an_upgrade_that_nobody_knows_changes_nothing(service: Served) -> None:
    with service.client() as client:
        headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQ"}
        answer = client.post(CAPTIONS, json={"images": [{"base64": "eA=="}]}, headers=headers)
    assert (answer.status_code, kind(answer)) == (422, "unreadable-image")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(service: Served, headers: dict[str, str], status: int) -> None:
    with service.client(headers=headers) as client:
        assert client.get("/v1/models").status_code == status
    with service.client(headers={"Origin": service.url}) as client:
        assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost:22/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://user:password@127.0.0.1/",
    ],
)
def test_addresses_that_are_not_public_are_not_fetched(service: Served, url: str) -> None:
    with service.client() as client:
        for answer in (
            client.get("/wowme", params={"image": url}),
            client.post(CAPTIONS, json={"images": [{"url": url}]}),
        ):
            assert (answer.status_code, kind(answer)) == (422, "not-fetched")
            assert "password" not in answer.text or "passwords in addresses" in answer.text


@pytest.mark.parametrize(
    ("answers", "location"),
    [
        ([["93.184.216.34", "10.0.0.1"]], None),  # several addresses
        ([["93.184.216.34", "64:ff9b::7f00:1"]], None),
        (
            [["93.184.216.34"], ["127.0.0.1"]],
            "http://photos.example/again",
        ),  # another one at the next look-up
        ([["93.184.216.34"]], "http://169.254.169.254/latest/meta-data"),
        ([["93.184.216.34"]], "http://0x7f.1/"),
        ([["93.184.216.34"]], "//[::ffff:127.0.0.1]/"),
        ([["93.184.216.34"]], "file:///etc/passwd"),
    ],
)
def test_names_and_redirects_that_lead_inside_are_not_followed(
    exported_model: str, monkeypatch: pytest.MonkeyPatch, answers: list[list[str]], location: str | None
) -> None:
    """With a resolver of the test's own, and a web server that stands for the public address."""
    connected: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == ("photos.example", 80)
        return answers.pop(0)

    def connect(address: object, port: int, seconds: float) -> socket.socket:
        connected.append(str(address))
        return socket.create_connection(site.getsockname(), timeout=seconds)

    def redirect() -> None:
        connection, _ = site.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n".encode())

    monkeypatch.setattr(fetch, "_ask_the_system", resolve)
    monkeypatch.setattr(fetch, "_connect", connect)
    options = ServerSettings(models=(exported_model,), hosts=("testserver",))
    captioner = Captioner.load(exported_model, engine="onnxruntime", threads=1)
    with socket.create_server(("127.0.0.1", 0)) as site, TestClient(create_app(options, captioner)) as client:
        thread = threading.Thread(target=redirect, daemon=True)
        if location is not None:
            thread.start()
        answer = client.get("/wowme", params={"image": "http://photos.example/a.png"})
    assert (answer.status_code, kind(answer)) == (422, "not-fetched")
    assert connected == (["93.184.216.34"] if location is not None else [])


def test_clients_that_leave_are_given_up(service: Served, photographs: list[Path]) -> None:
    before = service.metric("showtell_requests_total")
    content = photographs[1].read_bytes()
    form = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        + content
        + b"\r\n--x--\r\n"
    )
    head = HEAD.replace("application/json", "multipart/form-data; boundary=x")
    for cut in (0, 10, len(form) // 2, len(form), len(form), len(form)):
        with service.connect() as connection:
            connection.sendall(f"{head}Content-Length: {len(form)}\r\n\r\n".encode() + form[:cut])
    end = time.monotonic() + 20
    while service.metric("showtell_requests_total") < before + 6:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_nothing_leaks(service: Served, photographs: list[Path]) -> None:
    process = psutil.Process(service.process.pid)

    def mix() -> None:
        with service.client() as client:
            for path in photographs[:3]:
                client.post(
                    CAPTIONS, files={"image": path.read_bytes()}, data={"seed": "1", "method": "sample"}
                )
            client.post(CAPTIONS, files={"image": b"bad"})
            client.post(CAPTIONS, content=b"{", headers={"Content-Type": "application/json"})
        for _ in range(3):
            with service.connect() as connection:
                connection.sendall(f"{HEAD}Content-Length: 1000\r\n\r\n{{".encode())

    mix()
    time.sleep(0.5)
    descriptors, threads = process.num_fds(), process.num_threads()
    for _ in range(8):
        mix()
    end = time.monotonic() + 10
    while process.num_fds() > descriptors + 3:
        assert time.monotonic() < end, (process.num_fds(), descriptors)
        time.sleep(0.1)
    assert process.num_threads() <= threads + 2


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xff"],
    ids=["nothing", "no key", "another word", "another scheme", "one letter more", "no ASCII"],
)
def test_without_a_good_key_nothing_is_said(keyed: Served, header: str) -> None:
    headers = {"Authorization": header.encode("latin-1")} if header else {}
    with keyed.client(headers=headers) as client:
        for method, path in (
            ("GET", "/v1/models"),
            ("POST", CAPTIONS),
            ("GET", "/wowme?image=x"),
            ("GET", "/metrics"),
        ):
            answer = client.request(method, path)
            assert (answer.status_code, kind(answer)) == (401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert client.get("/healthz").status_code == 200


def test_the_log_is_json_and_shows_nothing_of_a_bad_form(exported_model: str, tmp_path: Path) -> None:
    with serving(exported_model, tmp_path) as service, service.client() as client:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        for body in (b"--xnothing", b"no boundary", b"--x\r\nno header\r\n\r\n--x--"):
            answer = client.post(CAPTIONS, content=body, headers=headers)
            assert (answer.status_code, kind(answer)) == (400, "bad-request")
        end = time.monotonic() + 30  # a line is written after its answer
        while service.log_file.read_text().count('"status": 400') < 3 and time.monotonic() < end:
            time.sleep(0.02)
        first, *lines = service.log_file.read_text().splitlines()
    assert first.startswith("showtell: http://")
    assert [line for line in lines if "event" not in json.loads(line)] == []
    assert sum(json.loads(line).get("status") == 400 for line in lines) == 3


def test_a_good_key_opens_and_is_logged_by_its_name_only(keyed: Served) -> None:
    with keyed.client(headers=bearer(KEY)) as client:
        assert client.get("/v1/models").status_code == 200
        answer = client.post(CAPTIONS, json={"images": [{"url": "https://example.com/a.jpg"}]})
        assert "fetches no images" in problem(answer)["detail"]
    assert "alice" in {line.get("key") for line in keyed.log()}
    assert KEY not in keyed.log_file.read_text()


def test_each_key_has_its_own_rate(keyed: Served, photographs: list[Path]) -> None:
    picture = ("image", photographs[1].read_bytes())
    with keyed.client(headers=bearer(SLOW_KEY)) as client:
        assert client.post(CAPTIONS, files=[picture] * 2).status_code == 200
        answer = client.post(CAPTIONS, files=[picture] * 2)
        assert (answer.status_code, kind(answer)) == (429, "too-many-requests")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    with keyed.client(headers=bearer(KEY)) as client:
        assert client.post(CAPTIONS, files=[picture] * 5).status_code == 200


def test_only_the_allowed_origin_may_read(keyed: Served) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with keyed.client() as client:
        allowed = client.options(CAPTIONS, headers={"Origin": "https://shop.example", **asked})
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        foreign = client.options(CAPTIONS, headers={"Origin": "https://evil.example", **asked})
        assert "access-control-allow-origin" not in foreign.headers
        headers = {"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site", **bearer(KEY)}
        assert client.get("/v1/models", headers=headers).status_code == 200
        assert (
            client.get("/v1/models", headers={**headers, "Origin": "https://evil.example"}).status_code == 403
        )


def test_a_full_queue_refuses_at_once_and_answers_what_it_took(
    service: Served, photographs: list[Path]
) -> None:
    found: list[tuple[int, float]] = []
    content = photographs[1].read_bytes()

    def ask(seed: int) -> None:
        begin = time.monotonic()
        options = {"method": "sample", "seed": str(seed), "count": "10"}
        with service.client() as client:
            answer = client.post(CAPTIONS, files=[("image", content)] * 4, data=options)
        if answer.status_code == 503:
            assert kind(answer) == "busy"
            assert int(answer.headers["retry-after"]) >= 1
        found.append((answer.status_code, time.monotonic() - begin))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = [status for status, _ in found]
    assert len(found) == 40
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 10
