"""Small inputs of `showtell bulk`, and a run of it in this process."""

from __future__ import annotations

import contextlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from showtell.bulk.inputs import Inputs
from showtell.bulk.places import open_store
from showtell.bulk.plan import cut_shards
from showtell.bulk.results import Finished, Results, read_results
from showtell.bulk.work import Job, caption_shard
from showtell.captioner import Captioner
from showtell.errors import DataError
from showtell.outputs import Record


def draw_pictures(photographs: list[Path], count: int = 20) -> dict[str, bytes]:
    """Small JPEG files by name, no two alike."""
    found = {}
    for number in range(count):
        with Image.open(photographs[number % len(photographs)]) as image:
            buffer = io.BytesIO()
            image.rotate(number).resize((64, 48)).save(buffer, "JPEG")
        found[f"{number:03d}.jpg"] = buffer.getvalue()
    return found


def write_folder(folder: Path, pictures: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
    return folder


def write_table(path: Path, pictures: dict[str, bytes], *, rows: int = 8) -> Path:
    table = pa.table({"id": list(pictures), "image": list(pictures.values())})
    pq.write_table(table, path, row_group_size=rows)
    return path


def write_tar(path: Path, pictures: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in pictures.items():
            for member, data in ((name, content), (f"{name[:3]}.json", b"{}")):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def run(
    captioner: Captioner,
    inputs: Inputs,
    output: str | Path,
    *,
    size: int = 16,
    form: str = "parquet",
    stop_after: int | None = None,
) -> tuple[Results, dict[int, str]]:
    """Does in this process what the command does on Ray; returns the results and the shards that failed."""
    job = Job(None, "", "auto", "auto", 1, captioner.settings, 0.0, False, inputs.columns, form, str(output))
    store = open_store(str(output))
    given_up = {}
    with store.hold():
        results = Results(store)
        made_by = {"input": inputs.named(), "format": form}
        if not results.check(made_by):
            results.begin(made_by, cut_shards(inputs.pieces(), size), inputs.keys)
        results.survey()
        for done, shard in enumerate(results.missing()):
            if done == stop_after:
                return results, given_up  # as if killed: no manifest
            try:
                *_, finished = caption_shard(captioner, shard, job, store)
                assert isinstance(finished, Finished)
                results.add(finished.entry)
            except DataError as error:
                given_up[shard.number] = str(error)
        results.finish()
    return results, given_up


def workers_of(pid: int, kind: str) -> list[psutil.Process]:
    """The processes below one in which Ray has a worker of this class."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(kind in word for word in child.cmdline()):
                found.append(child)
    return found


def rows(output: str | Path) -> dict[str, Record]:
    found = list(read_results(output))
    named = {Path(record.image).name: replace(record, image=Path(record.image).name) for record in found}
    assert len(named) == len(found)
    return named
