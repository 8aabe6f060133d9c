"""Which pictures lack alt text, and where the pictures are: never outside of the site."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.errors import UsageError
from showtell.pages import (
    Finding,
    find_base,
    find_images,
    find_pages,
    judge_alt,
    locate,
    parse_page,
    shorten_address,
)
from showtell.pages.findings import split_srcset


def find(page: str) -> list[Finding]:
    return list(find_images(parse_page(page.encode())))


# What is wrong


@pytest.mark.parametrize(
    "alt",
    [
        "dog.jpg",
        "My Dog (2).JPEG",
        "a%20dog.png",
        "images/dog.webp",
        "https://example.com/dog",
        "IMG_1234",
        "img-20230401-wa0012",
        "DSC00012",
        "P1010023",
        "Screenshot 2024-01-02 at 10.11.12",
        "image",
        "Photo 3",
        "an image of",
        "picture here",
        "Image (2)",
        "alt text",
        "placeholder",
        "untitled",
        "null",
        "5f3a9c0b2d1e44aa",
        "...",
        " ",
        "\u00a0",
        "123",
        "Bild",
    ],
)
def test_what_says_nothing_is_poor(alt: str) -> None:
    assert judge_alt(alt) == "poor"


@pytest.mark.parametrize(
    "alt",
    [
        "A dog.",
        "dog",
        "Photo of a dog",
        "image processing",
        "Screenshot of the settings",
        "Logo",
        "犬",
        "❤️",
        "Sam 2",
        "Picture this",
        "A window that shows the name dog.jpg",
        "example.com",
        "Nullarbor Plain",
        "Description of a struggle",
        "face",
        "accessibility",
    ],
)
def test_what_says_something_is_not(alt: str) -> None:
    assert judge_alt(alt) is None


def test_missing_and_empty_are_told_apart() -> None:
    page = "<img src=a><img src=a alt><img src=a alt=''><img src=a alt=image><img src=a alt='A dog.'>"
    found = find(page)
    assert [(one.problem, one.alt) for one in found] == [
        ("missing", None),
        ("empty", ""),
        ("empty", ""),
        ("poor", "image"),
    ]


@pytest.mark.parametrize(
    "page",
    [
        "<img src=a role=presentation>",
        "<img src=a role='NONE'>",
        "<img src=a aria-hidden=true>",
        "<div aria-hidden=TRUE><p><img src=a></p></div>",
        "<img src=a aria-label='A dog'>",
        "<img src=a aria-labelledby=caption>",
        "<svg></svg>",
        "<svg role=img><title>A chart</title></svg>",
        "<svg role=img aria-label='A chart'></svg>",
        "<svg><img-like /></svg>",
        "<area><input type=text><input type=image alt=Search>",
        "<map><area href=x alt='The left door'></map>",
    ],
)
def test_what_needs_no_alt_text_is_not_listed(page: str) -> None:
    assert find(page) == []


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("<svg role=img></svg>", "give it a title element"),
        ("<svg role=img><title> </title></svg>", "give it a title element"),
        ("<input type=image src=a>", "says what it does"),
        ("<map><area href=x></map>", "says where its link leads"),
        ("<img src='{{ a }}'>", "a template fills this tag in"),
        ("<img {% if a %}alt=a{% endif %} src=b>", "a template fills this tag in"),
        ("<img src='<?php echo $a ?>'>", "a template fills this tag in"),
        ("<img :alt=a src=b>", "a script sets its alt text"),
        ("<img src=a width=1 height=1px>", "too small to be seen"),
    ],
)
def test_what_cannot_be_captioned_is_only_reported(page: str, reason: str) -> None:
    (one,) = find(page)
    assert one.problem == "missing"
    assert reason in one.only_reported


def test_a_role_on_something_else_hides_nothing() -> None:
    assert (
        len(find("<div role=presentation aria-hidden=false aria-label=x><img src=a aria-label=' '></div>"))
        == 1
    )


def test_a_picture_that_names_a_link_is_marked() -> None:
    page = """<a href=x> <b><img src=a></b> </a><a href=x>Home <img src=b></a><a><img src=c></a>
    <button><img src=d></button><a href=x aria-label=Home><img src=e></a>"""
    assert {one.source: one.names_link for one in find(page)} == {
        "a": True,
        "b": False,
        "c": False,
        "d": True,
        "e": False,
    }


# Which file


@pytest.mark.parametrize(
    ("page", "candidates"),
    [
        ("<img src=' a.jpg\n'>", ("a.jpg",)),
        ("<img>", ()),
        ("<img src=''>", ()),
        ("<img src=tiny.jpg data-src=big.jpg>", ("big.jpg", "tiny.jpg")),
        (
            "<img src=data:,x srcset='s.jpg 1x, l.jpg 2.5x,m.jpg 1.5x'>",
            ("l.jpg", "m.jpg", "s.jpg", "data:,x"),
        ),
        ("<img src=a.jpg data-srcset='b.jpg 100w, c.jpg 900w'>", ("c.jpg", "b.jpg", "a.jpg")),
        (
            "<picture><source srcset='w.webp 2x, v.webp'><source srcset=u.avif><img src=a.jpg></picture>",
            ("a.jpg", "w.webp", "v.webp", "u.avif"),
        ),
        ("<picture><div><img src=a.jpg></div><source srcset=b></picture>", ("a.jpg",)),
    ],
)
def test_the_best_address_comes_first(page: str, candidates: tuple[str, ...]) -> None:
    (one,) = find(page)
    assert one.candidates == candidates


def test_reports_name_the_address_that_the_page_shows() -> None:
    page = "<img src=small.jpg data-src=big.jpg><img data-src=late.jpg><img srcset='a 1x, b 2x'><img>"
    assert [one.source for one in find(page)] == ["small.jpg", "late.jpg", "b", ""]


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("", []),
        (" , ,", []),
        ("a.jpg", ["a.jpg"]),
        ("a.jpg, b.jpg 2x", ["b.jpg", "a.jpg"]),
        ("a,b.jpg 1x,c.jpg 3x", ["c.jpg", "a,b.jpg"]),
        ("data:image/png;base64,AA== 1x, b.jpg 2x", ["b.jpg", "data:image/png;base64,AA=="]),
        ("a.jpg calc(1, 2), b.jpg", ["a.jpg", "b.jpg"]),
        ("a.jpg (unclosed, b.jpg", ["a.jpg"]),
    ],
)
def test_srcset_is_read_as_browsers_do(value: str, addresses: list[str]) -> None:
    assert split_srcset(value) == addresses


@given(st.text("ab.,() 12xw\n", max_size=60))
def test_any_srcset_is_survived(value: str) -> None:
    assert all(address and " " not in address for address in split_srcset(value))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with a picture at the root, one in a folder, and a secret outside of it."""
    root = tmp_path / "site"
    (root / "blog" / "img").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    for name in ("top.jpg", "blog/img/a b.jpg", "blog/img/é.jpg", "blog/page.html", "blog/100%.jpg"):
        (root / name).write_bytes(name.encode())
    (root / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "away").symlink_to(tmp_path)
    (root / "inside.jpg").symlink_to(root / "top.jpg")
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    return root


