"""The one record type for a captioned image, and a data set of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from showtell.errors import SplitError, did_you_mean

SPLITS = ("train", "dev", "test")  # "val", "validation" and "valid" are read as "dev"


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One image with all its captions.

    Captions stay with their image everywhere: splits, batches and scores are made by image, never by caption.
    """

    id: str  # unique in its data set: the file name, or COCO's numeric id as text
    path: Path  # the image file; it need not exist until someone reads it
    captions: tuple[str, ...]  # as written by people; tokenised where they are used
    split: str | None = None  # "train", "dev", "test", or None where the data set does not say


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong that a reader or the doctor noticed and went on from."""

    kind: str  # a stable key for programs, as "ghost-entry" or "corrupt-image"
    where: str  # the file and line, or the image id
    message: str  # one sentence for people
    severity: str = "error"  # "error" or "warning"


@dataclass(frozen=True)
class Dataset:
    """Captioned images in the order of their source, and what was noticed while reading them."""

    name: str  # of the folder or file it came from
    format: str  # the reader's name, as "flickr" or "coco"
    images: tuple[CaptionedImage, ...]
    problems: tuple[Problem, ...] = ()

    def counts(self) -> dict[str | None, int]:
        """Returns the number of images per split; the key None counts images that have no split."""
        return dict(Counter(image.split for image in self.images))

    def split(self, name: str) -> Dataset:
        """Returns the images of one split.

        Raises:
            SplitError: no image has this split; the message lists the ones there are.
        """
        chosen = tuple(image for image in self.images if image.split == name)
        if not chosen:
            present = sorted(split for split in self.counts() if split is not None)
            choices = f"It has: {', '.join(present)}." if present else "None of its images has a split."
            raise SplitError(
                f"Data set {self.name!r} has no images in split {name!r}.{did_you_mean(name, present)} {choices}"
            )
        return replace(self, images=chosen)

    def fingerprint(self) -> str:
        """Returns a digest of ids, splits and captions: equal data gives equal fingerprints on every machine."""
        digest = hashlib.sha256()
        for image in sorted(self.images, key=lambda image: image.id):
            digest.update(repr((image.id, image.split, image.captions)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()
