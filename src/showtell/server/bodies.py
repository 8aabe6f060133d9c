"""The body of a request: read as it comes, within limits of size, time and memory, whatever its headers say.

A body is one of two: a form (multipart/form-data) whose files are images and whose fields are options, or a JSON
object. Everything stays in memory, and is counted there: nothing of an image is written to a disk.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from showtell.errors import did_you_mean
from showtell.images.addresses import show_url
from showtell.server.metrics import Metrics
from showtell.server.problems import (
    BAD_REQUEST,
    BUSY,
    GONE,
    INVALID,
    TOO_LARGE,
    TOO_SLOW,
    UNKNOWN_MEDIA,
    Problem,
)
from showtell.server.schemas import MAX_NAME, MAX_WORDS, Base64Image, CaptionOptions, CaptionRequest, UrlImage
from showtell.server.settings import Limits

FILE_FIELD = "image"
_FORM, _JSON = "multipart/form-data", "application/json"
_LISTS = ("include", "exclude")
_KINDS = {kind.__name__: kind for kind in (UrlImage, Base64Image)}  # of images
_SMALL = 64 * 1024  # bytes of JSON that are read between two other things


@dataclass(frozen=True)
class Item:
    """One image of a request."""

    name: str  # for the answer
    source: bytes | str  # the bytes of a file, or a URL


class BodyMemory:
    """How many bytes of bodies are in memory, over all requests of this process."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._left = limit
        self._metrics = metrics

    @contextlib.contextmanager
    def share(self) -> Iterator[BodyShare]:
        """Gives one request its share, and takes it back when the request is answered."""
        share = BodyShare(self)
        try:
            yield share
        finally:
            self._take(-share.size)

    def _take(self, count: int) -> None:
        if count > self._left:
            raise Problem(BUSY, "Too many large requests are under way. Try again soon.", retry_after=1)
        self._left -= count
        self._metrics.body_memory.inc(count)


class BodyShare:
    """What one request has of it."""

    def __init__(self, memory: BodyMemory) -> None:
        self.size = 0
        self._memory = memory

    def take(self, count: int) -> None:
        """Takes so many bytes more; raises Problem (503) where there are none left."""
        self._memory._take(count)
        self.size += count


async def read_items(
    request: Request, limits: Limits, share: BodyShare
) -> tuple[tuple[Item, ...], CaptionOptions]:
    """Reads the images and the options of a request.

    Raises:
        Problem: a body that is too large, too slow, of another kind, damaged, or with values that cannot be used.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_FORM, _JSON):
        raise Problem(
            UNKNOWN_MEDIA,
            f"The header Content-Type must be {_FORM} or {_JSON}. Received: {_cut(kind)}. With curl: "
            f"-F {FILE_FIELD}=@cat.jpg",
        )
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise Problem(
            UNKNOWN_MEDIA, f"Bodies are not decompressed here. Received: Content-Encoding {_cut(encoding)}."
        )
    chunks = _read_chunks(request, limits, share)
    return await (_read_form(request, limits, chunks) if kind == _FORM else _read_json(limits, chunks))


async def _read_chunks(request: Request, limits: Limits, share: BodyShare) -> AsyncGenerator[bytes, None]:
    """Yields the body as it comes."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise _too_large(limits)
    loop = asyncio.get_running_loop()
    end = loop.time() + limits.body_seconds
    stream = request.stream()
    while True:
        soon = loop.time() + limits.idle_seconds
        try:
            async with asyncio.timeout_at(min(soon, end)):
                chunk = await anext(stream, None)
        except TimeoutError:
            late = (
                f"did not come within {limits.body_seconds:g} s"
                if end <= soon
                else (f"brought nothing for {limits.idle_seconds:g} s")
            )
            raise Problem(TOO_SLOW, f"The body {late}. Send it again, faster.") from None
        except ClientDisconnect:
            raise Problem(GONE, "The client left while it sent.") from None
        if chunk is None:
            return
        share.take(len(chunk))
        if share.size > limits.body_bytes:
            raise _too_large(limits)
        yield chunk


def _too_large(limits: Limits) -> Problem:
    return Problem(
        TOO_LARGE,
        f"A body has at most {limits.body_bytes:,} bytes here. Send smaller images, or fewer at a time.",
    )


class _Form(MultiPartParser):
    """Starlette's parser; files stay in memory, where `BodyShare` has counted them."""

    spool_max_size = 2**62


