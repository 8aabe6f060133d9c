"""The fetcher against real servers on this machine: what it asks, where it connects, and when it gives up.

The servers stand for public hosts: the test's resolver gives public addresses, which are checked as always, and the
test's `connect` leads from each to the server. What is checked is therefore what runs for users.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import showtell
from showtell.captioner import Captioner
from showtell.decoding import DecodingSettings
from showtell.errors import FetchError, ImageError, UsageError
from showtell.images import WebImage, open_image
from showtell.images.addresses import IPAddress, show_url
from showtell.images.fetch import LOOK_UPS, FetchedImage, Fetcher, FetchLimits
from showtell.images.web import is_web_page
from tiny_runs import trained_run

PUBLIC, PUBLIC_6 = "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"
Answer = bytes | Callable[[socket.socket], None]


def picture(color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(file, "PNG")
    return file.getvalue()


PICTURE = picture()


def response(body: bytes = b"", *headers: str, status: str = "200 OK", length: int | None = -1) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1") + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return response(b"", f"Location: {location}", status=status)


class Server:
    """Answers by path; `requests` holds what it was asked, whole."""

    def __init__(
        self, answers: dict[str, Answer], host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self.answers = answers
        self.requests: list[str] = []
        self.accepted = 0
        self._tls = tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._connections: list[socket.socket] = []
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted += 1
                self._connections.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(connection):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with contextlib.closing(connection):
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    part = connection.recv(4096)
                    if not part:
                        return
                    request += part
                self.requests.append(request.decode("ascii"))
                path = request.split(b" ")[1].decode("ascii")
                answer = self.answers.get(path, response(b"nothing here", status="404 Not Found"))
                if isinstance(answer, bytes):
                    connection.sendall(answer)
                else:
                    answer(connection)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


class Web:
    """Names, their addresses, and the server that stands behind all public ones."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.names: dict[
            str, list[list[str]]
        ] = {}  # the answers to one look-up after the other; the last stays
        self.asked: list[str] = []
        self.connected: list[tuple[str, int]] = []

    def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self.names.get(host, [[PUBLIC]])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def connect(self, address: IPAddress, port: int, seconds: float) -> socket.socket:
        self.connected.append((str(address), port))
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=seconds)

    def fetcher(self, *, tls: ssl.SSLContext | None = None, **limits: object) -> Fetcher:
        chosen = FetchLimits(**limits)  # type: ignore[arg-type]
        return Fetcher(chosen, tls=tls, resolve=self.resolve, connect=self.connect)

    def get(self, url: str, **limits: object) -> FetchedImage:
        return self.fetcher(**limits).fetch(url)

    def refused(self, url: str, *words: str, **limits: object) -> str:
        """Checks that fetching fails with these words in its message, which begins with the URL's shown form."""
        with pytest.raises(FetchError) as caught:
            self.get(url, **limits)
        message = str(caught.value)
        assert message.startswith(show_url(url) + ": ")
        for word in words:
            assert word in message, message
        return message


@pytest.fixture
def server() -> Iterator[Server]:
    with contextlib.closing(Server({"/a.png": response(PICTURE, "Content-Type: image/png")})) as running:
        yield running


@pytest.fixture
def web(server: Server) -> Web:
    return Web(server)


def serve(web: Web, answer: Answer, path: str = "/a.png") -> str:
    web.server.answers[path] = answer
    return f"http://photos.example{path}"


# What is asked and given


def test_an_image_is_fetched(web: Web) -> None:
    assert web.get("http://photos.example/a.png") == FetchedImage(PICTURE, "http://photos.example/a.png")
    assert (web.asked, web.connected) == (["photos.example"], [(PUBLIC, 80)])


def test_the_request_tells_who_asks_and_nothing_else(web: Web) -> None:
    serve(web, response(PICTURE), "/%C3%BC.png?size=8%209")
    web.get("http://PHOTOS.example:8080/ü.png?size=8 9#part")
    assert web.server.requests == [
        "GET /%C3%BC.png?size=8%209 HTTP/1.1\r\n"
        "Host: photos.example:8080\r\n"
        f"User-Agent: showtell/{showtell.__version__}\r\n"
        "Accept: image/*, */*;q=0.1\r\n"
        "Accept-Encoding: identity\r\n"
        "Connection: close\r\n"
        "\r\n"
    ]
    assert web.connected == [(PUBLIC, 8080)]


def chunked(*parts: bytes) -> bytes:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))
    return response(framed, "Transfer-Encoding: chunked", length=None)


