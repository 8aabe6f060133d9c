"""What `showtell bulk` is given: names with brackets, patterns, mixed folders, stores, and what is not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from bulked import draw_pictures
from rights import unprivileged
from showtell.bulk.inputs import Inputs
from showtell.bulk.places import match_pattern, open_place
from showtell.bulk.plan import Picture, Shard
from showtell.bulk.reading import read_items
from showtell.bulk.tables import Columns
from showtell.errors import ImageError, InputError, ShowtellError, UsageError
from showtell.images import open_image


@pytest.fixture(scope="module")
def picture(photographs: list[Path]) -> bytes:
    return draw_pictures(photographs, 1)["000.jpg"]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def memory() -> Iterator[Any]:
    found = fsspec.filesystem("memory")
    found.store.clear()
    yield found
    found.store.clear()


def put(name: str, content: bytes = b"x") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content)


def names(*words: str, kind: str = "auto") -> list[str]:
    return [
        one.key if isinstance(one, Picture) else os.path.relpath(one.file)
        for one in Inputs(words, kind).pieces()
    ]


def test_a_name_with_brackets_that_is_there_is_no_pattern() -> None:
    put("photos [2024]/a.jpg")
    put("photos 2/b.jpg")
    put("x[1].tar")
    put("list[1]", b"c.jpg\n")
    put("p[1].jpg")
    put("s[1]/0.tar")
    assert names("photos [2024]") == ["photos [2024]/a.jpg"]
    assert names("x[1].tar", "list[1]", "p[1].jpg", "s[1]") == ["x[1].tar", "c.jpg", "p[1].jpg", "s[1]/0.tar"]
    assert names("photos [12]") == ["photos 2/b.jpg"]


def test_patterns_lead_through_folders_and_links() -> None:
    for name in ("a/0.tar", "a/10.tar", "b/c/1.tar", "b/.hidden.tar", ".d/2.tar", "b/notes.txt"):
        put(name)
    Path("e").symlink_to("a")
    Path("folder.tar").mkdir()
    assert match_pattern("*/*.tar") == ["a/0.tar", "a/10.tar", "e/0.tar", "e/10.tar"]
    assert match_pattern("**/1*.tar") == ["a/10.tar", "b/c/1.tar", "e/10.tar"]
    assert match_pattern(f"{Path.cwd()}/?/0.tar") == [f"{Path.cwd()}/a/0.tar", f"{Path.cwd()}/e/0.tar"]
    assert match_pattern("*.tar") == match_pattern("nothing/*.tar") == []
    assert names("a/{0..0}.tar", "*/1*.tar") == ["a/0.tar", "a/10.tar", "e/10.tar"]


def test_each_word_must_name_something(memory: Any) -> None:
    put("photos/a.jpg")
    put("empty/notes.txt")
    put("list", b"\n")
    for word in ("phtos/*.jpg", "empty", "list", "memory://nothing/*.jpg"):
        with pytest.raises(InputError, match="there are no images here") as caught:
            names("photos", word)
        assert str(caught.value).startswith(word)


def test_keys_below_the_home_folder_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    Path("tables").mkdir()
    pq.write_table(pa.table({"id": ["a", "b"], "image": [b"x", b"y"]}), "tables/a.parquet")
    inputs = Inputs(["~/tables"], columns=Columns(key="id"))
    assert len(list(inputs.pieces())) == 1
    assert list(inputs.keys()) == ["a", "b"]


@pytest.mark.parametrize("other", ["a.jpg", "deep/below/a.jpg", "a.tar"])
def test_a_folder_of_several_kinds_is_refused(other: str, memory: Any, picture: bytes) -> None:
    put(f"mixed/{other}", picture)
    memory.pipe_file(f"/mixed/{other}", picture)
    pq.write_table(pa.table({"image": [picture]}), "mixed/metadata.parquet")
    memory.pipe_file("/mixed/metadata.parquet", Path("mixed/metadata.parquet").read_bytes())
    called, kind = ("tar files", "webdataset") if other == "a.tar" else ("images", "images")
    for word in ("mixed", "memory://mixed"):
        message = rf"{word} holds Parquet files and {called}. .* --kind parquet or {kind}\.$"
        with pytest.raises(UsageError, match=message):
            names(word)
        assert names(word, kind=kind)[0].endswith(other)
        assert names(word, kind="parquet")[0].endswith("metadata.parquet")


def test_addresses_are_written_as_they_were_given(memory: Any, picture: bytes) -> None:
    here = f"file://{Path.cwd()}"
    put("photos/a.jpg", picture)
    put("photos/b/c.jpg", picture)
    for name in ("/a.jpg", "/b/c.jpg"):
        memory.pipe_file(f"/photos{name}", picture)
    for start in (f"{here}/photos", "memory://photos", "memory:///photos"):
        for word in (start, f"{start}/"):
            assert names(word) == [f"{start}/a.jpg", f"{start}/b/c.jpg"]
        assert names(f"{start}/*.jpg") == names(f"{start}/a.jpg") == [f"{start}/a.jpg"]
        assert names(f"{start}/**/*.jpg") == names(start)
        for key in names(start):
            assert open_place(key).read() == picture
    assert names("memory://photo*/a.jpg") == ["memory://photos/a.jpg"]


class _Hosted(MemoryFileSystem):
    """A store whose paths do not have the machine of their address, as those of sftp."""

    protocol = "hosted"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        if path.startswith("hosted://"):
            path = path.removeprefix("hosted://").partition("/")[2]
        return super()._strip_protocol(path)


def test_the_machine_of_an_address_is_kept(memory: Any, picture: bytes) -> None:
    fsspec.register_implementation("hosted", _Hosted, clobber=True)
    _Hosted().pipe_file("/photos/a.jpg", picture)
    for word in ("hosted://machine/photos", "hosted://machine/*/a.jpg", "hosted://machine/photos/a.jpg"):
        assert names(word) == ["hosted://machine/photos/a.jpg"]
    assert open_place("hosted://machine/photos/a.jpg").read() == picture


@pytest.mark.parametrize("word", ["memory://photos", "memory://photos/**/*.jpg", "memory://photos/*/*.tar"])
def test_a_folder_that_cannot_be_listed_is_not_left_out(
    word: str, memory: Any, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "a/1.tar", "b/2.tar"):
        memory.pipe_file(f"/photos/{name}", picture)
    assert len(names(word, kind="webdataset" if word.endswith(".tar") else "images")) == 2
    listed = MemoryFileSystem.ls

    def ls(self: MemoryFileSystem, path: str, detail: bool = True, **more: Any) -> Any:
        if path.rstrip("/").endswith("/b"):
            raise OSError("the connection was reset")
        return listed(self, path, detail=detail, **more)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    with pytest.raises(OSError, match="the connection was reset") as caught:
        names(word)
    assert caught.value.filename == "memory://photos/b"


def test_a_local_folder_that_cannot_be_opened_is_not_left_out(picture: bytes) -> None:
    with unprivileged() as folder:
        for name in ("a", "b"):
            (folder / name).mkdir()
            (folder / name / "1.jpg").write_bytes(picture)
        (folder / "b").chmod(0)
        for word in (str(folder), f"{folder}/**/*.jpg"):
            with pytest.raises(
                InputError, match="/b: no permission to open this folder, and its images would"
            ):
                names(word)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("gs://bucket/a.jpg", "gs://bucket/a.jpg: gs:// needs the package gcsfs. Install it with pip"),
        ("s4://bucket/a.jpg", "s4://bucket/a.jpg: Protocol not known: s4"),
    ],
)
def test_addresses_that_nobody_can_read_are_refused_at_once(place: str, message: str) -> None:
    if place.startswith("gs") and find_spec("gcsfs") is not None:
        pytest.skip("gcsfs is installed")
    put("list", f"a.jpg\n{place}\n".encode())
    pq.write_table(pa.table({"path": ["a.jpg", place]}), "a.parquet")
    for word in ("list", "a.parquet"):
        with pytest.raises(UsageError, match=message):
            names(word)
    # On a machine that is set up otherwise than the one that planned:
    [item] = read_items(Shard(0, 0, (Picture(place, place),)), Columns())
    with pytest.raises(ImageError, match=message):
        open_image(item.source)


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("nothing", "auto", "nothing: there is no such file or folder"),
        ("nothing", "images", "nothing: there is no such file or folder"),
        ("nothing*.tar", "auto", "nothing here ends with .tar"),
        ("empty", "parquet", "nothing here ends with .parquet"),
        ("memory://nothing", "images", "there are no images here"),
        ("s4://bucket/a", "auto", "Protocol not known: s4"),
    ],
)
def test_input_that_is_not_there(word: str, kind: str, message: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(ShowtellError, match=message):
        names(word, kind=kind)
