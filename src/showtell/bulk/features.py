"""Features of a frozen encoder, computed by many processes on Ray; the process that leads writes the cache."""

from __future__ import annotations

import contextlib
import platform
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from showtell.bulk.engine import Failed, Resources, name_place, open_pool, prepare_worker
from showtell.encoders import Encoder
from showtell.encoders.batches import Batch, Wanted, compute_batches, read_picture
from showtell.encoders.elsewhere import EncoderRecord
from showtell.errors import CacheError, EncoderError, ImageError


@dataclass(frozen=True)
class EncodeJob:
    """What all workers are told."""

    encoder: EncoderRecord
    size: int  # images in a batch
    workers: int  # threads of each worker that decode images
    threads: int  # of the processor, for each worker


class EncodeWorker:
    """One encoder in a process of its own.

    Args:
        job: what to do.
        keep_to: as for `prepare_worker`.

    Raises:
        EncoderError: this machine cannot build the same encoder.
    """

    def __init__(self, job: EncodeJob, keep_to: int) -> None:
        prepare_worker(keep_to)
        self._job = job
        try:
            self._encoder = job.encoder.build(threads=job.threads)
        except EncoderError as error:
            raise EncoderError(f"A worker on the machine {platform.node()}: {error}") from None

    def ready(self) -> str:
        """Returns where it works, once the encoder is built."""
        return name_place()

    def run(self, wanted: Sequence[Wanted]) -> Iterator[Batch]:
        """Computes one batch."""
        yield from compute_batches(self._encoder, wanted, size=self._job.size, workers=self._job.workers)


class RayBatches:
    """Computes features on Ray; a `BatchSource`.

    Args:
        resources: where the work is done.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self.lost_workers = 0  # whose batches were done again
        self.done: Counter[str] = Counter()  # images, by where they were done

    def __call__(
        self, encoder: Encoder, wanted: Sequence[Wanted], *, size: int, workers: int
    ) -> Generator[Batch, None, None]:
        """Yields batches as they are finished, the same as `compute_batches` gives with as many threads.

        Two batches for each worker are under way at most, and wait in Ray's store.

        Raises:
            UsageError: Ray cannot be reached.
            EncoderError: a machine cannot build the same encoder, or features cannot be kept.
            CacheError: workers died of some batches, and all others are done; or a machine does not see the images.
        """
        job = EncodeJob(EncoderRecord.of(encoder), size, workers, self._resources.threads)
        given_up: list[tuple[str, str]] = []
        result_bytes = size * 2 * int(np.prod(encoder.shape))
        with open_pool(EncodeWorker, (job,), self._resources, result_bytes=result_bytes) as pool:
            try:
                with contextlib.closing(pool.run(_cut(wanted, size))) as results:
                    for task, result, place in results:
                        if isinstance(result, Failed):
                            given_up.append((task[0].image_id, result.reason))
                            continue
                        _confirm(encoder, [one for one in task if one.image_id in result.bad], result)
                        self.done[place] += len(result)
                        yield result
            finally:
                self.lost_workers += pool.lost
        if given_up:
            image_id, reason = given_up[0]
            raise CacheError(
                f"{len(given_up):,} batches of up to {size} images could not be computed, as that which begins with "
                f"{image_id!r}: {reason} All others are kept. Run again, with fewer --ray-workers if memory is short; "
                "a smaller --batch-size narrows down which image it is."
            )


def _cut(wanted: Sequence[Wanted], size: int) -> Iterator[Sequence[Wanted]]:
    """Yields what workers get at a time; they have other working folders, so paths are whole."""
    for start in range(0, len(wanted), size):
        yield [replace(one, path=one.path.absolute()) for one in wanted[start : start + size]]


def _confirm(encoder: Encoder, bad: Sequence[Wanted], batch: Batch) -> None:
    """Raises CacheError where a worker could not read what can be read here: its machine has other files."""
    for one in bad:
        with contextlib.suppress(ImageError):
            read_picture(one, encoder.preprocessing)
            raise CacheError(
                f"A worker could not read an image that can be read here ({batch.bad[one.image_id]}). All machines "
                "must see the images under the same path, as in a network folder. What was finished is kept."
            )