@pytest.mark.parametrize(
    "answer",
    [
        response(PICTURE, "Content-Type: text/html"),  # what it is called does not matter
        response(PICTURE, "Content-Encoding: Identity"),
        response(PICTURE, length=None),  # until the connection ends
        response(PICTURE, "Content-Length: nonsense", length=None),
        response(PICTURE + b"more", length=len(PICTURE)),
        response(PICTURE).replace(b"HTTP/1.1", b"HTTP/1.0"),
        response(PICTURE).replace(b"\r\n", b"\n", 2),
        chunked(PICTURE),
        chunked(PICTURE[:1], PICTURE[1:9], PICTURE[9:]),
        b"HTTP/1.1 100 Continue\r\n\r\n" + response(PICTURE),
    ],
)
def test_servers_may_answer_in_many_ways(web: Web, answer: bytes) -> None:
    assert web.get(serve(web, answer)).content == PICTURE


def test_an_image_may_be_as_large_as_the_limit(web: Web) -> None:
    content = bytes(300_000)
    for answer in (response(content), response(content, length=None), chunked(*[content[:1000]] * 300)):
        assert web.get(serve(web, answer), bytes=300_000).content == content
        web.refused(serve(web, answer), "larger than the limit of 299,999 bytes", bytes=299_999)


# Which addresses are connected to


def test_what_is_not_public_is_refused_before_connecting(web: Web) -> None:
    for host, kind in (
        ("127.0.0.1", "this machine itself"),
        ("169.254.169.254", "metadata"),
        ("[::1]", "this machine itself"),
        ("[::ffff:10.0.0.1]", "a private network"),
        ("[64:ff9b::a00:1]", "NAT64"),
        ("192.168.1.1:8080", "a private network"),
    ):
        web.refused(f"http://{host}/a.png", "leads to an address that is not public", kind)
    assert (web.asked, web.connected) == ([], [])


