"""Workers on real Ray that cannot be made, that cannot go on, or that die."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from showtell.bulk.engine import import_ray_safely
from showtell.bulk.tables import Columns
from showtell.bulk.work import Job
from showtell.captioner import Captioner
from showtell.errors import BundleError, DataError, UsageError


@pytest.fixture(scope="module")
def pool() -> Iterator[Any]:
    """Makes pools of workers on a Ray of this process."""
    import_ray_safely(None)
    from showtell.bulk.cluster import Pool, started

    with started(None, cpus=1):
        yield lambda worker, *arguments: Pool(worker, arguments, count=1, threads=1)


def worker(at_birth: Exception | None = None, at_work: Exception | None = None) -> type:
    """A worker that raises something; made here, so that Ray sends its code along."""

    class Worker:
        def __init__(self) -> None:
            if at_birth is not None:
                raise at_birth

        def ready(self) -> str:
            return "here"

        def run(self, task: int) -> Iterator[str]:
            if at_work is not None and task == 1:
                raise at_work
            yield f"done {task}"

    return Worker


def results(pool: Any) -> dict[int, Any]:
    return {task: result for task, result, _ in pool.run([1, 2])}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_why_a_worker_cannot_be_made_or_go_on_is_said(pool: Any) -> None:
    another = BundleError("The machine has another model by this name")
    with pytest.raises(BundleError, match=r"^The machine has another model by this name$"):
        list(pool(worker(another)).run([1]))
    with pytest.raises(OSError, match="No space left") as caught:
        list(pool(worker(OSError(28, "No space left on device", "/out"))).run([1]))
    assert caught.value.filename == "/out"
    with pytest.raises(UsageError, match="needs the package s3fs"):
        list(pool(worker(at_work=UsageError("s3:// needs the package s3fs"))).run([1]))
    found = results(pool(worker(at_work=DataError("a.tar: half written"))))
    assert (found[1].reason, found[2]) == ("a.tar: half written", "done 2")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_task_that_kills_its_workers_is_given_up(pool: Any) -> None:
    class Worker:
        def ready(self) -> str:
            return "here"

        def run(self, task: int) -> Iterator[str]:
            if task == 1:
                os._exit(3)
            yield f"done {task}"

    one = pool(Worker)
    found = results(one)
    assert found[1].reason.startswith("3 workers died of it, the last so: ")
    assert (found[2], one.lost) == ("done 2", 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_workers_that_always_die_at_birth_end_the_run(pool: Any) -> None:
    class Worker:
        def __init__(self) -> None:
            os._exit(3)

        def ready(self) -> str:
            return "here"

    with pytest.raises(
        UsageError, match=r"3 workers in a row died before they could work: .* fewer --workers"
    ):
        list(pool(Worker).run([1]))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("processors", "kept"), [(1, [1]), (2, [])])
def test_workers_keep_to_processors_only_where_all_are_rays(
    processors: int, kept: list[int], pool: Any
) -> None:
    class Worker:
        def __init__(self) -> None:
            from showtell.bulk import engine

            self.kept: list[int] = []
            os.sched_getaffinity = lambda _: set(range(processors))  # what this machine has
            engine.keep_to_processors = self.kept.append  # type: ignore[assignment]
            engine.prepare_worker(1)

        def ready(self) -> str:
            return "here"

        def run(self, task: int) -> Iterator[list[int]]:
            yield self.kept

    assert results(pool(Worker)) == {1: kept, 2: kept}  # of a Ray with one processor


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two processors"
)
def test_workers_keep_to_processors_that_no_other_has() -> None:
    code = """
import os, sys
from showtell.bulk.engine import keep_to_processors
if int(sys.argv[1]):
    keep_to_processors(int(sys.argv[1]))
print(*sorted(os.sched_getaffinity(0)), flush=True)
sys.stdin.readline()
"""
    everything = os.sched_getaffinity(0)

    def begin(count: int) -> tuple[subprocess.Popen[str], set[int]]:
        command = [sys.executable, "-c", code, str(count)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, set(map(int, process.stdout.readline().split()))

    running = []
    try:
        running.append(begin(0))
        assert running[0][1] == everything
        deadline = time.monotonic() + 60
        while True:  # workers of another test may hold all
            running.append(begin(1))
            held = running[-1][1]
            if len(held) == 1:
                break
            assert held == everything
            assert time.monotonic() < deadline
            time.sleep(1)
        running.append(begin(1))
        assert running[-1][1] == everything or (len(running[-1][1]) == 1 and not running[-1][1] & held)
        running.append(begin(len(everything)))  # more than are left: any will do
        assert running[-1][1] == everything
    finally:
        for process, _ in running:
            process.kill()
            process.communicate()


def test_another_model_on_a_machine_is_told_by_its_digest(exported_model: str) -> None:
    captioner = Captioner.load(exported_model)
    model, settings = (exported_model,), captioner.settings
    job = Job(model, captioner.digest, "auto", "auto", 1, settings, 0.0, False, Columns(), "parquet", "out")
    assert job.load().digest == captioner.digest
    with pytest.raises(
        BundleError, match=r"has another model by this name .*, and 0123456789ab is asked for"
    ):
        replace(job, digest="0123456789abcdef").load()
