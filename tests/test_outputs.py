"""What comes out: names in every form, records in every format, the journal, and failures told at the end."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from showtell.captioner import CaptionedPicture
from showtell.captioning import Caption
from showtell.errors import ImageError, JournalError, UsageError
from showtell.files import open_atomically, path_digest, remove_neighbours, write_atomically
from showtell.outputs import (
    FORMATS,
    Failures,
    FileDestination,
    Format,
    Journal,
    Record,
    StreamDestination,
    WrittenCaption,
    find_format,
    one_line,
    readable,
)
from showtell.outputs.formats import read_earlier
from showtell.outputs.journal import journal_of
from showtell.outputs.names import restore
from showtell.outputs.sheet import SIDE, draw_thumbnail

file_names = st.binary(min_size=1).filter(lambda name: b"\0" not in name).map(os.fsdecode)
captions = st.lists(
    st.builds(
        WrittenCaption,
        st.from_regex(r"[a-z犬\"<&,;' ]+", fullmatch=True),
        st.floats(-9, 0),
        st.none() | st.floats(0, 1),
        st.none() | st.from_regex(r"[A-Z\"<&,;' ]+[.]", fullmatch=True),
        st.none() | st.booleans(),
    )
)
records = st.one_of(
    st.builds(
        Record, file_names, captions.map(tuple), sidecar_error=st.sampled_from(["", 'it <is> "there"'])
    ),
    st.builds(Record, file_names, error=st.sampled_from(["no such file or folder", 'a\nb,"c"'])),
)

AWKWARD = [
    "plain.jpg",
    "two\nlines.jpg",
    "tab\tand,comma;.jpg",
    "\"quotes\" 'and' <b>&amp;.jpg",
    os.fsdecode(b"latin-\xe9\xff.jpg"),
    "back\\slash\\xff.jpg",
    "\x1b[31mred\x7f.jpg",
    "right\u202eto\u2028left.jpg",
    "=1+1.jpg",
    "犬 🐕\u200d🦺.jpg",
    " spaces .jpg",
]


def record(image: str, *texts: str) -> Record:
    return Record(image, tuple(WrittenCaption(text, -0.5 * rank) for rank, text in enumerate(texts, start=1)))


def form(name: str) -> Format:
    return find_format(name, folder=Path("/"))


def render(form: Format, records: list[Record]) -> str:
    pieces: list[str] = []
    with StreamDestination(form, pieces.append) as destination:
        for one in records:
            destination.add(one)
        destination.finish()
    return "".join(pieces)


# Names


@given(file_names)
def test_lines_tell_all_names_apart_and_hold_no_control_characters(name: str) -> None:
    line = one_line(name)
    assert restore(line) == name
    line.encode()
    assert len(line.splitlines()) == 1
    assert not any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in line)


def test_names_in_lines() -> None:
    assert [one_line(name) for name in AWKWARD] == [
        "plain.jpg",
        r"two\nlines.jpg",
        r"tab\tand,comma;.jpg",
        "\"quotes\" 'and' <b>&amp;.jpg",
        r"latin-\xe9\xff.jpg",
        r"back\\slash\\xff.jpg",
        r"\x1b[31mred\x7f.jpg",
        r"right\u202eto\u2028left.jpg",
        "=1+1.jpg",
        "犬 🐕\u200d🦺.jpg",
        " spaces .jpg",
    ]
    assert readable(os.fsdecode(b"a\xff\n.jpg")) == "a\\xff\n.jpg"


# Records


@given(records)
def test_records_survive_json(one: Record) -> None:
    line = json.dumps(one.to_dict(), ensure_ascii=False).encode()  # always UTF-8
    assert Record.from_dict(json.loads(line)) == one


def test_the_fields_of_a_record() -> None:
    assert record("a.jpg", "a dog").to_dict() == {
        "image": "a.jpg",
        "captions": [{"caption": "a dog", "score": -0.5}],
    }
    assert Record("a.jpg", error="it is empty").to_dict() == {"image": "a.jpg", "error": "it is empty"}
    assert Record(os.fsdecode(b"\xff.jpg")).to_dict() == {
        "image": r"\xff.jpg",
        "image_bytes": "/y5qcGc=",
        "captions": [],
    }


def test_a_record_is_made_of_what_the_captioner_gave() -> None:
    caption = Caption("a dog", -0.5, -1.5, (-1.0, -0.5))
    assert Record.of("a.jpg", CaptionedPicture((caption,), (1, 1))) == record("a.jpg", "a dog")
    bad = CaptionedPicture((), (1, 1), ImageError("a.jpg: the file is empty (0 bytes)"))
    assert Record.of("a.jpg", bad).error == "the file is empty (0 bytes)"
    assert Record.of("a.jpg", bad, error="gone").error == "gone"


def test_a_record_of_alt_text_says_what_needs_review() -> None:
    sure, unsure = (Caption("a photo of a dog", -0.5, -1.5, (-0.3,) * 5, confidence=c) for c in (0.9, 0.2))
    both = Record.of("a.jpg", CaptionedPicture((sure, unsure), (1, 1)), as_alt=True)
    assert [one.to_dict() for one in both.captions] == [
        {
            "caption": "a photo of a dog",
            "score": -0.5,
            "confidence": 0.9,
            "alt": "A dog.",
            "needs_review": False,
        },
        {
            "caption": "a photo of a dog",
            "score": -0.5,
            "confidence": 0.2,
            "alt": "A dog.",
            "needs_review": True,
        },
    ]
    assert render(form("text"), [both]) == "a.jpg\tA dog.\na.jpg\tA dog.\n"
    assert render(form("csv"), [both]).splitlines()[1] == "a.jpg,1,a photo of a dog,-0.5,0.9,A dog.,False,"
    assert 'alt="A dog."' in render(
        form("html"), [replace(both, thumbnail=draw_thumbnail(Image.new("RGB", (9, 9))))]
    )


def test_a_picture_of_which_nothing_is_sure_has_its_place() -> None:
    nothing = Record.of("a.jpg", CaptionedPicture((), (1, 1)))
    assert nothing.to_dict() == {"image": "a.jpg", "captions": []}
    assert render(form("text"), [nothing]) == "a.jpg\t\n"
    assert render(form("csv"), [nothing]).splitlines()[1] == "a.jpg,,,,,,,"


# Formats

TWO = [record("a,b.jpg", 'a "dog"', "犬"), record("c.jpg", "a cat")]


def test_text_json_lines_json_and_csv() -> None:
    assert render(form("text"), TWO) == 'a,b.jpg\ta "dog"\na,b.jpg\t犬\nc.jpg\ta cat\n'
    values = [one.to_dict() for one in TWO]
    assert json.loads(render(form("json"), TWO)) == values
    assert [json.loads(line) for line in render(form("jsonl"), TWO).splitlines()] == values
    assert render(form("csv"), [*TWO, Record("d.jpg", error="gone")]).splitlines() == [
        "image,rank,caption,score,confidence,alt,needs_review,error",
        '"a,b.jpg",1,"a ""dog""",-0.5,,,,',
        '"a,b.jpg",2,犬,-1.0,,,,',
        "c.jpg,1,a cat,-0.5,,,,",
        "d.jpg,,,,,,,gone",
    ]


