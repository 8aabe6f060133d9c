"""The API of the service, asked over HTTP: a real process, a real model (untrained), real photographs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from served import CAPTIONS, Served, kind, problem, serving
from showtell.captioner import Captioner
from showtell.server.schemas import CaptionsAnswer, ModelsAnswer


@pytest.fixture(scope="module")
def service(exported_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(
        exported_model, tmp_path_factory.mktemp("served"), "--urls", "any", "--max-images", "8"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Served) -> Iterator[httpx.Client]:
    with service.client() as one:
        yield one


@pytest.fixture(scope="module")
def captioner(exported_model: str) -> Captioner:
    return Captioner.load(exported_model, engine="onnxruntime", threads=1)


@pytest.fixture(scope="module")
def site(photographs: list[Path]) -> Iterator[str]:
    """A web server on this machine: /cat.jpg is a photograph, /page is none."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = photographs[1].read_bytes() if self.path.startswith("/cat.jpg") else b"<html>no</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def files(*paths: Path) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", (path.name, path.read_bytes(), "image/jpeg")) for path in paths]


def test_an_upload_gets_the_captions_that_the_library_writes(
    client: httpx.Client, captioner: Captioner, photographs: list[Path]
) -> None:
    answer = client.post(CAPTIONS, files=files(*photographs))
    assert answer.status_code == 200
    found = answer.json()
    CaptionsAnswer.model_validate(found)
    expected = [picture.text for picture in captioner.caption(photographs)]
    assert [image["captions"][0]["caption"] for image in found["images"]] == expected
    assert [image["name"] for image in found["images"]] == [path.name for path in photographs]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in photographs]
    assert [image["sha256"] for image in found["images"]] == digests
    assert found["model"]["digest"] == captioner.digest
    assert found["request_id"] == answer.headers["x-request-id"]
    for image in found["images"]:
        assert (
            " ".join(word["word"] for word in image["captions"][0]["words"])
            == image["captions"][0]["caption"]
        )
        assert all(0 < word["probability"] <= 1 for word in image["captions"][0]["words"])


def test_json_takes_base64_and_urls_with_options(
    client: httpx.Client, site: str, photographs: list[Path]
) -> None:
    content = base64.b64encode(photographs[0].read_bytes()).decode()
    body = {
        "images": [{"base64": content, "name": "one.jpg"}, {"url": f"{site}/cat.jpg?token=secret"}],
        "beam": 3,
        "count": 2,
        "alt_text": True,
    }
    answer = client.post(CAPTIONS, json=body)
    assert answer.status_code == 200
    first, second = answer.json()["images"]
    assert (first["name"], second["name"]) == ("one.jpg", f"{site}/cat.jpg")
    assert second["sha256"] == hashlib.sha256(photographs[1].read_bytes()).hexdigest()
    assert "fetch" in second["timings"]
    for image in (first, second):
        scores = [caption["score"] for caption in image["captions"]]
        assert len(scores) == 2
        assert scores == sorted(scores, reverse=True)
        assert all(caption["alt"].endswith(".") and caption["needs_review"] for caption in image["captions"])


def test_what_fails_stands_beside_what_does_not(
    client: httpx.Client, site: str, photographs: list[Path]
) -> None:
    good = base64.b64encode(photographs[2].read_bytes()).decode()
    torn = base64.b64encode(photographs[2].read_bytes()[:2000]).decode()
    body = {"images": [{"base64": torn, "name": "torn.jpg"}, {"base64": good}, {"url": f"{site}/page"}]}
    answer = client.post(CAPTIONS, json=body)
    assert answer.status_code == 200
    CaptionsAnswer.model_validate(answer.json())
    first, second, third = answer.json()["images"]
    assert first["error"]["type"].endswith("unreadable-image")
    assert first["error"]["detail"].startswith("torn.jpg")
    assert "captions" in second
    assert third["error"]["type"].endswith("not-fetched")
    alone = client.post(CAPTIONS, json={"images": [{"base64": torn, "name": "torn.jpg"}]})
    assert (alone.status_code, kind(alone)) == (422, "unreadable-image")


def test_samples_depend_on_the_seed_and_the_image_alone(
    client: httpx.Client, photographs: list[Path]
) -> None:
    def ask(seed: int, *paths: Path) -> list[list[str]]:
        options = {"method": "sample", "count": "3", "seed": str(seed), "temperature": "3"}
        found = client.post(CAPTIONS, files=files(*paths), data=options).json()
        return [[caption["caption"] for caption in image["captions"]] for image in found["images"]]

    several = ask(5, *photographs[:4])
    assert ask(5, photographs[2])[0] == several[2]
    assert ask(6, photographs[2])[0] != several[2]


