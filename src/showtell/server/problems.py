"""Everything that can go wrong, as problem details (RFC 9457): one table, one exception, one response."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
PREFIX = "urn:problem-type:showtell:"


@dataclass(frozen=True)
class Kind:
    """One kind of problem."""

    name: str  # ends its `type`
    status: int
    title: str


BAD_REQUEST = Kind("bad-request", 400, "The request cannot be understood")
UNAUTHORIZED = Kind("unauthorized", 401, "A valid key is needed")
CROSS_SITE = Kind("cross-site", 403, "Pages of other sites may not use this service")
NOT_FOUND = Kind("not-found", 404, "There is nothing here")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "The method is not allowed here")
TOO_SLOW = Kind("too-slow", 408, "The request took too long to arrive")
TOO_LARGE = Kind("too-large", 413, "The request is too large")
UNKNOWN_MEDIA = Kind("unknown-media-type", 415, "The body is of a kind that is not read here")
WRONG_HOST = Kind("wrong-host", 421, "The service does not go by this name")
INVALID = Kind("invalid", 422, "The request has values that cannot be used")
UNREADABLE = Kind("unreadable-image", 422, "The image cannot be read")
NOT_FETCHED = Kind("not-fetched", 422, "The image cannot be fetched")
TOO_MANY = Kind("too-many-requests", 429, "The key's rate is used up")
LONG_HEADERS = Kind("headers-too-large", 431, "The headers are too large")
GONE = Kind("client-gone", 499, "The client left before the answer")  # nobody reads it but the log
INTERNAL = Kind("internal", 500, "The service made a mistake")
BUSY = Kind("busy", 503, "The service is busy")
LATE = Kind("late", 503, "The answer was not ready in time")
NOT_READY = Kind("not-ready", 503, "The service is starting or ending")


class Problem(Exception):
    """Why a request, or one image of it, gets no captions.

    Args:
        kind: what it is.
        detail: what was wrong (with the value), where, and what to do.
        errors: one entry for each value that is wrong: `where` and `what`.
        retry_after: seconds after which to try again.
        headers: of the response, beyond that.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))

    def to_dict(self, request_id: str) -> dict[str, Any]:
        """Returns the problem as JSON values."""
        found = {
            "type": PREFIX + self.kind.name,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        return {**found, "errors": list(self.errors)} if self.errors else found

    def respond(self, request_id: str) -> Response:
        """Returns the problem as a response."""
        # ASCII: names of files and URLs may hold characters that no encoding has (lone surrogates).
        body = json.dumps(self.to_dict(request_id)).encode("ascii")
        return Response(body, self.kind.status, self.headers, MEDIA_TYPE)
