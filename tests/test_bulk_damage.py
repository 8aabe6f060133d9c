"""Files that are damaged, half written or gone cost their shard, and no image of them is lost without a word."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulked import draw_pictures, rows, run, write_folder, write_table, write_tar
from showtell.bulk.inputs import Inputs
from showtell.bulk.plan import Part, Shard
from showtell.bulk.reading import read_items
from showtell.bulk.results import read_results
from showtell.bulk.tables import Columns
from showtell.captioner import Captioner
from showtell.errors import DataError, UsageError
from showtell.intake import Item


@pytest.fixture(scope="module")
def captioner(exported_model: str) -> Captioner:
    return Captioner.load(exported_model, threads=1)


@pytest.fixture(scope="module")
def pictures(photographs: list[Path]) -> dict[str, bytes]:
    return draw_pictures(photographs)


@pytest.fixture
def folder(pictures: dict[str, bytes], tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pictures", pictures)


def read_tar(path: Path) -> list[Item]:
    return list(read_items(Shard(0, 0, part=Part("webdataset", str(path))), Columns()))


# Tar files


def test_no_header_of_a_tar_file_can_be_damaged_unseen(pictures: dict[str, bytes], tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", dict(list(pictures.items())[:4])).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        headers = [member.offset for member in tar]
    assert len(headers) == 8
    assert len(read_tar(tmp_path / "a.tar")) == 4
    random_ = random.Random(0)
    for offset in headers:
        for _ in range(10):
            damaged = bytearray(whole)
            damaged[offset + random_.randrange(345)] ^= 1 << random_.randrange(8)
            (tmp_path / "a.tar").write_bytes(damaged)
            with pytest.raises(DataError, match=r"a.tar: half written, damaged, or no tar file: "):
                read_tar(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", ["tar", "tgz"])
def test_a_cut_tar_file_is_never_taken_for_whole(
    kind: str, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    path = write_tar(
        tmp_path / f"a.{kind}", dict(list(pictures.items())[:8]), "w:gz" if kind == "tgz" else "w"
    )
    whole = path.read_bytes()
    assert len(read_tar(path)) == 8
    # Of the zeros that fill a tar file up, some may be missing; of a packed one, nothing.
    last = len(whole) - 1 if kind == "tgz" else len(whole.rstrip(b"\0"))
    cuts = [*range(0, last, 512 if kind == "tar" else 97), *range(100, last, 1033), last]
    for length in cuts:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="half written, damaged, or no tar file: "):
            read_tar(path)


def test_no_bit_of_a_packed_tar_file_can_be_damaged_unseen(
    pictures: dict[str, bytes], tmp_path: Path
) -> None:
    whole = write_tar(tmp_path / "a.tgz", dict(list(pictures.items())[:4]), "w:gz").read_bytes()
    random_ = random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[random_.randrange(20, len(whole))] ^= 1 << random_.randrange(8)
        (tmp_path / "a.tgz").write_bytes(damaged)
        with pytest.raises(DataError, match="half written, damaged, or no tar file: "):
            read_tar(tmp_path / "a.tgz")


@pytest.mark.parametrize("kind", ["tar", "tgz"])
def test_joined_tar_files_are_refused(kind: str, pictures: dict[str, bytes], tmp_path: Path) -> None:
    mode = "w:gz" if kind == "tgz" else "w"
    first, second = (
        write_tar(tmp_path / f"{name}.{kind}", {f"{name}.jpg": content}, mode)
        for name, content in (("a", pictures["000.jpg"]), ("b", pictures["001.jpg"]))
    )
    first.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(DataError, match="something stands behind its end, as where several tar files"):
        read_tar(first)


def test_links_in_a_tar_file_are_rows(pictures: dict[str, bytes], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (
            ("a.jpg", tarfile.REGTYPE),
            ("b.jpg", tarfile.LNKTYPE),
            ("c.jpg", tarfile.SYMTYPE),
            ("d.txt", tarfile.SYMTYPE),
            ("e.jpg", tarfile.DIRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.jpg"
            member.size = len(pictures["000.jpg"]) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(pictures["000.jpg"]))
    found = read_tar(tmp_path / "a.tar")
    assert [(Path(item.name).name, item.error) for item in found] == [
        ("a.jpg", ""),
        ("b.jpg", "it is a link to a.jpg, and has no content"),
        ("c.jpg", "it is a link to a.jpg, and has no content"),
    ]


# What is mended is done by the next run


def test_half_written_files_cost_their_shard_and_are_tried_again(
    captioner: Captioner, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    few = dict(list(pictures.items())[:4])
    good = write_tar(tmp_path / "a.tar", {f"a{name}": content for name, content in few.items()})
    tar = write_tar(tmp_path / "b.tar", {f"b{name}": content for name, content in few.items()})
    table = write_table(tmp_path / "c.parquet", {f"c{name}": content for name, content in few.items()})
    twice = write_tar(tmp_path / "d.tar", few)
    with tarfile.open(twice, "a") as archive:
        archive.addfile(tarfile.TarInfo("000.jpg"))
    whole = {path: path.read_bytes() for path in (tar, table)}
    words = [str(path) for path in (good, tar, table, twice)]
    inputs = Inputs(words)
    first = 512 + -(-len(few["000.jpg"]) // 512) * 512  # header, and content in blocks
    tar.write_bytes(whole[tar][:first])  # behind the first member: nothing but the missing end tells
    table.write_bytes(whole[table][:-100])
    _results, given_up = run(captioner, inputs, tmp_path / "out")
    assert sorted(given_up) == [1, 2, 3]
    assert "b.tar: half written, damaged, or no tar file: it has no end" in given_up[1]
    assert "half written, damaged, or no Parquet file" in given_up[2]
    assert "has 000.jpg twice" in given_up[3]
    assert len(rows(tmp_path / "out")) == 4
    assert json.loads((tmp_path / "out/manifest.json").read_text())["complete"] is False
    tar.write_bytes(whole[tar][: len(whole[tar]) // 2 - 100])  # inside of a member
    table.unlink()
    write_tar(twice, few)
    _, given_up = run(captioner, inputs, tmp_path / "out")
    assert sorted(given_up) == [1, 2]
    assert "half written" in given_up[1]
    assert "cannot be read: No such file" in given_up[2]
    for path, content in whole.items():
        path.write_bytes(content)
    _, given_up = run(captioner, inputs, tmp_path / "out")
    assert given_up == {}
    assert len(rows(tmp_path / "out")) == 16


def test_a_table_that_shrinks_and_images_that_vanish(
    captioner: Captioner, folder: Path, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    path = write_table(tmp_path / "a.parquet", pictures)
    inputs = Inputs([str(path), str(folder)])
    run(captioner, inputs, tmp_path / "out", stop_after=0)
    write_table(path, dict(list(pictures.items())[:12]))
    (folder / "003.jpg").unlink()
    _, given_up = run(captioner, inputs, tmp_path / "out")
    assert list(given_up) == [0]
    assert "has 12 rows, and had 20" in given_up[0]
    [gone] = [record for record in read_results(tmp_path / "out") if record.image.endswith("003.jpg")]
    assert gone.error == "there is no such file"


# Parquet files


def damage_footer(path: Path) -> None:
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[-8:-4], "little")
    for place in range(20):
        content[len(content) - 8 - length + place] ^= 0xFF
    path.write_bytes(content)


def damage_pages(path: Path) -> None:
    group = pq.read_metadata(path).row_group(0)
    content = bytearray(path.read_bytes())
    for number in range(group.num_columns):
        column = group.column(number)
        start = column.dictionary_page_offset or column.data_page_offset
        content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)


def read_part(path: Path, columns: Columns = Columns()) -> list[Item]:  # noqa: B008  # frozen
    [part] = Inputs([str(path)], columns=columns).pieces()
    assert isinstance(part, Part)
    return list(read_items(Shard(0, 0, part=part), columns))


@pytest.mark.parametrize("damage", [damage_footer, damage_pages])
def test_a_damaged_table_is_a_shard_that_fails(
    damage: Callable[[Path], None], pictures: dict[str, bytes], tmp_path: Path
) -> None:
    path = write_table(tmp_path / "a.parquet", pictures)
    assert len(read_part(path)) == 20
    damage(path)
    with pytest.raises(DataError, match=r"a.parquet: half written, damaged, or no Parquet file: "):
        read_part(path)


@pytest.mark.parametrize("damage", [damage_footer, damage_pages])
@pytest.mark.parametrize("key", [True, False])
def test_a_table_whose_keys_cannot_be_read_is_refused_by_name(
    key: bool, damage: Callable[[Path], None], pictures: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    columns = Columns(key="id") if key else Columns()
    if key:
        write_table(path, pictures)
    else:
        pq.write_table(pa.table({"path": list(pictures)}), path)
    damage(path)
    inputs = Inputs([str(path)], columns=columns)
    if not key and damage is damage_footer:  # nobody knows what it holds
        assert list(inputs.pieces()) == [Part("parquet", str(path))]
        return
    with pytest.raises(DataError, match=r"a.parquet: half written, damaged, or no Parquet file"):
        list(inputs.keys() if key else inputs.pieces())


def test_text_that_is_none_is_named(pictures: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    offsets = struct.pack("<3i", 0, 3, 6)
    names = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(b"a\xffbcde"))
    pq.write_table(pa.table({"path": names}), path)
    with pytest.raises(DataError, match=r"a.parquet: half written, damaged, or no Parquet file: .*utf-8"):
        list(Inputs([str(path)]).pieces())
    pq.write_table(pa.table({"id": names, "image": [pictures["000.jpg"]] * 2}), path)
    with pytest.raises(DataError, match=r"a.parquet: half written, damaged, or no Parquet file: .*utf-8"):
        list(Inputs([str(path)], columns=Columns(key="id")).keys())


def test_a_table_of_paths_that_was_half_written_needs_a_new_output(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"path": ["a.jpg"]}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    [part] = Inputs([str(path)]).pieces()
    assert isinstance(part, Part)
    path.write_bytes(whole)
    with pytest.raises(
        DataError,
        match=r"holds paths, and it could not be read when the plan was made. Choose a new --output",
    ):
        list(read_items(Shard(0, 0, part=part), Columns()))


@pytest.mark.parametrize("kind", ["bytes", "keys", "paths"])
def test_random_damage_costs_no_row_unseen(kind: str, pictures: dict[str, bytes], tmp_path: Path) -> None:
    """Whatever is damaged in a file: all of its rows are read, or it is refused by its name."""
    path, columns = tmp_path / "a.parquet", Columns(key="id" if kind == "keys" else None)
    if kind == "paths":
        pq.write_table(pa.table({"path": list(pictures)}), path, row_group_size=5)
    else:
        write_table(path, {name: name.encode() for name in pictures}, rows=5)
    whole, random_ = path.read_bytes(), random.Random(1)
    reasons = []
    for _ in range(250):
        content = bytearray(whole)
        for _ in range(random_.choice((1, 1, 3, 20))):
            content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
        path.write_bytes(content)
        inputs = Inputs([str(path)], columns=columns)
        rows_read = 0
        try:
            pieces = list(inputs.pieces())
            list(inputs.keys())
            for piece in pieces:
                part = piece if isinstance(piece, Part) else None
                shard = Shard(0, 0, () if part else (piece,), part)  # type: ignore[arg-type]
                rows_read += len(list(read_items(shard, columns)))
        except (DataError, UsageError) as error:
            reasons.append(str(error))
        else:
            assert rows_read == 20
    assert len(reasons) > 80
    assert all("a.parquet" in reason for reason in reasons)
