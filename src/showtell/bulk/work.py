"""What one worker does: it has one captioner, and turns shards into files of rows."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from showtell.bulk.engine import name_place, prepare_worker
from showtell.bulk.places import Store, open_store
from showtell.bulk.plan import Shard
from showtell.bulk.reading import read_items
from showtell.bulk.results import Finished, commit_shard
from showtell.bulk.stream import caption_items
from showtell.bulk.tables import Columns
from showtell.captioner import CaptionedPicture, Captioner
from showtell.decoding import DecodingSettings
from showtell.errors import BundleError
from showtell.intake import Item
from showtell.outputs import Record

_OFTEN = 0.5  # seconds between two words of a worker on how far it is


@dataclass(frozen=True)
class Job:
    """What all workers of a job are told. It travels to other machines, so paths are whole."""

    models: tuple[str, ...] | None  # of `Captioner.load`; None is the one that comes with Showtell
    digest: str  # of the model; a machine that has another one by this name must not take part
    engine: str
    precision: str
    threads: int  # of the processor, for each worker
    settings: DecodingSettings
    min_confidence: float
    alt_text: bool
    columns: Columns
    form: str  # of `showtell.bulk.rows.FORMATS`
    output: str

    def load(self) -> Captioner:
        """Opens the captioner.

        Raises:
            BundleError: it is another one than the job began with.
        """
        models: Sequence[str] | None = self.models
        if models is not None and len(models) == 1:
            models = [models[0]]
        captioner = Captioner.load(models, engine=self.engine, precision=self.precision, threads=self.threads)
        if self.digest and captioner.digest != self.digest:
            raise BundleError(
                f"The machine {platform.node()} has another model by this name ({' + '.join(self.models or ())}): "
                f"its digest is {captioner.digest[:12]}, and {self.digest[:12]} is asked for. Give all machines the "
                "same model."
            )
        return captioner


class CaptionWorker:
    """One captioner in a process of its own.

    Args:
        job: what to do.
        keep_to: as for `prepare_worker`.
    """

    def __init__(self, job: Job, keep_to: int) -> None:
        prepare_worker(keep_to)
        self._job = job
        self._store = open_store(job.output)
        self._captioner = job.load()

    def ready(self) -> str:
        """Returns where it works, once the captioner is open."""
        return name_place()

    def run(self, shard: Shard) -> Iterator[int | Finished]:
        """Captions a shard, and writes its rows; as `caption_shard`."""
        yield from caption_shard(self._captioner, shard, self._job, self._store)


def caption_shard(captioner: Captioner, shard: Shard, job: Job, store: Store) -> Iterator[int | Finished]:
    """Captions a shard, and writes its rows.

    Yields:
        now and then how many images are captioned; at last what was written.

    Raises:
        DataError: the file that holds its images cannot be read; other shards can.
        OSError: the rows cannot be written.
    """
    records: list[Record] = []
    captioned = caption_items(
        captioner,
        read_items(shard, job.columns),
        job.settings,
        min_confidence=job.min_confidence,
        start=shard.start,
    )
    said = time.monotonic()
    with contextlib.closing(captioned) as results:
        for item, picture in results:
            records.append(Record.of(item.name, picture, error=_reason(item, picture), as_alt=job.alt_text))
            if time.monotonic() - said >= _OFTEN:
                said = time.monotonic()
                yield len(records)
    yield commit_shard(store, shard.number, records, job.form, earlier=shard.earlier)


def _reason(item: Item, picture: CaptionedPicture) -> str:
    """Returns why an image failed, without the whole path in front of it: its row has its name."""
    if item.error or picture.error is None or item.path is None:
        return item.error
    return str(picture.error).removeprefix(item.path).removeprefix(":").strip()
