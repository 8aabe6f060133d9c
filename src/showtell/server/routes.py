"""The API, path by path."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from showtell.images.addresses import show_url
from showtell.server import streams
from showtell.server.answers import name_model
from showtell.server.bodies import FILE_FIELD, Item, read_items
from showtell.server.metrics import CONTENT_TYPE
from showtell.server.options import attends, read_settings
from showtell.server.problems import MEDIA_TYPE, NOT_READY, Problem
from showtell.server.schemas import (
    ANSWER_EXAMPLE,
    EVENTS,
    STREAM_EXAMPLE,
    CaptionOptions,
    CaptionRequest,
    CaptionsAnswer,
    ModelsAnswer,
    StateAnswer,
    TutorialAnswer,
)
from showtell.server.service import Asked, Service, unless_gone
from showtell.server.streams import Event, write_event

router = APIRouter()
SCHEMAS: tuple[type[BaseModel], ...] = (
    CaptionOptions,
    CaptionRequest,
    *EVENTS.values(),
)  # that no path names by itself
_REFERENCE = "#/components/schemas/"
_PROBLEMS = {
    400: "Not to be understood",
    401: "No valid key, where one is needed",
    403: "A page of another site asks",
    408: "The body was too slow",
    413: "The body or the number of images is too large",
    415: "Neither a form nor JSON",
    421: "The service does not go by this name",
    422: "Values that cannot be used, or an image that cannot be read or fetched",
    429: "The key's rate is used up",
    431: "Address and headers are too long",
    503: "Busy, late, starting or ending; `Retry-After` says when to try again",
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    schema = {"schema": {"$ref": f"{_REFERENCE}ProblemDetails"}}
    return {
        status: {"description": _PROBLEMS[status], "content": {MEDIA_TYPE: schema}} for status in statuses
    }


def _event(name: str, schema: str) -> dict[str, Any]:
    content = {"$ref": f"{_REFERENCE}{schema}"}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": content}
    return {"properties": {"event": {"const": name}, "data": data}}


_STREAM = {
    "itemSchema": {  # of each event, as OpenAPI 3.2 has it
        "type": "object",
        "required": ["event", "data"],
        "oneOf": [_event(name, model.__name__) for name, model in EVENTS.items()],
    },
    "example": STREAM_EXAMPLE,
}
_ALWAYS = (400, 401, 403, 421, 431)
_OPTIONS = CaptionOptions.model_json_schema()
_FORM = {
    **_OPTIONS,
    "title": "CaptionForm",
    "description": "Files, with the options for all of them as fields.",
    "required": [FILE_FIELD],
    "properties": {
        FILE_FIELD: {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "format": "binary"},
            "description": "The image, or several: the field may come many times.",
        },
        **_OPTIONS["properties"],
    },
}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "application/json": {
            "schema": {"$ref": f"{_REFERENCE}CaptionRequest"},
            "examples": {
                "url": {"value": {"images": [{"url": "https://example.com/cat.jpg"}], "beam": 3, "count": 3}},
                "sampling": {
                    "value": {
                        "images": [{"base64": "/9j/4AAQSkZJRg==", "name": "cat.jpg"}],
                        "method": "sample",
                        "top_p": 0.9,
                        "seed": 7,
                    }
                },
            },
        },
    },
}


@router.post(
    "/v1/captions",
    summary="Caption images",
    tags=["captions"],
    response_model=CaptionsAnswer,
    openapi_extra={"requestBody": _BODY},
    responses={
        200: {
            "description": "Captions of each image, in their order; with `stream`, words as they are decided. Where "
            "there are several images, one that fails has an `error` in place of `captions`.",
            "content": {
                "application/json": {"example": ANSWER_EXAMPLE},
                streams.MEDIA_TYPE: _STREAM,
            },
        },
        **_problems(*_ALWAYS, 408, 413, 415, 422, 429, 503),
    },
)
async def caption(request: Request) -> Response:
    """Captions the images of a form (`multipart/form-data`) or of a JSON object.

    Every answer has the SHA-256 of each image, so it can be checked to belong to it.
    """
    service, asked = _find(request)
    begin = time.monotonic()
    with contextlib.ExitStack() as held:
        share = held.enter_context(service.bodies.share())
        items, options = await read_items(request, service.settings.limits, share)
        asked.images, asked.body_seconds = len(items), time.monotonic() - begin
        service.metrics.stage("body", asked.body_seconds)
        settings = await _read_settings(options, service)
        service.charge(asked, len(items))
        if not options.stream:
            return JSONResponse(await unless_gone(request, service.caption(asked, items, options, settings)))
        events = service.stream(asked, items, options, settings)
        first = await unless_gone(request, anext(events))
        return EventResponse(asked, first, events, held.pop_all())


async def _read_settings(options: CaptionOptions, service: Service) -> Any:
    if options.include:  # an unknown word is compared with the whole vocabulary
        return await asyncio.to_thread(read_settings, options, service.captioner)
    return read_settings(options, service.captioner)


class EventResponse(StreamingResponse):
    """Sends events, and lets go of what they hold however it ends, even if it never began."""

    def __init__(
        self, asked: Asked, first: Event, rest: AsyncGenerator[Event, None], held: contextlib.ExitStack
    ) -> None:
        async def write() -> AsyncIterator[bytes]:
            yield write_event(*first)
            try:
                async for event in rest:
                    yield write_event(*event)
            except Problem as problem:  # the status is sent already
                yield write_event("error", problem.to_dict(asked.id))

        super().__init__(write(), media_type=streams.MEDIA_TYPE, headers=streams.HEADERS)
        self._rest = rest
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""
        with self._held:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._rest.aclose()


@router.get(
    "/wowme",
    summary="The classic tutorial's service",
    tags=["captions"],
    response_model=TutorialAnswer,
    responses={
        200: {
            "content": {"application/json": {"example": {"Prediction Caption:": "a cat sleeping on a sofa"}}}
        },
        **_problems(*_ALWAYS, 422, 429, 503),
    },
)
async def wowme(
    request: Request,
    image: Annotated[
        str,
        Query(
            min_length=1,
            max_length=8000,
            description="The URL of an image.",
            examples=["https://example.com/cat.jpg"],
        ),
    ],
) -> Response:
    """Captions one image on the web, as the service of the TensorFlow tutorial's followers does."""
    service, asked = _find(request)
    service.charge(asked, 1)
    asked.images = 1
    items = [Item(show_url(image), image)]
    work = service.caption(asked, items, CaptionOptions(), service.captioner.settings)
    answer = await unless_gone(request, work)
    captions = answer["images"][0]["captions"]
    return JSONResponse({"Prediction Caption:": captions[0]["caption"] if captions else ""})