@pytest.mark.parametrize(
    "private", ["10.1.2.3", "127.0.0.1", "::1", "fe80::1%2", "64:ff9b::7f00:1", "::ffff:10.0.0.1"]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_name_with_one_private_address_is_refused_as_a_whole(web: Web, private: str, place: int) -> None:
    addresses = [PUBLIC, PUBLIC_6]
    addresses.insert(place, private)
    web.names["photos.example"] = [addresses]
    message = web.refused("http://photos.example/a.png", "its host leads to an address that is not public")
    assert private not in message  # what a name means inside a network is not told to those outside
    assert web.connected == []


def test_a_second_answer_of_the_resolver_is_never_asked_for(web: Web) -> None:
    web.names["photos.example"] = [[PUBLIC], ["127.0.0.1"]]
    assert web.get("http://photos.example/a.png").content == PICTURE
    assert (web.asked, web.connected) == (["photos.example"], [(PUBLIC, 80)])
    web.refused("http://photos.example/a.png", "not public (this machine itself)")
    assert web.connected == [(PUBLIC, 80)]


def test_a_redirect_to_the_same_host_checks_its_new_address(web: Web) -> None:
    web.names["photos.example"] = [[PUBLIC], ["10.0.0.1"]]
    serve(web, redirect("/b.png"))
    web.refused(
        "http://photos.example/a.png", "after a redirect to http://photos.example/b.png: its host leads"
    )
    assert web.connected == [(PUBLIC, 80)]


def test_the_systems_resolver_is_asked_once_and_its_address_connected_to(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing injected: the connection is really made to the address that was checked, never to a name."""
    asked = []
    system = socket.getaddrinfo

    def look_up(host: str, *arguments: object, **options: object) -> list:
        if re.fullmatch(r"[0-9.]+", host):
            return system(host, *arguments, **options)  # type: ignore[arg-type]
        asked.append(host)
        answer = "127.0.0.1" if len(asked) == 1 else "203.0.113.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, server.port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = f"http://photos.example:{server.port}/a.png"
    with pytest.raises(FetchError, match="not public"):
        Fetcher().fetch(url)
    asked.clear()
    assert Fetcher(allow_private=True).fetch(url).content == PICTURE
    assert asked == ["photos.example"]
    assert f"Host: photos.example:{server.port}\r\n" in server.requests[0]


def test_private_addresses_can_be_asked_for(server: Server) -> None:
    fetcher = Fetcher(allow_private=True)
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        assert fetcher.fetch(f"http://{host}:{server.port}/a.png").content == PICTURE
    with pytest.raises(FetchError, match="is a number"):
        fetcher.fetch(f"http://2130706433:{server.port}/a.png")


def test_the_next_address_is_tried_when_one_fails(web: Web) -> None:
    web.names["photos.example"] = [[PUBLIC_6, "1.1.1.1", f"::ffff:{PUBLIC}", PUBLIC]]

    def connect(address: IPAddress, port: int, seconds: float) -> socket.socket:
        connection = web.connect(address, port, seconds)
        if str(address) == PUBLIC:
            return connection
        connection.close()
        raise TimeoutError if address.version == 4 else OSError(101, "Network is unreachable")

    fetcher = Fetcher(resolve=web.resolve, connect=connect)
    assert fetcher.fetch("http://photos.example/a.png").content == PICTURE
    assert [address for address, _ in web.connected] == [PUBLIC_6, "1.1.1.1", PUBLIC]

    web.names["photos.example"] = [[PUBLIC_6, "1.1.1.1"]]
    with pytest.raises(FetchError, match=r"the connection failed \(Network is unreachable\)"):
        fetcher.fetch("http://photos.example/a.png")


def test_ipv6(web: Web) -> None:
    try:
        server = Server({"/a.png": response(PICTURE)}, host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with contextlib.closing(server):
        assert Fetcher(allow_private=True).fetch(f"http://[::1]:{server.port}/a.png").content == PICTURE
        assert f"Host: [::1]:{server.port}\r\n" in server.requests[0]
        with pytest.raises(FetchError, match="not public"):
            Fetcher().fetch(f"http://[::1]:{server.port}/a.png")
    web.names["photos.example"] = [[PUBLIC_6]]
    assert web.get("http://photos.example/a.png").content == PICTURE
    assert web.get(f"http://[{PUBLIC_6}]/a.png").content == PICTURE
    assert web.connected == [(PUBLIC_6, 80)] * 2


def test_ports_can_be_restricted(web: Web) -> None:
    allowed = frozenset({80, 443})
    assert web.get("http://photos.example/a.png", ports=allowed).content == PICTURE
    web.refused(
        "http://photos.example:22/a.png", "port 22 is not allowed here; allowed: 80, 443", ports=allowed
    )
    serve(web, redirect("http://photos.example:6379/"))
    web.refused("http://photos.example/a.png", "port 6379 is not allowed here", ports=allowed)
    assert web.connected == [(PUBLIC, 80)] * 2


def test_what_is_no_web_address_is_refused(web: Web) -> None:
    for url, words in (("file:///etc/passwd", "only http:// and https://"), ("http://127.1/", "is a number")):
        web.refused(url, words)
    assert (web.asked, web.connected) == ([], [])


# Redirects


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_redirects_are_followed(web: Web, status: str) -> None:
    serve(web, redirect("../b%20c.png?size=1#part", status), "/x/a.png")
    serve(web, response(picture("blue")), "/b%20c.png?size=1")
    found = web.get("http://photos.example/x/a.png")
    assert found == FetchedImage(picture("blue"), "http://photos.example/b%20c.png?size=1")
    assert web.asked == ["photos.example"] * 2  # every hop begins anew


def test_redirects_lead_to_other_hosts_and_forms(web: Web) -> None:
    serve(web, redirect("//other.example:8080/ü.png".encode().decode("latin-1")))
    serve(web, response(PICTURE), "/%C3%BC.png")
    assert web.get("http://photos.example/a.png").address == "http://other.example:8080/%C3%BC.png"
    assert web.connected == [(PUBLIC, 80), (PUBLIC, 8080)]
    serve(web, redirect("/ü.png"))  # as Latin-1, which is no UTF-8
    assert web.get("http://photos.example/a.png").address == "http://photos.example/%C3%BC.png"


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (
            "http://127.0.0.1/",
            "after a redirect to http://127.0.0.1/: its host leads to an address that is not public",
        ),
        ("http://169.254.169.254/latest/meta-data/?SECRET", "metadata"),
        ("//[::1]/", "not public"),
        ("http://inside.example/", "after a redirect to http://inside.example/: its host leads to"),
        ("http://2130706433/", "redirects to http://2130706433/: its host is a number"),
        ("file:///etc/passwd", "redirects to file:///etc/passwd: only http:// and https://"),
        ("data:image/png;base64,AAAA", "not data:"),
        ("http://anna:SECRET@photos.example/b.png", "redirects to http://...@photos.example: user names"),
        ("http://[::1", "cannot be read"),
        ("http://photos.example/\x7f", "control characters"),
        ("http://" + "a" * 9000 + "/", "too long"),
        ("/a.png", "redirects lead in a circle"),
        ("http://PHOTOS.example:80/a.png#again", "redirects lead in a circle"),
        ("", "does not say where to"),
    ],
)
def test_redirects_that_are_not_followed(web: Web, location: str, words: str) -> None:
    web.names["inside.example"] = [["10.0.0.7"]]
    serve(web, redirect(location))
    assert "SECRET" not in web.refused("http://photos.example/a.png", words)
    assert web.connected == [(PUBLIC, 80)]


def test_redirects_have_an_end(web: Web) -> None:
    for number in range(9):
        serve(web, redirect(f"/{number + 1}"), f"/{number}")
    serve(web, response(PICTURE), "/9")
    assert web.get("http://photos.example/4").content == PICTURE  # five
    web.connected.clear()
    web.refused("http://photos.example/3", "more than 5 redirects")
    assert len(web.connected) == 6
    web.refused("http://photos.example/8", "more than 0 redirects", redirects=0)
    serve(web, redirect("/y"), "/x")
    serve(web, redirect("/x"), "/y")
    web.refused(
        "http://photos.example/x", "after a redirect to http://photos.example/y: redirects lead in a circle"
    )


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextlib.contextmanager
def secure_web(authority: trustme.CA, names: list[str], **answers: Answer) -> Iterator[Web]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asked: list[str | None] = []
    context.sni_callback = lambda connection, name, _: asked.append(name)
    authority.issue_cert(*names).configure_cert(context)
    paths = {f"/{path}": answer for path, answer in answers.items()}
    with contextlib.closing(Server({"/a.png": response(PICTURE), **paths}, tls=context)) as server:
        web = Web(server)
        web.server_names = asked  # type: ignore[attr-defined]
        yield web


def test_tls_checks_the_name_while_the_address_is_fixed(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    with secure_web(authority, ["photos.example", PUBLIC]) as web:
        fetcher = web.fetcher(tls=trusting)
        assert fetcher.fetch("https://photos.example/a.png").content == PICTURE
        assert web.connected == [(PUBLIC, 443)]
        assert web.server_names == ["photos.example"]  # type: ignore[attr-defined]
        assert "Host: photos.example\r\n" in web.server.requests[0]
        assert fetcher.fetch(f"https://{PUBLIC}/a.png").content == PICTURE
        with pytest.raises(
            FetchError, match=r"^https://other.example/a.png: .*trusted \(.*Hostname mismatch"
        ):
            fetcher.fetch("https://other.example/a.png")
        assert len(web.server.requests) == 2  # nothing was asked of the wrong one


def test_tls_refuses_unknown_authorities(authority: trustme.CA) -> None:
    with secure_web(authority, ["photos.example"]) as web:
        web.refused("https://photos.example/a.png", "the server's certificate cannot be trusted (")
        assert web.server.requests == []


def test_redirects_go_to_https_but_never_back(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    down = redirect("http://photos.example/a.png?SECRET")
    with secure_web(authority, ["photos.example"], down=down, over=redirect("/a.png")) as web:
        fetcher = web.fetcher(tls=trusting)
        assert fetcher.fetch("https://photos.example/over").content == PICTURE
        with pytest.raises(FetchError) as caught:
            fetcher.fetch("https://photos.example/down")
        assert str(caught.value) == (
            "https://photos.example/down: the server redirects from https to http (http://photos.example/a.png), "
            "which is not followed"
        )
        with contextlib.closing(Server({"/": redirect("https://photos.example/a.png")})) as plain:
            connect = web.connect

            def choose(address: IPAddress, port: int, seconds: float) -> socket.socket:
                if port == 80:
                    return socket.create_connection(("127.0.0.1", plain.port), timeout=seconds)
                return connect(address, port, seconds)

            fetcher = Fetcher(tls=trusting, resolve=web.resolve, connect=choose)
            assert fetcher.fetch("http://photos.example/").address == "https://photos.example/a.png"


def test_a_server_without_tls_is_no_secure_server(web: Web) -> None:
    def plain(connection: socket.socket) -> None:
        with connection:
            connection.sendall(response(PICTURE))

    web.server._serve = plain  # type: ignore[method-assign]
    web.refused("https://photos.example/a.png", "the secure connection failed (")


def test_a_server_that_never_shakes_hands(web: Web) -> None:
    began = time.monotonic()
    web.refused("https://photos.example/a.png", "no secure connection within 0.3 s", connect_seconds=0.3)
    web.refused("https://photos.example/a.png", "it took longer than 0.3 s in all", seconds=0.3)
    assert time.monotonic() - began < 6


# Time


def drip(data: bytes, every: float = 0.02) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(every)

    return send


@pytest.mark.parametrize(
    "answer",
    [
        drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9999),  # headers
        drip(response(bytes(9999))),
        drip(response(bytes(9999), length=None)),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n.\r\n" * 9999),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 9999),  # a chunk's size
        drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 9999),
    ],
)
def test_slow_servers_are_left_when_time_is_up(web: Web, answer: Answer) -> None:
    began = time.monotonic()
    web.refused(serve(web, answer), "it took longer than 0.5 s in all", seconds=0.5)
    assert 0.5 <= time.monotonic() - began < 5


def test_redirects_share_one_deadline(web: Web) -> None:
    for number in range(5):
        serve(web, drip(redirect(f"/{number + 1}"), every=0.003), f"/{number}")
    serve(web, response(PICTURE), "/5")
    began = time.monotonic()
    web.refused("http://photos.example/0", "it took longer than 0.4 s in all", seconds=0.4)
    assert time.monotonic() - began < 5
    assert web.get("http://photos.example/0").content == PICTURE


def test_silent_servers_are_left(web: Web) -> None:
    silence = threading.Event()
    for answer in (b"", response(PICTURE)[:30], response(PICTURE)[:-9]):

        def say(connection: socket.socket, words: bytes = answer) -> None:
            connection.sendall(words)
            silence.wait(10)

        web.refused(serve(web, say), "nothing came for 0.2 s", read_seconds=0.2)
    silence.set()


def test_a_resolver_that_hangs_keeps_nobody() -> None:
    release = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        release.wait(30)
        return ["10.0.0.1"]

    fetcher = Fetcher(FetchLimits(seconds=0.2), resolve=hang)
    began = time.monotonic()
    with ThreadPoolExecutor(LOOK_UPS + 8) as pool:
        futures = [pool.submit(fetcher.fetch, f"http://{number}.example/") for number in range(LOOK_UPS + 8)]
        for future in futures:
            with pytest.raises(FetchError, match=r"its host could not be looked up within 0\.2 s"):
                future.result()
    assert time.monotonic() - began < 6
    assert sum(thread.name == "look-up" for thread in threading.enumerate()) == LOOK_UPS  # and not more
    release.set()
    for thread in threading.enumerate():
        if thread.name == "look-up":
            thread.join(10)
    for _ in range(LOOK_UPS + 1):  # it can look up again
        with pytest.raises(FetchError, match="not public"):
            fetcher.fetch("http://photos.example/")


def test_connecting_takes_a_limited_time() -> None:
    """A listener whose queue is full answers nothing, as a host behind a firewall does."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(contextlib.closing(socket.socket()))
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        for limits, words in (
            (FetchLimits(connect_seconds=0.2), "no connection within 0.2 s"),
            (FetchLimits(seconds=0.2), "it took longer than 0.2 s in all"),
        ):
            with pytest.raises(FetchError, match=words):
                Fetcher(limits, allow_private=True).fetch(url)


# Size


def endless(head: bytes, part: bytes, sent: list[int]) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            sent[0] += connection.send(part)

    return send


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "part", "words"),
    [
        (HEAD + b"\r\n", bytes(50_000), "larger than the limit of 200,000 bytes"),
        (
            CHUNKED.replace(HEAD, HEAD + b"Content-Length: 9\r\n"),
            b"8\r\n12345678\r\n",
            "larger than the limit",
        ),
        (CHUNKED, b"1\r\n.\r\n", "larger than the limit"),
        (CHUNKED + b"0\r\n", b"Trailer: x\r\n", "larger than the limit"),
        (CHUNKED + b"-1\r\n", bytes(50_000), "larger than the limit"),  # would read all there is
        (CHUNKED, b"1", "cannot be understood"),
        (HEAD, b"X: " + b"y" * 997 + b"\r\n", "its headers exceed 9,000 bytes"),
        (HEAD, b"y" * 1000, "its headers exceed 9,000 bytes"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "its headers exceed 9,000 bytes"),
        (b"", bytes(50_000), "its headers exceed 9,000 bytes"),
    ],
)
def test_endless_answers_are_cut(web: Web, head: bytes, part: bytes, words: str) -> None:
    sent = [0]
    url = serve(web, endless(head, part, sent))
    web.refused(url, words, bytes=200_000, header_bytes=9_000)
    web.server.close()
    assert sent[0] < 20_000_000  # what the system's buffers hold


