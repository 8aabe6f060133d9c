"""Weights files: reading them without running what they hold, and finding them again by digest."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from showtell.encoders.metadata import REFUSED
from showtell.errors import ConfigError, EncoderError
from showtell.files import cache_folder, digest_file, expand_home
from showtell.images import Preprocessing

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "net")


@dataclass(frozen=True)
class WeightsSource:
    """Where an encoder's weights come from: enough to build the same encoder again.

    A bundle that does not hold its backbone stores this record.
    """

    name: str  # timm's name of the backbone
    kind: str  # "imagenet" (timm's hub), "random", "file", or "fused": the sources are those of the members
    digest: (
        str  # SHA-256 of the file; of the tensors ("imagenet", "random"); of the members' digests ("fused")
    )
    file_name: str = ""  # of the file, without its folder
    address: str = ""  # where to get the weights: the hub's page, or the file's own statement of its source
    seed: int = 0  # of random weights
    arguments: tuple[tuple[str, Any], ...] = ()  # of timm.create_model, beside the name
    identities: tuple[tuple[str | int, ...], ...] = ()  # modules replaced by nn.Identity()
    members: tuple[MemberSource, ...] = ()  # the backbones of a fused encoder, in their order

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values; `from_dict` reads them back."""
        values = dataclasses.asdict(dataclasses.replace(self, members=()))
        del values["members"]  # records of a single backbone do without
        if self.members:
            values["members"] = [
                {"source": member.source.to_dict(), "preprocessing": member.preprocessing.to_dict()}
                for member in self.members
            ]
        values["arguments"] = dict(self.arguments)
        values["identities"] = [list(path) for path in self.identities]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WeightsSource:
        """Builds the record from `to_dict`'s result.

        Raises:
            EncoderError: a key is unknown or missing, has a value of another type, or is an argument that makes
                timm read files.
        """
        try:
            plain = dict(values)
            plain["arguments"] = tuple((str(k), _frozen(v)) for k, v in plain.pop("arguments", {}).items())
            plain["identities"] = tuple(tuple(path) for path in plain.pop("identities", ()))
            plain["members"] = tuple(
                MemberSource(cls.from_dict(m["source"]), Preprocessing.from_dict(m["preprocessing"]))
                for m in plain.pop("members", ())
            )
            source = cls(**plain)
        except (TypeError, AttributeError, ValueError, KeyError, ConfigError) as error:
            raise EncoderError(f"The record of the encoder's weights is damaged: {error}") from None
        if source.kind not in ("imagenet", "random", "file", "fused"):
            raise EncoderError(f"The record of the encoder's weights has an unknown kind: {source.kind!r}")
        source._check()
        return source

    def _check(self) -> None:
        """Raises EncoderError where a record from elsewhere is not one that Showtell writes."""
        wrong = [
            f"{key} = {value!r}"
            for key, value, kind in (
                ("name", self.name, str),
                ("digest", self.digest, str),
                ("file_name", self.file_name, str),
                ("address", self.address, str),
                ("seed", self.seed, int),
            )
            if not isinstance(value, kind)
        ]
        # A bundle may come from anybody, and `checkpoint_path` makes timm unpickle a file.
        wrong += [f"arguments.{key} = {value!r}" for key, value in self.arguments if key in REFUSED]
        wrong += [
            f"identities: {path!r}"
            for path in self.identities
            if not path or not all(isinstance(step, str | int) for step in path)
        ]
        if (self.kind == "fused") != bool(self.members) or any(
            member.source.members for member in self.members
        ):
            wrong.append(f"members: {len(self.members)} of the kind {self.kind!r}")
        if wrong:
            raise EncoderError(f"The record of the encoder's weights is damaged: {', '.join(wrong)}")


@dataclass(frozen=True)
class MemberSource:
    """One backbone of a fused encoder: its weights, and how its pixels are normalised."""

    source: WeightsSource
    preprocessing: Preprocessing


@dataclass(frozen=True)
class WeightsFile:
    """What stands in a weights file."""

    path: Path
    digest: str  # SHA-256 of its content
    tensors: dict[str, Tensor]  # floating point as float32
    metadata: dict[str, str]  # empty for .pth


