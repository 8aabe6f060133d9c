"""`showtell alt` with a real exported model, whose weights are random: what it says means nothing, but each picture
gets its own text, and pages must come out as they went in."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from showtell.cli.alt import FIELDS, describe_failure, render
from showtell.cli.main import main
from test_architecture import FRAMEWORKS, command, run_without
from test_export import exported

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model() -> str:
    return str(exported("attend-gru-additive")[1])


@pytest.fixture
def site(tmp_path: Path, photographs: list[Path]) -> Path:
    """A small site: two pictures, used on two pages."""
    root = tmp_path / "site"
    (root / "blog").mkdir(parents=True)
    (root / "img").mkdir()
    for path in photographs[:2]:
        (root / "img" / path.name).write_bytes(path.read_bytes())
    (root / "index.html").write_bytes(
        b"<!DOCTYPE html>\r\n<meta charset=latin1><p>caf\xe9\r\n<IMG SRC=img/astronaut.jpg>\r\n"
        b"<img src='img/cat.jpg' alt=''><img src=img/cat.jpg alt='IMG_0001.jpg'>"
    )
    (root / "blog" / "post.xhtml").write_text(
        '<html xmlns="http://www.w3.org/1999/xhtml"><body><p>\n<img src="../img/astronaut.jpg?v=2"/></p>'
        '<a href="/"><img src="/img/cat.jpg"/></a></body></html>\n'
    )
    return root


def run(words: list[Any], capsys: Capture, code: int = 0) -> tuple[str, str]:
    assert main(["alt", *map(str, words)]) == code
    output = capsys.readouterr()
    return output.out, output.err


def rows(words: list[Any], capsys: Capture, code: int = 0) -> list[dict[str, Any]]:
    out, _ = run([*words, "--format", "jsonl"], capsys, code)
    return [json.loads(line) for line in out.splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_report_names_every_picture_and_changes_nothing(site: Path, model: str, capsys: Capture) -> None:
    before = contents(site)
    found = rows([site, "--model", model], capsys)
    post, index = str(site / "blog" / "post.xhtml"), str(site / "index.html")
    assert [(one["page"], one["line"], one["src"], one["problem"], one["status"]) for one in found] == [
        (index, 3, "img/astronaut.jpg", "missing", "proposed"),
        (index, 4, "img/cat.jpg", "empty", "left"),
        (index, 4, "img/cat.jpg", "poor", "left"),
        (post, 2, "../img/astronaut.jpg?v=2", "missing", "proposed"),
        (post, 2, "/img/cat.jpg", "missing", "proposed"),
    ]
    assert found[0]["proposal"] == found[3]["proposal"] != found[4]["proposal"]
    for one in (found[0], *found[3:]):
        assert re.fullmatch(r"[A-Z].*\.", one["proposal"])
        assert len(one["proposal"]) <= 125
        assert (one["confidence"], one["needs_review"]) == (None, True)
    assert "the text should say where that leads" in found[4]["reason"]
    assert found[1]["reason"] == 'alt="" says that it is decoration'
    assert (found[1]["proposal"], found[1]["needs_review"]) == (None, None)
    assert found[2]["alt"] == "IMG_0001.jpg"
    assert contents(site) == before


def test_every_format_says_the_same(site: Path, model: str, capsys: Capture) -> None:
    words = [site, "--model", model, "--poor"]
    expected = rows(words, capsys)
    assert json.loads(run([*words, "--format", "json"], capsys)[0]) == expected
    table = list(csv.DictReader(io.StringIO(run([*words, "--format", "csv"], capsys)[0])))
    assert [row["proposal"] or None for row in table] == [row["proposal"] for row in expected]
    assert list(table[0]) == list(expected[0])
    out, err = run(words, capsys)
    lines = out.splitlines()
    page = site / "index.html"
    proposal = expected[0]["proposal"]
    assert lines[0] == f'{page}:3: img img/astronaut.jpg: missing alt: proposed "{proposal}" (needs review)'
    assert lines[1] == f'{page}:4: img img/cat.jpg: empty alt: left (alt="" says that it is decoration)'
    assert ': poor alt "IMG_0001.jpg": proposed "' in lines[2]
    assert err == "showtell: 2 pages; pictures that lack alt text: 4 proposed, 1 left\n"


def test_copies_have_the_texts_and_nothing_else_changes(
    site: Path, model: str, tmp_path: Path, capsys: Capture
) -> None:
    before = contents(site)
    output = tmp_path / "copies"
    words = [site, "--model", model, "--empty", "--write", "--output", output]
    found = rows(words, capsys)
    assert [one["status"] for one in found] == ["written", "written", "left", "written", "written"]
    astronaut, cat = found[0]["proposal"], found[4]["proposal"]
    assert contents(site) == before
    assert contents(output) == {
        "index.html": before["index.html"]
        .replace(b"<IMG SRC", f'<IMG alt="{astronaut}" SRC'.encode())
        .replace(b"alt=''", f'alt="{cat}"'.encode()),
        "blog/post.xhtml": before["blog/post.xhtml"]
        .replace(b'<img src="../', f'<img alt="{astronaut}" src="../'.encode())
        .replace(b'<img src="/', f'<img alt="{cat}" src="/'.encode()),
    }
    _, err = run(words, capsys, code=2)
    assert f"{output}: not empty. Choose a new folder for the copies." in err


def test_in_place_keeps_what_was_there_and_is_done_once(site: Path, model: str, capsys: Capture) -> None:
    before = contents(site)
    words = [site, "--model", model, "--write", "--in-place"]
    assert [one["status"] for one in rows(words, capsys)] == ["written", "left", "left", "written", "written"]
    after = contents(site)
    assert after["index.html.bak"] == before["index.html"]
    assert after["blog/post.xhtml.bak"] == before["blog/post.xhtml"]
    assert after["index.html"] != before["index.html"]
    assert after.keys() - before.keys() == {"index.html.bak", "blog/post.xhtml.bak"}
    # Nothing is missing any more, so nothing is written again.
    assert [one["status"] for one in rows(words, capsys)] == ["left"] * 2
    assert contents(site) == after


def test_bad_pages_and_pictures_stop_nothing_and_come_last(site: Path, model: str, capsys: Capture) -> None:
    (site / "img" / "torn.jpg").write_bytes((site / "img" / "cat.jpg").read_bytes()[:2000])
    (site / "a.html").write_text(
        "<img src=gone.jpg><img src=img/torn.jpg><img src=../secret.jpg><img src=https://example.com/a.jpg>"
        "<img src=img/cat.jpg><img src='a\nb%0Ac.jpg'>"
    )
    (site / "b.xhtml").write_text("<html>")
    (site / "c.htm").symlink_to("/etc/passwd")
    out, err = run([site, "--model", model, "--write", "--in-place"], capsys, code=1)
    assert 'a.html:1: img img/cat.jpg: missing alt: written "' in out
    assert (
        "a.html:1: img https://example.com/a.jpg: missing alt: left (it is on the web, and was not looked at)"
        in out
    )
    assert f"{site / 'b.xhtml'}: error: it is not well-formed XML" in out
    lines = err.splitlines()
    assert lines[0].startswith("showtell: 3 pages; ")  # b.xhtml and c.htm could not be read
    assert "4 failed" in lines[0]
    errors = [line.removeprefix(f"showtell: error: {site}/") for line in lines[1:]]
    assert len(errors) == 6
    assert errors[0].startswith("a.html:1: gone.jpg: there is no file 'gone.jpg' in ")
    assert errors[1].startswith("a.html:1: img/torn.jpg: ")
    assert errors[1].count("torn.jpg") == 1
    assert errors[2].startswith("a.html:1: ../secret.jpg: it leads out of the site's folder")
    assert errors[3].startswith(r"a.html:1: ab%0Ac.jpg: there is no file 'ab\nc.jpg' in ")
    assert errors[4].startswith("b.xhtml: it is not well-formed XML")
    assert errors[5].startswith("c.htm: it lies outside of the site's folder")
    assert (site / "a.html").read_text().count("alt=") == 1


def test_a_page_alone_and_its_root(site: Path, model: str, capsys: Capture) -> None:
    page = site / "blog" / "post.xhtml"
    alone = rows([page, "--model", model], capsys, code=1)
    assert [one["status"] for one in alone] == ["failed", "failed"]
    rooted = rows([page, "--model", model, "--root", site], capsys)
    assert [one["status"] for one in rooted] == ["proposed", "proposed"]


def test_pictures_inside_of_a_page_are_captioned(
    site: Path, photographs: list[Path], model: str, capsys: Capture
) -> None:
    data = base64.b64encode(photographs[0].read_bytes()).decode()
    (site / "index.html").write_text(
        f"<img src='data:image/jpeg;base64,{data}'><img src='data:image/png;base64,AAAA'>"
    )
    first, second = rows([site / "index.html", "--model", model], capsys, code=1)
    same, _ = rows([site / "blog" / "post.xhtml", "--root", site, "--model", model], capsys)
    assert first["proposal"] == same["proposal"]
    assert len(first["src"]) < 100
    assert second["status"] == "failed"
    assert "starts with" in second["reason"]


def test_equal_pictures_are_captioned_once(
    site: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from showtell.captioner import Captioner

    asked: list[Any] = []
    caption = Captioner.caption

    def counting(self: Captioner, images: Any, *rest: Any, **options: Any) -> Any:
        asked.extend(images)
        return caption(self, list(asked), *rest, **options)

    monkeypatch.setattr(Captioner, "caption", counting)
    (site / "link.jpg").symlink_to(site / "img" / "cat.jpg")
    (site / "more.html").write_text(
        "<img src=img/cat.jpg>" * 50 + "<img src=./link.jpg><img src=/img/../img/cat.jpg#x>"
    )
    assert len(rows([site, "--model", model], capsys)) == 57
    assert sorted(path.name for path in asked) == ["astronaut.jpg", "cat.jpg"]


def test_a_page_that_changes_meanwhile_is_left(
    site: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from showtell.captioner import Captioner

    caption = Captioner.caption

    def disturb(self: Captioner, *rest: Any, **options: Any) -> Any:
        (site / "index.html").write_text("<img src=img/cat.jpg>")
        return caption(self, *rest, **options)

    monkeypatch.setattr(Captioner, "caption", disturb)
    out, err = run([site, "--model", model, "--write", "--in-place"], capsys, code=1)
    assert (site / "index.html").read_text() == "<img src=img/cat.jpg>"
    assert "the page was not changed: it has changed meanwhile, and was left alone" in err
    assert 'post.xhtml:2: img /img/cat.jpg: missing alt: written "' in out


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_a_full_disk_is_named_and_the_others_are_done(
    small_disk: Path, photographs: list[Path], model: str, capsys: Capture
) -> None:
    for name, size in (("a.html", 40_000), ("b.html", 10)):
        (small_disk / name).write_bytes(b"<img src='img/cat.jpg'>" + b" " * size)
    site = small_disk.parent / "site"
    site.mkdir()
    (site / "img").mkdir()
    (site / "img" / "cat.jpg").write_bytes(photographs[1].read_bytes())
    for path in small_disk.iterdir():
        page = site / path.name
        page.write_bytes(path.read_bytes())
    (small_disk / "a.html").unlink()
    (small_disk / "b.html").unlink()
    (small_disk / "filler").write_bytes(b"x" * 30_000)
    output = small_disk / "copies"
    out, err = run([site, "--model", model, "--write", "--output", output], capsys, code=1)
    assert "the page was not changed: the disk is full" in err
    assert re.search(r"b\.html:1: .* written ", out)
    assert sorted(contents(output)) == ["b.html"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--output", "copies"],
            "--output says where to write, but nothing is written without --write. Add --write.",
        ),
        (
            ["--in-place"],
            "--in-place says where to write, but nothing is written without --write. Add --write.",
        ),
        (["--write"], "--write needs either --output FOLDER, for copies, or --in-place, and not both."),
        (["--write", "--in-place", "--output", "copies"], "--write needs either --output FOLDER"),
        (
            ["--write", "--output", "site/copies"],
            "site/copies: lies in the site site, which would then have its pages",
        ),
        (["site/blog/../index.html", "--root", "site/index.html"], "the root of the site must be a folder."),
        (["--format", "html"], "must be one of text, json, jsonl, csv"),
        (["gone.html"], "no such file or folder: 'gone.html'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    site: Path, model: str, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(site.parent)
    before = contents(site.parent)
    out, err = run(["site", *words, "--model", model], capsys, code=2)
    assert message in err
    assert out == ""
    assert contents(site.parent) == before


def test_copies_that_would_get_one_name_are_refused(
    site: Path, model: str, tmp_path: Path, capsys: Capture
) -> None:
    (site / "blog" / "index.html").write_text("")
    output = tmp_path / "copies"
    words = [
        site / "index.html",
        site / "blog" / "index.html",
        "--model",
        model,
        "--write",
        "--output",
        output,
    ]
    _, err = run(words, capsys, code=2)
    assert f"would both become {output / 'index.html'}. Name a folder above both with --root" in err
    run([*words, "--root", site], capsys)


def test_a_folder_without_pages_has_nothing_to_report(tmp_path: Path, model: str, capsys: Capture) -> None:
    assert run([tmp_path, "--model", model], capsys) == (
        "",
        "showtell: 0 pages; pictures that lack alt text: none\n",
    )
    assert run([tmp_path, "--model", model, "--format", "json"], capsys)[0] == "[]\n"


def test_what_is_no_page_is_an_error(
    site: Path, model: str, photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    notes, disguised, template = tmp_path / "notes.txt", tmp_path / "photo.html", tmp_path / "post.j2"
    notes.write_text("milk, eggs: 3 < 4")
    disguised.write_bytes(photographs[0].read_bytes())
    template.write_text("{% if x %}<p>no pictures{% endif %}")
    named = [photographs[0], notes, disguised, template]
    out, err = run([*named, "--model", model], capsys, code=1)
    image = "it is no web page. If it is an image, caption it with: showtell caption"
    text = "it is no web page: it has no HTML tag. Give pages (.html, .htm, .xhtml, .xht) or folders"
    expected = [f"{photographs[0]}: {{}}{image}", f"{notes}: {{}}{text}", f"{disguised}: {{}}{image}"]
    assert out.splitlines() == [line.format("error: ") for line in expected]
    assert err.splitlines() == [
        "showtell: 1 page; pictures that lack alt text: none",
        *("showtell: error: " + line.format("") for line in expected),
    ]
    _, err = run([site / "index.html", "--model", model], capsys)
    assert err.startswith("showtell: 1 page; ")
    wide = tmp_path / "wide.html"
    wide.write_text("<p>no pictures", encoding="utf-16")  # zeros, and yet a page
    run([wide, "--model", model], capsys)


def test_it_needs_no_framework(site: Path, model: str) -> None:
    ended = run_without(FRAMEWORKS, command("alt", str(site), "--model", model))
    assert (ended.returncode, ended.stderr.count("\n"), ended.stdout.count("proposed")) == (0, 1, 3)


def test_names_that_are_no_utf_8_are_survived(
    site: Path, model: str, clean_environment: dict[str, str]
) -> None:
    name = os.fsencode(site) + b"/\xff\n.html"
    Path(os.fsdecode(name)).write_bytes(b"<img src=img/cat.jpg><img src='img/%FF.jpg'>")
    (Path(os.fsdecode(os.fsencode(site) + b"/img/\xff.jpg"))).write_bytes(
        (site / "img" / "cat.jpg").read_bytes()
    )
    words = [sys.executable, "-m", "showtell", "alt", str(site), "--model", model, "--write", "--in-place"]
    environment = {**clean_environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(words, capture_output=True, env=environment, check=False)
    assert (ended.returncode, ended.stderr.count(b"\n")) == (0, 1)
    assert Path(os.fsdecode(name)).read_bytes().count(b"alt=") == 2
    assert b"/\\xff\\n.html:1: img img/cat.jpg: missing alt: written" in ended.stdout


def test_lines_for_people_escape_what_would_break_them_and_nothing_else() -> None:
    row = dict.fromkeys(FIELDS) | {"page": "a\tb\x1b.html", "line": 3, "tag": "img", "src": "x\u202ey.jpg"}
    row |= {"problem": "poor", "alt": "caf\u00e9\u00a0\\ noir", "status": "proposed", "proposal": "A cup."}
    # A backslash in a sentence stays one, and a space that does not break is no control character.
    says = 'poor alt "caf\u00e9\u00a0\\ noir": proposed "A cup."'
    assert render(row, "text") == r"a\tb\x1b.html:3: img x\u202ey.jpg: " + says + "\n"
    assert describe_failure(row | {"reason": "no\nsuch"}) == r"a\tb\x1b.html:3: x\u202ey.jpg: no\nsuch"
