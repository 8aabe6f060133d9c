"""What a feature cache says about itself: its manifest and its journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from showtell.errors import CacheError
from showtell.files import digest_file

FORMAT = "showtell-features"
FORMAT_VERSION = 1
HEADER_BYTES = 128  # of a .npy file with the room that NumPy leaves for a growing first axis
DATA, MANIFEST, JOURNAL = "features.npy", "manifest.json", "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image in a cache."""

    row: int  # in features.npy
    sha256: str  # of the image file
    size: int  # of the image file, in bytes
    mtime_ns: int  # of the image file: where it and the size are the same, the digest is not computed again

    def is_current(self, path: Path, *, verify: bool = False) -> bool:
        """Returns whether the image file is still the one that the features were computed from.

        Args:
            path: the image file.
            verify: compare the digest even where size and time of change are the same.
        """
        try:
            status = path.stat()
            if status.st_size != self.size:
                return False
            return (not verify and status.st_mtime_ns == self.mtime_ns) or digest_file(path) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class Contents:
    """What the manifest or the journal of a cache says."""

    encoder: Mapping[str, Any]  # fingerprint, name, output, weights, preprocessing, precision
    shape: tuple[int, ...]  # of one image's features
    images: dict[str, Entry]  # by image id
    unreadable: dict[str, str]  # image id to reason, for images left out on request
    finished: bool  # whether it comes from a manifest

    @property
    def row_bytes(self) -> int:
        """The size of one image's features."""
        return 2 * int(np.prod(self.shape))

    @property
    def rows(self) -> int:
        """How many rows features.npy must have at least."""
        return max((entry.row + 1 for entry in self.images.values()), default=0)


def read_contents(folder: Path) -> Contents | None:
    """Returns what a cache holds: the manifest's images, or else the journal's; None where there is no cache.

    Raises:
        CacheError: a damaged manifest, a newer format, or a features.npy that is not ours.
    """
    if (folder / MANIFEST).exists():
        return _read_manifest(folder / MANIFEST)
    if (folder / JOURNAL).exists():
        return read_journal(folder / JOURNAL)
    if (folder / DATA).exists():
        raise CacheError(
            f"{folder / DATA} exists without a {MANIFEST}: not a feature cache of Showtell, or one that lost "
            "its manifest. Choose another folder, or give --rebuild to replace it."
        )
    if folder.exists() and not folder.is_dir():
        raise CacheError(f"{folder}: a feature cache is a folder, and this is a file.")
    return None


def read_journal(path: Path) -> Contents | None:
    """Returns what a journal lists; its last line counts only where it is whole. None for an empty journal.

    Raises:
        CacheError: a damaged line, or a newer format.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise CacheError(f"{path}: cannot be read: {error}") from None
    whole = lines[:-1]  # a kill in the middle of a line leaves it without its end
    if not whole:
        return None
    try:
        contents = _parse_header(json.loads(whole[0]), path, finished=False)
        for line in whole[1:]:
            for image_id, fields in json.loads(line).items():
                contents.images[image_id] = _parse_entry(fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from None
    return contents


def describe_contents(contents: Contents) -> dict[str, Any]:
    """Returns a cache's header as JSON values: the manifest without its images, the journal's first line."""
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "dtype": "float16",
        "shape": list(contents.shape),
        "encoder": dict(contents.encoder),
    }


def describe_images(images: Mapping[str, Entry]) -> dict[str, list[int | str]]:
    """Returns entries as JSON values."""
    return {
        image_id: [entry.row, entry.sha256, entry.size, entry.mtime_ns] for image_id, entry in images.items()
    }


def check_fingerprint(folder: Path, contents: Contents, expected: str | None) -> None:
    """Raises CacheError unless the features are of the encoder with this fingerprint; None accepts any."""
    stored = contents.encoder["fingerprint"]
    if expected is not None and stored != expected:
        raise CacheError(
            f"{folder}: foreign: these features are other ones: {describe_encoder(contents.encoder)} "
            f"(fingerprint {stored[:12]}...), and {expected[:12]}... is asked for: another backbone, "
            "weights, preprocessing or output, or other views of the pictures (augmentation, training.seed, other "
            "pictures). Name another folder or remove this one; features of pictures as they are can also be extracted "
            "again with `showtell features --rebuild`."
        )


def describe_encoder(encoder: Mapping[str, Any]) -> str:
    """Returns a cache's encoder in a few words."""
    source = encoder.get("weights", {})
    origin = source.get("file_name") or source.get("kind", "unknown")
    preprocessing = encoder.get("preprocessing", {})
    size = f"{preprocessing.get('width')}x{preprocessing.get('height')}"
    return f"{encoder.get('name')}, {encoder.get('output')}, weights {origin}, {size}"


def _read_manifest(path: Path) -> Contents:
    try:
        values = json.loads(path.read_bytes())
        contents = _parse_header(values, path, finished=True)
        contents.images.update({key: _parse_entry(fields) for key, fields in values["images"].items()})
        contents.unreadable.update({str(key): str(reason) for key, reason in values["unreadable"].items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from None
    return contents


def _parse_header(values: Any, path: Path, *, finished: bool) -> Contents:
    if values.get("format") != FORMAT:
        raise CacheError(
            f"{path}: not a feature cache of Showtell (no format {FORMAT!r}). Choose another folder."
        )
    if values["version"] > FORMAT_VERSION:
        raise CacheError(
            f"{path}: feature cache version {values['version']}; this Showtell reads up to {FORMAT_VERSION}. "
            "Update Showtell, or extract the features again with --rebuild."
        )
    shape = tuple(int(length) for length in values["shape"])
    encoder = values["encoder"]
    if not isinstance(encoder["fingerprint"], str) or len(encoder["grid"]) != 2 or min(shape, default=0) < 1:
        raise ValueError("no fingerprint, grid or shape")
    return Contents(values["encoder"], shape, {}, {}, finished)


def _parse_entry(fields: Any) -> Entry:
    row, sha256, size, mtime_ns = fields
    if not (isinstance(row, int) and row >= 0 and isinstance(sha256, str)):
        raise ValueError(f"an entry {fields!r}")
    return Entry(row, sha256, int(size), int(mtime_ns))


def _damaged(path: Path, error: Exception) -> CacheError:
    return CacheError(
        f"{path}: damaged, cannot be read ({error}). Extract the features again with --rebuild."
    )