def read_weights(path: Path) -> WeightsFile:
    """Reads a weights file; nothing in it is run.

    Args:
        path: `.safetensors`, or a PyTorch checkpoint, which is read weights-only. The tensors may be wrapped
            as {"state_dict": ...} or {"model": ...} and their names may begin with "module.".

    Raises:
        EncoderError: the file is missing, damaged, truncated, holds no tensors, or holds more than tensors.
    """
    if not path.is_file():
        what = "is a folder, not a weights file" if path.is_dir() else "there is no such weights file"
        raise EncoderError(
            f'{path}: {what}. encoder.weights is "imagenet", "random" or a file ({_suffixes()}): a path, or the name '
            "of a file in a folder that the environment variable SHOWTELL_WEIGHTS names."
        )
    if path.suffix not in SUFFIXES:
        raise EncoderError(f"{path}: a weights file must be one of {_suffixes()}.")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
            content: Any = safetensors.torch.load_file(path)
        else:
            metadata = {}
            with warnings.catch_warnings():  # torch warns of old pickle protocols, and refuses what it must
                warnings.simplefilter("ignore", UserWarning)
                content = torch.load(path, map_location="cpu", weights_only=True)
        digest = digest_file(path)
    except SafetensorError as error:
        raise EncoderError(f"{path}: damaged or truncated, not a sound .safetensors file: {error}") from None
    except pickle.UnpicklingError as error:
        # Without torch's own message, which advises to read the file in the way that runs what it holds.
        code = re.search(r"(?i)global:? (?:GLOBAL )?([\w.]+)", str(error))
        holds = f"more than tensors (it asks for {code[1]})" if code is not None else "more than tensors"
        raise EncoderError(
            f"{path}: refused: it is damaged, or a pickle that holds {holds}, and loading that could run "
            "code. Ask its publisher for a .safetensors file, or a checkpoint of the state_dict alone."
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EncoderError(
            f"{path}: damaged or truncated, cannot be read ({type(error).__name__}: {_first_line(error)})"
        ) from None
    return WeightsFile(path, digest, _tensors(content, path), metadata)


def load_tensors(
    backbone: nn.Module, tensors: Mapping[str, Tensor], *, where: str, ignored: Sequence[str] = ()
) -> None:
    """Copies tensors into a backbone, all of them or none.

    Args:
        backbone: without its classifier.
        tensors: by timm's names.
        where: the file, for messages.
        ignored: names of classifiers, whose tensors may stand in the file.

    Raises:
        EncoderError: a tensor is missing, has no place, or has another shape; the message names them.
    """
    own = backbone.state_dict()
    given = {name: value for name, value in tensors.items() if not _is_under(name, ignored) or name in own}
    # Old checkpoints were written before batch norms counted their batches; inference never reads the count.
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in own]
    shapes = [
        f"{name}: the file has {tuple(value.shape)}, the backbone {tuple(own[name].shape)}"
        for name, value in given.items()
        if name in own and value.shape != own[name].shape
    ]
    problems = [
        *([f"missing in the file: {_listed(missing)}"] if missing else []),
        *([f"unexpected in the file: {_listed(unexpected)}"] if unexpected else []),
        *([f"of another shape: {_listed(shapes)}"] if shapes else []),
    ]
    if problems:
        raise EncoderError(
            f"{where}: these weights do not fit the backbone: {'; '.join(problems)}. They are of another "
            "backbone, or under other names than timm's."
        )
    for name, value in given.items():
        if own[name].is_floating_point() and not value.is_floating_point():
            raise EncoderError(
                f"{where}: the tensor {name} holds whole numbers ({value.dtype}); quantised weights cannot "
                "be used."
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise EncoderError(f"{where}: the tensor {name} has values that are not finite.")
    backbone.load_state_dict(given, strict=False)


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 over names, types, shapes and values, whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_folders(extra: Sequence[Path] = ()) -> list[Path]:
    """Returns where weights are looked for: `extra`, the folders of $SHOWTELL_WEIGHTS, the download cache."""
    named = [
        expand_home(entry) for entry in os.environ.get("SHOWTELL_WEIGHTS", "").split(os.pathsep) if entry
    ]
    return [*extra, *named, cache_folder() / "weights"]


def locate_weights(name: str) -> Path:
    """Returns the file that a recipe names: as a path, or, where it has no folder, in one of `weights_folders`."""
    path = expand_home(name)
    if path.name == name and not path.exists():
        for folder in weights_folders():
            if (folder / name).is_file():
                return folder / name
    return path


def find_weights(digest: str, *, extra: Sequence[Path] = (), file_name: str = "", address: str = "") -> Path:
    """Returns a weights file by the SHA-256 of its content, whatever its name.

    Args:
        digest: SHA-256, hexadecimal.
        extra: folders to search before the others.
        file_name: the name it had; tried first, and named in the error.
        address: where it came from, named in the error.

    Raises:
        EncoderError: no folder has it; the message says where was searched and how to get the file.
    """
    folders = weights_folders(extra)
    candidates: list[Path] = []
    for folder in folders:
        with contextlib.suppress(OSError):  # a folder that must not be read holds nothing for us
            candidates += sorted(
                path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()
            )
    for path in sorted(candidates, key=lambda path: path.name != file_name):
        with contextlib.suppress(OSError):
            status = path.stat()
            if _digest_of(path, status.st_size, status.st_mtime_ns) == digest:
                return path
    searched = ", ".join(f"{folder}{'' if folder.is_dir() else ' (does not exist)'}" for folder in folders)
    raise EncoderError(
        f"The encoder's weights were not found: {file_name or 'a file'} with sha256 {digest}. "
        f"It comes from {address or 'where the model came from'}. Put it in one of the folders that are searched: "
        f"{searched}; or name its folder in the environment variable SHOWTELL_WEIGHTS."
    )


@functools.lru_cache(maxsize=4096)
def _digest_of(path: Path, size: int, modified: int) -> str:
    del size, modified  # part of the key: a file that changed is read again
    return digest_file(path)


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(value, Tensor):
                tensors[str(name).removeprefix("module.")] = (
                    value.float() if value.is_floating_point() else value
                )
    if not tensors:
        raise EncoderError(
            f"{path}: holds no tensors by name. A weights file is a state_dict, alone or under one of "
            f"{', '.join(_WRAPPERS)}."
        )
    return tensors


def _is_under(name: str, prefixes: Sequence[str]) -> bool:
    return any(name.startswith(f"{prefix}.") for prefix in prefixes)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _suffixes() -> str:
    return ", ".join(SUFFIXES)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0].partition(". ")[0].partition(" (")[0]
    return "not in a format that can be read safely" if "weights_only" in text else text[:200] or "no reason"
