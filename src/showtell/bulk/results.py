"""The folder of results: what made them, the plan, a file of rows for each shard, and the manifest.

::

    OUTPUT/
        run.json            model, options and input; written when the plan is, and compared by every later run
        plan.jsonl.gz       which images each shard has
        captions/           000000.parquet, ...: the rows, one file for each shard
        done/               000000.json, ...: one for each shard that is finished, until the manifest lists it
        manifest.json       the shards that are finished; written at the end of each run

A shard's rows are written first, whole, and its entry in done/ after them; what neither the manifest nor done/ lists
does not exist, whatever lies in captions/. So a kill at any time costs the shards in work, and a shard that is done
twice, as by a worker that was given up too early, replaces its file with an equal one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from showtell.bulk.places import Store, open_store
from showtell.bulk.plan import Plan, Shard, read_plan, write_plan
from showtell.bulk.rows import read_rows, write_rows
from showtell.errors import DataError, JournalError
from showtell.outputs import Record
from showtell.outputs.failures import SHOWN
from showtell.outputs.journal import describe_differences

VERSION = 1
RUN, PLAN, MANIFEST, ROWS, DONE = "run.json", "plan.jsonl.gz", "manifest.json", "captions", "done"
_OURS = {RUN, PLAN, MANIFEST, ROWS, DONE, ".lock"}
_VERSION = "showtell_bulk"
_FOUND = ("called", "shards", "images")  # in run.json, and nothing that a later run is compared with


@dataclass(frozen=True)
class Entry:
    """One finished shard, as the manifest lists it."""

    shard: int
    file: str  # of its rows, below the folder of results
    rows: int
    failed: int  # rows with an error
    bytes: int  # of the file
    sha256: str  # of the file


@dataclass(frozen=True)
class Finished:
    """What a worker says of a shard that it has finished."""

    entry: Entry
    failures: tuple[dict[str, Any], ...]  # the first records with an error


def commit_shard(
    store: Store, number: int, records: list[Record], form: str, *, earlier: str = ""
) -> Finished:
    """Writes the rows of a shard, then the entry that makes them count.

    Args:
        store: the folder of results.
        number: of the shard.
        records: its rows.
        form: of the file.
        earlier: the SHA-256 of the file that the shard has; an image that had captions there, and cannot be read any
            more, keeps them.

    Raises:
        OSError: they cannot be written.
    """
    file = f"{ROWS}/{number:06d}.{form}"
    if earlier and any(record.failure for record in records):
        kept = _read_captioned(store, file, form, earlier)
        records = [kept.get(record.image, record) if record.failure else record for record in records]
    data = write_rows(records, form)
    failed = [record for record in records if record.failure]
    digest = hashlib.sha256(data).hexdigest()
    entry = Entry(number, file, len(records), len(failed), len(data), digest)
    store.write(file, data)
    store.write(f"{DONE}/{number:06d}.json", json.dumps(asdict(entry)).encode())
    return Finished(entry, tuple(record.to_dict() for record in failed[:SHOWN]))


def _read_captioned(store: Store, file: str, form: str, sha256: str) -> dict[str, Record]:
    """Returns the rows without an error that a file has, by image; none where it is gone, or another one."""
    with contextlib.suppress(FileNotFoundError):
        data = store.read(file)
        if hashlib.sha256(data).hexdigest() == sha256:
            return {record.image: record for record in read_rows(data, form) if not record.failure}
    return {}


class Results:
    """The folder of results of one job, as the process sees it that leads the job.

    Args:
        store: the folder, held by nobody else.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.plan = Plan(0, None)
        self.entries: dict[int, Entry] = {}  # of finished shards

    def check(self, made_by: Mapping[str, Any]) -> bool:
        """Compares what made the results with what is asked for; returns whether there is something to go on with.

        Raises:
            JournalError: they were made by something else, or the folder holds other things.
        """
        wanted = json.loads(json.dumps({_VERSION: VERSION, **made_by}))
        self.store.clean((RUN, PLAN, MANIFEST))
        try:
            run = self._read_json(RUN)
        except FileNotFoundError:
            if others := sorted(name for name in self.store.sizes() if name not in _OURS):
                raise JournalError(
                    f"{self.store} holds other things ({', '.join(others[:3])}) and no {RUN}. Choose a new or empty "
                    "folder as --output."
                ) from None
            return False
        before = {key: value for key, value in run.items() if key not in _FOUND}
        if differences := describe_differences(before, wanted):
            called = ""
            if before.get("model") != wanted.get("model") and run.get("called"):
                called = f" The model of then was called {' + '.join(run['called'])}."
            raise JournalError(
                f"{self.store} was made with {differences}.{called} Use the same input, model and options as before, "
                "or choose another --output."
            )
        self.plan = Plan(run["shards"], run["images"])
        self.store.clean((), (ROWS, DONE))  # only now these are known to be ours
        return True

    def begin(
        self,
        made_by: Mapping[str, Any],
        shards: Iterable[Shard],
        keys: Callable[[], Iterable[str]],
        called: Sequence[str] = (),
    ) -> None:
        """Makes the plan. What makes it valid is written last.

        Args:
            made_by: what rows depend on.
            shards: what there is to do.
            keys: of rows that the shards do not name.
            called: what the models are called, for people: a later run may call them otherwise.

        Raises:
            InputError, DataError, UsageError: the input cannot be used.
        """
        with tempfile.NamedTemporaryFile(prefix="showtell-plan-") as file:
            self.plan = write_plan(shards, file, keys)
            file.flush()
            self.store.write_from(PLAN, Path(file.name))
        found = {"called": list(called), "shards": self.plan.shards, "images": self.plan.images}
        run = {_VERSION: VERSION, **made_by, **found}
        self.store.write(RUN, json.dumps(run, indent=1).encode())

    def survey(self) -> list[int]:
        """Finds the finished shards; returns those that are listed as finished, and whose rows are gone or torn."""
        done: dict[int, Entry] = {}
        # Before the manifest: a run that ends meanwhile writes that first, and removes these afterwards.
        for name in self.store.sizes(DONE):
            if name.startswith("."):  # half written
                continue
            with contextlib.suppress(FileNotFoundError):
                entry = Entry(**self._read_json(f"{DONE}/{name}"))
                done[entry.shard] = entry
        listed: dict[int, Entry] = {}
        with contextlib.suppress(FileNotFoundError):
            listed = {one["shard"]: Entry(**one) for one in self._read_json(MANIFEST)["finished"]}
        listed |= done
        there = self.store.sizes(ROWS)
        self.entries = {
            number: entry
            for number, entry in sorted(listed.items())
            if there.get(entry.file.rpartition("/")[2]) == entry.bytes
        }
        return [number for number in sorted(listed) if number not in self.entries]

    def missing(self, *, retry_failed: bool = False) -> Iterator[Shard]:
        """Yields the shards that are not finished.

        Args:
            retry_failed: also those with rows that have an error.
        """
        with tempfile.TemporaryFile() as file:
            with self.store.open(PLAN) as plan:
                shutil.copyfileobj(plan, file)
            file.seek(0)
            for shard in read_plan(file):
                entry = self.entries.get(shard.number)
                if entry is None:
                    yield shard
                elif retry_failed and entry.failed:
                    yield replace(shard, earlier=entry.sha256)

    def add(self, entry: Entry) -> None:
        """Takes note of a shard that a worker has finished.

        Raises:
            JournalError: its rows are not here: the worker has another folder of this name.
        """
        name = entry.file.rpartition("/")[2]
        if self.store.size(entry.file) != entry.bytes:
            raise JournalError(
                f"{self.store}: a worker wrote {name} there, and it is not here: its machine has another folder of "
                "this name. Choose an --output that all machines share: a network folder, or a store (s3://...)."
            )
        self.entries[entry.shard] = entry

    def finish(self) -> bool:
        """Writes the manifest with all that is finished, and returns whether nothing is missing."""
        complete = len(self.entries) == self.plan.shards
        entries = [self.entries[number] for number in sorted(self.entries)]
        manifest = {
            _VERSION: VERSION,
            "complete": complete,
            "shards": self.plan.shards,
            "rows": sum(entry.rows for entry in entries),
            "failed": sum(entry.failed for entry in entries),
            "finished": [asdict(entry) for entry in entries],
        }
        self.store.write(MANIFEST, json.dumps(manifest, indent=1).encode())
        self.store.remove([f"{DONE}/{name}" for name in self.store.sizes(DONE)])
        return complete

    def _read_json(self, name: str) -> Any:
        try:
            return json.loads(self.store.read(name))
        except ValueError as error:
            raise JournalError(
                f"{self.store}/{name} is damaged ({error}). Choose another --output."
            ) from None


def read_results(output: str | Path) -> Iterator[Record]:
    """Yields the rows of a folder of results that its manifest lists, in their order.

    Args:
        output: the folder, local or an address that fsspec knows.

    Raises:
        DataError: it holds no results, or their files are damaged.
    """
    store = open_store(str(output))
    results = Results(store)
    if results.survey():
        raise DataError(f"{store}: files of rows are missing or torn. Run the same `showtell bulk` again.")
    if not results.entries:
        raise DataError(f"{store} holds no finished results of `showtell bulk`.")
    for entry in results.entries.values():
        yield from read_rows(store.read(entry.file), entry.file.rpartition(".")[2])
