"""How a weights file says it wants to be built and fed: a small language, read without running anything.

A `.safetensors` file may carry metadata such as::

    timm   create_model('mobilenet_edgetpu_100', pad_type='same'); then blocks[0][0].bn1.act = nn.Identity()
    mean   128/255 on every channel
    std    0.5
    input  RGB 224x224

The file comes from elsewhere, so its text is parsed (`ast`) and matched against exactly this grammar; it is
never evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from showtell.errors import EncoderError

Step = str | int  # an attribute's name, or an index
Path = tuple[Step, ...]  # from the backbone to one of its modules: ("blocks", 0, 0, "bn1", "act")

# These make timm read files, reach for the network, or give something else than the backbone.
REFUSED = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable",
    "exportable", "no_jit", "features_only", "num_classes", "in_chans",
)  # fmt: skip
_ALLOWED_ANYWAY = {"num_classes": 0, "in_chans": 3, "pretrained": False}
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_FRACTION = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER}))?\s*")


@dataclass(frozen=True)
class BuildNotes:
    """How to build a backbone, as its weights file says."""

    name: str  # timm's
    arguments: tuple[tuple[str, Any], ...] = ()  # of timm.create_model, literals
    identities: tuple[Path, ...] = ()  # modules to replace by nn.Identity()


@dataclass(frozen=True)
class FeedNotes:
    """How to feed a backbone, as its weights file says; None where it does not say."""

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: tuple[int, int] | None = None  # height, width in pixels


def parse_build(text: str, where: str) -> BuildNotes:
    """Reads `create_model('<name>', key=literal, ...)` and any number of `; then <module> = nn.Identity()`.

    Args:
        text: the metadata's entry "timm".
        where: the file, for messages.

    Raises:
        EncoderError: the text says anything else.
    """
    first, *rest = text.split("; then ")
    name, arguments = _parse_call(first, text, where)
    return BuildNotes(name, arguments, tuple(_parse_identity(part, text, where) for part in rest))


def parse_feed(metadata: Mapping[str, str], where: str) -> FeedNotes:
    """Reads the metadata's entries "mean", "std" and "input", each of which may be absent.

    Raises:
        EncoderError: an entry is there and cannot be read.
    """
    size: tuple[int, int] | None = None
    if "input" in metadata:
        match = re.fullmatch(r"RGB\s+([1-9]\d{0,4})\s*x\s*([1-9]\d{0,4})", metadata["input"].strip())
        if match is None:
            raise EncoderError(
                f'{where}: the metadata\'s "input" must read like "RGB 224x224". '
                f"Received: {metadata['input']!r}"
            )
        size = (int(match[1]), int(match[2]))
    return FeedNotes(
        mean=_parse_channels(metadata, "mean", where), std=_parse_channels(metadata, "std", where), size=size
    )


def replace_by_identity(backbone: nn.Module, path: Path, where: str) -> None:
    """Replaces one module of a backbone by `nn.Identity()`.

    Raises:
        EncoderError: the backbone has no such module.
    """
    parent: nn.Module = backbone
    for step in path[:-1]:
        parent = _child(parent, step, path, where)
    _child(parent, path[-1], path, where)
    parent._modules[str(path[-1])] = nn.Identity()


def _child(parent: nn.Module, step: Step, path: Path, where: str) -> nn.Module:
    child = parent._modules.get(str(step))
    if child is None:
        written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        raise EncoderError(
            f"{where}: the metadata replaces the module {written}, which the backbone does not have "
            f"(nothing is called {step!r} there). The file belongs to another backbone or version of timm."
        )
    return child


def _parse_call(part: str, text: str, where: str) -> tuple[str, tuple[tuple[str, Any], ...]]:
    try:
        call = ast.parse(part.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise _refusal(text, where, f"{part!r} is not a call") from None
    if not (
        isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "create_model"
    ):
        raise _refusal(text, where, f"{part!r} is not a call of create_model")
    if (
        len(call.args) != 1
        or not isinstance(call.args[0], ast.Constant)
        or not isinstance(call.args[0].value, str)
    ):
        raise _refusal(text, where, "create_model must be given one name in quotes")
    arguments: list[tuple[str, Any]] = []
    for keyword in call.keywords:
        if keyword.arg is None:
            raise _refusal(text, where, "** is not allowed")
        try:
            value = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise _refusal(text, where, f"the value of {keyword.arg} is not a literal") from None
        if not _is_plain(value):
            raise _refusal(
                text, where, f"the value of {keyword.arg} is not a number, text, truth value or tuple"
            )
        if keyword.arg in _ALLOWED_ANYWAY and value == _ALLOWED_ANYWAY[keyword.arg]:
            continue
        if keyword.arg in REFUSED:
            raise _refusal(text, where, f"{keyword.arg}={value!r} is not allowed")
        arguments.append((keyword.arg, value))
    return call.args[0].value, tuple(arguments)


def _parse_identity(part: str, text: str, where: str) -> Path:
    try:
        body = ast.parse(part.strip()).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise _refusal(text, where, f"{part!r} is not an assignment") from None
    if len(body) != 1 or not isinstance(body[0], ast.Assign) or len(body[0].targets) != 1:
        raise _refusal(text, where, f"{part!r} is not an assignment")
    if ast.unparse(body[0].value) != "nn.Identity()":
        raise _refusal(text, where, f"{part!r} assigns something else than nn.Identity()")
    steps: list[Step] = []
    node: ast.expr = body[0].targets[0]
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            steps.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            if type(node.slice.value) is not int:
                raise _refusal(text, where, f"{part!r} has an index that is no whole number")
            steps.append(node.slice.value)
            node = node.value
        else:
            raise _refusal(text, where, f"{part!r} assigns to something else than a module")
    steps.append(node.id)
    return tuple(reversed(steps))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float)


def _refusal(text: str, where: str, why: str) -> EncoderError:
    return EncoderError(
        f'{where}: the metadata\'s "timm" says {text!r}, and {why}. It must read like '
        "create_model('resnet50', pad_type='same'); then layer1[0].act1 = nn.Identity(). "
        "It is read, never run."
    )


def _parse_channels(metadata: Mapping[str, str], key: str, where: str) -> tuple[float, float, float] | None:
    if key not in metadata:
        return None
    parts = metadata[key].removesuffix("on every channel").split(",")
    numbers = [_parse_fraction(part) for part in parts]
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) == 3:
        red, green, blue = numbers
        if red is not None and green is not None and blue is not None:
            return red, green, blue
    raise EncoderError(
        f'{where}: the metadata\'s "{key}" must be a number or a fraction, or three of them: "0.5", '
        f'"128/255 on every channel", "0.485, 0.456, 0.406". Received: {metadata[key]!r}'
    )


def _parse_fraction(text: str) -> float | None:
    match = _FRACTION.fullmatch(text)
    if match is None or (match[2] is not None and float(match[2]) == 0.0):
        return None
    return float(match[1]) / (float(match[2]) if match[2] is not None else 1.0)
