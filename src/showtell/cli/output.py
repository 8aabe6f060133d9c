"""What commands print: JSON that other programs read, tables for people, files that are whole or absent."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from showtell.launch import read_launch


def print_json(values: Mapping[str, Any]) -> None:
    """Prints one JSON object on one line of standard output, captions in their own script."""
    if not read_launch().is_first:
        return  # the first of several processes speaks for all
    print(json.dumps(values, ensure_ascii=False))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file; where the disk is full, what was there before stays whole."""
    write_text(path, json.dumps(values, ensure_ascii=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file; where the disk is full, what was there before stays whole."""
    from showtell.files import write_atomically

    write_atomically(path, text.encode("utf-8", "backslashreplace"))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns of equal width to standard output."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def log(message: str) -> None:
    """Prints one line for people to standard error."""
    if read_launch().is_first:
        if "tqdm" in sys.modules:  # a bar that is on the terminal makes room for the line
            from tqdm import tqdm

            tqdm.write(f"showtell: {message}", file=sys.stderr)
        else:
            print(f"showtell: {message}", file=sys.stderr)
