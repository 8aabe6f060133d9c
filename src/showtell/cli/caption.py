"""`showtell caption`: pictures in, sentences out."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from showtell.cli.arguments import (
    Commands,
    add_command,
    existing,
    integer,
    one_of,
    writable_file,
    writable_folder,
)
from showtell.cli.decoding_options import add_decoding_options, read_decoding_settings
from showtell.cli.engine_options import add_engine_options, load_captioner
from showtell.cli.output import log, write_text
from showtell.cli.progress import show_progress
from showtell.errors import UsageError

if TYPE_CHECKING:
    from showtell.captioner import CaptionedPicture
    from showtell.images import Preprocessing

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
Record = dict[str, Any]  # {"image": path, "captions": [{"caption": text, "score": number}, ...]}, best first


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "caption",
        run,
        summary="caption images",
        description="Captions images, and all images in folders and their subfolders.\n"
        "A file that cannot be read is named on standard error, the others are done, and the exit code is 1.",
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="an image, or a folder of images")
    parser.add_argument(
        "--model",
        metavar="M",
        type=existing,
        action="append",
        required=True,
        help="an exported model, a bundle, or a run folder (its best checkpoint); given again, an ensemble",
    )
    parser.add_argument(
        "--count", metavar="N", type=integer(minimum=1), help="captions per image, the best first"
    )
    parser.add_argument(
        "--format",
        metavar="text|json|jsonl|csv",
        type=one_of("text", "json", "jsonl", "csv"),
        default="text",
        help="text (the default): path, tab, caption",
    )
    parser.add_argument(
        "--output", metavar="FILE", type=writable_file, help="write there instead of standard output"
    )
    parser.add_argument(
        "--explain",
        metavar="FOLDER",
        type=writable_folder,
        help="also draw where the model looked, word by word",
    )
    add_decoding_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Captions every image that can be read; returns 1 if one could not."""
    paths, failures = find_images(arguments.paths)

    captioner = load_captioner(arguments)
    settings = read_decoding_settings(arguments, captioner.settings, count=arguments.count)
    records: list[Record] = []
    # JSON is one value and has to wait for the last image; the other forms come out line by line.
    streams = arguments.output is None and arguments.format != "json"
    if streams:
        print(head(arguments.format), end="", flush=True)
    with show_progress("captions", "images", hidden=streams and sys.stdout.isatty()) as progress:
        results = captioner.caption(paths, settings)
        for number, (path, result) in enumerate(zip(paths, results, strict=True), start=1):
            if result.error is None:
                captions = [{"caption": one.text, "score": one.score} for one in result.captions]
                record = {"image": str(path), "captions": captions}
                if streams:
                    print(render(record, arguments.format), end="", flush=True)
                else:
                    records.append(record)
                if arguments.explain is not None:
                    explain(path, result, captioner.backend.preprocessing, arguments.explain)
            else:
                failures += 1
                reason = str(result.error).removeprefix(str(path)).removeprefix(":").strip()
                log(f"error: {path}: {reason}")
            progress(number, len(paths))
    if not streams:
        text = render_all(records, arguments.format)
        if arguments.output is None:
            print(text, end="")
        else:
            write_text(arguments.output, text)
    return 1 if failures else 0


def explain(path: Path, result: CaptionedPicture, preprocessing: Preprocessing, folder: Path) -> None:
    """Draws where the model looked for each word of the best caption, as FOLDER/NAME.png or NAME-2.png.

    Raises:
        UsageError: the model has no attention.
    """
    from showtell.explain import draw_attention
    from showtell.images import open_image

    drawn = draw_attention(open_image(path), result.captions[0], result.grid, preprocessing)
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / f"{path.stem}.png", 1
    while target.exists():
        number += 1
        target = folder / f"{path.stem}-{number}.png"
    drawn.save(target)
    log(f"{path}: where the model looked is in {target}")


def find_images(words: Sequence[str]) -> tuple[list[Path], int]:
    """Returns the image files that the arguments name, folders opened and sorted, each file once.

    What cannot be found is named on standard error; the second value counts it.

    Raises:
        UsageError: an address on the web, which has to be downloaded first.
    """
    found: dict[Path, None] = {}
    failures = 0
    for word in words:
        if word.startswith(("http://", "https://")):
            raise UsageError(f"{word!r} is an address on the web. Download the picture and give the file.")
        path = Path(word).expanduser()
        if path.is_dir():
            inside = sorted(
                file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()
            )
            if not inside:
                failures += 1
                log(f"error: {path}: the folder has no images ({', '.join(SUFFIXES)})")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            failures += 1
            log(f"error: {path}: no such file or folder")
    return list(found), failures


def head(form: str) -> str:
    """Returns what stands before the first caption: the header of CSV, nothing otherwise."""
    return "image,rank,caption,score\n" if form == "csv" else ""


def render(record: Record, form: str) -> str:
    """Returns the captions of one image as text (path, tab, caption), a JSON line, or CSV."""
    if form == "jsonl":
        return json.dumps(record, ensure_ascii=False) + "\n"
    if form == "text":
        return "".join(f"{record['image']}\t{one['caption']}\n" for one in record["captions"])
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for rank, one in enumerate(record["captions"], start=1):
        writer.writerow((record["image"], rank, one["caption"], one["score"]))
    return buffer.getvalue()


def render_all(records: Sequence[Record], form: str) -> str:
    """Returns the captions of all images in one of the formats."""
    if form == "json":
        return json.dumps(records, ensure_ascii=False, indent=2) + "\n"
    return head(form) + "".join(render(record, form) for record in records)