def test_words_are_included_and_excluded(client: httpx.Client, photographs: list[Path]) -> None:
    data = {"beam": "3", "include": ["dog|men"], "exclude": ["grass", "the"]}
    [image] = client.post(CAPTIONS, files=files(photographs[0]), data=data).json()["images"]
    words = image["captions"][0]["caption"].split()
    assert {"dog", "men"} & set(words)
    assert not {"grass", "the"} & set(words)
    unknown = client.post(CAPTIONS, files=files(photographs[0]), data={"beam": "3", "include": "dogg"})
    assert (unknown.status_code, kind(unknown)) == (422, "invalid")
    assert "Did you mean 'dog'" in problem(unknown)["detail"]


def test_explain_maps_lie_on_the_upright_picture(client: httpx.Client, photographs: list[Path]) -> None:
    lying = io.BytesIO()
    with Image.open(photographs[3]) as image:  # 600x400
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(lying, "JPEG", exif=exif)
    answer = client.post(CAPTIONS, files={"image": lying.getvalue()}, data={"explain": "true"})
    [image] = answer.json()["images"]
    explanation = image["captions"][0]["explanation"]
    assert explanation["size"] == [400, 600]
    assert explanation["box"] == [0, 0, 400, 600]
    assert len(explanation["maps"]) == len(image["captions"][0]["words"])
    for rows in explanation["maps"]:
        assert [len(rows), len(rows[0])] == explanation["grid"]
        assert sum(sum(row) for row in rows) == pytest.approx(1, abs=0.01)


def test_the_second_answer_comes_from_the_cache_and_is_the_same(client: httpx.Client) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (80, 60), (12, 200, 90)).save(picture, "PNG")
    first, second = (
        client.post(CAPTIONS, files={"image": picture.getvalue()}).json()["images"][0] for _ in range(2)
    )
    assert (first["cached"], second["cached"]) == (False, True)
    assert first["captions"] == second["captions"]
    other = client.post(CAPTIONS, files={"image": picture.getvalue()}, data={"beam": "2"}).json()["images"][0]
    assert other["cached"] is False


def events(client: httpx.Client, **request: Any) -> list[tuple[str, dict[str, Any]]]:
    found = []
    with client.stream("POST", CAPTIONS, **request) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.mark.parametrize("options", [{}, {"method": "sample", "count": "2", "seed": "4"}])
def test_a_stream_tells_the_words_that_the_captions_have(
    client: httpx.Client, photographs: list[Path], options: dict[str, str]
) -> None:
    for _ in range(2):  # the second time from the cache
        found = events(client, files=files(*photographs[:2]), data={"stream": "true", **options})
        assert found[-1][0] == "done"
        answers = {data["image"]: data for name, data in found if name == "image"}
        assert set(answers) == {0, 1}
        for place, answer in answers.items():
            said: dict[int, list[str]] = {}
            for name, data in found:
                if name == "word" and data["image"] == place:
                    said.setdefault(data["sample"], []).append(data["word"])
            captions = sorted(caption["caption"] for caption in answer["captions"])
            assert sorted(" ".join(words) for words in said.values()) == captions
            assert answer["sha256"] == hashlib.sha256(photographs[place].read_bytes()).hexdigest()
            timings = answer["timings"]
            assert answer["cached"] or 0 < timings["first_word"] < timings["search"]
    plain = client.post(CAPTIONS, files=files(photographs[0]), data={"method": "greedy", **options}).json()
    streamed = [caption["caption"] for caption in answers[0]["captions"]]
    assert [caption["caption"] for caption in plain["images"][0]["captions"]] == streamed


def test_a_stream_of_one_bad_image_is_a_plain_problem(client: httpx.Client, photographs: list[Path]) -> None:
    answer = client.post(CAPTIONS, files={"image": b"no image"}, data={"stream": "true"})
    assert (answer.status_code, kind(answer)) == (422, "unreadable-image")
    beam = client.post(CAPTIONS, files=files(photographs[0]), data={"stream": "true", "beam": "3"})
    assert (beam.status_code, kind(beam)) == (422, "invalid")


def test_the_tutorials_service(
    client: httpx.Client, captioner: Captioner, site: str, photographs: list[Path]
) -> None:
    answer = client.get("/wowme", params={"image": f"{site}/cat.jpg"})
    [expected] = captioner.caption(photographs[1])
    assert answer.json() == {"Prediction Caption:": expected.text}
    assert kind(client.get("/wowme")) == "invalid"
    assert kind(client.get("/wowme", params={"image": "file:///etc/passwd"})) == "not-fetched"


