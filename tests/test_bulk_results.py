"""The folder of results: what is left of killed runs, what a running one changes, and foreign files."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from pathlib import Path

import pytest

from showtell.bulk.places import LocalStore, open_store
from showtell.bulk.plan import Picture, Shard, cut_shards
from showtell.bulk.results import DONE, PLAN, ROWS, Entry, Results, commit_shard, read_results
from showtell.errors import JournalError
from showtell.files import open_atomically
from showtell.outputs import Record


def begin(folder: Path) -> Results:
    store = open_store(str(folder))
    results = Results(store)
    assert not results.check({})
    results.begin({}, cut_shards((Picture(f"{n}.jpg", f"{n}.jpg") for n in range(8 + 16 + 16)), 16), tuple)
    return results


def finish_shard(results: Results, number: int) -> None:
    record = Record(image=f"{number}.jpg", error="it is empty")
    results.add(commit_shard(results.store, number, [record], "jsonl").entry)


def images(folder: Path) -> list[str]:
    return [record.image for record in read_results(folder)]


def leave(path: Path) -> Path:
    """Leaves beside a file what a killed writer of it leaves; returns where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomically(path) as file:
        torn = Path(file.name)
    path.unlink()
    torn.write_bytes(b"{")
    return torn


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    foreign = [tmp_path / name for name in (".film.part", "sub/.download.part", f"{ROWS}/.mine.part")]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    store = open_store(str(tmp_path))
    with store.hold(), pytest.raises(JournalError, match="holds other things"):
        Results(store).check({})
    assert all(path.exists() for path in foreign)


def test_a_run_that_was_killed_at_any_time_can_be_gone_on_with(tmp_path: Path) -> None:
    torn = [leave(tmp_path / PLAN)]
    results = begin(tmp_path)  # there is nothing of ours yet, and that is no foreign file
    torn += [leave(tmp_path / ROWS / "000001.jsonl"), leave(tmp_path / DONE / "000001.json")]
    finish_shard(results, 0)
    again = Results(open_store(str(tmp_path)))
    assert again.check({})
    assert not any(path.exists() for path in torn)
    assert again.survey() == []
    assert [shard.number for shard in again.missing()] == [1, 2]


def test_a_damaged_entry_of_a_killed_run_does_not_keep_readers_out(tmp_path: Path) -> None:
    results = begin(tmp_path)
    finish_shard(results, 0)
    leave(tmp_path / DONE / "000001.json")
    assert images(tmp_path) == ["0.jpg"]


def test_results_are_read_beside_a_run_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = begin(tmp_path)
    finish_shard(results, 0)
    results.finish()
    finish_shard(results, 1)
    sizes = LocalStore.sizes
    listed: list[str] = []

    def end(self: LocalStore, folder: str = "") -> dict[str, int]:
        found = sizes(self, folder)
        if folder == DONE and not listed:
            listed.append(folder)
            results.finish()  # between its look and what it reads next
        return found

    monkeypatch.setattr(LocalStore, "sizes", end)
    assert images(tmp_path) == ["0.jpg", "1.jpg"]
    assert listed == [DONE]


def test_rows_that_another_machine_wrote_elsewhere_end_the_run(tmp_path: Path) -> None:
    results = begin(tmp_path)
    with pytest.raises(
        JournalError, match=r"a worker wrote 000001.jsonl there, and it is not here: its machine"
    ):
        results.add(Entry(1, f"{ROWS}/000001.jsonl", 1, 0, 10, ""))
    assert results.entries == {}


@pytest.mark.parametrize("place", ["folder", "memory://bulk"])
def test_a_large_plan_is_never_in_memory(place: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / place) if place == "folder" else place)
    results = Results(store)
    shard = Shard(0, 0, (Picture("a", "a"),))
    large = gzip.compress(shard.to_line() + os.urandom(40 << 20), compresslevel=0)
    store.write(PLAN, large)
    del large
    tracemalloc.start()
    try:
        assert next(results.missing()) == shard
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
        store.remove([PLAN])


def test_only_shards_with_failed_rows_are_tried_again(tmp_path: Path) -> None:
    results = begin(tmp_path)
    finish_shard(results, 0)
    results.add(commit_shard(results.store, 2, [Record(image="2.jpg")], "jsonl").entry)
    assert [shard.number for shard in results.missing()] == [1]
    assert [shard.number for shard in results.missing(retry_failed=True)] == [0, 1]


def test_a_run_that_was_refused_leaves_no_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "new/out"))
    with pytest.raises(JournalError), store.hold():
        raise JournalError("refused")
    assert not list(tmp_path.iterdir())
    with store.hold():
        store.write(PLAN, b"")
    assert store.size(PLAN) == 0
    (tmp_path / "empty").mkdir()
    with open_store(str(tmp_path / "empty")).hold():
        pass
    assert (tmp_path / "empty").is_dir()  # the user's own
