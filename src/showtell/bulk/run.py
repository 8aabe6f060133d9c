"""A bulk job from its input to its manifest: what is finished is passed over, what is missing is done, on Ray."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from showtell.bulk.inputs import Inputs
from showtell.bulk.places import open_store
from showtell.bulk.plan import Shard, cut_shards
from showtell.bulk.results import Finished, Results
from showtell.bulk.work import CaptionWorker, Job
from showtell.captioner import BATCH
from showtell.errors import UsageError
from showtell.outputs import Record
from showtell.runtime import EngineOptions
from showtell.telemetry import refuse_telemetry


@dataclass(frozen=True)
class Resources:
    """What a job may use.

    Args:
        address: of a Ray cluster; None starts Ray on this machine.
        workers: how many; 0 is as many as there are processors for.
        threads: of the processor, for each worker.
    """

    address: str | None = None
    workers: int = 0
    threads: int = 1


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
    import_ray_safely(resources.address)
    from showtell.bulk.cluster import Failed, Pool, started

    began = time.monotonic()
    shard_size = -(-shard_size // BATCH) * BATCH
    store = open_store(job.output)
    with store.hold():
        results = Results(store)
        made_by = describe_job(inputs, job, shard_size)
        if not results.check(made_by):
            say("looking for images")
            results.begin(made_by, cut_shards(inputs.pieces(), shard_size), inputs.keys)
        if torn := results.survey():
            say(f"the rows of {len(torn):,} finished shards are gone or torn; these are done again")
        missing = results.missing(retry_failed=retry_failed)
        first = next(missing, None)
        reused = sum(entry.rows for entry in results.entries.values())
        given_up: dict[int, str] = {}
        rows = failed = lost = 0
        if first is not None:
            cpus = (resources.workers or EngineOptions().thread_count) * resources.threads
            if resources.address is None and not resources.workers:
                cpus = max(EngineOptions().thread_count, resources.threads)
            with started(resources.address, cpus=cpus) as there:
                pool: Pool[Shard] = Pool(
                    CaptionWorker, (job,), count=_count_workers(resources, there), threads=resources.threads
                )
                progress(reused, results.plan.images)
                shards = _chain(first, missing)
                try:
                    with contextlib.closing(pool.run(shards)) as finished:
                        for shard, result in finished:
                            if isinstance(result, Failed):
                                given_up[shard.number] = result.reason
                                say(f"error: shard {shard.number}: {result.reason}")
                                continue
                            before = results.entries.get(shard.number)
                            results.add(result.entry)
                            rows, failed = rows + result.entry.rows, failed + result.entry.failed
                            reused -= before.rows if before is not None else 0
                            on_shard(result.entry.rows, result.entry.failed, _records(result))
                            progress(reused + rows, results.plan.images)
                finally:
                    lost = pool.lost
                    with contextlib.suppress(OSError):  # done/ has it, too
                        results.finish()
        complete = results.finish()
        failing = sum(entry.failed for entry in results.entries.values())
        seconds = time.monotonic() - began
        return Report(complete, results.plan.shards, reused, rows, failed, failing, given_up, lost, seconds)


def import_ray_safely(address: str | None) -> None:
    """Sets what Ray reads when it is imported: it reports nothing, and where it is started here, it obeys nobody else.

    Ray listens on all networks of the machine and runs whatever it is sent. A secret that only this process and its
    children know keeps everybody else out.

    Args:
        address: of a cluster that runs; whoever started that decides who may use it.
    """
    refuse_telemetry()
    if address is None and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        os.environ.setdefault(
            "RAY_worker_niceness", "0"
        )  # Ray's 15 would let anything else have the processor first


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


def _count_workers(resources: Resources, cpus: int) -> int:
    possible = cpus // resources.threads
    if possible < 1:
        raise UsageError(
            f"Ray has {cpus} processors, and a worker was to have {resources.threads} threads. Use fewer --threads."
        )
    return resources.workers or possible


def _records(result: Finished) -> list[Record]:
    return [Record.from_dict(values) for values in result.failures]


def _chain(first: Shard, others: Any) -> Any:
    yield first
    yield from others