def test_models_health_and_metrics(
    service: Served, client: httpx.Client, captioner: Captioner, photographs: list[Path]
) -> None:
    found = client.get("/v1/models").json()
    ModelsAnswer.model_validate(found)
    [model] = found["models"]
    assert (model["name"], model["digest"], model["attention"]) == (captioner.name, captioner.digest, True)
    assert found["limits"]["images"] == 8
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    client.post(CAPTIONS, files=files(photographs[0]))  # a metric is there from its first count on
    before = service.metric("showtell_images_total")
    client.post(CAPTIONS, files={"image": b"no image"})
    assert service.metric("showtell_images_total") == before + 1
    for stage in ("showtell_batch_images_count", "showtell_stage_seconds_count", "showtell_requests_total"):
        assert service.metric(stage) > 0
    idle = service.metric("showtell_tasks")
    assert idle >= 1
    with service.connect() as slow:
        slow.sendall(b"POST /v1/captions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n")
        slow.sendall(b"Content-Type: application/json\r\n\r\n")
        end = time.monotonic() + 4
        while service.metric("showtell_tasks") <= idle:
            assert time.monotonic() < end


def test_headers_forbid_what_pages_might_do(client: httpx.Client) -> None:
    for answer in (client.get("/v1/models"), client.get("/nothing"), client.post(CAPTIONS)):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_the_page_is_kept_and_asked_for_again(client: httpx.Client) -> None:
    for path in ("/", "/app.js", "/app.css", "/icon.svg"):
        first = client.get(path)
        assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
        assert first.headers["x-content-type-options"] == "nosniff"
        assert first.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content, again.headers["cache-control"]) == (304, b"", "no-cache")
        other = client.get(path, headers={"If-None-Match": '"another"'})
        assert (other.status_code, other.content) == (200, first.content)
    assert client.get("/v1/models").headers["cache-control"] == "no-store"


def test_a_request_keeps_its_number(client: httpx.Client, service: Served) -> None:
    answer = client.get("/v1/models", headers={"X-Request-ID": "my-number.7"})
    assert answer.headers["x-request-id"] == "my-number.7"
    forged = client.get("/v1/models", headers={"X-Request-ID": 'no"t{this}'})
    assert len(forged.headers["x-request-id"]) == 32
    assert (
        next(line for line in service.log() if line.get("request_id") == "my-number.7")["path"]
        == "/v1/models"
    )


def test_the_log_has_neither_queries_nor_content(client: httpx.Client, service: Served) -> None:
    client.get("/wowme", params={"image": "http://127.0.0.1:9/very-secret-path?token=very-secret"})
    client.post(CAPTIONS, files={"image": ("very-secret-name.txt", b"very-secret-content")})
    text = service.log_file.read_text()
    assert '"path": "/wowme"' in text
    assert "very-secret" not in text