def test_nothing_is_a_whole_file_too() -> None:
    assert [render(form(name), []) for name in ("text", "json", "jsonl", "csv")] == [
        "",
        "[]\n",
        "",
        "image,rank,caption,score,confidence,alt,needs_review,error\n",
    ]
    assert Page.of(render(form("html"), [])).figures == []


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_names_in_every_format(name: str) -> None:
    both = [record(name, "a dog"), Record(name, error="it is damaged")]
    assert render(form("text"), both) == f"{one_line(name)}\ta dog\n"
    for values in (
        json.loads(render(form("json"), both)),
        [json.loads(line) for line in render(form("jsonl"), both).split("\n")[:-1]],
    ):
        assert [Record.from_dict(one) for one in values] == both
    rows = list(csv.DictReader(io.StringIO(render(form("csv"), both), newline="")))
    assert [(row["image"], row["caption"], row["error"]) for row in rows] == [
        (readable(name), "a dog", ""),
        (readable(name), "", "it is damaged"),
    ]
    page = Page.of(render(form("html"), both))
    assert page.figures == [readable(name)] * 2
    assert one_line(name) in page.text


@given(st.lists(records, max_size=5, unique_by=lambda one: readable(one.image)), st.sampled_from(FORMATS))
def test_what_was_written_is_read_again(written: list[Record], name: str) -> None:
    text = render(form(name), written)
    found = list(form(name).read(io.StringIO(text, newline="")))
    there = [one for one in written if not one.error or form(name).holds_failures]
    assert [one.image for one in found] == [form(name).spell(one.image) for one in there]
    assert [one.failed for one in found] == [
        bool(one.error or (name == "csv" and one.failure and not one.captions)) for one in there
    ]
    assert text == (
        form(name).head()
        + "".join(form(name).join(one.written, first=not index) for index, one in enumerate(found))
        + form(name).tail(len(found))
    )