@router.get(
    "/v1/models",
    summary="What captions here",
    tags=["service"],
    response_model=ModelsAnswer,
    responses=_problems(*_ALWAYS),
)
async def models(request: Request) -> Response:
    """The captioner with its digest, how it searches unless told otherwise, and the limits of a request."""
    service, _ = _find(request)
    captioner, limits = service.captioner, service.settings.limits
    backend: Any = captioner.backend
    first = getattr(backend, "members", (backend,))[0]
    model = {
        **name_model(captioner),
        "vocabulary": len(backend.vocabulary.words),
        "attention": attends(captioner),
        "calibrated": captioner.confidence is not None,
        "grid": list(backend.grid),
        "engine": first.engine,
        "precision": first.precision,
        "defaults": captioner.settings.to_dict(),
    }
    allowed = {
        "images": limits.images,
        "body_bytes": limits.body_bytes,
        "pixels": limits.pixels,
        "seconds": limits.seconds,
        "urls": service.settings.urls != "none",
        "key": not service.keys.open,
    }
    return JSONResponse({"models": [model], "limits": allowed})


@router.head("/healthz", include_in_schema=False)  # as many balancers ask
@router.get(
    "/healthz",
    summary="Whether the process lives",
    tags=["service"],
    response_model=StateAnswer,
    responses=_problems(400, 431),
)
async def healthz() -> Response:
    """Answers as long as the process does anything at all."""
    return JSONResponse({"status": "ok"})


@router.head("/readyz", include_in_schema=False)  # as many balancers ask
@router.get(
    "/readyz",
    summary="Whether it can caption",
    tags=["service"],
    response_model=StateAnswer,
    responses=_problems(400, 431, 503),
)
async def readyz(request: Request) -> Response:
    """Answers 503 while the service starts, ends or hangs: a load balancer then asks another one."""
    service, _ = _find(request)
    if not service.engine.ready:
        raise Problem(NOT_READY, "The service is starting or ending.", retry_after=1)
    if service.engine.hangs:
        raise Problem(NOT_READY, "The networks do not come back with their pictures.", retry_after=1)
    return JSONResponse({"status": "ok"})


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    tags=["service"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_problems(*_ALWAYS)},
)
async def metrics(request: Request) -> Response:
    """Requests, images, batches, the queue, and seconds per stage, in Prometheus's text format."""
    service, _ = _find(request)
    service.metrics.tasks.set(len(asyncio.all_tasks()))
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def _find(request: Request) -> tuple[Service, Asked]:
    return request.app.state.service, request.scope["showtell"]