@pytest.mark.parametrize(
    ("request_", "status", "expected"),
    [
        ({"json": {"images": []}}, 422, "images: List should have at least 1 item"),
        ({"json": {}}, 422, "images: Field required"),
        ({"json": {"images": [{"url": "x", "base64": "eA=="}]}}, 422, "images.0"),
        ({"json": {"images": [{"base64": "!!"}]}}, 422, "images.0.base64 is no base64"),
        (
            {"json": {"images": [{"base64": "eA=="}], "beem": 3}},
            422,
            "beem: There is no such option. Did you mean 'beam'?",
        ),
        (
            {"json": {"images": [{"base64": "eA=="}], "beam": "3"}},
            422,
            "beam: Input should be a valid integer. Received: '3'.",
        ),
        (
            {"json": {"images": [{"base64": "eA=="}], "UrlImage": 1}},
            422,
            "UrlImage: There is no such option.",
        ),
        (
            {"files": {"image": b"x"}, "data": {"Base64Image": "x"}},
            422,
            "Base64Image: There is no such option.",
        ),
        (
            {"json": {"images": [{"base64": "eA==", "nane": "x"}]}},
            422,
            "images.0.nane: There is no such option. Did you mean 'name'?",
        ),
        ({"files": {"image": b"x"}, "data": {"images": "x"}}, 422, "images: There is no such option."),
        ({"json": {"images": [{"base64": "eA=="}], "method": 5}}, 422, "or 'sample'. Received: 5."),
        ({"json": {"images": [{"base64": "eA=="}], "alt_text": None}}, 422, "boolean. Received: null."),
        ({"json": {"images": [{"base64": "eA=="}], "beam": 10**400}}, 422, "beam: "),
        ({"json": {"images": [{"base64": "eA=="}], "seed": 2**63}}, 422, "seed: "),
        ({"json": {"images": [{"base64": "eA=="}], "top_p": 0}}, 422, "top_p: "),
        ({"json": {"images": [{"base64": "eA=="}], "seed": 3}}, 422, "seed = 3 has no meaning"),
        ({"json": {"images": [{"base64": "eA=="}], "beam": 2, "count": 3}}, 422, "A beam of 2 cannot give 3"),
        ({"json": {"images": [{"base64": "eA=="}], "min_confidence": 0.5}}, 422, "not calibrated"),
        (
            {"json": {"images": [{"base64": "eA=="}], "include": ["a b c d e f g h i"], "beam": 2}},
            422,
            "8 words",
        ),
        ({"json": {"images": [{"base64": "eA=="}] * 9}}, 413, "at most 8 images"),
        ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 400, "is no JSON"),
        (
            {
                "content": b'{"images": [{"base64": "eA=="}], "temperature": NaN, "method": "sample"}',
                "headers": {"Content-Type": "application/json"},
            },
            422,
            "temperature: Input should be a finite number",
        ),
        ({"content": b"", "headers": {"Content-Type": "application/json"}}, 400, "is no JSON"),
        ({"content": b"\xff\xfe", "headers": {"Content-Type": "application/json"}}, 400, "is no JSON"),
        ({"content": b"x"}, 415, "must be multipart/form-data or application/json"),
        ({"data": {"beam": "3"}}, 415, "application/x-www-form-urlencoded"),
        ({"files": {"photo": b"x"}}, 422, "belong into the field 'image'"),
        ({"files": {"image": b"x"}, "data": {"beam": "three"}}, 422, "beam: Input should be a valid integer"),
        ({"files": {"image": b"x"}, "data": {"beam": ["3", "3"]}}, 422, "given twice"),
        ({"files": [("image", b"x")] * 1000}, 413, "Too many files"),
        ({"files": {"image": b"x"}, "data": {f"f{n}": "x" for n in range(1000)}}, 413, "Too many fields"),
        ({"files": {"image": b"x"}, "data": {"beam": "9" * 5000}}, 413, "Part exceeded"),
        ({"files": {"image": (None, "cat.jpg")}}, 422, "The field 'image' holds text, not a file."),
        ({"json": {"images": [{"base64": "data:image/png;base64,eA=="}]}}, 422, "nothing before them"),
        (
            {"json": {"images": [{"base64": "eA=="}]} | {f"k{n}": n for n in range(50_000)}},
            422,
            "and 49999 more",
        ),
        ({"json": {"images": [[[[[]]]]]}}, 422, "images.0: Input should be an object"),
        ({"files": {"image": b"x"}, "headers": {"Content-Encoding": "gzip"}}, 415, "not decompressed"),
        ({"files": {"image": b""}}, 422, "is empty"),
        (
            {"content": b"--x\r\nno form", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            400,
            "form",
        ),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
    ],
)
def test_bad_input_gets_a_problem_that_says_what_is_wrong(
    client: httpx.Client, request_: dict[str, Any], status: int, expected: str
) -> None:
    answer = client.post(CAPTIONS, **request_)
    assert answer.status_code == status, answer.text
    assert expected in problem(answer)["detail"]


def test_an_option_is_not_suggested_where_it_cannot_be(client: httpx.Client) -> None:
    answer = client.post(CAPTIONS, json={"images": [{"url": "http://a.b/c.jpg", "seed": 1}]})
    what = "There is no such option."
    assert problem(answer)["detail"] == f"images.0.seed: {what}"
    assert problem(answer)["errors"] == [{"where": "images.0.seed", "what": what}]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/..%2fapp.py", 404),
        ("GET", "/%2e%2e/app.py", 404),
        ("GET", "/..%5capp.py", 404),
        ("GET", "/app.js%00", 404),
        ("POST", f"{CAPTIONS}/", 404),
        ("POST", "/", 405),
        ("GET", CAPTIONS, 405),
        ("PUT", "/wowme", 405),
    ],
)
def test_other_paths_and_methods_get_problems(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    problem(answer)
    assert ("allow" in answer.headers) == (status == 405)


def test_balancers_may_ask_without_wanting_a_body(client: httpx.Client) -> None:
    for path in ("/healthz", "/readyz", "/", "/app.js"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_formats_are_decided_by_content(client: httpx.Client, photographs: list[Path]) -> None:
    wrong = [("image", ("a.png", photographs[0].read_bytes(), "text/html"))]
    assert client.post(CAPTIONS, files=wrong).status_code == 200
    page = [("image", ("a.jpg", b"<html><script>x</script></html>", "image/jpeg"))]
    assert "HTML page" in problem(client.post(CAPTIONS, files=page))["detail"]