@pytest.mark.parametrize("name", ["text", "jsonl"])
def test_a_last_line_without_its_end_gets_one(name: str) -> None:
    written = render(form(name), TWO).rstrip("\n")
    assert [one.written[-1] for one in form(name).read(io.StringIO(written, newline=""))] == ["\n", "\n"]


@pytest.mark.parametrize(
    ("name", "content"), [("csv", ""), ("jsonl", '{"image": 5, "captions": []}\n'), ("json", "")]
)
def test_damaged_files_are_refused(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(UsageError, match="file: --skip-existing reads what an earlier command wrote"):
        list(read_earlier(tmp_path / "file", form(name)))


def test_failures_do_not_tell_the_secrets_of_addresses() -> None:
    said: list[str] = []
    failures = Failures("", said.append)
    failures.add(Record("https://a.example/x.jpg?key=secret", error="https://a.example/x.jpg: it is gone"))
    failures.report()
    assert said == ["error: 1 of 1 image failed:", "  https://a.example/x.jpg: it is gone"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_somebody_else_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"something\xff else\n")
    with pytest.raises(
        UsageError, match=r"file: --skip-existing reads what an earlier command wrote there in the"
    ):
        list(read_earlier(tmp_path / "file", form(name)))
    other = "csv" if name != "csv" else "html"
    (tmp_path / "file").write_text(render(form(other), TWO))
    with pytest.raises(UsageError, match="Choose another --output or --format"):
        list(read_earlier(tmp_path / "file", form(name)))


@pytest.mark.parametrize(("name", "rest"), [("json", "\n]\n"), ("html", "</main>")])
def test_what_is_interrupted_on_a_stream_is_closed(name: str, rest: str) -> None:
    def written(error: BaseException) -> str:
        pieces: list[str] = []
        with contextlib.suppress(type(error)), StreamDestination(form(name), pieces.append) as destination:
            destination.add(TWO[0])
            raise error
        return "".join(pieces)

    assert written(KeyboardInterrupt()).count(rest) == 1
    assert rest not in written(BrokenPipeError())  # nobody reads it


# The contact sheet


class Page(HTMLParser):
    """Collects what a page shows, what it would fetch, and checks that its tags are closed in order."""

    VOID = ("meta", "img", "input")

    def __init__(self) -> None:
        super().__init__()
        self.figures: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []

    @classmethod
    def of(cls, text: str) -> Page:
        page = cls()
        page.feed(text)
        page.close()
        assert page._open == []
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "figure":
            self.figures.append(values["data-image"] or "")
        if tag == "a":
            self.links.append(values["href"] or "")
        if tag == "img":
            self.images.append(values)
        assert "src" not in values or tag == "img"

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_sheet_holds_its_pictures_and_asks_for_nothing(photographs: list[Path]) -> None:
    folder = photographs[0].parent
    thumbnail = draw_thumbnail(photographs[1])
    name = str(folder / "50% #1?\n.jpg")
    one = Record(name, (WrittenCaption('a "dog" <i>', -1), WrittenCaption("a cat", -2)), thumbnail=thumbnail)
    text = render(find_format("html", folder=folder.parent), [one, Record("gone.jpg", error="<gone>")])
    page = Page.of(text)
    (image,) = page.images
    assert (image["alt"], image["width"], image["height"]) == ('a "dog" <i>', "400", "266")
    assert str(image["src"]).startswith("data:image/webp;base64,")
    assert page.links == [f"./{folder.name}/50%25%20%231%3F%0A.jpg"]
    assert "a cat" in page.text
    assert "<gone>" in page.text
    assert "default-src 'none'" in text
    assert not [word for word in ("http://", "https://", "url(", "@import") if word in text]
    assert len([line for line in text.splitlines() if line.startswith("<figure")]) == 2


def test_addresses_are_linked_and_standard_input_is_not(photographs: list[Path]) -> None:
    thumbnail = draw_thumbnail(photographs[0])
    pictures = [
        Record(name, thumbnail=thumbnail) for name in ("https://example.org/?a=1&b=2", "-", "javascript:x")
    ]
    assert Page.of(render(form("html"), pictures)).links[0] == "https://example.org/?a=1&b=2"
    assert Page.of(render(form("html"), pictures[1:2])).links == []
    assert Page.of(render(form("html"), pictures[2:])).links[0].startswith("./")


def test_thumbnails_are_small_upright_and_absent_where_there_is_no_image(
    photographs: list[Path], tmp_path: Path
) -> None:
    with Image.open(io.BytesIO(draw_thumbnail(photographs[0]))) as small:
        assert (small.format, small.size) == ("WEBP", (SIDE, SIDE))
    assert len(draw_thumbnail(photographs[0])) < 30_000
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(photographs[1]) as image:
        image.save(turned, exif=exif)
    with Image.open(io.BytesIO(draw_thumbnail(turned))) as small:
        assert small.height > small.width
    line = Image.new("RGB", (20_000, 10), "red")
    with Image.open(io.BytesIO(draw_thumbnail(line))) as small:
        assert small.size == (400, 1)
    assert draw_thumbnail(b"no image") == b""


# The journal

MADE_BY = {"model": "0123", "beam": 3, "sizes": (1, 2)}


def write_journal(path: Path, *written: Record) -> Path:
    journal = Journal(path, resume=False)
    journal.begin(MADE_BY)
    for one in written:
        journal.add(one)
    journal.__exit__(None, None, None)
    return path


def test_a_journal_gives_back_its_records_and_takes_more(tmp_path: Path) -> None:
    first = [*TWO, Record(os.fsdecode(b"\xff\n"), error="gone"), Record("t", thumbnail=b"\0\xff")]
    path = write_journal(tmp_path / "out.part", *first)
    with Journal(path, resume=True) as journal:
        journal.begin(MADE_BY)
        assert list(journal.records()) == first
        journal.add(record("more.jpg", "a cow"))
        assert (journal.count, len(list(journal.records()))) == (5, 5)
    assert len(path.read_bytes().splitlines()) == 6


def test_results_of_an_unfinished_run_are_not_lost_without_resume(tmp_path: Path) -> None:
    path = write_journal(tmp_path / "out.part", *TWO)
    before = path.read_bytes()
    with pytest.raises(
        JournalError, match=r"out.part holds the results of 2 images, .*--resume.*remove that file"
    ):
        Journal(path, resume=False)
    assert path.read_bytes() == before


def test_a_torn_line_is_dropped_wherever_it_is_torn(tmp_path: Path) -> None:
    path = write_journal(tmp_path / "out.part", record("a.jpg", "a dog"), record("b.jpg", "a cat"))
    whole = path.read_bytes()
    header, first, second = whole.splitlines(keepends=True)
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        expected = (size >= len(header + first)) + (size >= len(header + first + second))
        with Journal(path, resume=True) as journal:
            assert journal.count == expected
            journal.begin(MADE_BY)
            journal.add(record("c.jpg", "a cow"))
            assert [one.image for one in journal.records()] == [*["a.jpg", "b.jpg"][:expected], "c.jpg"]


def test_another_model_or_setting_is_refused_and_named(tmp_path: Path) -> None:
    path = write_journal(tmp_path / "out.part", *TWO)
    message = r"was made with model = 0123, and now 4567; beam = 3, and now nothing; top_k = nothing, and now 5\. Use"
    with Journal(path, resume=True) as journal, pytest.raises(JournalError, match=message):
        journal.begin({"model": "4567", "sizes": [1, 2], "top_k": 5})
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"my own notes", "is no journal: it begins with 'my own notes"),
        (b'{"a": 1}\n', "is no journal of this version"),
        (b'{"showtell_journal": 99}\n{"image": "a"}\n', "is no journal of this version"),
        (
            b'{"showtell_journal": 1}\n{"image": "a", "captions": []}\nxx\n{"image": "b"}\n',
            "is damaged at line 3",
        ),
        (b'{"showtell_journal": 1}\n[]\n{"image": "b", "captions": []}\n', "is damaged at line 2"),
    ],
)
def test_what_is_no_journal_is_not_touched(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "out.part"
    path.write_bytes(content)
    for resume in (True, False):
        with pytest.raises(JournalError, match=rf"out.part {message}"):
            Journal(path, resume=resume)
        assert path.read_bytes() == content


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom showtell.outputs import Journal\n"
        "Journal(Path(sys.argv[1]), resume=True)"
    )
    with Journal(tmp_path / "out.part", resume=False) as journal:
        journal.begin(MADE_BY)
        journal.add(TWO[0])
        words = [sys.executable, "-c", program, str(tmp_path / "out.part")]
        ended = subprocess.run(words, capture_output=True, text=True)
    assert "another process is writing these results. Wait for it to end" in ended.stderr