async def _read_form(
    request: Request, limits: Limits, chunks: AsyncGenerator[bytes, None]
) -> tuple[tuple[Item, ...], CaptionOptions]:
    fields = 2 * MAX_WORDS
    parser = _Form(request.headers, chunks, max_files=limits.images, max_fields=fields, max_part_size=4096)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        kind = TOO_LARGE if error.message.startswith(("Too many", "Part exceeded")) else BAD_REQUEST
        raise Problem(kind, f"The form cannot be used: {error.message}") from None
    except (ValueError, LookupError) as error:  # headers of parts that cannot be read
        raise Problem(BAD_REQUEST, f"The form cannot be read: {_cut(str(error))}.") from None
    items: list[Item] = []
    values: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != FILE_FIELD:
                what = (
                    f"Files belong into the field {FILE_FIELD!r}, one or many. Received one in {_cut(name)}."
                )
                raise Problem(INVALID, what, errors=[{"where": name[:MAX_NAME], "what": what}])
            content = value.file.read()
            value.file.close()
            items.append(Item(_name_file(value.filename, len(items)), content))
        elif name in _LISTS:
            values.setdefault(name, []).append(value)
        elif name in values:
            what = f"The field {name!r} is given twice."
            raise Problem(INVALID, what, errors=[{"where": name, "what": what}])
        else:
            values[name] = value
    if not items:
        text = (
            f"The field {FILE_FIELD!r} holds text, not a file."
            if FILE_FIELD in values
            else "There is no image."
        )
        what = (
            f"{text} Add files as the field {FILE_FIELD!r}: curl -F {FILE_FIELD}=@cat.jpg ... Images on the web are "
            f"asked for in JSON."
        )
        raise Problem(INVALID, what, errors=[{"where": FILE_FIELD, "what": what}])
    try:
        return tuple(items), CaptionOptions.model_validate(values)
    except ValidationError as error:
        raise describe(error, CaptionOptions) from None


async def _read_json(
    limits: Limits, chunks: AsyncGenerator[bytes, None]
) -> tuple[tuple[Item, ...], CaptionOptions]:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
    if len(body) <= _SMALL:
        return _parse_json(bytes(body), limits)
    return await asyncio.to_thread(_parse_json, bytes(body), limits)


def _parse_json(body: bytes, limits: Limits) -> tuple[tuple[Item, ...], CaptionOptions]:
    try:
        asked = CaptionRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise describe(error, CaptionRequest) from None
    if len(asked.images) > limits.images:
        raise Problem(
            TOO_LARGE, f"One request has at most {limits.images} images here. Received: {len(asked.images)}."
        )
    items = []
    for place, image in enumerate(asked.images):
        if isinstance(image, UrlImage):
            items.append(Item(show_url(image.url), image.url))
            continue
        try:
            content = base64.b64decode(image.base64, validate=True)
        except (binascii.Error, ValueError) as error:
            where = f"images.{place}.base64"
            what = (
                f"{where} is no base64: {error}. It holds the letters alone: no line breaks, and nothing before them "
                "(data:image/jpeg;base64,)."
            )
            raise Problem(INVALID, what, errors=[{"where": where, "what": what}]) from None
        items.append(Item(_name_file(image.name, place), content))
    return tuple(items), asked


def describe(error: ValidationError, asked: type[CaptionOptions]) -> Problem:
    """Returns what pydantic found as a problem: where and what, with short values, never with long ones.

    Args:
        error: what it found.
        asked: the schema that was not kept to.
    """
    found = _leave_out_other_kinds(error.errors(include_url=False, include_context=False))
    if found and found[0]["type"] == "json_invalid":
        return Problem(BAD_REQUEST, f"The body is no JSON: {found[0]['msg'].removeprefix('Invalid JSON: ')}.")
    errors = [_describe_one(one, asked) for one in found[:20]]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    first = f"{errors[0]['where']}: {errors[0]['what']}" if errors[0]["where"] else errors[0]["what"]
    return Problem(INVALID, f"{first}{more}", errors=errors)


def _leave_out_other_kinds(found: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leaves out why an image is not of one kind where it has all that the other needs, and so is meant as that."""
    tried = {one["loc"][:3] for one in found if one["loc"][:1] == ("images",) and len(one["loc"]) > 2}
    lacking = {one["loc"][:3] for one in found if one["type"] == "missing"} & tried
    meant = {place[:2] for place in tried - lacking}
    return [one for one in found if one["loc"][:3] not in lacking or one["loc"][:2] not in meant]


def _describe_one(one: ErrorDetails, asked: type[CaptionOptions]) -> dict[str, str]:
    schema: type[BaseModel] = asked
    place = list(one["loc"])
    if (
        place[:1] == ["images"] and len(place) > 2
    ):  # behind the number of an image comes which kind it was tried as
        schema = _KINDS[str(place.pop(2))]
    given = one["input"]
    what = f"{one['msg']}."
    if one["type"] == "extra_forbidden":
        what = f"There is no such option.{did_you_mean(str(place[-1])[:MAX_NAME], schema.model_fields)}"
    elif isinstance(given, str):
        what += f" Received: {_cut(given)}."
    elif isinstance(given, int | float | bool | None):
        what += f" Received: {json.dumps(given)[:60]}."
    return {"where": ".".join(map(str, place))[:MAX_NAME], "what": what}


def _name_file(name: str | None, place: int) -> str:
    return (name or f"image {place + 1}")[:MAX_NAME]


def _cut(text: str) -> str:
    return f"{text[:60]!a}" + ("..." if len(text) > 60 else "")
