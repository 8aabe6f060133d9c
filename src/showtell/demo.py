"""The demonstration: photographs that come with two Python packages, captioned, with where each word came from.

It does what `showtell caption FOLDER --format html --output FILE --explain FOLDER` does, on the captioner that comes
with Showtell, and says so: what one sees can be repeated on pictures of one's own.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from showtell.captioner import Captioner
from showtell.errors import UsageError
from showtell.explain import explain_caption
from showtell.files import write_atomically
from showtell.outputs import Record, StreamDestination, find_format
from showtell.outputs.sheet import draw_thumbnail
from showtell.photographs import INSTALL, find_photographs


@dataclass(frozen=True)
class Demonstration:
    """What came out."""

    sheet: Path  # the page with all pictures and captions
    explanations: tuple[Path, ...]  # one figure for each picture
    photographs: Path  # the folder with the pictures
    seconds: float  # of captioning all pictures, once the captioner was open


def run_demo(
    captioner: Captioner,
    output: Path,
    photographs: Mapping[str, Path] | None = None,
    *,
    said: Callable[[str, str], object] = lambda _name, _caption: None,
) -> Demonstration:
    """Captions photographs and draws where the words came from.

    Args:
        captioner: writes the captions.
        output: a folder for copies of the photographs, the page and the figures; those of an earlier call are replaced.
        photographs: by name; by default those that are installed.
        said: is told each picture's file name and caption.

    Raises:
        UsageError: there are no photographs.
        ImageError: a photograph cannot be read.
    """
    photographs = find_photographs() if photographs is None else photographs
    if not photographs:
        raise UsageError(f"The photographs of the demonstration come with two packages: {INSTALL}")
    folder, figures = output / "photographs", output / "explanations"
    for place in (folder, figures):
        place.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, source in photographs.items():
        paths.append(folder / f"{name}{source.suffix}")
        shutil.copyfile(source, paths[-1])
    started = time.perf_counter()
    pictures = list(captioner.caption(paths))
    seconds = time.perf_counter() - started
    page: list[str] = []
    drawn = []
    with StreamDestination(find_format("html", folder=output), page.append) as destination:
        for path, picture in zip(paths, pictures):
            said(path.name, picture.text)
            record = Record.of(str(path), picture, as_alt=False)
            destination.add(dataclasses.replace(record, thumbnail=draw_thumbnail(path)))
            if picture.captions:
                drawn.append(figures / f"{path.stem}.png")
                explanation = explain_caption(captioner, path, picture.captions[0])
                explanation.save(drawn[-1])
        destination.finish()
    sheet = output / "captions.html"
    write_atomically(sheet, "".join(page).encode("utf-8", "surrogateescape"))
    return Demonstration(sheet, tuple(drawn), folder, seconds)
