"""What comes out of captioning many images: records in several formats, a journal, sidecars, a contact sheet."""

from __future__ import annotations

from showtell.outputs.destination import Destination, FileDestination, StreamDestination
from showtell.outputs.failures import Failures
from showtell.outputs.formats import FORMATS, Format, find_format
from showtell.outputs.journal import Journal
from showtell.outputs.names import one_line, readable
from showtell.outputs.record import Record, WrittenCaption
from showtell.outputs.sidecars import SIDECARS, Sidecars

__all__ = [
    "FORMATS",
    "SIDECARS",
    "Destination",
    "Failures",
    "FileDestination",
    "Format",
    "Journal",
    "Record",
    "Sidecars",
    "StreamDestination",
    "WrittenCaption",
    "find_format",
    "one_line",
    "readable",
]
