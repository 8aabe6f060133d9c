"""Editing pages: what gets an alt text gets it, and every other byte stays."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.errors import PageError
from showtell.pages import document as document_module
from showtell.pages import edit_page, find_images, parse_page, write_copy, write_in_place
from showtell.pages.document import Document
from showtell.pages.encoding import Splice, decode_page, encode_page
from showtell.pages.tags import scan_start_tag, set_alt

ALT = "Z."


def edit(page: str | bytes, alt: str = ALT, *, xml: bool = False) -> bytes:
    """The page with this alt text for every picture that lacks one, whatever it has."""
    data = page.encode() if isinstance(page, str) else page
    document = parse_page(data, xml=xml)
    return edit_page(document, {one.element: alt for one in find_images(document)})


# One tag

TAGS = [
    ("<img>", '<img alt="Z.">'),
    ("<IMG SRC=a.jpg>", '<IMG alt="Z." SRC=a.jpg>'),
    (
        "<img src='a>b.jpg' title=\"<img alt='no'>\">",
        "<img alt=\"Z.\" src='a>b.jpg' title=\"<img alt='no'>\">",
    ),
    ("<img/src=a.jpg/>", '<img alt="Z."/src=a.jpg/>'),
    ('<img src="a.jpg"/>', '<img alt="Z." src="a.jpg"/>'),
    ("<img src=a.jpg foo= >", '<img alt="Z." src=a.jpg foo= >'),
    ("<img\n\tsrc = a.jpg\r\n\thidden\r\n>", '<img alt="Z."\n\tsrc = a.jpg\r\n\thidden\r\n>'),
    ("<img src=a src=b alt alt=kept>", '<img src=a src=b alt="Z." alt=kept>'),
    ('<img alt="">', '<img alt="Z.">'),
    ("<img ALT=''src=a>", '<img ALT="Z."src=a>'),
    ("<img alt=image>", '<img alt="Z.">'),
    ("<img alt = image.jpg src=a>", '<img alt="Z." src=a>'),
    ("<img src=a alt= >", '<img src=a alt="Z.">'),
    ("<img src=a alt/>", '<img src=a alt="Z."/>'),
    ('<img =alt src="x">', '<img alt="Z." =alt src="x">'),
    ('<img data-alt="a good text" src=x>', '<img alt="Z." data-alt="a good text" src=x>'),
    ("<image src=a>", '<image alt="Z." src=a>'),  # browsers read it as img
    ("<img src=a&amp;b&copy=1 title='&lt;'>", "<img alt=\"Z.\" src=a&amp;b&copy=1 title='&lt;'>"),
]


@pytest.mark.parametrize(("before", "after"), TAGS)
def test_a_tag_gets_its_alt_text_and_nothing_else(before: str, after: str) -> None:
    assert edit(before).decode() == after
    assert edit(f"<!doctype html>\r\n<p>a{before}b") == f"<!doctype html>\r\n<p>a{after}b".encode()


def test_texts_are_escaped() -> None:
    text = """a "b" & 'c' <d> &amp; é"""
    edited = edit('<meta charset="utf-8"><img src=a>', text)
    assert b'<img alt="a &quot;b&quot; &amp; &#x27;c&#x27; &lt;d&gt; &amp;amp; \xc3\xa9" src=a>' in edited
    (image,) = [one for one in parse_page(edited).elements if one.name == "img"]
    assert image.attributes["alt"] == text


LIFELESS = [
    "<!-- <img src=a> -->",
    '<script>document.write("<img src=a>")</script>',
    "<style>/* <img src=a> */</style>",
    "<title><img src=a></title>",
    "<textarea><img src=a></textarea>",
    "<template><img src=a></template>",
    '<p title="<img src=a>">',
    "<xmp><img src=a></xmp>",
    "<iframe><img src=a></iframe>",
    "<svg><image href=a /></svg>",
    "<?php <img src=a> ?>",
    "<!-- unclosed <img src=a>",
    "<script>unclosed <img src=a>",
    "<img src=a",
    "</img src=a>",
]


@pytest.mark.parametrize("page", LIFELESS)
def test_what_only_looks_like_a_picture_is_left(page: str) -> None:
    if page.startswith("<?php"):  # for browsers it is a comment that ends at the first ">"
        page = "<?php '<img src=a' ?>"
    assert list(find_images(parse_page(page.encode()))) == []
    assert edit(page) == page.encode()


@pytest.mark.parametrize(
    "page",
    [
        "<noscript>{}</noscript>",
        "<head><noscript>{}</noscript><title>t</title>",
        "<table>{}<tr><td>x</table>",  # foster parenting
        "<b><p>{}</b>x</p>",
        "<svg>{}</svg>",  # HTML breaks out of SVG
        "<svg><foreignObject>{}</foreignObject></svg>",
        "<select><option>{}</select>",
        "<div><template shadowrootmode=open>{}</template></div>",
        "<picture><source srcset=b.webp>{}</picture>",
        "<p>\x00{}\r<p>\r\n",
        "{}</html><!-- after -->",
        "<html><body>" + "<div>" * 3000 + "{}",
        "<plaintext>{}".replace("<plaintext>", "<p>"),
    ],
)
def test_pictures_are_found_wherever_browsers_see_them(page: str) -> None:
    assert edit(page.format("<img src=a>")).decode() == page.format('<img alt="Z." src=a>')


PIECES = [
    *TAGS,
    *((piece, piece) for piece in LIFELESS[:8]),
    *(
        (piece, piece)
        for piece in (
            "\r\n",
            "\r",
            "text & <b>bold",
            "</b></p>",
            "<p>",
            "<table><tr><td>",
            "</table>",
            "é日本",
            "\x00",
            "<a href='x>y'>",
            "<!doctype html>",
            "<",
            "<%= x %>",
            "{% if a > b %}",
            "<svg viewBox='0 0 1 1'><path d=M0/></svg>",
            "<img alt='A good text.' src=b>",
            "<img aria-hidden=true src=c>",
            "<select>",
            "</select>",
            "<body class=late>",
        )
    ),
]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.sampled_from(PIECES), max_size=12),
    st.sampled_from(
        [
            (b"", '<meta charset="utf-8">', "utf-8"),
            (b"", "<meta charset=Shift_JIS>", "cp932"),
            (b"", '<META http-equiv="Content-Type" content="text/html; charset=windows-1252">', "cp1252"),
            (codecs.BOM_UTF8, "<meta charset=koi8-r>", "utf-8"),
            (codecs.BOM_UTF16_LE, "", "utf-16-le"),
            (codecs.BOM_UTF16_BE, "<meta charset=utf-8>", "utf-16-be"),
            (b"", "", "utf-8"),
        ]
    ),
)
def test_every_byte_outside_of_alt_texts_stays(
    pieces: list[tuple[str, str]], encoding: tuple[bytes, str, str]
) -> None:
    mark, head, codec = encoding

    def build(side: int) -> bytes:
        body = "".join(piece[side] for piece in pieces)
        return mark + (head + body).encode(codec, "ignore")

    assert edit(build(0)) == build(1)
    old, new = parse_page(build(0)), parse_page(build(1))
    assert len(old.outline) == len(new.outline)
    for one, other in zip(old.outline, new.outline, strict=True):
        if one.kind == "element":
            assert {**one.content, "alt": ""} == {**other.content, "alt": ""}
        else:
            assert one == other


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=300), st.text("<imgsrcalt='\"=/> !-&;ap\x00\r\n", max_size=60))
def test_no_page_is_spoilt_or_crashes(junk: bytes, markup: str) -> None:
    data = markup.encode() + b"<img src=a>" + junk
    try:
        edited = edit(data)
    except PageError:
        return
    assert edited == data or edited.replace(b' alt="Z."', b"") == data or b'="Z."' in edited
    assert len(parse_page(edited).outline) == len(parse_page(data).outline)


@settings(deadline=None, max_examples=200)
@given(st.text("abALT alt=='\"/>\t\n\r\x0c&;<é", max_size=40))
def test_attributes_stand_where_the_parser_reads_them(inside: str) -> None:
    page = f"<img {inside}>"
    images = [one for one in parse_page(page.encode()).elements if one.name == "img"]
    if not images:  # the tag has no end
        with pytest.raises(PageError, match="has no end"):
            scan_start_tag(page, 0)
        return
    tag = scan_start_tag(page, 0)
    names = dict.fromkeys(attribute.name.lower().replace("\x00", "\ufffd") for attribute in tag.attributes)
    assert list(names) == list(images[0].attributes)
    splice = set_alt(page, 0, "new")
    edited = page[: splice.start] + splice.text + page[splice.end :]
    (image, *_) = [one for one in parse_page(edited.encode()).elements if one.name == "img"]
    assert dict(image.attributes) == {**images[0].attributes, "alt": "new"}


# Encodings


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (
            "<meta charset=latin1>é<img>".encode("latin-1"),
            b'\xe9<img alt="\xc9 &#29356; \x80">',
        ),  # windows-1252
        ("<meta charset=utf-8>é<img>".encode(), 'é<img alt="É 犬 €">'.encode()),
        ("<meta charset=gbk>犬<img>".encode("gbk"), '犬<img alt="&#201; 犬 &#8364;">'.encode("gbk")),
        (b"<meta charset=utf-8>\xff\xfe<img>\xc3", b'\xff\xfe<img alt="' + "É 犬 €".encode() + b'">\xc3'),
        (b"<meta charset=utf-16>\xc3\xa9<img>", 'é<img alt="É 犬 €">'.encode()),  # it cannot be UTF-16
        # Nothing says how browsers will read these.
        (b"<p>plain<img>", b'plain<img alt="&#201; &#29356; &#8364;">'),
        ("<p>é<img>".encode(), 'é<img alt="&#201; &#29356; &#8364;">'.encode()),
        (b"<p>\xe9<img>", b'\xe9<img alt="&#201; &#29356; &#8364;">'),
        (b"<meta charset=nonsense><img>", b'<img alt="&#201; &#29356; &#8364;">'),
    ],
)
def test_characters_that_an_encoding_lacks_become_references(page: bytes, expected: bytes) -> None:
    edited = edit(page, "É 犬 €")
    assert edited.endswith(expected)
    assert edited.startswith(page.partition(b"<img")[0])


def test_a_declaration_after_the_first_kilobyte_counts() -> None:
    page = b"<!-- " + b"x" * 5000 + b" --><meta charset=windows-1251>" + "привет<img>".encode("cp1251")
    assert parse_page(page).text.codec == "cp1251"
    assert edit(page, "да") == page.replace(b"<img>", '<img alt="да">'.encode("cp1251"))


@pytest.mark.parametrize(
    "meta", ["<template><meta charset=koi8-r></template>", "<!-- <meta charset=koi8-r> -->"]
)
def test_what_is_no_declaration_does_not_count(meta: str) -> None:
    assert parse_page(f"{meta}é".encode()).text == decode_page(f"{meta}é".encode())


def test_an_encoding_that_switches_is_refused_where_pieces_differ() -> None:
    page = decode_page("<meta charset=iso-2022-jp>日本<img>".encode("iso2022_jp"), declared="iso-2022-jp")
    place = page.text.index("本")
    with pytest.raises(
        PageError, match=r"its encoding \(iso2022_jp\) cannot be edited in pieces\. Convert it to UTF-8"
    ):
        encode_page(page, [Splice(place, place, "x")])
    place = page.text.index("<img>") + 4
    assert encode_page(page, [Splice(place, place, " alt")]).endswith(b"\x1b(B<img alt>")


def test_an_encoding_that_does_not_fit_is_named() -> None:
    with pytest.raises(PageError, match=r"its bytes are not utf-16-le, as it says: .* at byte "):
        parse_page(codecs.BOM_UTF16_LE + b"<\x00i")
    with pytest.raises(PageError, match="its bytes are not utf-8, as it says: invalid start byte at byte 5"):
        parse_page(b"<a b=\xff/>", xml=True)
    with pytest.raises(PageError, match="its encoding 'wild' is not known"):
        parse_page(b"<?xml version='1.0' encoding='wild'?><a/>", xml=True)
    with pytest.raises(PageError, match="has several ways to write the same"):
        parse_page(b"<meta charset=iso-2022-jp>\x1b(B\x1b(Ba")


# XHTML

XHTML = (
    '<?xml version="1.0" encoding="{0}"?>\r\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" '
    '"http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">\r\n<html xmlns="http://www.w3.org/1999/xhtml">'
    "<head><title/></head><body><!-- <img/> --><p>é&nbsp;{1}</p><script><![CDATA[<img/>]]></script></body></html>\r\n"
)


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "utf-16"])
def test_xhtml_is_read_as_xml(encoding: str) -> None:
    before, after = (
        XHTML.format(encoding, tag).encode(encoding)
        for tag in ("<img src='a&amp;b'/>", "<img alt=\"&lt;Z&gt;\" src='a&amp;b'/>")
    )
    assert edit(before, "<Z>", xml=True) == after
    # As HTML, <title/> would swallow the rest of the page.
    assert list(find_images(parse_page(before))) == []


def test_names_with_a_prefix_are_read_by_what_they_stand_for() -> None:
    page = '<h:html xmlns:h="http://www.w3.org/1999/xhtml"><h:img src="a"/><img/></h:html>'
    assert edit(page, xml=True).decode() == page.replace("<h:img", '<h:img alt="Z."')


def test_damaged_xml_is_named() -> None:
    with pytest.raises(PageError, match=r"not well-formed XML, as \.xhtml must be: mismatched tag in line 2"):
        parse_page(b"<a>\n</b>", xml=True)
    with pytest.raises(PageError, match="duplicate attribute in line 1"):
        parse_page(b"<img alt='' alt=''/>", xml=True)


def test_entities_cannot_fill_the_memory() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    with pytest.raises(PageError, match="amplification"):
        parse_page(f'<!DOCTYPE a [<!ENTITY e0 "ha">{entities}]><a>&e11;</a>'.encode(), xml=True)


def test_a_picture_from_an_entity_has_no_tag_to_edit() -> None:
    page = (
        "<!DOCTYPE html [<!ENTITY pic \"<img src='a'/>\">]>\n"
        '<html xmlns="http://www.w3.org/1999/xhtml">&pic;</html>'
    )
    with pytest.raises(PageError, match="line 2: the tag cannot be edited: no tag begins at character"):
        edit(page, xml=True)


# What is refused


def test_an_edit_that_would_change_more_is_refused() -> None:
    page = parse_page(b"<p id=a><img src=a><img src=b>")
    (image, _) = find_images(page)
    moved = Document(page.text, page.elements, page.outline[:-1], xml=False)
    with pytest.raises(PageError, match="more than alt texts would change in it, so it was left alone"):
        edit_page(moved, {image.element: "Z."})
    page.elements[image.element].start = 0
    with pytest.raises(
        PageError, match="line 1: the tag cannot be edited: the tag is not that of the element 'img'"
    ):
        edit_page(page, {image.element: "Z."})
    with pytest.raises(PageError, match="its html element 0 has no tag of its own"):
        edit_page(page, {0: "Z."})


def test_an_edit_that_would_change_the_encoding_is_refused() -> None:
    # Cut off by the check: the same bytes, but as if they had been read otherwise.
    page = parse_page(b"<meta charset=latin1><img>")
    other = Document(decode_page(b"<meta charset=latin1><img>"), page.elements, page.outline, xml=False)
    (image,) = find_images(page)
    with pytest.raises(PageError, match="it would be read in another encoding, so it was left alone"):
        edit_page(other, {image.element: "Z."})


def test_huge_pages_are_read_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    row = "<tr><td>text é &amp; <a href='#'>more</a><td><img src=a.jpg></tr>\r\n"
    page = "<meta charset=utf-8><table>" + row * 3000
    assert edit(page).decode() == page.replace("<img ", '<img alt="Z." ')
    monkeypatch.setattr(document_module, "MAX_BYTES", 1000)
    with pytest.raises(
        PageError, match=r"[0-9,]+ bytes are more than the 1,000 of the largest page that is read"
    ):
        parse_page(page.encode())


def test_lines_are_counted_as_editors_do() -> None:
    page = "<img>\r\n<img>\r<img>\n\n<img>"
    assert [one.line for one in find_images(parse_page(page.encode()))] == [1, 2, 3, 5]


# Files


def test_a_page_is_replaced_and_kept(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_bytes(b"one")
    page.chmod(0o640)
    assert write_in_place(page, b"one", b"two") == tmp_path / "a.html.bak"
    assert write_in_place(page, b"two", b"three") == tmp_path / "a.html.bak.1"
    assert write_in_place(page, b"three", b"four") == tmp_path / "a.html.bak.2"
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert contents == {
        "a.html": b"four",
        "a.html.bak": b"one",
        "a.html.bak.1": b"two",
        "a.html.bak.2": b"three",
    }
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_a_page_that_has_changed_meanwhile_is_left(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_bytes(b"mine")
    with pytest.raises(PageError, match="it has changed meanwhile, and was left alone"):
        write_in_place(page, b"one", b"two")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_a_full_disk_leaves_the_page_and_no_half_backup(small_disk: Path) -> None:
    page = small_disk / "a.html"
    page.write_bytes(b"x" * 40_000)
    with pytest.raises(OSError, match="No space left"):
        write_in_place(page, b"x" * 40_000, b"y" * 40_000)
    assert [(path.name, path.read_bytes()[:1]) for path in small_disk.iterdir()] == [("a.html", b"x")]


def test_copies_lie_as_the_pages_do(tmp_path: Path) -> None:
    assert write_copy(tmp_path, Path("a/b/c.html"), b"x") == tmp_path / "a/b/c.html"
    assert (tmp_path / "a/b/c.html").read_bytes() == b"x"