def located(site: Path, address: str, base: str = "") -> str:
    """The file that an address leads to, as its site has it; or why there is none, in brackets if that is a mistake."""
    found = locate([address] if address else [], site / "blog" / "page.html", site, base)
    if isinstance(found.image, Path):
        return str(found.image.relative_to(site.resolve()))
    return f"[{found.reason}]" if found.failed else found.reason


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("img/a%20b.jpg", "blog/img/a b.jpg"),
        ("img/a b.jpg?v=2#x", "blog/img/a b.jpg"),
        ("img\\a b.jpg", "blog/img/a b.jpg"),
        ("./img/../img/%C3%A9.jpg", "blog/img/é.jpg"),
        ("img/é.jpg", "blog/img/é.jpg"),
        ("im\ng/é.jpg", "blog/img/é.jpg"),
        ("/blog/img/é.jpg", "blog/img/é.jpg"),
        ("../top.jpg", "top.jpg"),
        ("100%.jpg", "blog/100%.jpg"),
        ("/inside.jpg", "top.jpg"),
    ],
)
def test_addresses_lead_to_files(site: Path, address: str, file: str) -> None:
    assert located(site, address) == file


@pytest.mark.parametrize(
    "address",
    [
        "../../secret.jpg",
        "/../secret.jpg",
        "%2e%2e/%2e%2e/secret.jpg",
        "..%2f..%2fsecret.jpg",
        "..\\..\\secret.jpg",
        "/out.jpg",
        "/away/secret.jpg",
        "/away/missing.jpg",  # nor is it said what is there
        "../../../../../../../../etc/passwd",
        "img/../../../secret.jpg",
    ],
)
def test_nothing_outside_of_the_site_is_opened(site: Path, address: str) -> None:
    reason = located(site, address)
    assert reason.startswith(f"[it leads out of the site's folder {str(site)!r}, and is not opened.")
    assert "--root" in reason
    assert located(site, "../secret.jpg" if address == "/out.jpg" else address, base="/blog/").startswith("[")


