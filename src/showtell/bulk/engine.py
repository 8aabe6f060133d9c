"""What work on Ray needs before Ray is imported: what it may use, and how it is kept to itself."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import socket
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from showtell.bulk.address import check_address
from showtell.errors import UsageError
from showtell.runtime import EngineOptions
from showtell.telemetry import refuse_telemetry

if TYPE_CHECKING:
    from showtell.bulk.cluster import Pool


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

    @property
    def cpus(self) -> int:
        """The processors that Ray is to have where it is started here."""
        there = EngineOptions().thread_count
        return self.workers * self.threads if self.workers else max(there, self.threads)

    def count_workers(self, cpus: int) -> int:
        """Returns how many workers there are with so many processors.

        Raises:
            UsageError: not one.
        """
        possible = cpus // self.threads
        if possible < 1:
            raise UsageError(
                f"Ray has {cpus} processors, and a worker was to have {self.threads} threads. Use fewer --threads."
            )
        return self.workers or possible


_claims: list[socket.socket] = []  # of this process, which hold their processors until it ends


@dataclass(frozen=True)
class Failed:
    """Why a task was given up; others were not."""

    reason: str


def prepare_worker(keep_to: int) -> None:
    """Sets what every worker needs before it opens its model.

    Args:
        keep_to: so many processors that no other worker of this machine keeps to, where all of them are Ray's; 0: it
            may use any.
    """
    refuse_telemetry()
    # Where Ray has some of them only (`--workers 1`, the share of a container), others may keep to the same ones.
    if keep_to and _count_processors_of_ray() == EngineOptions().thread_count:
        keep_to_processors(keep_to)
    # Of damaged tags in images that can be read all the same.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def _count_processors_of_ray() -> float:
    """Returns how many Ray has on the node of this worker."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return float(sum(node["Resources"].get("CPU", 0) for node in nodes if node["NodeID"] == own))


def keep_to_processors(count: int) -> None:
    """Lets this process, and the threads that it begins from now on, run on processors that it has for itself.

    A worker's threads take turns with Python's lock. Where the next one waits on another processor, which has to be
    woken, each turn costs time, a fifth of all (docs/experiments.md); on the same one it costs next to nothing.

    A claim is a socket with the processor's name in Linux's own name space, which no file holds: all workers of this
    machine see it (those in containers with networks of their own do not), and it ends with its process. Elsewhere, or
    where too few are left, nothing is kept to.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    claimed: dict[int, socket.socket] = {}
    with contextlib.suppress(OSError):
        for processor in sorted(os.sched_getaffinity(0)):
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                claim.bind(f"\0showtell-processor-{processor}")
            except OSError:
                claim.close()
                continue
            claimed[processor] = claim
            if len(claimed) == count:
                os.sched_setaffinity(0, claimed)
                _claims.extend(claimed.values())
                return
    for claim in claimed.values():
        claim.close()


def name_place() -> str:
    """Returns where a worker of Ray works: its machine, and Ray's node, of which a machine may have several."""
    import ray

    return f"{platform.node()} (node {ray.get_runtime_context().get_node_id()[:8]})"


@contextlib.contextmanager
def open_pool(
    worker: type, arguments: tuple[Any, ...], resources: Resources, *, result_bytes: int = 0
) -> Iterator[Pool[Any]]:
    """Starts Ray, or connects to it, and gives a pool of workers; Ray ends with it where it was started here.

    Args:
        worker: their class, as for `Pool`.
        arguments: of its constructor; one more follows, that of `prepare_worker`.
        resources: where the work is done.
        result_bytes: of one result of a worker: Ray's store, where it is started here, has room for all that can be
            under way.

    Raises:
        UsageError: nobody answers at the address, or there is no room for a worker.
    """
    if resources.address is not None:
        check_address(resources.address)
    import_ray_safely(resources.address)
    from showtell.bulk.cluster import AHEAD, Pool, started

    most = resources.count_workers(resources.cpus) * (AHEAD + 1)  # and those that the leading process holds
    with started(resources.address, cpus=resources.cpus, store_bytes=most * result_bytes) as cpus:
        count, threads = resources.count_workers(cpus), resources.threads
        # Where others could use a processor, or a worker's own threads the processors that no worker has, they may.
        keep_to = threads if count * threads == cpus else 0
        yield Pool(worker, (*arguments, keep_to), count=count, threads=threads)


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
        # Ray's 15 would let anything else have the processor first.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Each shard has new threads that read images, and glibc's allocator would keep a heap for each of the first 16.
        os.environ.setdefault("MALLOC_ARENA_MAX", "2")
