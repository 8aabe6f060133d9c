"""Sidecars: captions beside their images, and nothing that was there is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from showtell.errors import SidecarError
from showtell.outputs import Record, Sidecars, WrittenCaption
from showtell.outputs.xmp import read_description, set_description

# As photo programs write it: packet markers, attributes and elements, a description in another language, a comment.
FOREIGN = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <!-- made by hand -->
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:own="urn:mine"
    xmp:Rating="4" own:note="a &quot;b&quot;">
   <dc:subject xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Bag><rdf:li>holiday</rdf:li></rdf:Bag></dc:subject>
   DESCRIPTION
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
DESCRIPTION = (
    '<dc:description xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Alt>'
    '<rdf:li xml:lang="de">ein Hund</rdf:li>DEFAULT</rdf:Alt></dc:description>'
)
DEFAULT = '<rdf:li xml:lang="x-default">my own words</rdf:li>'


def foreign(description: str = "", default: str = "") -> bytes:
    return FOREIGN.replace("DESCRIPTION", description.replace("DEFAULT", default)).encode()


def record(*texts: str) -> Record:
    return Record("a.jpg", tuple(WrittenCaption(text, -1.0) for text in texts))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_text_has_one_caption_per_line(here: Path) -> None:
    Sidecars("txt").write("a.b.jpg", record("a dog", "犬"))
    assert (here / "a.b.txt").read_text(encoding="utf-8") == "a dog\n犬\n"
    assert [path.name for path in here.iterdir()] == ["a.b.txt"]


def test_a_sidecar_with_other_content_stays_unless_it_is_to_be_replaced(here: Path) -> None:
    (here / "a.txt").write_text("my own words\n")
    with pytest.raises(
        SidecarError, match=r"its sidecar a.txt exists with another text, .* --overwrite replaces"
    ):
        Sidecars("txt").write("a.jpg", record("a dog"))
    assert (here / "a.txt").read_text() == "my own words\n"
    Sidecars("txt", overwrite=True).write("a.jpg", record("a dog"))
    assert (here / "a.txt").read_text() == "a dog\n"


@pytest.mark.parametrize("kind", ["txt", "xmp"])
def test_a_sidecar_that_says_the_same_is_not_touched(kind: str, here: Path) -> None:
    Sidecars(kind).write("a.jpg", record("a dog"))
    (here / f"a.{kind}").chmod(0o444)
    before = (here / f"a.{kind}").stat()
    Sidecars(kind).write("a.jpg", record("a dog"))
    after = (here / f"a.{kind}").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_nothing_but_text_is_ever_replaced(here: Path) -> None:
    (here / "a.txt").write_bytes(b"\x89PNG\0\0")
    with pytest.raises(SidecarError, match="exists and is no text"):
        Sidecars("txt", overwrite=True).write("a.jpg", record("a dog"))
    (here / "a.txt").write_bytes(b"x" * 100_000)
    with pytest.raises(SidecarError, match="exists and is too large"):
        Sidecars("txt", overwrite=True).write("a.jpg", record("a dog"))
    (here / "a.txt").unlink()
    (here / "a.txt").mkdir()
    with pytest.raises(SidecarError, match="exists and is no regular file"):
        Sidecars("txt", overwrite=True).write("a.jpg", record("a dog"))
    (here / "b.txt").touch()  # an image with a wrong name
    with pytest.raises(SidecarError, match=r"its sidecar b\.txt would be the image itself"):
        Sidecars("txt", overwrite=True).write("./b.txt", record("a dog"))


def test_another_folder_mirrors_the_paths_as_they_were_given(here: Path) -> None:
    sidecars = Sidecars("txt", folder=Path("out"))
    assert sidecars.place("a.jpg") == Path("out/a.txt")
    assert sidecars.place("b/c/a.jpg") == Path("out/b/c/a.txt")
    assert sidecars.place("../b/a.jpg") == Path("out/b/a.txt")
    assert sidecars.place("/mnt/a.jpg") == Path("out/mnt/a.txt")
    sidecars.write("b/c/a.jpg", record("a dog"))
    assert (here / "out/b/c/a.txt").read_text() == "a dog\n"


def test_images_that_would_share_a_sidecar_get_none(here: Path) -> None:
    (here / "linked").symlink_to(".")
    paths = ["a.jpg", "b.jpg", "a.png", "linked/c.jpg", "c.webp", "a.gif"]
    sidecars = Sidecars("txt", overwrite=True)
    sidecars.reserve(paths, paths)
    refused = {path: sidecars.refusal(path) for path in paths}
    assert refused["b.jpg"] == ""
    assert refused["a.jpg"].startswith(
        "its sidecar a.txt would also be that of a.png and 1 more, so none was written"
    )
    assert refused["a.png"].startswith("its sidecar a.txt would also be that of a.jpg and 1 more")
    assert refused["c.webp"].startswith("its sidecar c.txt would also be that of linked/c.jpg, so none")
    for path in ("a.jpg", "c.webp"):
        with pytest.raises(SidecarError, match="would also be that of"):
            sidecars.write(path, record("a dog"))
    assert list(here.glob("*.txt")) == []


def test_what_is_no_file_has_no_sidecar() -> None:
    with pytest.raises(SidecarError, match="only a file can have a sidecar"):
        Sidecars("txt").write(None, record("a dog"))


def test_a_place_that_cannot_be_written_is_named(here: Path) -> None:
    (here / "file").touch()
    with pytest.raises(SidecarError, match=r"its sidecar file/b/a.txt cannot be written: Not a directory"):
        Sidecars("txt", folder=Path("file")).write("b/a.jpg", record("a dog"))


@pytest.mark.parametrize("small_disk", ["16k"], indirect=True)
def test_a_full_disk_is_nobodys_sidecar(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 16384)
    with pytest.raises(OSError, match="No space left"):
        Sidecars("txt").write(str(small_disk / "a.jpg"), record("a dog"))
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_existing_sidecars_are_seen(here: Path) -> None:
    text, xmp = Sidecars("txt"), Sidecars("xmp")
    assert not text.exists("a.jpg")
    assert not xmp.exists("a.jpg")
    (here / "a.txt").touch()
    (here / "a.xmp").write_bytes(foreign())
    assert text.exists("a.jpg")
    assert not xmp.exists("a.jpg")  # it has no description yet
    (here / "a.xmp").write_bytes(foreign(DESCRIPTION, DEFAULT))
    assert xmp.exists("a.jpg")
    (here / "a.xmp").write_text("no XML")
    assert not xmp.exists("a.jpg")
    text.reserve(["a.jpg", "a.png"], ["a.jpg", "a.png"])
    assert not text.exists("a.jpg")  # whose it is, nobody knows


# XMP


def test_a_new_xmp_is_read_by_another_reader() -> None:
    content = set_description(None, "a <dog> & 犬")
    root = etree.fromstring(content)
    names = {"rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "dc": "http://purl.org/dc/elements/1.1/"}
    (entry,) = root.findall("rdf:RDF/rdf:Description/dc:description/rdf:Alt/rdf:li", names)
    assert entry.text == "a <dog> & 犬"
    assert entry.get("{http://www.w3.org/XML/1998/namespace}lang") == "x-default"


@given(st.text())
def test_any_text_survives_xmp_but_for_what_xml_cannot_hold(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    kept = "".join(
        sign if sign in "\t\n\r" or (sign >= " " and sign not in "\ufffe\uffff") else "\ufffd"
        for sign in text
    )
    assert read_description(set_description(None, text)) == kept


@pytest.mark.parametrize(
    ("description", "default", "there"),
    [("", "", None), (DESCRIPTION, "", None), (DESCRIPTION, DEFAULT, "my own words")],
)
def test_everything_else_in_an_xmp_stays(description: str, default: str, there: str | None) -> None:
    before = foreign(description, default)
    assert read_description(before) == there
    after = set_description(before, "a dog")
    assert read_description(after) == "a dog"
    text = after.decode()
    for kept in (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>',
        '<?xpacket end="w"?>',
        "<!-- made by hand -->",
        'xmp:Rating="4"',
        'own:note="a &quot;b&quot;"',
        "<rdf:li>holiday</rdf:li>",
        'x:xmptk="XMP Core 4.4.0-Exiv2"',
    ):
        assert kept in text
    assert ("ein Hund" in text) == bool(description)
    assert text.index("a dog") < text.find("ein Hund") or not description or default
    assert set_description(after, "a dog") == after.rstrip(b"\n") + b"\n"


def test_a_description_in_a_form_that_xmp_does_not_have_is_seen_and_replaced() -> None:
    attribute = foreign().replace(
        b"own:note=", b'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:description="short" own:note='
    )
    assert read_description(attribute) == "short"
    after = set_description(attribute, "a dog")
    assert read_description(after) == "a dog"
    assert b"short" not in after
    plain = foreign('<dc:description xmlns:dc="http://purl.org/dc/elements/1.1/">bare</dc:description>')
    assert read_description(plain) == "bare"
    assert read_description(set_description(plain, "a dog")) == "a dog"
    assert b"bare" not in set_description(plain, "a dog")


def test_an_xmp_that_has_none_gets_a_description_and_keeps_the_rest(here: Path) -> None:
    (here / "a.xmp").write_bytes(foreign(DESCRIPTION))
    Sidecars("xmp").write("a.jpg", record("a dog", "a cat"))
    assert read_description((here / "a.xmp").read_bytes()) == "a dog"
    with pytest.raises(SidecarError, match=r"a.xmp exists with another text"):
        Sidecars("xmp").write("a.jpg", record("a cow"))
    Sidecars("xmp", overwrite=True).write("a.jpg", record("a cow"))
    text = (here / "a.xmp").read_text()
    assert "a cow" in text
    assert "a dog" not in text
    assert "ein Hund" in text


ENTITIES = '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><r>&b;</r>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no XML", "it is not XML"),
        ("", "it is not XML"),
        ("<a/>", "it has no rdf:RDF"),
        (ENTITIES, "no rdf:RDF"),
    ],
)
def test_what_is_no_xmp_is_not_touched_even_to_overwrite(content: str, message: str, here: Path) -> None:
    (here / "a.xmp").write_text(content)
    with pytest.raises(
        SidecarError, match=rf"its sidecar a.xmp exists and was not changed: .*{message}.* Mend or"
    ):
        Sidecars("xmp", overwrite=True).write("a.jpg", record("a dog"))
    assert (here / "a.xmp").read_text() == content


def test_an_xmp_cannot_make_us_read_other_files(here: Path) -> None:
    (here / "secret").write_text("secret")
    entity = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{here}/secret">]>'
    content = foreign(DESCRIPTION, DEFAULT.replace("my own words", "&e;")).decode()
    content = content.replace("<x:xmpmeta", f"{entity}<x:xmpmeta", 1)
    assert "secret" not in (read_description(content.encode()) or "")
    assert b"secret<" not in set_description(content.encode(), "a dog")