parts = st.sampled_from(
    ["..", ".", "%2e%2e", "..%2f", "img", "blog", "away", "secret.jpg", "top.jpg", "/", "\\", "%00", "~"]
)


@given(
    st.lists(parts, max_size=8),
    st.sampled_from(["/", "\\", ""]),
    st.sampled_from(["", "/", "../", "/a/b/../../../"]),
)
def test_no_address_leads_out(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], separator: str, base: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "walked" / "site"
    (root / "blog").mkdir(parents=True, exist_ok=True)
    for path in (root.parent / "secret.jpg", root / "top.jpg", root / "blog" / "top.jpg"):
        path.touch()
    if not (root / "away").is_symlink():
        (root / "away").symlink_to(root.parent)
    found = locate([separator.join(names)], root / "blog" / "page.html", root, base)
    assert found.image is None or Path(str(found.image)).is_relative_to(root.resolve())
    assert (found.image is None) == bool(found.reason)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "it names no picture"),
        ("?x=1", "it names no picture"),
        ("img/", "it names no picture"),
        ("https://example.com/a.jpg", "it is on the web, and was not looked at"),
        ("//example.com/a.jpg", "it is on the web, and was not looked at"),
        ("logo.svg?x", "a drawing (SVG) cannot be captioned"),
        ("data:image/svg+xml,<svg/>", "a drawing (SVG) cannot be captioned"),
        ("gone.jpg", "[there is no file 'blog/gone.jpg' in "),
        ("img", "[there is no file 'blog/img' in "),
        ("a%00.jpg", "['a\\x00.jpg' is no file's name]"),
        ("file:///etc/passwd", "[addresses that begin with 'file:' are not read]"),
        ("blob:x", "[addresses that begin with 'blob:' are not read]"),
        ("/loop.jpg", "['"),
        ("x" * 5000 + ".jpg", "['"),
        ("data:image/png;base64,A", "[its data: address is damaged: "),
        ("data:image/png", "[its data: address is damaged or too long]"),
    ],
)
def test_what_cannot_be_opened_says_why(site: Path, address: str, reason: str) -> None:
    assert located(site, address).startswith(reason)


