"""All of it as one ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from showtell import __version__
from showtell.captioner import Captioner
from showtell.server.middleware import Envelope, Gate, refuse
from showtell.server.problems import (
    BAD_REQUEST,
    INTERNAL,
    INVALID,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    Kind,
    Problem,
)
from showtell.server.routes import SCHEMAS, router
from showtell.server.service import Service
from showtell.server.settings import ServerSettings

BEAT_SECONDS = 1.0
STATIC = Path(__file__).parent / "static"  # the page
_KINDS = {kind.status: kind for kind in (BAD_REQUEST, NOT_FOUND, METHOD_NOT_ALLOWED)}
_DESCRIPTION = """Captions images. Every answer has the SHA-256 of each image, so it can be checked to belong to it.
Errors are problem details (RFC 9457)."""


def create_app(
    settings: ServerSettings, captioner: Captioner | None = None, *, beat: Callable[[], None] | None = None
) -> ASGIApp:
    """Returns the service; the captioner is loaded here, so that what is wrong with it is said before it listens.

    Args:
        settings: of the service.
        captioner: by default that of the settings.
        beat: called every second as long as the service gets on with its work.

    Raises:
        ShowtellError: the captioner cannot be loaded.
    """
    if captioner is None:
        captioner = Captioner.load(
            list(settings.models),
            engine=settings.engine,
            precision=settings.precision,
            threads=settings.threads,
        )
    service = Service(captioner, settings)

    @contextlib.asynccontextmanager
    async def live(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.engine.start)
        beating = asyncio.create_task(_beat(service, beat)) if beat is not None else None
        try:
            yield
        finally:
            await asyncio.to_thread(service.engine.close)
            if beating is not None:
                beating.cancel()

    # Its own pages for reading the API load scripts from elsewhere, which the content security policy forbids.
    api = FastAPI(
        title="Showtell",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=live,
    )
    api.state.service = service
    api.include_router(router)
    if STATIC.is_dir():
        # Not mounted: a mount would answer for paths of the API, too, where their method is another.
        api.router.default = _Page(directory=STATIC, html=True)
    _answer_errors(api)
    _describe(api, keys=not service.keys.open)
    app: ASGIApp = Gate(api, service)
    if settings.origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    return Envelope(app, service, (route.path for route in router.routes if isinstance(route, APIRoute)))


class _Page(StaticFiles):
    """The files of the page. What is no file is not found, by whatever method it is asked for."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Returns the file at a path."""
        response = await super().get_response(path, {**scope, "method": "GET"})
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(METHOD_NOT_ALLOWED.status, headers={"Allow": "GET, HEAD"})
        return response


async def _beat(service: Service, beat: Callable[[], None]) -> None:
    while True:
        if not service.engine.hangs:
            beat()
        await asyncio.sleep(BEAT_SECONDS)


def _answer_errors(api: FastAPI) -> None:
    @api.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return refuse(request.scope, error)

    @api.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> Response:
        errors = [
            {"where": ".".join(str(word) for word in one["loc"]), "what": f"{one['msg']}."}
            for one in error.errors()
        ]
        detail = "; ".join(f"{one['where']}: {one['what']}" for one in errors)
        return refuse(request.scope, Problem(INVALID, detail, errors=errors))

    @api.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        kind = _KINDS.get(error.status_code) or Kind("http", error.status_code, str(error.detail))
        details = {
            NOT_FOUND: "No such path. The API is described at /openapi.json.",
            METHOD_NOT_ALLOWED: "This path does not take this method. The header Allow says which it takes.",
        }
        return refuse(
            request.scope, Problem(kind, details.get(kind, str(error.detail)), headers=error.headers)
        )

    @api.exception_handler(Exception)
    async def internal(request: Request, _error: Exception) -> Response:
        # The error itself is logged by the server, and no business of the client's.
        return refuse(
            request.scope, Problem(INTERNAL, "Something went wrong here; the log has it under this request.")
        )


def _describe(api: FastAPI, *, keys: bool) -> None:
    """Completes the OpenAPI description: schemas that no path names by itself, keys, problems in place of FastAPI's."""

    def describe() -> dict[str, Any]:
        if api.openapi_schema is None:
            found = get_openapi(
                title=api.title, version=api.version, description=api.description, routes=api.routes
            )
            parts = found.setdefault("components", {})
            schemas = parts.setdefault("schemas", {})
            for model in SCHEMAS:
                own = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(own.pop("$defs", {}))
                schemas[model.__name__] = own
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            if keys:
                parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                for path, methods in found["paths"].items():
                    if path not in ("/healthz", "/readyz"):
                        for method in methods.values():
                            method["security"] = [{"key": []}]
            api.openapi_schema = found
        return api.openapi_schema

    api.openapi = describe  # type: ignore[method-assign]  # FastAPI's own way to do this
