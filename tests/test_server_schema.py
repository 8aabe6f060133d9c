"""The service against its own OpenAPI description (schemathesis), in bounded time."""

from __future__ import annotations

import base64
import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis import checks
from schemathesis.core.failures import FailureGroup

from served import CAPTIONS, PROBLEM, Served, serving
from showtell.server.schemas import ANSWER_EXAMPLE, CaptionsAnswer


def rejects_what_is_wrong(ctx: Any, response: Any, case: Any) -> Any:
    """Schemathesis's check, which does not know that 413 and 431 reject, too, nor what a form cannot say."""
    if response.status_code in (413, 431) or (response.status_code == 200 and _is_sound_as_form(case)):
        return None
    return checks.negative_data_rejection(ctx, response, case)


def _is_sound_as_form(case: Any) -> bool:
    """Whether what is wrong got lost: a field with a list of one is that one, and with an empty list is not there."""
    if case.media_type != "multipart/form-data" or not isinstance(case.body, dict):
        return False
    return any(
        isinstance(value, list) and len(value) < 2 for name, value in case.body.items() if name != "image"
    )


CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    rejects_what_is_wrong,
    checks.unsupported_method,
)


@pytest.fixture(scope="module")
def service(exported_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(exported_model, tmp_path_factory.mktemp("served"), "--urls", "none") as running:
        yield running


@pytest.fixture(scope="module")
def api(service: Served) -> Any:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


def draw(colour: tuple[int, int, int]) -> str:
    file = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


pictures = st.builds(draw, st.tuples(*[st.integers(0, 255)] * 3))


def operations(api: Any) -> list[Any]:
    found = [one.ok() for one in api.get_all_operations()]
    assert len(found) == 6
    return found


def ask(api: Any, mode: schemathesis.GenerationMode, examples: int, *, derandomize: bool) -> None:
    """Asks every path whatever its description allows, or what it does not."""
    for operation in operations(api):
        strategy = operation.as_strategy(generation_mode=mode)

        @settings(
            max_examples=examples,
            derandomize=derandomize,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(case=strategy)
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS, timeout=30)

        with contextlib.suppress(Unsatisfiable):  # what takes nothing cannot be asked wrongly
            check()


MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


@pytest.mark.parametrize("mode", MODES)
def test_the_service_does_as_it_says(api: Any, mode: schemathesis.GenerationMode) -> None:
    ask(api, mode, 25, derandomize=True)


@pytest.mark.slow  # and what it finds depends on chance
@pytest.mark.parametrize("mode", MODES)
def test_the_service_does_as_it_says_for_long(api: Any, mode: schemathesis.GenerationMode) -> None:
    ask(api, mode, 1000, derandomize=False)


def test_what_is_too_long_for_an_address_is_described(api: Any) -> None:
    """Quoted, 8,000 letters that the description allows can be more than headers may have."""
    for letter, status in (("y", 422), ("é", 431), ("犬", 431)):
        case = api["/wowme"]["GET"].Case(query={"image": letter * 8000})
        assert case.call_and_validate(checks=CHECKS, timeout=30).status_code == status


def test_a_stream_is_described_event_by_event(api: Any, service: Served) -> None:
    body = {"images": [{"base64": draw((9, 9, 9))}, {"base64": "eA=="}], "stream": True}
    operation = api[CAPTIONS]["POST"]
    case = operation.Case(body=body, media_type="application/json")
    answer = case.call_and_validate(checks=CHECKS, timeout=30)
    assert answer.headers["content-type"][0].startswith("text/event-stream")
    described = operation.definition.raw["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]
    names = {one["properties"]["event"]["const"] for one in described["oneOf"]}
    assert set(re.findall(rb"^event: (\w+)$", answer.content, re.MULTILINE)) == {
        name.encode() for name in names - {"error"}
    }
    for right, wrong in ((b'"word":', b'"wort":'), (b"event: word", b"event: wort")):
        answer = case.call(timeout=30)
        answer.content = answer.content.replace(right, wrong, 1)
        with pytest.raises(FailureGroup, match="SSE event"):
            case.validate_response(answer, checks=CHECKS)


def test_any_options_on_a_real_picture(api: Any) -> None:
    statuses = set()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=api[CAPTIONS]["POST"].as_strategy(), picture=pictures)
    def check(case: schemathesis.Case, picture: str) -> None:
        if isinstance(case.body, dict) and case.media_type == "application/json":
            case.body = {**case.body, "images": [{"base64": picture}]}
        answer = case.call(timeout=30)
        statuses.add(answer.status_code)
        assert answer.status_code < 500, answer.text
        kind = answer.headers["content-type"][0]
        if answer.status_code == 200 and "json" in kind:
            CaptionsAnswer.model_validate(answer.json())
        elif answer.status_code != 200:
            assert kind == PROBLEM

    check()
    assert 200 in statuses


def test_examples_are_valid(service: Served) -> None:
    CaptionsAnswer.model_validate(ANSWER_EXAMPLE)
    with service.client() as client:
        found = client.get("/openapi.json").json()
    content = found["paths"][CAPTIONS]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}
    with service.client() as client:
        for example in content["application/json"]["examples"].values():
            answer = client.post(CAPTIONS, json=example["value"])
            assert answer.json()["type"].endswith(
                ("invalid", "unreadable-image")
            )  # no URLs here, and half an image
            assert "errors" not in answer.json()  # but the options are good