def test_many_headers_are_refused(web: Web) -> None:
    many = [f"X-{number}: y" for number in range(200)]
    web.refused(serve(web, response(PICTURE, *many)), "cannot be understood ('got more than 100 headers')")
    assert web.get(serve(web, response(PICTURE, *many[:80]))).content == PICTURE
    web.refused(serve(web, response(PICTURE, "X: " + "y" * 70_000)), "its headers exceed 65,536 bytes")


def test_a_declared_length_is_refused_before_reading(web: Web) -> None:
    url = serve(web, response(PICTURE, length=10**15))
    web.refused(url, "larger than the limit of 33,554,432 bytes: 1,000,000,000,000,000 bytes")


def test_memory_stays_within_the_limit(web: Web) -> None:
    import tracemalloc

    part = bytes(60_000)
    url = serve(web, endless(CHUNKED, b"ea60\r\n" + part + b"\r\n", [0]))
    tracemalloc.start()
    try:
        web.refused(url, "larger than the limit", bytes=4_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000


# What is no image, and what goes wrong


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (response(status="404 Not Found"), "the server answers with status 404 (Not Found)"),
        (response(status="500 Oops"), "status 500 (Internal Server Error)"),
        (response(status="799 Odd"), "answers with status 799"),
        (response(status="204 No Content"), "status 204"),
        (response(PICTURE, status="206 Partial Content"), "status 206"),
        (response(status="304 Not Modified"), "status 304"),
        (response(status="300 Multiple Choices"), "status 300"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "status 101"),
        (response(PICTURE, "Content-Encoding: gzip"), "not supported (Content-Encoding: 'gzip')"),
        (response(PICTURE, "Content-Encoding: identity, br"), "Content-Encoding: 'identity,br'"),
        (response(PICTURE, "Content-Encoding: identity", "Content-Encoding: gzip"), "'identity,gzip'"),
        (
            response(PICTURE, "Transfer-Encoding: gzip, chunked"),
            "not supported (Transfer-Encoding: 'gzip,chunked')",
        ),
        (response(PICTURE, "Content-Encoding: \x1b[31m"), "'\\x1b[31m'"),
        (
            response(PICTURE, length=len(PICTURE) + 5),
            f"ended after {len(PICTURE)} of {len(PICTURE) + 5} bytes",
        ),
        (chunked(PICTURE)[:-20], "the connection ended in the middle of the image"),
        (CHUNKED + b"zz\r\n", "the connection ended in the middle of the image"),
        (response(b"<!DOCTYPE html><p>Sign in", "Content-Type: image/png"), "gives a web page, not an image"),
        (response(b"\xef\xbb\xbf\r\n <!-- x --><HTML>"), "gives a web page, not an image"),
        (b"", "ends the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "answer cannot be understood ('SSH-2.0-OpenSSH_9.6"),
        (b"\x1b]0;x\x07\r\n\r\n", "answer cannot be understood ("),
        (b"HTTP/2.0 ok\r\n\r\n", "answer cannot be understood"),
        (b"HTTP/9.9 200 OK\r\n\r\n", "answer cannot be understood"),
    ],
)
def test_bad_answers_are_named(web: Web, answer: bytes, words: str) -> None:
    message = web.refused(serve(web, answer), words)
    assert message.isascii()
    assert message.isprintable()


def test_messages_name_the_url_without_its_query(web: Web) -> None:
    with pytest.raises(FetchError) as caught:
        web.get("http://photos.example/none.png?token=SECRET#SECRET")
    assert (
        str(caught.value) == "http://photos.example/none.png: the server answers with status 404 (Not Found)"
    )


def test_what_the_network_says_is_told(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: Exception) -> Callable[..., list[str]]:
        def fail(*_: object) -> list[str]:
            raise error

        return fail

    url = "http://photos.example/a.png"
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    for resolve, words in (
        (raising(unknown), "its host cannot be found (Name or service not known); is the name right"),
        (raising(OSError(24, "Too many open files")), "the connection failed (Too many open files)"),
        (raising(UnicodeError("label too long")), "cannot be understood"),
        (lambda *_: [], "its host has no address"),
        (lambda *_: ["nonsense"], "cannot be understood"),
    ):
        with pytest.raises(FetchError) as caught:
            Fetcher(resolve=resolve).fetch(url)
        assert words in str(caught.value)
    for error, words in (
        (ConnectionRefusedError(111, "Connection refused"), "the server refuses the connection"),
        (
            ConnectionResetError(104, "Connection reset by peer"),
            "the connection failed (Connection reset by peer)",
        ),
        (TimeoutError(), "no connection within 6 s"),
    ):
        with pytest.raises(FetchError) as caught:
            Fetcher(resolve=web.resolve, connect=raising(error)).fetch(url)  # type: ignore[arg-type]
        assert str(caught.value) == f"{url}: {words}"


def test_a_refused_connection(server: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.png"
        with pytest.raises(FetchError, match="the server refuses the connection"):
            Fetcher(allow_private=True).fetch(url)


def test_a_connection_that_is_reset(web: Web) -> None:
    def reset(connection: socket.socket) -> None:
        connection.sendall(response(PICTURE)[:-9])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    web.refused(serve(web, reset), "the connection failed (Connection reset by peer)")


class Canned:
    """A fetcher whose server says the same to everybody, without a thread: it fits into the system's buffer."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def connect(self, *_: object) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.sendall(self.answer)
        theirs.shutdown(socket.SHUT_WR)
        self.theirs = theirs
        return ours

    def fetch(self) -> FetchedImage:
        fetcher = Fetcher(
            FetchLimits(seconds=5, bytes=1000, header_bytes=2000),
            resolve=lambda *_: [PUBLIC],
            connect=self.connect,
        )
        try:
            return fetcher.fetch("http://photos.example/")
        finally:
            self.theirs.close()


lines = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 200",
        b"HTTP/1.1 302 Found",
        b"Location: http://[",
        b"Location: \xff\t",
        b"Location:",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Content-Length: 5",
        b"Content-Length: -5",
        b"Content-Length: 99999999999999999999999",
        b"Content-Encoding:",
        b" folded",
        b": nameless",
        b"\xff: \x00",
        b"",
        b"5",
        b"-5",
        b"ffffffffffffffffffffffffffff",
        b"0",
        b"12345",
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(lines | st.binary(max_size=30), max_size=14),
    st.sampled_from([b"\r\n", b"\n", b"\r"]),
    st.booleans(),
)
@example([b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", b"", b"-5", b"12345"], b"\r\n", False)
@example([b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", b"", b"f" * 40, b"12345"], b"\r\n", False)
def test_any_answer_gives_bytes_or_a_fetch_error(parts: list[bytes], end: bytes, sound: bool) -> None:
    answer = end.join([b"HTTP/1.1 200 OK", *parts] if sound else parts)
    with contextlib.suppress(FetchError):
        assert len(Canned(answer).fetch().content) <= 1000


# The environment


def test_nothing_of_the_user_goes_along(
    tmp_path: Path, server: Server, clean_environment: dict[str, str]
) -> None:
    """In a process of its own, with proxies and a netrc that would be taken by urllib and others."""
    with contextlib.closing(Server({})) as proxy:
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login anna password SECRET\n")
        (tmp_path / ".netrc").chmod(0o600)
        there = f"http://127.0.0.1:{proxy.port}"
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        code = (
            "from showtell.images.fetch import Fetcher; import urllib.request, sys; url = sys.argv[1]\n"
            "assert urllib.request.getproxies()['http'] != ''\n"
            "print(len(Fetcher(allow_private=True).fetch(url).content))"
        )
        environment = {
            **clean_environment,
            **dict.fromkeys(names, there),
            "HOME": str(tmp_path),
            "no_proxy": "",
        }
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        command = [sys.executable, "-c", code, f"http://127.0.0.1:{server.port}/a.png"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{len(PICTURE)}\n", "")
        assert proxy.accepted == 0
    assert len(server.requests) == 1
    for word in ("Authorization", "Cookie", "Referer", "SECRET", "Proxy"):
        assert word not in server.requests[0]


def test_naming_an_image_on_the_web_imports_no_network(clean_environment: dict[str, str]) -> None:
    environment = {**clean_environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import sys, showtell.images; print({'ssl', 'http.client', 'socket'} & set(sys.modules) or 'none')"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (ended.stdout, ended.stderr) == ("none\n", "")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"seconds": 0}, "the limit seconds must be a positive number. Received: 0"),
        ({"read_seconds": float("nan")}, "Received: nan"),
        ({"connect_seconds": float("inf")}, "Received: inf"),
        ({"bytes": -1}, "the limit bytes"),
        ({"header_bytes": 0}, "the limit header_bytes"),
        ({"redirects": -1}, "the limit redirects must be at least 0. Received: -1"),
    ],
)
def test_limits_are_checked(limits: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        FetchLimits(**limits)  # type: ignore[arg-type]
    assert words in str(caught.value)


# As a source of images


def test_web_images_are_opened_like_files(web: Web) -> None:
    source = WebImage("http://photos.example/a.png?token=SECRET", web.fetcher())
    assert (str(source), repr(source)) == (
        "http://photos.example/a.png",
        "WebImage('http://photos.example/a.png')",
    )
    assert web.asked == []  # only when it is opened
    serve(web, response(PICTURE), "/a.png?token=SECRET")
    image = open_image(source)
    assert (image.size, image.getpixel((0, 0))) == ((8, 6), (255, 0, 0))
    assert len(web.server.requests) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty (0 bytes)"),
        (PICTURE[:-30], "truncated"),
        (b'{"error": "no such photo"}', 'it is text, which begins with \'{"error": "no such photo\''),
        (b"<html>", "the address gives a web page, not an image"),
        (b"%PDF-1.7", "it is a PDF document"),
    ],
)
def test_what_is_no_image_is_said_by_the_decoder(web: Web, content: bytes, words: str) -> None:
    url = serve(web, response(content, "Content-Type: image/png"))
    with pytest.raises(ImageError) as caught:
        open_image(WebImage(url + "#SECRET", web.fetcher()))
    assert str(caught.value).startswith(url)
    assert words in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_an_address_given_as_a_path_is_named() -> None:
    url = "https://photos.example/a.png"
    with pytest.raises(ImageError) as caught:
        open_image(f"{url}?key=SECRET")
    assert str(caught.value) == f"{url} is an address on the web, not a file; give it as a WebImage"


def test_the_captioner_takes_web_images(web: Web) -> None:
    captioner = Captioner.load(trained_run())
    fetcher, settings = web.fetcher(), DecodingSettings(max_steps=6)
    good = WebImage("http://photos.example/a.png", fetcher)
    urls = [
        "http://photos.example/none.png?SECRET",
        "http://127.0.0.1/a.png",
        "file:///a.png",
        "http://anna:SECRET@a/",
    ]
    results = list(
        captioner.caption([good, PICTURE, *(WebImage(url, fetcher) for url in urls), good], settings)
    )
    assert [result.error is None for result in results] == [True, True, False, False, False, False, True]
    assert results[0].text == results[1].text == results[6].text
    for result, words in zip(
        results[2:6], ("status 404", "not public", "not file:", "user names"), strict=True
    ):
        assert isinstance(result.error, FetchError)
        assert words in str(result.error)
        assert "SECRET" not in str(result.error)
    assert [result.text for result in captioner.caption(good, settings)] == [results[0].text]


def test_one_fetcher_serves_many_threads(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    with secure_web(authority, ["photos.example"]) as web:
        fetcher = web.fetcher(tls=trusting)
        for number in range(40):
            web.server.answers[f"/{number}"] = response(bytes([number]) * 50_000)
        with ThreadPoolExecutor(12) as pool:
            found = list(
                pool.map(lambda number: fetcher.fetch(f"https://photos.example/{number}"), range(40))
            )
        assert [one.content for one in found] == [bytes([number]) * 50_000 for number in range(40)]


def test_no_connection_stays_open(web: Web) -> None:
    psutil = pytest.importorskip("psutil")
    process = psutil.Process()
    serve(web, redirect("/a.png"), "/r")
    serve(web, response(PICTURE, length=9999), "/short")

    def all_of_them() -> None:
        for path in ("a.png", "r", "short", "none"):
            with contextlib.suppress(FetchError):
                web.get(f"http://photos.example/{path}")
        with contextlib.suppress(FetchError):
            web.get("https://photos.example/a.png", connect_seconds=0.05)

    all_of_them()
    for connection in web.server._connections:
        connection.close()
    before = process.num_fds()
    for _ in range(5):
        all_of_them()
    for connection in web.server._connections:
        connection.close()
    assert process.num_fds() <= before


@pytest.mark.parametrize(
    ("content", "page"),
    [
        (b"<html>", True),
        (b"<!doctype HTML PUBLIC '-//W3C//DTD'>", True),
        (b"\n\t <Head><title>x", True),
        (b"<!-- one --><!-- two --> <body>", True),
        (b"<?xml version='1.0'?><!DOCTYPE html><html>", True),
        (b"\xef\xbb\xbf<script>", True),
        ("\ufeff<html>".encode("utf-16-le"), True),
        ("\ufeff<html>".encode("utf-16-be"), True),
        (b"", False),
        (b"<svg><title>x</title></svg>", False),
        (b"<?xml version='1.0'?><svg>", False),
        (b"<!-- never closed <html>", False),
        (b"an image of <html>", False),
        (b"P3\n1 1\n255\n0 0 0\n", False),
        (PICTURE, False),
    ],
)
def test_web_pages_are_known_by_their_beginning(content: bytes, page: bool) -> None:
    assert is_web_page(content) is page
