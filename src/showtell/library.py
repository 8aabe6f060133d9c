"""Which folder a model's name means: a path, a captioner that comes with Showtell, or one of a model hub.

``hub:OWNER/NAME`` is fetched once with huggingface_hub (extra `hub`) and kept in Showtell's cache; ``@REVISION`` behind
it chooses a version, ``#DIGEST`` demands that the manifest has this SHA-256 (its first 12 digits suffice). The manifest
names the digest of every other file, and these are checked whenever a model is opened. Only JSON, ONNX, safetensors and
Markdown are fetched: nothing that could run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from showtell.bundle import EXPORTED, check_digest
from showtell.errors import BundleError, did_you_mean, require_packages
from showtell.files import cache_folder, digest_file, expand_home

BUNDLED = Path(__file__).parent / "bundled"
DEFAULT = "compact"  # the captioner that is used where none is named
_HUB = "hub:"
_ADDRESS = re.compile(
    r"hub:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?:#(?P<digest>[0-9a-f]{12,64}))?",
    re.ASCII,
)
_MANIFESTS = (EXPORTED, "bundle.json")
_FETCHED = ["*.json", "*.onnx", "*.safetensors", "*.md"]


@dataclass(frozen=True)
class Listed:
    """A captioner that can be used by name."""

    name: str  # what to give as --model
    folder: Path
    bytes: int
    scores: dict[str, Any]  # by split, as its manifest has them


def bundled_names() -> list[str]:
    """Returns the names of the captioners that come with Showtell."""
    return sorted(folder.name for folder in BUNDLED.glob("*/") if (folder / EXPORTED).is_file())


def is_name(word: str) -> bool:
    """Returns whether a word means a model without being a path that exists."""
    return not expand_home(word).exists() and (word.startswith(_HUB) or word in bundled_names())


def default_model() -> Path:
    """Returns the folder of the captioner that is used where none is named, whatever lies in the current folder."""
    return BUNDLED / DEFAULT


def locate_model(word: str | Path) -> Path:
    """Returns the folder of a model; one of a hub is fetched if it is not in the cache.

    Args:
        word: a folder, the name of a captioner that comes with Showtell, or hub:OWNER/NAME[@REVISION][#DIGEST].

    Raises:
        BundleError: no such model, it cannot be fetched, or it is not the one whose digest was given.
        MissingExtraError: the hub's client is not installed.
    """
    path = expand_home(word)
    name = str(word)
    if path.exists():
        return path
    if name.startswith(_HUB):
        return _fetch(name)
    names = bundled_names()
    if name in names:
        return BUNDLED / name
    known = f"Models by name: {', '.join(names)}. " if names else ""
    raise BundleError(
        f"{name}: no such model.{did_you_mean(name, names)} {known}Give the folder of a bundle, of a run or of an "
        "exported captioner, a name, or hub:OWNER/NAME."
    )


def list_models() -> list[Listed]:
    """Returns what comes with Showtell and what was fetched from a hub, by name."""
    found = [_describe(name, BUNDLED / name) for name in bundled_names()]
    return found + [_describe(f"{_HUB}{name}", folder) for name, folder in _list_fetched()]


def _describe(name: str, folder: Path) -> Listed:
    manifest = _read_manifest(folder) or {}
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    scores = manifest.get("scores")
    return Listed(name, folder, size, scores if isinstance(scores, dict) else {})


def _list_fetched() -> Iterator[tuple[str, Path]]:
    for folder in sorted(_hub_cache().glob("models--*--*/snapshots/*")):
        if _read_manifest(folder) is not None:
            repository = folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
            yield f"{repository}@{folder.name}", folder


def _hub_cache() -> Path:
    return cache_folder() / "hub"


def _fetch(name: str) -> Path:
    match = _ADDRESS.fullmatch(name)
    if match is None:
        raise BundleError(
            f"{name}: must be like hub:OWNER/NAME, hub:OWNER/NAME@REVISION or hub:OWNER/NAME#DIGEST with at least 12 "
            "digits of a SHA-256, in lower case."
        )
    require_packages("hub", "Fetching a model from a hub", "huggingface_hub")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the client is imported
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    repository, revision = match["repository"], match["revision"]
    options: dict[str, Any] = {"revision": revision, "cache_dir": _hub_cache(), "allow_patterns": _FETCHED}
    folder = None
    with contextlib.suppress(OSError, ValueError):  # not there, or not all of it
        # What is there is used without asking: the same captions tomorrow, and without a network.
        folder = Path(snapshot_download(repository, local_files_only=True, **options))
    digest = match["digest"] or ""
    if folder is None or not _is_whole(folder) or not _digest_manifest(folder).startswith(digest):
        try:
            folder = Path(snapshot_download(repository, **options))
        except RevisionNotFoundError:
            raise BundleError(f"{name}: the hub has no version {revision!r} of {repository}.") from None
        except RepositoryNotFoundError:
            raise BundleError(
                f"{name}: the hub has no such model, or it is private (then log in: hf auth login)."
            ) from None
        except HFValidationError as error:
            raise BundleError(f"{name}: not a name that a hub can have: {_first_line(error)}") from None
        except Exception as error:  # of the client, and of the HTTP library that it happens to use
            raise BundleError(
                f"{name}: cannot be fetched, and is not in the cache ({_hub_cache()}): {_first_line(error)}. Check the "
                "network, or copy the model's folder here by other means and give its path."
            ) from None
    if _read_manifest(folder) is None:
        raise BundleError(f"{name}: is no captioner of Showtell: it has neither {' nor '.join(_MANIFESTS)}.")
    if not (found := _digest_manifest(folder)).startswith(digest):
        raise BundleError(
            f"{name}: its manifest has the SHA-256 {found}, not one that begins with {digest}. The model was changed; "
            "use it only if you know why."
        )
    return folder


def _digest_manifest(folder: Path) -> str:
    return next((digest_file(folder / file) for file in _MANIFESTS if (folder / file).is_file()), "")


def _is_whole(folder: Path) -> bool:
    """Returns whether every file that the manifest names is there, as it says."""
    manifest = _read_manifest(folder)
    try:
        for file, digest in (manifest or {})["files"].items():
            check_digest(folder / file, digest)
    except (KeyError, AttributeError, BundleError):
        return False
    return True


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    for name in _MANIFESTS:
        try:
            manifest = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(manifest, dict):
            return manifest
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
