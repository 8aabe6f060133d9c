"""The rows of one shard as a file: Parquet, or JSON lines as `showtell caption --format jsonl` writes them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from showtell.errors import DataError
from showtell.outputs import Record

FORMATS = ("parquet", "jsonl")
_CAPTION = pa.struct(
    [
        pa.field("caption", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("confidence", pa.float64()),
        pa.field("alt", pa.string()),
        pa.field("needs_review", pa.bool_()),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),  # the key
        pa.field("caption", pa.string()),  # the best one; null where there is none
        pa.field("captions", pa.list_(_CAPTION)),  # all, best first; null where there is an error
        pa.field("error", pa.string()),  # why there are no captions
        pa.field("image_bytes", pa.string()),  # the key in base64, where it is not UTF-8
    ]
)


def write_rows(records: Sequence[Record], form: str) -> bytes:
    """Returns the file that holds these records in this order; equal records give equal bytes."""
    values = [record.to_dict() for record in records]
    if form == "jsonl":
        return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in values)
    for one in values:
        captions = one.get("captions")
        one["caption"] = captions[0]["caption"] if captions else None
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(values, schema=SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def read_rows(data: bytes, form: str) -> Iterator[Record]:
    """Yields the records of a file that `write_rows` made.

    Raises:
        DataError: it is damaged.
    """
    try:
        if form == "jsonl":
            rows = [json.loads(line) for line in data.splitlines()]
        else:
            # In this thread alone: one of pyarrow's that still lets go of Python's bytes while the interpreter ends
            # would abort the process ("terminate called without an active exception").
            with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
                rows = file.read(use_threads=False).cast(SCHEMA).to_pylist()
        for row in rows:
            known = {key: value for key, value in row.items() if value is not None}
            yield Record.from_dict(known)
    except (pa.ArrowInvalid, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"A file of rows is damaged: {error}") from None
