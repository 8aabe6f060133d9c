"""Ray: started on this machine or asked where it runs already, and a pool of workers on it that may die.

Not Ray Data, and not Ray's own pools (docs/design.md says why): what is needed here is which task a dead worker had, so
that this one is done again and no other, and no more tasks under way than keep every worker busy.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import ray
from ray import exceptions

from showtell.bulk.engine import Failed
from showtell.errors import DataError, ShowtellError, UsageError
from showtell.interruption import termination_as_interruption

AHEAD = 2  # tasks for each worker: one in work, one that it begins with when that is done
ATTEMPTS = 3  # workers that a task may cost before it is given up
_POLL = 1.0  # seconds
_STORE_BYTES = 80 << 20  # Ray's shared memory: the least that it takes, enough for tasks and small results
_LOST = (
    exceptions.ActorDiedError,
    exceptions.ActorUnavailableError,
    exceptions.NodeDiedError,
    exceptions.WorkerCrashedError,
    exceptions.OutOfMemoryError,
    exceptions.OwnerDiedError,
    exceptions.ObjectLostError,
)
Task = TypeVar("Task")


@contextlib.contextmanager
def started(address: str | None, *, cpus: int, store_bytes: int = 0) -> Iterator[int]:
    """Starts Ray on this machine, or connects to a cluster; gives the number of processors that there are.

    To be called by way of `showtell.bulk.engine`, which says before the import of Ray what it is to keep to itself.

    Args:
        address: of a cluster (HOST:PORT, or "auto" for one on this machine); None starts one for this process alone.
        cpus: that it is to have, where it is started.
        store_bytes: of shared memory that results take at most, where it is started.

    Raises:
        UsageError: Ray does not answer at this address.
    """
    with termination_as_interruption() as again:
        _connect(address, cpus, store_bytes)
        again()  # Ray would print its stack, and abort
        try:
            yield int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
        finally:
            ray.shutdown()


def _connect(address: str | None, cpus: int, store_bytes: int) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        if address is None:
            ray.init(
                "local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=_STORE_BYTES + store_bytes,
                **options,
            )
        else:
            ray.init(address, **options)
    except SystemExit:  # its own answer to SIGTERM
        raise KeyboardInterrupt from None
    except (ConnectionError, RuntimeError, ValueError, ImportError, exceptions.RayError) as error:
        if address is None:
            raise
        if address == "auto":
            raise UsageError(
                "--ray-address auto: Ray does not run on this machine. Start it (ray start --head), or leave the "
                "option out: then it is started for this command."
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"--ray-address {address}: cannot connect to Ray there: {reason}") from None


@dataclass
class _Worker(Generic[Task]):
    """One actor and the tasks that it has."""

    actor: Any
    ready: Any  # the reference that is there once it can work; None afterwards
    place: str = ""  # where it works
    tasks: deque[tuple[Any, Task, int]] = field(
        default_factory=deque
    )  # its stream, the task, workers that it has cost
    done: int = 0  # images of the first task


class Pool(Generic[Task]):
    """Workers that take tasks as they come. One that dies is replaced, and its tasks are done by others.

    Args:
        worker: a class with `ready()`, which gives the name of the place where it works, and `run(task)`, which yields
            numbers, as many images as are done, and at last the result.
        arguments: of its constructor.
        count: workers.
        threads: processors that each one takes.
    """

    def __init__(self, worker: type, arguments: tuple[Any, ...], *, count: int, threads: int) -> None:
        self._class: Any = ray.remote(
            num_cpus=threads, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )(worker)
        self._arguments = arguments
        self._count = count
        self._again: deque[tuple[Task, int]] = deque()
        self._workers: list[_Worker[Task]] = []
        self._deaths = 0  # in a row, of workers that never came to work
        self.lost = 0  # workers

    @property
    def under_way(self) -> int:
        """Images that are done of tasks that are not."""
        return sum(worker.done for worker in self._workers)

    def run(
        self, tasks: Iterable[Task], *, advanced: Callable[[int], object] = lambda _: None
    ) -> Generator[tuple[Task, Any, str], None, None]:
        """Yields each task with its result or with `Failed`, and where it was done, as they are finished.

        Args:
            tasks: taken as workers need them, so that memory does not grow with their number.
            advanced: called with `under_way` when it has changed.

        Raises:
            ShowtellError, OSError: what a worker could not do, and no other could.
        """
        remaining = iter(tasks)
        exhausted = False
        try:
            self._workers = [self._create() for _ in range(self._count)]
            while True:
                for depth in range(AHEAD):  # the first for each before the second for any
                    for worker in self._workers:
                        if worker.ready is not None or len(worker.tasks) != depth:
                            continue
                        if self._again:
                            task, cost = self._again.popleft()
                        elif exhausted:
                            continue
                        else:
                            try:
                                task, cost = next(remaining), 0
                            except StopIteration:
                                exhausted = True
                                continue
                        stream = worker.actor.run.options(num_returns="streaming").remote(task)
                        worker.tasks.append((stream, task, cost))
                if exhausted and not self._again and not any(worker.tasks for worker in self._workers):
                    return
                yield from self._collect(advanced)
        finally:
            for worker in self._workers:
                ray.kill(worker.actor)
            self._workers = []

    def _create(self) -> _Worker[Task]:
        actor = self._class.remote(*self._arguments)
        return _Worker(actor, actor.ready.remote())

    def _collect(self, advanced: Callable[[int], object]) -> Iterator[tuple[Task, Any, str]]:
        """Waits for something to happen, and yields what was finished."""
        watched: dict[Any, _Worker[Task]] = {  # references, and streams of results
            worker.ready if worker.ready is not None else worker.tasks[0][0]: worker
            for worker in self._workers
            if worker.ready is not None or worker.tasks
        }
        done: list[Any]
        done, _ = ray.wait(list(watched), num_returns=1, timeout=_POLL)
        for one in done:
            worker = watched[one]
            try:
                result = ray.get(one if worker.ready is not None else next(one))
            except _LOST as error:
                yield from self._replace(worker, error)
                continue
            except exceptions.RayTaskError as error:
                result = self._judge(error)
            if worker.ready is not None:
                worker.ready, worker.place, self._deaths = None, result, 0
            elif isinstance(result, int):
                worker.done = result
                advanced(self.under_way)
            else:
                _, task, _ = worker.tasks.popleft()
                worker.done = 0
                yield task, result, worker.place

    def _replace(self, worker: _Worker[Task], error: Exception) -> Iterator[tuple[Task, Failed, str]]:
        """Starts another worker in the place of one that died; only the task that it was at counts the loss."""
        for cause in error.args:
            if isinstance(cause, exceptions.RayTaskError):  # its constructor raised
                self._judge(cause, fatal=True)
        self.lost += 1
        if worker.ready is not None:
            self._deaths += 1
            if self._deaths >= ATTEMPTS * max(1, self._count):
                raise UsageError(
                    f"{self._deaths} workers in a row died before they could work: {_first_line(error)} Is there "
                    "enough memory for so many? Use fewer --workers."
                ) from None
        with contextlib.suppress(Exception):
            ray.kill(worker.actor)
        for place, (_, task, cost) in enumerate(worker.tasks):
            cost += place == 0
            if cost >= ATTEMPTS:
                yield (
                    task,
                    Failed(f"{cost} workers died of it, the last so: {_first_line(error)}"),
                    worker.place,
                )
            else:
                self._again.append((task, cost))
        self._workers[self._workers.index(worker)] = self._create()

    @staticmethod
    def _judge(error: exceptions.RayTaskError, *, fatal: bool = False) -> Failed:
        """Returns what a worker says of a task that nobody can do; raises what concerns all of them."""
        cause = error.cause
        if isinstance(cause, DataError) and not fatal:
            return Failed(str(cause))
        if isinstance(cause, ShowtellError | OSError):
            raise cause from None
        raise error


def _first_line(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if line.endswith(".") else f"{line}."
