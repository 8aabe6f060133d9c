"""A client's options as settings of the search, checked against the captioner before its pictures join a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from showtell.captioner import Captioner
from showtell.decoding import Constraints, DecodingSettings
from showtell.decoding.phrases import OR
from showtell.errors import ConfigError
from showtell.server.problems import INVALID, Problem
from showtell.server.schemas import CaptionOptions

_LONGEST = 8  # words of one entry to include, its alternatives together
_SAMPLING = ("temperature", "top_k", "top_p", "seed")


def read_settings(options: CaptionOptions, captioner: Captioner) -> DecodingSettings:
    """Returns how the captions of a request are searched for.

    Raises:
        Problem: options that contradict each other, or that the captioner does not have.
    """
    defaults = captioner.settings
    method = options.method
    if method is None:
        method = "beam" if options.beam is not None else "greedy" if options.stream else defaults.method
    changes: dict[str, Any] = {"method": method}
    for name in ("beam", *_SAMPLING):
        value = getattr(options, name)
        if value is None:
            continue
        wanted = "beam" if name == "beam" else "sample"
        if method != wanted:
            raise _refuse(
                name, f"{name} = {value} has no meaning with method {method!r}. Use method {wanted!r}."
            )
        changes[name] = value
    if options.stream and method == "beam":
        raise _refuse(
            "stream", "A beam decides no word before its end. Stream with method 'greedy' or 'sample'."
        )
    if options.min_confidence > 0 and captioner.confidence is None:
        raise _refuse("min_confidence", "This model does not know how sure it is: it is not calibrated.")
    if options.explain and not attends(captioner):
        raise _refuse("explain", "This model does not tell where it looks. Leave explain out.")
    if options.count is not None or method != defaults.method:
        changes["count"] = options.count or 1
    for place, entry in enumerate(options.include):
        # The search would take them, but everybody's pictures share one thread.
        if len(entry.replace(OR, " ").split()) > _LONGEST:
            raise _refuse(f"include.{place}", f"An entry to include has at most {_LONGEST} words here.")
    if options.include:
        changes["include"] = tuple(options.include)
    if options.exclude:
        changes["exclude"] = tuple(options.exclude)
    try:
        settings = replace(defaults, **changes)
        Constraints.read(settings, captioner.backend.vocabulary)
    except ConfigError as error:
        raise Problem(INVALID, str(error)) from None
    return settings


def attends(captioner: Captioner) -> bool:
    """Returns whether captions come with attention."""
    members = getattr(captioner.backend, "members", (captioner.backend,))
    return not captioner.notes and any(getattr(member, "attends", False) for member in members)


def _refuse(where: str, what: str) -> Problem:
    return Problem(INVALID, what, errors=[{"where": where, "what": what}])