def test_a_journal_without_records_leaves_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path / "out.part", resume=False) as journal:
        journal.begin(MADE_BY)
    assert list(tmp_path.iterdir()) == []


def test_records_are_counted_as_they_lie_on_disk(tmp_path: Path) -> None:
    with Journal(tmp_path / "out.part", resume=False) as journal:
        journal.begin(MADE_BY)
        journal.add(TWO[0])
        journal.count = 0  # as if an interrupt had come before it was counted
        assert journal.recount() == 1
        journal.remove()
        assert journal.recount() == 0


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_a_full_disk_leaves_whole_lines_and_no_output(small_disk: Path) -> None:
    output = small_disk / "out.jsonl"
    written = 0
    with FileDestination(output, form("jsonl"), Journal(journal_of(output), resume=False)) as destination:
        destination.journal.begin(MADE_BY)

        def fill() -> None:
            nonlocal written
            for number in range(10_000):
                destination.add(record(f"{number}.jpg", "a dog " * 20))
                written += 1

        with pytest.raises(OSError, match="No space left") as caught:
            fill()
        assert caught.value.filename == str(journal_of(output))
        with pytest.raises(OSError, match="No space left") as caught:
            destination.finish()  # there is no room for the output beside the journal
        assert caught.value.filename == str(output)
    assert [path.name for path in small_disk.iterdir()] == ["out.jsonl.part"]
    with Journal(journal_of(output), resume=True) as journal:
        assert [one.image for one in journal.records()] == [f"{number}.jpg" for number in range(written)]


