"""The parts of `showtell bulk` below Ray: inputs, plan, shards of rows, the folder of results, stores."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from bulked import draw_pictures, rows, run, write_folder, write_table, write_tar
from showtell.bulk import reading, work
from showtell.bulk.inputs import Inputs
from showtell.bulk.places import open_place, open_store
from showtell.bulk.plan import Part, Picture, Shard, cut_shards
from showtell.bulk.results import Finished, Results, read_results
from showtell.bulk.tables import CUT_ABOVE, ROWS, Columns, Table
from showtell.bulk.work import Job, caption_shard
from showtell.captioner import Captioner, start_of_batch
from showtell.errors import DataError, InputError, JournalError, UsageError
from showtell.images import decode
from showtell.outputs import Record


@pytest.fixture(scope="module")
def captioner(exported_model: str) -> Captioner:
    return Captioner.load(exported_model, threads=1)


@pytest.fixture(scope="module")
def pictures(photographs: list[Path]) -> dict[str, bytes]:
    """Twenty small JPEG files by name, no two alike, and two that are none."""
    found = draw_pictures(photographs)
    found["005.jpg"], found["017.jpg"] = b"", b"no image"
    return found


@pytest.fixture
def folder(pictures: dict[str, bytes], tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pictures", pictures)


# Plans


def test_shards_begin_where_the_batches_of_one_run_begin() -> None:
    pieces = [Picture(str(number), str(number)) for number in range(70)]
    shards = list(cut_shards(pieces, 32))
    assert [(shard.number, shard.start, shard.count) for shard in shards] == [
        (0, 0, 24),
        (1, 24, 32),
        (2, 56, 14),
    ]
    assert all(start_of_batch(shard.start) == shard.start for shard in shards)
    assert [one for shard in shards for one in shard.pictures] == pieces
    mixed: list[Picture | Part] = [
        *pieces[:3],
        Part("parquet", "a", 0, 5),
        Part("webdataset", "b"),
        *pieces[3:5],
    ]
    shards = list(cut_shards(mixed, 32))
    assert [shard.count for shard in shards] == [3, 5, None, 2]
    assert all(start_of_batch(shard.start) == shard.start for shard in shards)
    ends = [shard.start + (shard.count or 1) for shard in shards]
    assert all(end <= after.start for end, after in zip(ends, shards[1:]))


def test_shards_survive_as_lines() -> None:
    for shard in (
        Shard(3, 40, (Picture("\udcff.jpg", "/a/\udcff.jpg"), Picture("b", "/b"))),
        Shard(4, 56, part=Part("parquet", "s3://b/ä.parquet", 7, 9)),
        Shard(5, 72, part=Part("webdataset", "a.tar")),
    ):
        assert Shard.from_line(shard.to_line()) == shard


@pytest.mark.parametrize(
    "groups",
    [
        (),
        (1,),
        (ROWS, ROWS),
        (5,) * 1000,
        (CUT_ABOVE + 1,),
        (3, 3 * CUT_ABOVE + 2, 7),
        (CUT_ABOVE, CUT_ABOVE),
    ],
)
def test_the_parts_of_a_table_are_its_rows_each_once(groups: tuple[int, ...]) -> None:
    ranges = list(Table(pa.schema([]), groups).ranges())
    covered = [row for first, count in ranges for row in range(first, first + count)]
    assert covered == list(range(sum(groups)))
    assert all(0 < count <= CUT_ABOVE for _, count in ranges)


# Inputs: each gives the rows that the folder gives


@pytest.fixture(scope="module")
def expected(captioner: Captioner, pictures: dict[str, bytes]) -> dict[str, list[str]]:
    found = {}
    for name, result in zip(pictures, captioner.caption(list(pictures.values()))):
        found[name] = [] if result.error is not None else [caption.text for caption in result.captions]
    assert sum(not texts for texts in found.values()) == 2
    return found


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("kind", ["folder", "pattern", "list", "paths", "bytes", "struct", "tar", "tgz"])
def test_every_input_gives_the_same_rows(
    kind: str,
    form: str,
    captioner: Captioner,
    folder: Path,
    pictures: dict[str, bytes],
    expected: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    columns = Columns()
    if kind == "folder":
        word = "pictures"
    elif kind == "pattern":
        word = "pictures/0*.jpg"
    elif kind == "list":
        word = "list"
        Path("list").write_text("".join(f"pictures/{name}\n" for name in pictures))
    elif kind == "paths":
        word = "paths.parquet"
        pq.write_table(pa.table({"path": [f"pictures/{name}" for name in pictures]}), word)
    elif kind == "bytes":
        word, columns = "bytes.parquet", Columns(key="id")
        write_table(Path(word), pictures)
    elif kind == "struct":
        word, columns = "shards", Columns(key="id")
        Path(word).mkdir()
        values = [{"bytes": content, "path": None} for content in pictures.values()]
        pq.write_table(pa.table({"id": list(pictures), "image": values}), f"{word}/0.parquet")
    else:
        word = f"a.{kind}"
        write_tar(Path(word), pictures, "w:gz" if kind == "tgz" else "w")
    _results, given_up = run(captioner, Inputs([word], columns=columns), tmp_path / "out", form=form)
    assert given_up == {}
    found = rows(tmp_path / "out")
    assert {name: [one.caption for one in record.captions] for name, record in found.items()} == expected
    assert "empty" in found["005.jpg"].error
    assert not found["005.jpg"].error.startswith("/")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["complete"], manifest["rows"], manifest["failed"]) == (True, 20, 2)
    assert list((tmp_path / "out/done").iterdir()) == []
    if form == "parquet":  # the folder is a data set for others, too
        table = pyarrow.dataset.dataset(tmp_path / "out/captions").to_table()
        assert table.num_rows == 20
        assert table["caption"].null_count == 2


def test_rows_of_named_images_are_those_of_one_run_bit_for_bit(
    captioner: Captioner, folder: Path, tmp_path: Path
) -> None:
    sampling = replace(captioner.settings, method="sample", seed=3, count=2)
    plain = [
        Record.of(str(path), picture)
        for path, picture in zip(
            sorted(folder.iterdir()), captioner.caption(sorted(folder.iterdir()), sampling)
        )
    ]
    job = Job(None, "", "auto", "auto", 1, sampling, 0.0, False, Columns(), "parquet", str(tmp_path / "out"))
    store = open_store(job.output)
    results = Results(store)
    with store.hold():
        results.begin({}, cut_shards(Inputs([str(folder)]).pieces(), 16), tuple)
        for shard in results.missing():
            *_, finished = caption_shard(captioner, shard, job, store)
            results.add(finished.entry)
        results.finish()
    assert list(read_results(job.output)) == plain
    assert len(results.entries) == 2


def test_a_worker_says_how_far_it_is(
    captioner: Captioner, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_OFTEN", 0.0)
    job = Job(
        None,
        "",
        "auto",
        "auto",
        1,
        captioner.settings,
        0.0,
        False,
        Columns(),
        "parquet",
        str(tmp_path / "out"),
    )
    [shard] = cut_shards(Inputs([str(folder)]).pieces(), 64)
    *counts, finished = caption_shard(captioner, shard, job, open_store(job.output))
    assert counts == list(range(1, 21))
    assert isinstance(finished, Finished)
    assert finished.entry.rows == 20


# Going on


def test_a_killed_run_is_gone_on_with_and_ends_alike(
    captioner: Captioner, folder: Path, tmp_path: Path
) -> None:
    inputs = Inputs([str(folder)])
    run(captioner, inputs, tmp_path / "whole")
    run(captioner, inputs, tmp_path / "killed", stop_after=1)
    assert not (tmp_path / "killed/manifest.json").exists()
    first = (tmp_path / "killed/captions/000000.parquet").stat()
    # Rows without an entry, and a file that was never finished: what a kill can leave.
    (tmp_path / "killed/captions/000001.parquet").write_bytes(b"PAR1 torn")
    run(captioner, inputs, tmp_path / "killed")
    assert (tmp_path / "killed/captions/000000.parquet").stat().st_mtime_ns == first.st_mtime_ns
    for name in ("manifest.json", "captions/000000.parquet", "captions/000001.parquet"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("how", ["gone", "torn"])
def test_rows_that_are_listed_and_not_there_are_made_again(
    how: str, captioner: Captioner, folder: Path, tmp_path: Path
) -> None:
    run(captioner, Inputs([str(folder)]), tmp_path / "out")
    file = tmp_path / "out/captions/000001.parquet"
    content = file.read_bytes()
    file.unlink() if how == "gone" else file.write_bytes(content[:-7])
    with pytest.raises(DataError, match="missing or torn"):
        list(read_results(tmp_path / "out"))
    run(captioner, Inputs([str(folder)]), tmp_path / "out")
    assert file.read_bytes() == content


def test_other_runs_and_other_folders_are_refused(captioner: Captioner, folder: Path, tmp_path: Path) -> None:
    run(captioner, Inputs([str(folder)]), tmp_path / "out")
    with pytest.raises(JournalError, match="was made with format = parquet, and now jsonl"):
        run(captioner, Inputs([str(folder)]), tmp_path / "out", form="jsonl")
    with pytest.raises(
        JournalError, match=r"holds other things \(000.jpg, 001.jpg, 002.jpg\) and no run.json"
    ):
        run(captioner, Inputs([str(folder)]), folder)
    with open_store(str(tmp_path / "out")).hold(), pytest.raises(JournalError, match="another process"):
        run(captioner, Inputs([str(folder)]), tmp_path / "out")
    with pytest.raises(DataError, match="no finished results"):
        list(read_results(tmp_path / "nowhere"))


# Bad input


def test_wrong_columns_are_named(pictures: dict[str, bytes], tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", pictures)
    with pytest.raises(
        UsageError, match=r"no column 'imge' .--image-column.. Did you mean 'image'\? .*id \(string\)"
    ):
        list(Inputs([str(path)], columns=Columns("imge")).pieces())
    with pytest.raises(UsageError, match="no column 'uid'"):
        list(Inputs([str(path)], columns=Columns(key="uid")).pieces())
    pq.write_table(pa.table({"image": [1, 2], "b": ["x", "y"]}), path)
    with pytest.raises(UsageError, match="no column has images or paths"):
        list(Inputs([str(path)]).pieces())
    with pytest.raises(UsageError, match="'image' must hold the bytes of images, or paths"):
        list(Inputs([str(path)], columns=Columns("image")).pieces())
    pq.write_table(pa.table({"path": ["a.jpg", None]}), path)
    with pytest.raises(DataError, match="row 1 has nothing in its column 'path'"):
        list(Inputs([str(path)]).pieces())


@pytest.mark.parametrize("kind", ["list", "paths", "bytes"])
def test_keys_that_occur_twice_are_refused(
    kind: str, captioner: Captioner, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    names = ["a.jpg", "b.jpg", "a.jpg", "c.jpg", "c.jpg"]
    path = tmp_path / ("list" if kind == "list" else "a.parquet")
    columns = Columns()
    if kind == "list":
        path.write_text("\n".join(names))
    elif kind == "paths":
        pq.write_table(pa.table({"path": names}), path)
    else:
        pq.write_table(pa.table({"id": names, "image": [pictures["001.jpg"]] * 5}), path)
        columns = Columns(key="id")
    with pytest.raises(DataError, match=r"Keys that occur more than once \(2\): a.jpg, c.jpg\. "):
        run(captioner, Inputs([str(path)], columns=columns), tmp_path / "out")
    assert not (tmp_path / "out/run.json").exists()


def test_an_empty_folder_is_refused(captioner: Captioner, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        run(captioner, Inputs([str(tmp_path / "empty")]), tmp_path / "out")


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_a_full_disk_keeps_what_is_finished(captioner: Captioner, folder: Path, small_disk: Path) -> None:
    inputs, output = Inputs([str(folder)]), small_disk / "out"
    run(captioner, inputs, output, stop_after=1)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 4096)
    with pytest.raises(OSError, match="No space left"):
        run(captioner, inputs, output)
    ballast.unlink()
    run(captioner, inputs, output)
    assert len(rows(output)) == 20


@pytest.mark.parametrize("small_disk", ["1m"], indirect=True)
def test_a_folder_that_must_not_be_written(captioner: Captioner, folder: Path, small_disk: Path) -> None:
    run(captioner, Inputs([str(folder)]), small_disk / "out", stop_after=1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(JournalError, match="not writable: Read-only"):
        run(captioner, Inputs([str(folder)]), small_disk / "out")
    with pytest.raises(OSError, match="Read-only") as caught:
        run(captioner, Inputs([str(folder)]), small_disk / "other")
    assert str(caught.value.filename) == str(small_disk / "other")


# Stores


def test_everything_in_memory(
    captioner: Captioner, pictures: dict[str, bytes], expected: dict[str, list[str]]
) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name, content in pictures.items():
        memory.pipe_file(f"/photos/{name}", content)
    run(captioner, Inputs(["memory://photos"]), "memory://out", stop_after=1)
    _, given_up = run(captioner, Inputs(["memory://photos"]), "memory://out")
    assert given_up == {}
    found = rows("memory://out")
    assert {name: [one.caption for one in record.captions] for name, record in found.items()} == expected
    assert next(read_results("memory://out")).image == "memory://photos/000.jpg"


@pytest.mark.parametrize("kind", ["named", "list", "struct", "tar"])
def test_files_that_are_too_large_to_be_read_whole_are_rows_with_an_error(
    kind: str,
    captioner: Captioner,
    pictures: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    few = dict(list(pictures.items())[:3])
    few["big.jpg"] = next(iter(few.values())) + bytes(100_000)
    for name, content in few.items():
        memory.pipe_file(f"/photos/{name}", content)
    if kind == "named":
        inputs = Inputs(["memory://photos"])
    elif kind == "list":
        (tmp_path / "list.txt").write_text("\n".join(f"memory://photos/{name}" for name in few))
        inputs = Inputs([str(tmp_path / "list.txt")])
    elif kind == "struct":
        table = pa.table({"image": [{"bytes": content, "path": name} for name, content in few.items()]})
        pq.write_table(table.append_column("id", pa.array(list(few))), tmp_path / "a.parquet")
        inputs = Inputs([str(tmp_path / "a.parquet")], columns=Columns(key="id"))
    else:
        inputs = Inputs([str(write_tar(tmp_path / "a.tar", few))])
    monkeypatch.setattr(decode, "LARGEST_FILE", 99_999)
    monkeypatch.setattr(reading, "LARGEST_FILE", 99_999)
    _, given_up = run(captioner, inputs, tmp_path / "out")
    assert given_up == {}
    found = rows(tmp_path / "out")
    assert {name: record.error for name, record in found.items() if record.error} == {
        "big.jpg": "the file is larger than 99,999 bytes"
    }
    assert len(found) == 4


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of a server that speaks S3's protocol, over real sockets."""
    server_of_moto = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = server_of_moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {key: os.environ.get(key) for key in keys}
    os.environ.update(keys)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("pictures")
    yield "s3://pictures"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
    for key, value in before.items():
        if value is None:
            del os.environ[key]
        else:
            os.environ[key] = value