@pytest.mark.parametrize(
    ("base", "address", "file"),
    [
        ("/blog/", "img/é.jpg", "blog/img/é.jpg"),
        ("/blog/index.html?x=/y/", "img/é.jpg", "blog/img/é.jpg"),
        ("../", "top.jpg", "top.jpg"),
        ("top.html", "img/é.jpg", "blog/img/é.jpg"),
        ("/blog/", "/top.jpg", "top.jpg"),
        ("https://example.com/x/", "a.jpg", "it is on the web, and was not looked at"),
        ("https://example.com/x/", "/a.jpg", "it is on the web, and was not looked at"),
        ("//example.com/x/", "a.jpg", "it is on the web, and was not looked at"),
        ("https://[half", "a.jpg", "[its address is damaged: "),
        ("file:///etc/", "passwd", "[addresses that begin with 'file:' are not read]"),
        ("../../", "secret.jpg", "[it leads out of "),
    ],
)
def test_the_base_element_counts(site: Path, base: str, address: str, file: str) -> None:
    ignored = "<template><base href=wrong></template><base target=x>"
    page = f"{ignored}<base href=' {base} '><base href=late>"
    assert located(site, address, find_base(parse_page(page.encode()))).startswith(file)


def test_pictures_inside_of_the_page_are_decoded(site: Path) -> None:
    page = site / "blog" / "page.html"
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    wrapped = quote(text[:100] + "\n " + text[100:].rstrip("="))
    ways = [f"data:image/png;base64,{text}", f"DATA:;x=y;BASE64,{wrapped}", f"data:,{quote(data)}"]
    found = [locate([way], page, site, "") for way in ways]
    assert [one.image for one in found] == [data] * 3
    assert len({one.key for one in found}) == 1


def test_the_first_candidate_that_is_there_is_taken(site: Path) -> None:
    page = site / "blog" / "page.html"
    found = locate(["https://example.com/a.jpg", "gone.jpg", "../top.jpg", "img/é.jpg"], page, site, "")
    assert found.image == site.resolve() / "top.jpg"
    assert (
        locate(["https://example.com/a.jpg", "gone.jpg"], page, site, "").reason
        == "it is on the web, and was not looked at"
    )


def test_reports_show_the_beginning_of_what_is_inside_of_the_page() -> None:
    assert shorten_address("a.jpg") == "a.jpg"
    address = "data:image/png;base64," + "A" * 10_000
    assert shorten_address(address) == address[:40] + "... (10,022 characters)"


# Which pages


def test_pages_of_folders_come_in_order_and_once(site: Path) -> None:
    for name in ("b.HTM", "a.html", "blog/x.xhtml", "blog/.git/c.html", "notes.txt"):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text("")
    (site / "link.html").symlink_to(site / "a.html")
    found = find_pages([site, site / "a.html", site / "blog"])
    assert [str(page.place) for page in found] == ["a.html", "b.HTM", "blog/page.html", "blog/x.xhtml"]
    assert [page.xml for page in found] == [False, False, False, True]
    assert {page.root for page in found} == {site}
    assert find_pages([site / "blog" / "page.html"])[0].root == site / "blog"
    assert find_pages([site / "blog" / "page.html"], site)[0].place == Path("blog/page.html")


def test_pages_that_cannot_be_read_say_why(site: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.html").write_text("<img src=a>")
    (site / "leads-out.html").symlink_to(tmp_path / "outside.html")
    (site / "dangling.html").symlink_to(site / "nowhere.html")
    (site / "circle.html").symlink_to(site / "circle.html")
    (site / "folder.html").mkdir()
    errors = {str(page.place): page.error for page in find_pages([site]) if page.error}
    assert errors.keys() == {"leads-out.html", "dangling.html", "circle.html"}
    assert (
        errors["leads-out.html"]
        == f"it lies outside of the site's folder {str(site)!r}, or is a link that leads out"
    )
    assert errors["dangling.html"] == "there is no such file"
    assert errors["circle.html"].startswith("it cannot be opened: ")
    (above,) = find_pages([tmp_path / "outside.html"], site)
    assert "it lies outside of the site's folder" in above.error


def test_a_root_that_is_no_folder_is_refused(site: Path) -> None:
    with pytest.raises(UsageError, match=r"the root of the site must be a folder\. Received: '.*top\.jpg'"):
        find_pages([site], site / "top.jpg")
