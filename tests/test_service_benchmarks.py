"""What measures the service: it counts everything that goes wrong, against services that do wrong on purpose."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from benchmarks import load
from benchmarks.__main__ import main
from benchmarks.expected import Tally, Unexpected, check_problem
from benchmarks.load import Answer, Clients, Connection, Load, write_form, write_request
from benchmarks.services import Footprint
from benchmarks.soak import Sample, trend

PICTURES = [b"first picture", b"second picture"]


def answer_with(status: int, body: Any, headers: str = "") -> bytes:
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(text)}\r\n{headers}\r\n"
    return head.encode() + text


def send_load(answer: Callable[[bytes], bytes], work: Callable[[Clients], Any], wait: float = 0.0) -> Load:
    """Runs a load against a service that gives an answer for the content of the form's file; with none it goes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                await asyncio.sleep(wait)
                found = answer(body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0])
                writer.write(found)
                if not found:
                    break
        except EOFError:
            pass
        finally:
            writer.close()

    async def run() -> Load:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            clients = Clients(server.sockets[0].getsockname()[1], "/v1/captions", "image", PICTURES)
            async with asyncio.timeout(20):
                found: Load = await work(clients)
                await asyncio.sleep(0.05)  # connections end
                return found

    return asyncio.run(run())


def say_digest(content: bytes) -> bytes:
    return answer_with(200, {"images": [{"sha256": hashlib.sha256(content).hexdigest()}]})


def test_a_load_checks_that_answers_belong_to_their_images() -> None:
    right = send_load(say_digest, lambda clients: clients.wait_for_answers(2, 0.2))
    assert len(right.answered) > 2
    assert right.failures == 0
    wrong = send_load(lambda _: say_digest(b"another"), lambda clients: clients.wait_for_answers(2, 0.1))
    assert wrong.wrong == len(wrong.answered) > 0


def test_a_load_tells_refusals_from_what_was_taken_and_not_done() -> None:
    for status, body, name in (
        (503, {"type": "urn:problem-type:showtell:late"}, "late"),
        (500, {}, "unexpected"),
        (422, {}, "unexpected"),
    ):
        found = send_load(
            lambda _, status=status, body=body: answer_with(status, body),  # type: ignore[misc]
            lambda clients: clients.keep_a_rate(50, 0.1),
        )
        assert getattr(found, name) == found.failures == 5
        assert not found.refused
    busy = answer_with(503, {"type": "urn:problem-type:showtell:busy"}, "Connection: close\r\n")
    found = send_load(lambda _: busy, lambda clients: clients.keep_a_rate(50, 0.1))
    assert len(found.refused) == 5
    assert found.failures == 0
    found = send_load(lambda _: b"", lambda clients: clients.wait_for_answers(1, 0.05))
    assert found.lost == found.failures > 0


def test_a_rate_counts_what_it_could_not_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "MOST_OPEN", 3)
    found = send_load(say_digest, lambda clients: clients.keep_a_rate(100, 0.1), wait=0.5)
    assert len(found.answered) == 3
    assert found.unsent == 7
    assert found.summary()["unsent"] == 7


def test_answers_in_chunks_are_put_together() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\r\n\r\n1\r\nb\r\n0\r\n\r\n"
        )
        writer.close()

    async def run() -> Answer:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            connection = await Connection.open(server.sockets[0].getsockname()[1])
            try:
                return await connection.ask(write_request("/", "GET", headers={}))
            finally:
                connection.close()
                await asyncio.sleep(0.05)

    answer = asyncio.run(run())
    assert (answer.status, answer.body, answer.stays) == (200, b"a\r\nb", True)


def test_a_form_is_what_a_service_reads() -> None:
    from starlette.datastructures import Headers
    from starlette.formparsers import MultiPartParser

    async def run() -> list[tuple[str, Any]]:
        form = write_form([("image", b"\r\n--x")], [("beam", "3")])

        async def chunks() -> Any:
            yield form["body"]

        parsed = await MultiPartParser(Headers(form["headers"]), chunks()).parse()
        try:
            return [
                (name, value if isinstance(value, str) else await value.read())
                for name, value in parsed.multi_items()
            ]
        finally:
            await parsed.close()

    assert asyncio.run(run()) == [("beam", "3"), ("image", b"\r\n--x")]


def test_the_tally_finds_answers_that_must_not_come() -> None:
    tally = Tally()
    good = {"sha256": hashlib.sha256(b"a").hexdigest(), "captions": [{}], "cached": False}
    failed = {"error": {"status": 422}}

    def say(*images: dict[str, Any], status: int = 200) -> Answer:
        return Answer(status, {}, json.dumps({"images": images, "type": "x:not-ready"}).encode())

    tally.check(say(good, failed), [b"a", b"b"], {1})
    assert tally.checked == 1
    for answer in (say(good), say(good, good), say(failed, good), say(good, failed, status=422)):
        with pytest.raises(Unexpected):
            tally.check(answer, [b"a", b"b"])
    assert tally.mixed_up == 1
    with pytest.raises(Unexpected, match="nobody intended"):
        tally.check(say(status=503), [b"a"])
    tally.note("kind", say(status=500))
    assert tally.broken == 1
    with pytest.raises(Unexpected, match="status 500, not 422"):
        check_problem(say(status=500), 422)


def test_the_trend_of_memory_sees_a_leak_and_no_steps() -> None:
    def sample(second: int, megabytes: float) -> Sample:
        return Sample(float(second), Footprint(megabytes, 1, 1, (1,)), 1, 0, 0, 3)

    steps = [sample(second, 300 + 20 * (second > 130) + 11 * (second > 430)) for second in range(601)]
    assert trend(steps) == 0.0
    leak = [sample(second, 300 + 0.02 * second + 20 * (second > 130)) for second in range(601)]
    assert trend(leak) == pytest.approx(1.2, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_soaked_service_makes_no_mistake(
    workers: int, exported_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", exported_model, "--engine", "onnxruntime", "--threads", "1"]
    options += ["--workers", str(workers), "--minutes", "0.2", "--warmup", "0.1"]
    assert main(["soak", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mistakes"] == []
    assert found["log"] == []
    assert found["pictures_checked"] > 20
    # Threads of the pools may begin late in so short a time, and memory settles.
    late = ("threads", "MB", "of its memory")
    missed = [one for one in found["targets"] if not one["reached"] and not one["what"].startswith(late)]
    assert missed == []