@pytest.mark.parametrize("kind", ["images", "parquet", "webdataset"])
def test_a_store_that_speaks_s3(
    kind: str,
    bucket: str,
    captioner: Captioner,
    pictures: dict[str, bytes],
    expected: dict[str, list[str]],
    tmp_path: Path,
) -> None:
    import fsspec

    remote, _ = fsspec.core.url_to_fs(bucket)
    word, columns = f"{bucket}/{kind}", Columns()
    if kind == "images":
        for name, content in pictures.items():
            remote.pipe_file(f"{word}/{name}", content)
    elif kind == "parquet":
        columns = Columns(key="id")
        remote.put_file(str(write_table(tmp_path / "a.parquet", pictures)), f"{word}/a.parquet")
    else:
        remote.put_file(str(write_tar(tmp_path / "a.tar", pictures)), f"{word}/a.tar")
    output = f"{bucket}/out-{kind}"
    run(captioner, Inputs([word], columns=columns), output, stop_after=1)
    _, given_up = run(captioner, Inputs([word], columns=columns), output)
    assert given_up == {}
    found = rows(output)
    assert {name: [one.caption for one in record.captions] for name, record in found.items()} == expected
    assert threading.active_count() < 50
    with pytest.raises(JournalError, match="was made with"):
        run(captioner, Inputs([word], columns=columns), output, form="jsonl")


def test_a_store_that_refuses_names_the_place(bucket: str) -> None:
    with pytest.raises(OSError, match=r"NoSuchBucket|bucket does not exist|No such") as caught:
        open_store("s3://no-such-bucket/out").write("run.json", b"{}")
    assert "s3://no-such-bucket/out/run.json" in str(caught.value.filename)
    with pytest.raises(FileNotFoundError):
        open_place(f"{bucket}/nothing.tar")
