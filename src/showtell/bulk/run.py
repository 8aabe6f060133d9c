"""A bulk job from its input to its manifest: what is finished is passed over, what is missing is done, on Ray."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from showtell.bulk.engine import Failed, Resources, open_pool
from showtell.bulk.inputs import Inputs, describe_others
from showtell.bulk.places import open_store
from showtell.bulk.plan import cut_shards
from showtell.bulk.results import Finished, Results
from showtell.bulk.work import CaptionWorker, Job
from showtell.captioner import BATCH
from showtell.errors import count
from showtell.library import DEFAULT
from showtell.outputs import Record

if TYPE_CHECKING:
    from showtell.bulk.cluster import Pool


@dataclass(frozen=True)
class Report:
    """What one run did."""

    complete: bool  # whether nothing is missing
    shards: int  # of the whole job
    reused: int  # rows of earlier runs
    rows: int  # of this run
    failed: int  # of them, with an error
    failing: int  # rows with an error of the whole job
    given_up: dict[int, str]  # shards whose input could not be read, and why
    lost_workers: int
    done: Mapping[str, int]  # images of this run, by where they were done
    seconds: float


def _ignore(*_: object) -> None: ...


def run_bulk(
    inputs: Inputs,
    job: Job,
    resources: Resources,
    *,
    shard_size: int = 1024,
    retry_failed: bool = False,
    progress: Callable[[int, int | None], object] = _ignore,
    on_shard: Callable[[int, int, list[Record]], object] = _ignore,
    say: Callable[[str], object] = _ignore,
) -> Report:
    """Captions all images of an input that have no row yet.

    Args:
        inputs: what to caption.
        job: how, and where the rows go.
        resources: where the work is done.
        shard_size: named images for each file of rows; rounded up to whole batches.
        retry_failed: do shards again that have rows with an error.
        progress: called with (done, total) images.
        on_shard: called for each shard that was finished with its rows, those that failed and the first of these.
        say: called with what people should know.

    Raises:
        ShowtellError: the input, the options or the folder of results cannot be used.
        OSError: rows cannot be written, as on a full disk.
    """
    began = time.monotonic()
    shard_size = -(-shard_size // BATCH) * BATCH
    store = open_store(job.output)
    with store.hold(), contextlib.ExitStack() as opened:
        results = Results(store)
        made_by = describe_job(inputs, job, shard_size)
        pool: Pool[Any] | None = None
        if not results.check(made_by):
            if resources.address is not None:  # that nobody is there must not come out behind a long plan
                pool = opened.enter_context(open_pool(CaptionWorker, (job,), resources))
            say("looking for images")
            others: Counter[str] = Counter()
            shards = cut_shards(inputs.pieces(others), shard_size)
            results.begin(made_by, shards, inputs.keys, job.models or (DEFAULT,))
            if others:
                say(describe_others(others))
        if torn := results.survey():
            say(f"rows are gone or torn: {count(len(torn), 'finished shard')}, done again")
        missing = results.missing(retry_failed=retry_failed)
        first = next(missing, None)
        again = {entry.shard for entry in results.entries.values() if retry_failed and entry.failed}
        reused = sum(entry.rows for entry in results.entries.values() if entry.shard not in again)
        given_up: dict[int, str] = {}
        rows = failed = lost = 0
        done: Counter[str] = Counter()

        def show(under_way: int) -> None:
            progress(reused + rows + under_way, results.plan.images)

        if first is not None:
            if pool is None:
                pool = opened.enter_context(open_pool(CaptionWorker, (job,), resources))
            show(0)
            shards = itertools.chain([first], missing)
            try:
                with contextlib.closing(pool.run(shards, advanced=show)) as finished:
                    for shard, result, place in finished:
                        if isinstance(result, Failed):
                            given_up[shard.number] = result.reason
                            if shard.number in again:  # the rows that it had stay
                                reused += results.entries[shard.number].rows
                            say(f"error: shard {shard.number}: {result.reason}")
                            continue
                        results.add(result.entry)
                        rows, failed = rows + result.entry.rows, failed + result.entry.failed
                        on_shard(result.entry.rows, result.entry.failed, _records(result))
                        done[place] += result.entry.rows
                        show(pool.under_way)
            except BaseException:
                with contextlib.suppress(OSError):  # done/ has it, too
                    results.finish()
                raise
            lost = pool.lost
        opened.close()  # Ray need not wait for the manifest
        complete = results.finish()
        failing = sum(entry.failed for entry in results.entries.values())
        return Report(
            complete,
            results.plan.shards,
            reused,
            rows,
            failed,
            failing,
            given_up,
            lost,
            done,
            time.monotonic() - began,
        )


def describe_job(inputs: Inputs, job: Job, shard_size: int) -> dict[str, Any]:
    """Returns what rows depend on: a later run goes on only with the same."""
    return {
        "input": inputs.named(),
        "kind": inputs.kind,
        "image_column": inputs.columns.image,
        "key_column": inputs.columns.key,
        "shard_size": shard_size,
        "model": job.digest,
        **asdict(job.settings),
        "engine": job.engine,
        "precision": job.precision,
        "format": job.form,
        "alt_text": job.alt_text,
        "min_confidence": job.min_confidence,
    }


def _records(result: Finished) -> list[Record]:
    return [Record.from_dict(values) for values in result.failures]