# Files


def test_a_file_takes_the_place_of_the_old_one_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with contextlib.suppress(KeyboardInterrupt), open_atomically(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with open_atomically(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def leave_unfinished(path: Path) -> Path:
    """Does what a kill in the middle of writing a file leaves beside it."""
    code = f"""
import os, signal, sys
from pathlib import Path
from showtell.files import open_atomically
with open_atomically(Path({str(path)!r})) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    before = set(path.parent.iterdir())
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    [left] = set(path.parent.iterdir()) - before
    return left


def test_what_a_kill_left_beside_a_file_is_removed_and_nothing_else(tmp_path: Path) -> None:
    mine, other = leave_unfinished(tmp_path / "a[1].txt"), leave_unfinished(tmp_path / "a1.txt")
    alike = [leave_unfinished(tmp_path / f"{'x' * 60}-{number}.csv") for number in (1, 2)]
    (tmp_path / "a[1].txt.part").touch()
    remove_neighbours(tmp_path / "a[1].txt")
    remove_neighbours(tmp_path / f"{'x' * 60}-1.csv")
    assert set(tmp_path.iterdir()) == {other, alike[1], tmp_path / "a[1].txt.part"}
    assert not mine.exists()


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "犬" * 85):
        write_atomically(tmp_path / name, b"text")
        assert (tmp_path / name).read_bytes() == b"text"


def test_paths_are_told_apart_by_folder_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    same = ["a/x", "./a/x", "a/../a/x", "b/x", str(tmp_path / "a/x")]
    assert len({path_digest(path) for path in same}) == 1
    assert len({path_digest(path) for path in ("a/x", "x", "a/y", os.fsdecode(b"a/\xff"))}) == 4


# Failures


def told(kept_in: str, count: int) -> list[str]:
    lines: list[str] = []
    failures = Failures(kept_in, lines.append)
    for number in range(count):
        failures.add(Record(f"{number}\n.jpg", error="it is empty"))
        failures.add(TWO[0])
    failures.report()
    return lines


def test_failures_are_told_at_the_end() -> None:
    assert told("", 0) == []
    assert told("out.jsonl", 2) == [
        "error: 2 of 4 images failed:",
        r"  0\n.jpg: it is empty",
        r"  1\n.jpg: it is empty",
    ]


def test_many_failures_are_cut_short_only_where_all_are_kept() -> None:
    kept = told("out.jsonl", 1500)
    assert kept[0] == "error: 1,500 of 3,000 images failed:"
    assert (len(kept), kept[-1]) == (22, "  and 1,480 more; all are in out.jsonl")
    lost = told("", 22)
    assert lost[:2] == [r"error: 20\n.jpg: it is empty", r"error: 21\n.jpg: it is empty"]
    assert lost[-1] == "  and 2 more; they are named above"
