"""What is said of one image: the one place that knows the fields of a result."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from showtell.alt_text import write_alt_text
from showtell.captioner import CaptionedPicture
from showtell.captioning import Caption
from showtell.outputs.names import readable


@dataclass(frozen=True, slots=True)
class WrittenCaption:
    """One caption of an image."""

    caption: str  # the sentence
    score: float  # what captions of one image are ranked by
    confidence: float | None = None  # calibrated, 0 to 1; None where nobody knows
    alt: str | None = None  # the caption as alt text, where that was asked for
    needs_review: bool | None = None  # of the alt text

    @classmethod
    def of(cls, caption: Caption, *, as_alt: bool) -> WrittenCaption:
        """Returns what is written of a caption that was found."""
        if not as_alt:
            return cls(caption.text, caption.score, caption.confidence)
        alt = write_alt_text(caption.text, confidence=caption.confidence)
        return cls(caption.text, caption.score, caption.confidence, alt.text, alt.needs_review)

    @property
    def text(self) -> str:
        """What people are to read: the alt text where it was asked for, else the caption."""
        return self.caption if self.alt is None else self.alt

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON values, without those that are not known or were not asked for."""
        more = {"confidence": self.confidence, "alt": self.alt, "needs_review": self.needs_review}
        known = {key: value for key, value in more.items() if value is not None}
        return {"caption": self.caption, "score": self.score, **known}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WrittenCaption:
        """Builds the caption from `to_dict`'s result."""
        more = (values.get(key) for key in ("confidence", "alt", "needs_review"))
        return cls(values["caption"], values["score"], *more)


@dataclass(frozen=True, slots=True)
class Record:
    """The result of one image: captions, or the error that prevented them."""

    image: str  # its name, with surrogates for bytes that are not UTF-8 (PEP 383)
    captions: tuple[
        WrittenCaption, ...
    ] = ()  # best first; empty where `error` is set, or none was sure enough
    error: str = ""  # why there are no captions
    sidecar_error: str = ""  # why the captions are not in the image's sidecar
    thumbnail: bytes = b""  # the image as a small WebP, for contact sheets; no field of `to_dict`

    @classmethod
    def of(cls, image: str, picture: CaptionedPicture, *, error: str = "", as_alt: bool = False) -> Record:
        """Returns the record of what a captioner gave.

        Args:
            image: its name.
            picture: its captions or its error.
            error: the reason to give instead of the picture's own, if it has one.
            as_alt: whether captions are written as alt text, too.
        """
        if picture.error is None:
            captions = tuple(WrittenCaption.of(one, as_alt=as_alt) for one in picture.captions)
            return cls(image, captions)
        reason = error or str(picture.error).removeprefix(image).removeprefix(":").strip()
        return cls(image, error=readable(reason))

    @property
    def failure(self) -> str:
        """What went wrong with this image, or ""."""
        return self.error or self.sidecar_error

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON values; "image_bytes" (base64) only where the name is not UTF-8."""
        values: dict[str, Any] = {"image": readable(self.image)}
        if values["image"] != self.image:
            values["image_bytes"] = base64.b64encode(os.fsencode(self.image)).decode()
        if self.error:
            return {**values, "error": self.error}
        values["captions"] = [caption.to_dict() for caption in self.captions]
        if self.sidecar_error:
            values["sidecar_error"] = self.sidecar_error
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """Builds the record from `to_dict`'s result.

        Raises:
            KeyError, TypeError, ValueError: the values are not those of a record.
        """
        encoded = values.get("image_bytes")
        return cls(
            values["image"] if encoded is None else os.fsdecode(base64.b64decode(encoded, validate=True)),
            tuple(WrittenCaption.from_dict(one) for one in values.get("captions", ())),
            values.get("error", ""),
            values.get("sidecar_error", ""),
        )
