"""What must come of requests to the service under test, and what did."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.load import Answer

_MISTAKES = 20  # that are told in words; all are counted


class Unexpected(Exception):
    """An answer that is not the one that must come."""


@dataclass
class Tally:
    """What came of the requests."""

    kinds: Counter[str] = field(default_factory=Counter)
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))  # by kind
    checked: int = 0  # pictures whose digest was compared
    cached: int = 0  # of them, those whose captions were written before
    refused: int = 0  # requests with an intended 503
    broken: int = 0  # answers with 5xx that nobody intended
    mixed_up: int = 0  # pictures with the digest of another one
    mistakes: Counter[str] = field(
        default_factory=Counter
    )  # requests with an answer that must not come, by kind
    words: list[str] = field(default_factory=list)  # about the first mistakes

    @property
    def requests(self) -> int:
        """All that were made."""
        return self.kinds.total()

    def note(self, kind: str, answer: Answer) -> None:
        """Counts an answer."""
        self.statuses[kind][answer.status] += 1
        self.broken += answer.status >= 500 and answer.status != 503

    def mistake(self, kind: str, what: str) -> None:
        """Counts a request with a wrong answer, or with none."""
        self.mistakes[kind] += 1
        if len(self.words) < _MISTAKES:
            self.words.append(f"{kind}: {what}"[:500])

    def is_refused(self, answer: Answer) -> bool:
        """Returns whether it is an intended 503, and counts it; raises Unexpected at another one."""
        if answer.status != 503:
            return False
        problem = json.loads(answer.body)
        if not problem["type"].endswith((":busy", ":late")) or "retry-after" not in answer.headers:
            raise Unexpected(f"a 503 that nobody intended: {answer.body[:200]!r}")
        self.refused += 1
        return True

    def check(self, answer: Answer, contents: Sequence[bytes], broken: Collection[int] = ()) -> None:
        """Compares the answer to pictures, of which those at `broken` cannot be read; raises Unexpected."""
        if self.is_refused(answer):
            return
        if answer.status != 200:
            raise Unexpected(f"status {answer.status}: {answer.body[:300]!r}")
        self.check_images(json.loads(answer.body)["images"], contents, broken)

    def check_images(
        self,
        images: Sequence[dict[str, Any]],
        contents: Sequence[bytes],
        broken: Collection[int] = (),
    ) -> None:
        """As `check`, of the images of an answer or of a stream."""
        if len(images) != len(contents):
            raise Unexpected(f"{len(images)} images for {len(contents)}")
        for place, (image, content) in enumerate(zip(images, contents, strict=True)):
            error = image.get("error")
            if place in broken:
                if error is None or error["status"] != 422:
                    raise Unexpected(f"a damaged image gives {image}")
                continue
            if error is not None:
                raise Unexpected(f"an image gives {error}")
            self.checked += 1
            self.cached += image["cached"]
            if image["sha256"] != hashlib.sha256(content).hexdigest():
                self.mixed_up += 1
                raise Unexpected("an answer to another image")
            if not image["captions"]:
                raise Unexpected("an image without captions")


def check_problem(answer: Answer, status: int) -> None:
    """Raises Unexpected if the answer is not a problem (RFC 9457) with this status."""
    if answer.status != status:
        raise Unexpected(f"status {answer.status}, not {status}: {answer.body[:300]!r}")
    problem = json.loads(answer.body)
    if answer.headers["content-type"] != "application/problem+json" or problem["status"] != status:
        raise Unexpected(f"no problem details: {answer.body[:300]!r}")
