"""References and hypotheses from the JSON files of the COCO captioning challenge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from showtell.errors import MetricError

_SHOWN = 60  # characters of a wrong value in an error


def read_references(path: Path | str) -> dict[str, list[str]]:
    """Reads a COCO annotation file.

    Its shape: `{"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "..."}]}`.

    Returns:
        Image id, as text -> its captions in the order of the file. An image of "images" that has no
        annotation gets an empty list, so that scoring names it; a file without "images" is fine.

    Raises:
        MetricError: the file cannot be read, is not JSON, has another shape, lists an image twice, or a caption is
            not text.
    """
    data = _read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("annotations"), list):
        hint = " It looks like a result file: are the two files swapped?" if isinstance(data, list) else ""
        raise MetricError(
            f'{path} is no COCO annotation file: it must be an object with a list "annotations".{hint}'
        )
    references: dict[str, list[str]] = {}
    images = data.get("images", [])
    if not isinstance(images, list):
        raise MetricError(f'{path}: "images" must be a list. Received: {_show(images)}')
    for index, image in enumerate(images):
        if not isinstance(image, dict) or "id" not in image:
            raise MetricError(
                f'{path}, images[{index}] must be an object with "id". Received: {_show(image)}'
            )
        identifier = _read_id(image["id"], f"{path}, images[{index}].id")
        if identifier in references:
            raise MetricError(
                f'{path} lists image {identifier!r} twice in "images", the second time at [{index}]. Ids must be '
                "unique; they are compared as text."
            )
        references[identifier] = []
    for index, annotation in enumerate(data["annotations"]):
        identifier, caption = _read_entry(annotation, f"{path}, annotations[{index}]")
        references.setdefault(identifier, []).append(caption)
    return references


def read_hypotheses(path: Path | str) -> dict[str, str]:
    """Reads a COCO result file: `[{"image_id": 1, "caption": "..."}]`.

    Returns:
        Image id, as text -> its caption.

    Raises:
        MetricError: the file cannot be read, is not JSON, has another shape, names an image twice, or a
            caption is not text.
    """
    data = _read_json(path)
    if not isinstance(data, list):
        swapped = isinstance(data, dict) and "annotations" in data
        hint = " It looks like an annotation file: are the two files swapped?" if swapped else ""
        raise MetricError(
            f'{path} is no COCO result file: it must be a list of {{"image_id": ..., "caption": ...}}.{hint}'
        )
    hypotheses: dict[str, str] = {}
    first_index: dict[str, int] = {}
    for index, entry in enumerate(data):
        identifier, caption = _read_entry(entry, f"{path}, [{index}]")
        if identifier in hypotheses:
            raise MetricError(
                f"{path} has two captions for image {identifier!r}, at [{first_index[identifier]}] "
                f"and [{index}]. Keep one caption per image."
            )
        hypotheses[identifier] = caption
        first_index[identifier] = index
    return hypotheses


def _read_json(path: Path | str) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise MetricError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise MetricError(f"{path} is not valid JSON: {error}.") from error


def _read_entry(entry: object, where: str) -> tuple[str, str]:
    if not isinstance(entry, dict) or "image_id" not in entry or "caption" not in entry:
        raise MetricError(
            f'{where} must be an object with "image_id" and "caption". Received: {_show(entry)}'
        )
    caption = entry["caption"]
    if not isinstance(caption, str):
        raise MetricError(f"{where}.caption must be text. Received: {_show(caption)}")
    return _read_id(entry["image_id"], f"{where}.image_id"), caption


def _read_id(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise MetricError(f"{where} must be a whole number or text. Received: {_show(value)}")
    return str(value)


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
