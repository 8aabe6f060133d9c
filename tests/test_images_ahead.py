"""Reading ahead: order, errors, bounds, and no threads left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from showtell.errors import ImageError, UsageError
from showtell.images import read_ahead, read_batches


class Reader:
    """Reads numbers, counts how many results exist at a time, and refuses some."""

    def __init__(self, refused: frozenset[int] = frozenset(), delay: float = 0.0) -> None:
        self.refused = refused
        self.delay = delay
        self.started = 0
        self.threads: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, number: int) -> int:
        with self._lock:
            self.started += 1
            self.threads.add(threading.current_thread().name)
        time.sleep(self.delay * (number % 3))  # later ones finish before earlier ones
        if number in self.refused:
            raise ImageError(f"no {number}")
        return 10 * number


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 8), (4, 3), (3, 100)])
def test_results_come_in_order_whoever_finishes_first(workers: int, ahead: int) -> None:
    reader = Reader(delay=0.002)
    assert list(read_ahead(range(40), reader, workers=workers, ahead=ahead)) == list(range(0, 400, 10))
    assert len(reader.threads) <= workers
    assert reading_threads() == []


def test_reading_overlaps_on_several_threads() -> None:
    together = threading.Barrier(3)  # passes only when three reads are in work at once
    assert list(read_ahead(range(6), lambda number: together.wait(timeout=20), workers=3)) != []


def test_what_is_read_ahead_is_bounded_and_waits_for_the_caller() -> None:
    reader = Reader()
    most = 0
    for number, _ in enumerate(read_ahead(range(60), reader, workers=3, ahead=5)):
        time.sleep(0.003)  # the threads have time to run too far
        most = max(most, reader.started - (number + 1))
    assert most == 5


def test_an_image_error_takes_the_place_of_its_picture() -> None:
    results = list(read_ahead(range(6), Reader(frozenset({0, 3, 5}))))
    assert [str(item) if isinstance(item, ImageError) else item for item in results] == [
        "no 0", 10, 20, "no 3", 40, "no 5",
    ]  # fmt: skip


def test_any_other_error_is_raised_in_its_place() -> None:
    def read(number: int) -> float:
        return 1 / (2 - number)

    results = read_ahead(range(9), read)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert reading_threads() == []


def test_an_error_of_the_source_comes_after_the_results_before_it() -> None:
    def broken() -> Iterator[int]:
        yield from (1, 2, 3)
        raise OSError("the list of pictures ends here")

    seen: list[int | ImageError] = []
    with pytest.raises(OSError, match="the list of pictures ends here"):
        seen.extend(read_ahead(broken(), Reader()))
    assert seen == [10, 20, 30]
    assert reading_threads() == []


def test_stopping_early_leaves_no_thread_and_reads_no_more() -> None:
    reader, taken = Reader(), []

    def endless() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    results = read_ahead(endless(), reader, workers=2, ahead=10)
    assert taken == []  # nothing happens before it is asked for
    assert [next(results) for _ in range(4)] == [0, 10, 20, 30]
    results.close()
    assert reading_threads() == []
    assert len(taken) == 4 + 10
    assert reader.started <= len(taken)


def test_what_waits_is_not_read_after_stopping() -> None:
    go = threading.Event()
    started = []

    def read(number: int) -> int:
        started.append(number)
        if number:
            go.wait(20)
        return number

    results = read_ahead(range(100), read, workers=2, ahead=50)
    assert next(results) == 0
    timer = threading.Timer(0.1, go.set)
    timer.start()
    results.close()
    timer.join()
    assert len(started) <= 4  # those in work are finished, the fifty that wait are not begun


def test_batches_keep_order_and_size_and_the_first_may_be_small() -> None:
    assert list(read_batches(range(7), Reader(), size=3)) == [[0, 10, 20], [30, 40, 50], [60]]
    assert list(read_batches(range(7), Reader(), size=4, first=1)) == [[0], [10, 20, 30, 40], [50, 60]]
    assert list(read_batches(range(3), Reader(), size=2, first=9)) == [[0, 10], [20]]
    assert list(read_batches([], Reader(), size=2)) == []


def test_two_batches_exist_at_most() -> None:
    reader = Reader()
    given = most = 0
    for batch in read_batches(range(80), reader, size=6, first=2, workers=3):
        time.sleep(0.01)
        most = max(most, reader.started - given)  # the batch at hand and what is read ahead
        given += len(batch)
    assert most == 12


def test_a_batch_holds_the_errors_of_its_pictures() -> None:
    (batch,) = read_batches(range(3), Reader(frozenset({1})), size=8)
    assert [isinstance(item, ImageError) for item in batch] == [False, True, False]


def test_leaving_the_batches_early_leaves_no_thread() -> None:
    batches = read_batches(range(1000), Reader(), size=4)
    next(batches)
    assert reading_threads() != []
    batches.close()
    assert reading_threads() == []


@pytest.mark.parametrize("options", [{"workers": 0}, {"ahead": 0}, {"workers": -2}])
def test_impossible_numbers_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"at least 1\. Received: workers=\S+, ahead=\d+"):
        next(read_ahead([1], Reader(), **options))


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 4, "first": 0}])
def test_impossible_batches_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"size and first must be at least 1\. Received: size="):
        next(read_batches([1], Reader(), **options))
